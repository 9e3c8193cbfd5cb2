"""COCO segmentations -> masks."""

from reprlib import repr as short_repr

import numpy as np
from pycocotools import mask as mask_utils

from genseg_mm.datasets.annotation_files import is_number

# Polygons are rasterised along their outline: one that reaches to the moon takes memory without end.
MAX_REACH = 10  # in longer sides of the image


def decode_segmentation(segmentation: list | dict, height: int, width: int, where: str) -> np.ndarray:
    """Mask of one object: the OR of its COCO polygons, or its RLE.

    Args:
        segmentation: See :func:`encode_segmentation`.
        height: Of the image.
        width: Of the image.
        where: What the message of an error starts with.

    Returns:
        (height, width) bool.

    Raises:
        ValueError: See :func:`encode_segmentation`.
    """
    return mask_utils.decode(encode_segmentation(segmentation, height, width, where)).astype(bool)


def encode_segmentation(segmentation: list | dict, height: int, width: int, where: str) -> dict:
    """The compressed RLE of one object, checked: pycocotools fills what is missing with whatever memory holds.

    Args:
        segmentation: Polygons ``[[x0, y0, x1, y1, ...], ...]`` (their OR is meant), or an RLE dict with ``size``
            (height, width) and ``counts``: run lengths in columns as a list, or compressed as a str or bytes.
        height: Of the image.
        width: Of the image.
        where: What the message of an error starts with.

    Returns:
        RLE as pycocotools makes them, ``counts`` as bytes.

    Raises:
        ValueError: If it is neither, or is not of that size.
    """
    if isinstance(segmentation, dict):
        return _encode_rle(segmentation, height, width, where)
    if not isinstance(segmentation, (list, tuple)) or not all(
        isinstance(polygon, (list, tuple, np.ndarray)) for polygon in segmentation
    ):
        raise ValueError(f'{where}: expected a list of polygons or an RLE dict, but got {str(segmentation)[:80]}')
    if not segmentation or any(len(polygon) < 6 or len(polygon) % 2 for polygon in segmentation):
        lengths = [len(polygon) for polygon in segmentation]
        raise ValueError(
            f'{where}: expected polygons of at least 3 points [x0, y0, x1, y1, x2, y2, ...], but got lengths {lengths}'
        )
    polygons = [[_number(value, where) for value in polygon] for polygon in segmentation]
    limit = MAX_REACH * max(height, width)
    farthest = max(abs(value) for polygon in polygons for value in polygon)
    if not farthest <= limit:
        raise ValueError(
            f'{where}: expected coordinates inside of the image of {height}x{width} or near it, but got {farthest}'
        )
    return mask_utils.merge(mask_utils.frPyObjects(polygons, height, width))


def without_short_parts(segmentation: list | dict) -> tuple[list | dict, int]:
    """The segmentation without polygons of one or two points, which have no area, and how many those were."""
    if not isinstance(segmentation, list):
        return segmentation, 0
    kept = [part for part in segmentation if not (isinstance(part, list) and len(part) in (0, 2, 4))]
    return kept, len(segmentation) - len(kept)


def _encode_rle(rle: dict, height: int, width: int, where: str) -> dict:
    counts, size = rle.get('counts'), rle.get('size')
    if not isinstance(size, (list, tuple)) or not isinstance(counts, (list, str, bytes)):
        raise ValueError(
            f'{where}: expected an RLE with size (height, width) and counts (a list, str or bytes), but got '
            f'{str(rle)[:80]}'
        )
    if tuple(size) != (height, width):
        raise ValueError(f'{where}: expected an RLE mask of size {(height, width)}, but got {tuple(size)}')
    runs = counts if isinstance(counts, list) else _run_lengths(counts)
    valid = runs is not None and all(type(run) is int and run >= 0 for run in runs)
    if not valid or sum(runs) != height * width:
        found = f'{sum(runs)} pixels' if valid else f'damaged counts {short_repr(counts)}'
        raise ValueError(
            f'{where}: expected an RLE mask of {height * width} pixels ({height}x{width}), but got {found}'
        )
    if isinstance(counts, list):
        return mask_utils.frPyObjects(dict(size=[height, width], counts=counts), height, width)
    return dict(size=[height, width], counts=counts.encode() if isinstance(counts, str) else counts)


def _run_lengths(counts: str | bytes) -> list[int] | None:
    """Run lengths of a compressed RLE, None for a damaged one.

    COCO's code: five bits per character from 48 on, 32 says that more follow, the last one's 16 is the sign; from
    the fourth run on, the difference to the run before last.
    """
    runs, value, shift = [], 0, 0
    for code in counts.encode('utf-8', 'surrogatepass') if isinstance(counts, str) else counts:
        bits = code - 48
        if not 0 <= bits < 64 or shift > 30:
            return None
        value |= (bits & 31) << shift
        shift += 5
        if bits & 32:
            continue
        if bits & 16:
            value -= 1 << shift
        runs.append(value + (runs[-2] if len(runs) > 2 else 0))
        value = shift = 0
    return None if shift else runs


def _number(value: object, where: str) -> float:
    if is_number(value) or (isinstance(value, np.number) and np.isfinite(value)):
        return float(value)
    raise ValueError(f'{where}: expected finite numbers as coordinates, but got {short_repr(value)}')


def instances_of_map(instance_map: np.ndarray) -> list[dict]:
    """Instances of an id map in mmdet's form, as ``mmdet.CocoMetric`` takes them for ground truth.

    Args:
        instance_map: (H, W) integers, 0 = background.

    Returns:
        Of each id, ascending: ``bbox`` xyxy, ``bbox_label`` 0, ``ignore_flag`` 0, ``mask`` as RLE.
    """
    found = []
    for number in np.unique(instance_map[instance_map > 0]):
        rle = mask_utils.encode(np.asfortranarray(instance_map == number, np.uint8))
        rle['counts'] = rle['counts'].decode('ascii')
        x, y, width, height = mask_utils.toBbox(rle).tolist()
        box = [x, y, x + width, y + height]
        found.append(dict(bbox=box, bbox_label=0, ignore_flag=0, mask=rle))
    return found
