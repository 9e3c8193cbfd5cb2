"""How many items the complete datasets have, and by how much a copy differs, in what its publication counts.

Every dataset answers for itself: see ``genseg_mm/datasets/published_counts.py``.
"""

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mmengine.logging import print_log

from genseg_mm.datasets.published_counts import COCO_IMAGES, Count


def expected_items(dataset: Any) -> int | None:
    """Items of the complete dataset with these settings, None if that is not known.

    Of datasets in one, the sum. ``filter_cfg`` of COCO's is not taken into account: what it leaves out is no item.
    """
    parts = _parts(dataset)
    if parts:
        counts = [expected_items(part) for part in parts]
        return sum(counts) if None not in counts else None
    if getattr(dataset, '_indices', None) is not None:
        return None
    if hasattr(dataset, 'published_items'):
        return dataset.published_items()
    if any(base.__name__ == 'CocoDataset' for base in type(dataset).__mro__):  # mmdet's, not ours to ask
        return COCO_IMAGES.get(Path(dataset.ann_file).name)
    counts = published_counts(dataset)
    return counts[0].published if counts else None


def difference(dataset: Any) -> str | None:
    """How a copy differs from the complete evaluation dataset in one line, None if it does not or nothing is known."""
    return '; '.join(differences(dataset)) or None


def differences(dataset: Any) -> list[str]:
    """Lines on how a copy differs from the complete evaluation dataset; of datasets in one, those of each.

    Datasets that are often used in part on purpose, those for training among them, have none; nor have those with
    ``indices``.

    Args:
        dataset: A dataset, or several in one (``ConcatDataset``), fully initialised.
    """
    parts = _parts(dataset)
    if parts:
        lines = []
        for part in parts:
            subset = getattr(part, 'subset', None)
            lines += [f'{subset}: {line}' if subset else line for line in differences(part)]
        return list(dict.fromkeys(lines))
    return [_line(count) for count in published_counts(dataset) if count.found != count.published]


def published_counts(dataset: Any) -> list[Count]:
    """What a single dataset has beside what is published of it; empty where nothing is."""
    if not hasattr(dataset, 'published_counts') or getattr(dataset, '_indices', None) is not None:
        return []
    return list(dataset.published_counts())


def shortage(dataset: Any) -> str | None:
    """Why numbers on this copy are not those of the benchmark, short; None if nothing speaks against it.

    A published count that nobody has confirmed speaks against a copy only if they differ by more than a tenth.

    Returns:
        '2 of 5,000 pictures', summed over the datasets in one, or 'only some items' with ``indices``.
    """
    leaves = list(_leaves(dataset))
    if any(getattr(leaf, '_indices', None) is not None for leaf in leaves):
        return 'only some items'
    counts = [count for leaf in leaves for count in published_counts(leaf)]
    if not any(_speaks_against(count) for count in counts):
        return None
    if len({(count.what, count.note) for count in counts}) > 1 or len(counts) < len(leaves):
        return 'not all items'
    found, published = (sum(own) for own in zip(*((c.found, c.published) for c in counts), strict=True))
    return f'{found:,} of {published:,} {counts[0].what}'


def _speaks_against(count: Count) -> bool:
    slack = 0 if count.confirmed else count.published // 10
    return abs(count.found - count.published) > slack


def _leaves(dataset: Any) -> Iterator[Any]:
    parts = _parts(dataset)
    for part in parts:
        yield from _leaves(part)
    if not parts:
        yield dataset


def warn_if_incomplete(dataset: Any) -> list[str]:
    """Logs a warning for each of :func:`differences` and returns them: for evaluation."""
    found = differences(dataset)
    for line in found:
        print_log(
            f'{type(dataset).__name__}: {line}; numbers on this copy are not those of the complete dataset',
            'current',
            logging.WARNING,
        )
    return found


def _parts(dataset: Any) -> list[Any]:
    """The datasets in a dataset of several, or in one that repeats another."""
    parts = getattr(dataset, 'datasets', None)
    if isinstance(parts, (list, tuple)):
        return list(parts)
    inner = getattr(dataset, 'dataset', None)
    return [inner] if hasattr(inner, 'get_data_info') else []


def _line(count: Count) -> str:
    more = 'more' if count.found > count.published else 'fewer'
    note = f' ({count.note})' if count.note else ''
    sure = '' if count.confirmed else ', a number that is not confirmed'
    return (
        f'{abs(count.found - count.published)} {count.what} {more} than the {count.published} of the complete '
        f'dataset{sure}{note}'
    )
