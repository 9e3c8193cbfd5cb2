"""Where an instance is prompted: points that depend on the instance alone, not on what else is loaded.

Datasets draw prompts with these functions, and so does the metric: the same settings give the same points. Neither may
import the other, so that the file stands beside both.
"""

import hashlib
import os
from collections.abc import Mapping, Sequence

import numpy as np

_MIX = (np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB))  # of splitmix64
_STEP = np.uint64(0x9E3779B97F4A7C15)


def picture_name(sample: Mapping) -> str:
    """What a picture is called wherever its dataset lies: its file's name, else its ``img_id``.

    Args:
        sample: Results of a pipeline or a data sample's metainfo.

    Returns:
        The name; that of the number 0 where a sample says nothing.
    """
    path = sample.get('img_path')
    return os.path.basename(path) if path else str(sample.get('img_id', sample.get('sample_idx', 0)))


def instance_pixels(instance_map: np.ndarray, ids: Sequence[int]) -> list[np.ndarray]:
    """Flat places of each instance's pixels, in raster order.

    Args:
        instance_map: (H, W) integers.
        ids: K ids; one that is not in the map has no pixels.

    Returns:
        K arrays of int64.
    """
    flat = np.ascontiguousarray(instance_map).reshape(-1)
    return [np.flatnonzero(flat == own) for own in ids]


def random_pixels(pixels: np.ndarray, num: int, seed: int, picture: str, instance: int) -> np.ndarray:
    """Random pixels of an instance, drawn with replacement, that stay when its outline changes.

    All pixels of the picture have a random order, given by the seed, the picture's name and the instance's own id; the
    first one of the instance is taken. So the same object gets the same point in every selection of classes and sizes,
    wherever its picture is in a list, and another one only if an object is loaded that covers that point.

    Args:
        pixels: Flat places of the instance's pixels, not empty.
        num: Number of points.
        seed: Of the whole draw.
        picture: Name of the picture.
        instance: The instance's own id, such as its annotation's.

    Returns:
        ``num`` of the places.
    """
    chosen = np.empty(num, np.int64)
    for turn in range(num):
        text = f'{seed}/{picture}/{int(instance)}/{turn}'.encode()
        key = np.uint64(int.from_bytes(hashlib.sha256(text).digest()[:8], 'little'))
        order = pixels.astype(np.uint64)
        order *= _STEP
        order += key
        order ^= order >> np.uint64(30)
        order *= _MIX[0]
        order ^= order >> np.uint64(27)
        order *= _MIX[1]
        order ^= order >> np.uint64(31)
        chosen[turn] = pixels[order.argmin()]
    return chosen


def deepest_pixel(pixels: np.ndarray, width: int) -> int:
    """The pixel that is farthest from the instance's edge, the first of equals in raster order.

    The border of the picture is an edge, too.

    Args:
        pixels: Flat places of the instance's pixels, not empty.
        width: Of the picture.

    Returns:
        One of the places.
    """
    import cv2

    y, x = np.divmod(pixels, width)
    top, left = y.min(), x.min()
    mask = np.zeros((y.max() - top + 3, x.max() - left + 3), np.uint8)
    mask[y - top + 1, x - left + 1] = 1
    depth = cv2.distanceTransform(mask, cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    row, column = np.unravel_index(depth.argmax(), depth.shape)
    return int((row - 1 + top) * width + column - 1 + left)


def spread_pixels(pixels: np.ndarray, width: int, num: int) -> np.ndarray:
    """At most ``num`` pixels spread evenly over an instance.

    It is cut into about sqrt(num) bands of rows of equal area; in each, pixels at equal steps are taken in the order of
    columns. An instance of no more pixels gives them all.

    Args:
        pixels: Flat places of the instance's pixels in raster order, not empty.
        width: Of the picture.
        num: Number of points.

    Returns:
        min(num, number of pixels) of the places, ascending.
    """
    if len(pixels) <= num:
        return pixels
    num_bands = max(1, round(num**0.5))
    taken = []
    for band, wanted in zip(np.array_split(pixels, num_bands), np.array_split(np.arange(num), num_bands), strict=True):
        by_column = band[np.lexsort((band // width, band % width))]
        steps = (2 * np.arange(len(wanted)) + 1) * len(band) // (2 * len(wanted))
        taken.append(by_column[steps])
    return np.sort(np.concatenate(taken))


def as_points(places: np.ndarray, width: int) -> np.ndarray:
    """Flat places, (...,), as (..., 2) float32 (x, y)."""
    y, x = np.divmod(np.asarray(places), width)
    return np.stack([x, y], -1).astype(np.float32)
