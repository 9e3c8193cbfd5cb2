"""COCO segmentations -> masks; instance maps and maps of labels -> instances."""

from collections.abc import Collection, Sequence
from reprlib import repr as short_repr

import numpy as np
import torch
from pycocotools import mask as mask_utils

from genseg_mm.datasets.annotation_files import is_number
from genseg_mm.functional.color_grouping import connected_components

# Polygons are rasterised along their outline: one that reaches to the moon takes memory without end.
MAX_REACH = 10  # in longer sides of the image


INSTANCES = ('classes', 'components')
COMPONENTS_PER_LABEL = 10_000  # id of a component = label * this + its number


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


# ---- semantic labels -> instances, for datasets whose files say what a pixel is and not which object it is of


def label_rule(labels: Sequence[int], known: Sequence[int], instances: str = 'components', min_area: int = 1) -> dict:
    """What an item says so that ``LoadInstanceMap`` turns its file of labels into instances.

    Args:
        labels: Whose pixels are instances; all others are background.
        known: All labels that the file may have. Another one means a damaged or resized file.
        instances: ``'classes'``: all pixels of a label are one instance, whose id is the label. ``'components'``: every
            connected region of a label (8 neighbours) is one, with the id label * 10,000 + n, where n = 1, 2, ...
            counts the regions of this label in the order of their first pixel, row by row. Either id stays the same
            whichever other labels are asked for.
        min_area: Smaller regions (or labels) in pixels are background; they keep their number n.

    Returns:
        The arguments of :func:`labels_to_instances`, plain data.

    Raises:
        ValueError: If an argument is wrong.
    """
    if instances not in INSTANCES:
        raise ValueError(f'instances must be one of {INSTANCES}, but got {instances!r}')
    if not isinstance(min_area, int) or min_area < 1:
        raise ValueError(f'min_area must be a whole number of pixels from 1 on, but got {min_area!r}')
    unknown = sorted(set(labels) - set(known))
    if not labels or unknown or 0 in labels:
        raise ValueError(f'labels must be some of {sorted(set(known) - {0})}, but got {list(labels)}')
    return dict(labels=sorted(labels), known=sorted(known), instances=instances, min_area=min_area)


def labels_to_instances(
    label_map: np.ndarray,
    labels: Collection[int],
    known: Collection[int],
    instances: str,
    min_area: int,
    where: str = 'the label map',
) -> np.ndarray:
    """Map of instance ids of a map of labels; see :func:`label_rule`.

    Args:
        label_map: (H, W), integers.
        labels: See :func:`label_rule`.
        known: See :func:`label_rule`.
        instances: See :func:`label_rule`.
        min_area: See :func:`label_rule`.
        where: Of the map, for messages.

    Returns:
        (H, W) int32, 0 = background.

    Raises:
        ValueError: If the map has an unknown label, or 10,000 regions of one.
    """
    if label_map.dtype == bool:  # a PNG of one bit: not a mask to index with
        label_map = label_map.astype(np.uint8)
    areas = _areas(label_map, known, where)
    table = np.zeros(len(areas), np.int32)  # label -> itself, or 0
    table[list(labels)] = list(labels)
    if instances == 'classes':
        return np.where(areas >= min_area, table, 0).astype(np.int32)[label_map]
    kept = table[label_map]
    numbers = connected_components(torch.from_numpy(kept)[None])[0].numpy()
    areas = np.bincount(numbers.reshape(-1))
    ids = _component_ids(kept, numbers, len(areas), where)
    return np.where(areas >= min_area, ids, 0).astype(np.int32)[numbers]


def _areas(label_map: np.ndarray, known: Collection[int], where: str) -> np.ndarray:
    """Pixels of the labels 0, 1, ... up to the last known one."""
    last = max(known)
    if label_map.size and label_map.min() >= 0 and label_map.max() <= last:
        areas = np.bincount(label_map.reshape(-1), minlength=last + 1)
        found = np.flatnonzero(areas)
    else:
        areas, found = np.zeros(last + 1, np.int64), np.unique(label_map)
    unknown = sorted(set(found.tolist()) - set(known))
    if unknown:
        labels = sorted(known)
        runs = np.split(labels, np.flatnonzero(np.diff(labels) > 1) + 1)
        named = (f'{run[0]} to {run[-1]}' if len(run) > 1 else str(run[0]) for run in runs)
        shown = ', '.join(named) if len(labels) > 8 else labels
        raise ValueError(
            f'{where}: expected the labels {shown}, but got {unknown[:8]} as well: labels that were resized '
            'with interpolation, or converted, look so; fetch the original file'
        )
    return areas


def _component_ids(kept: np.ndarray, numbers: np.ndarray, num: int, where: str) -> np.ndarray:
    """The ids of component 0 (background), 1, 2, ... up to ``num`` - 1 of the map."""
    label_of = np.zeros(num, np.int64)
    label_of[numbers] = kept
    ids = np.zeros_like(label_of)
    for label in np.unique(label_of[1:]):
        own = np.flatnonzero(label_of == label)
        if len(own) >= COMPONENTS_PER_LABEL:
            raise ValueError(
                f'{where}: expected fewer than {COMPONENTS_PER_LABEL} connected regions of a label, but got {len(own)} '
                f'of label {label}: it is no drawn label map'
            )
        ids[own] = label * COMPONENTS_PER_LABEL + 1 + np.arange(len(own))
    return ids
