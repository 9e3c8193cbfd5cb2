"""How many items the complete datasets have, and by how much a copy differs, in what its publication counts.

Every dataset answers for itself, so that a subclass keeps the answers: ``published_counts()`` yields what a copy has
beside what is published (:class:`Count`), and ``published_items()``, where that is something else, how many items the
complete dataset has. The published numbers, with their sources, are its ``PUBLISHED``. A dataset without these methods
has no known counts.
"""

import logging
from pathlib import Path
from typing import Any, NamedTuple

from mmengine.logging import print_log

from genseg_mm.dataset_configs import parts_of, single_datasets


class Count(NamedTuple):
    """One number of a copy beside the published one.

    Attributes:
        found: In the copy.
        what: Of what: 'pictures', 'sentences', 'instances', ...
        published: Of the complete dataset.
        confirmed: Whether we have read the published number in its source, not from memory or one weak source.
        note: Added to the message in brackets.
    """

    found: int
    what: str
    published: int
    confirmed: bool = True
    note: str = ''

    def speaks_against(self) -> bool:
        """Whether the copy is not the complete dataset; a number that is not confirmed is forgiven a tenth."""
        slack = 0 if self.confirmed else self.published // 10
        return abs(self.found - self.published) > slack

    def __str__(self) -> str:
        more = 'more' if self.found > self.published else 'fewer'
        note = f' ({self.note})' if self.note else ''
        sure = '' if self.confirmed else ', a number that is not confirmed'
        return (
            f'{abs(self.found - self.published)} {self.what} {more} than the {self.published} of the complete '
            f'dataset{sure}{note}'
        )


def num_pictures(dataset: Any) -> int:
    """Different pictures among the items."""
    return len({dataset.get_data_info(index)['img_id'] for index in range(len(dataset))})


def exclusion_note(dataset: Any) -> str:
    """Note of a count where ``exclude_images`` leaves some out."""
    return 'exclude_images leaves some out' if dataset.exclude_images else ''


def expected_items(dataset: Any) -> int | None:
    """Items of the complete dataset with these settings, None if that is not known.

    Of datasets in one, the sum. ``filter_cfg`` of COCO's is not taken into account: what it leaves out is no item.
    """
    parts = parts_of(dataset)
    if parts:
        counts = [expected_items(part) for part in parts]
        return sum(counts) if None not in counts else None
    if _is_cut(dataset):
        return None
    if hasattr(dataset, 'published_items'):
        return dataset.published_items()
    if any(base.__name__ == 'CocoDataset' for base in type(dataset).__mro__):  # mmdet's, not ours to ask
        from genseg_mm.datasets import CocoInstanceDataset

        return CocoInstanceDataset.PUBLISHED.get(Path(dataset.ann_file).name)
    counts = _counts(dataset)
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
    parts = parts_of(dataset)
    if parts:
        lines = []
        for part in parts:
            subset = getattr(part, 'subset', None)
            lines += [f'{subset}: {line}' if subset else line for line in differences(part)]
        return list(dict.fromkeys(lines))
    return [str(count) for count in _counts(dataset) if count.found != count.published]


def shortage(dataset: Any) -> str | None:
    """Why numbers on this copy are not those of the benchmark, short; None if nothing speaks against it.

    Returns:
        '2 of 5,000 pictures', summed over the datasets in one, or 'only some items' with ``indices``.
    """
    single = list(single_datasets(dataset))
    if any(_is_cut(own) for own in single):
        return 'only some items'
    counts = [count for own in single for count in _counts(own)]
    if not any(count.speaks_against() for count in counts):
        return None
    if len({(count.what, count.note) for count in counts}) > 1 or len(counts) < len(single):
        return 'not all items'
    found, published = (sum(own) for own in zip(*((c.found, c.published) for c in counts), strict=True))
    return f'{found:,} of {published:,} {counts[0].what}'


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


def _counts(dataset: Any) -> list[Count]:
    """What a single dataset has beside what is published of it; empty where nothing is."""
    if not hasattr(dataset, 'published_counts') or _is_cut(dataset):
        return []
    return list(dataset.published_counts())


def _is_cut(dataset: Any) -> bool:
    """Whether ``indices`` leaves some items out."""
    return getattr(dataset, '_indices', None) is not None
