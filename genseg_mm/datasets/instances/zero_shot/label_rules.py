"""Semantic labels -> instances, for data sets whose files say what a pixel is and not which object it is of."""

from collections.abc import Collection, Sequence

import numpy as np
import torch

from genseg_mm.functional.connected_components import connected_components

INSTANCES = ('classes', 'components')
COMPONENTS_PER_LABEL = 10_000  # id of a component = label * this + its number


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
        raise ValueError(
            f'{where}: expected the labels {sorted(known)}, but got {unknown[:8]} as well: labels that were resized '
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
