"""How many items the complete datasets have, and by how much a copy differs, in what its publication counts.

The published numbers are in ``genseg_mm/launch/published_counts.py``.
"""

import logging
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from mmengine.logging import print_log

from genseg_mm.launch.published_counts import (
    COCO_IMAGES,
    DRAM_IMAGES,
    EGOHOS_IMAGES,
    GREFCOCO_IMAGES,
    HYPERSIM_FRAMES,
    ISHAPE_TOTALS,
    PIDRAY_IMAGES,
    REASONSEG_IMAGES,
    REFER_COUNTS,
    UNCONFIRMED,
    VKITTI2_FRAMES,
    VKITTI2_SCENES,
)


class Count(NamedTuple):
    """One number of a copy beside the published one.

    Attributes:
        found: In the copy.
        what: Of what: 'pictures', 'sentences', 'instances', ...
        published: Of the complete dataset.
        confirmed: Whether we have read the published number in its source.
        note: Added to the message in brackets.
    """

    found: int
    what: str
    published: int
    confirmed: bool = True
    note: str = ''


def expected_items(dataset: Any) -> int | None:
    """Items of the complete dataset with these settings, None if that is not known.

    Of datasets in one, the sum. ``filter_cfg`` of COCO's is not taken into account: what it leaves out is no item.
    """
    parts = _parts(dataset)
    if parts:
        counts = [expected_items(part) for part in parts]
        return sum(counts) if None not in counts else None
    name = type(dataset).__name__
    if getattr(dataset, '_indices', None) is not None:
        return None
    if name in ('CocoDataset', 'CocoInstanceDataset'):  # before filter_cfg: see what was left out
        return COCO_IMAGES.get(Path(dataset.ann_file).name)
    if name == 'RefCOCODataset':
        return _references(dataset)
    if name == 'ReasonSegDataset' and dataset.sentence == 'all':
        return None
    if name == 'HypersimDataset':
        known = dataset.split_file and not dataset.index_file
        return HYPERSIM_FRAMES[dataset.partition] if known else None
    if name == 'VirtualKITTI2Dataset':
        known = len(set(dataset.scenes)) == VKITTI2_SCENES
        return VKITTI2_FRAMES * len(dataset.variations) * len(dataset.cameras) if known else None
    if name == 'IShapeDataset':
        return ISHAPE_TOTALS[dataset.subset][0] if dataset.split is None else None
    if name == 'GRefCOCODataset':
        return None
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
    counter = _COUNTERS.get(type(dataset).__name__)
    if counter is None or getattr(dataset, '_indices', None) is not None:
        return []
    return list(counter(dataset))


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
    found, published = (
        sum(own) for own in zip(*((c.found, c.published) for c in counts), strict=True)
    )
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


def _refcoco(dataset: Any) -> Iterator[Count]:
    published = _references(dataset)
    if published is not None:
        what = 'sentences' if dataset.sentence == 'all' else 'references'
        yield Count(len(dataset), what, published, note=_excluded(dataset))


def _grefcoco(dataset: Any) -> Iterator[Count]:
    if dataset.split in GREFCOCO_IMAGES:
        published = GREFCOCO_IMAGES[dataset.split]
        yield Count(_num_pictures(dataset), 'pictures', published, note=_excluded(dataset))


def _reason_seg(dataset: Any) -> Iterator[Count]:
    published = sum(REASONSEG_IMAGES[split] for split in dataset.split.split('_'))
    found = _num_pictures(dataset) if dataset.sentence == 'all' else len(dataset)
    yield Count(found, 'pictures', published, note=_excluded(dataset))


def _coco(dataset: Any) -> Iterator[Count]:
    name = Path(dataset.ann_file).name
    if name == 'instances_val2017.json':  # train is often used in part on purpose
        yield Count(dataset.num_pictures, 'pictures', COCO_IMAGES[name])


def _dram(dataset: Any) -> Iterator[Count]:
    if dataset.movement in DRAM_IMAGES:
        sure = ('DRAMDataset', dataset.movement) not in UNCONFIRMED
        yield Count(len(dataset), 'pictures', DRAM_IMAGES[dataset.movement], sure)


def _egohos(dataset: Any) -> Iterator[Count]:
    sure = ('EgoHOSDataset', dataset.split) not in UNCONFIRMED
    yield Count(len(dataset), 'pictures', EGOHOS_IMAGES[dataset.split], sure)


def _ishape(dataset: Any) -> Iterator[Count]:
    pictures, instances = ISHAPE_TOTALS[dataset.subset]
    if dataset.split is None:
        yield Count(len(dataset), 'pictures', pictures)
        if dataset.source == 'coco':
            items = map(dataset.get_data_info, range(len(dataset)))
            yield Count(sum(len(item['instances']) for item in items), 'instances', instances)
        return
    folder = Path(dataset.data_root, dataset.subset)
    found = [_num_files(folder / split / 'image') for split in ('train', 'val')]
    if 0 not in found:  # a copy of val alone cannot be checked: only the sum is published
        yield Count(sum(found), 'pictures', pictures, note='train and val together')


def _pidray(dataset: Any) -> Iterator[Count]:
    sure = ('PIDRayDataset', dataset.version, dataset.split) not in UNCONFIRMED
    published = PIDRAY_IMAGES[dataset.version][dataset.split]
    yield Count(dataset.num_pictures, 'pictures', published, sure)


def _bsds500(dataset: Any) -> Iterator[Count]:
    from genseg_mm.datasets.edges.bsds500 import NUM_IMAGES

    yield Count(len(dataset), 'pictures', NUM_IMAGES[dataset.split])


_COUNTERS: dict[str, Callable[[Any], Iterator[Count]]] = dict(
    RefCOCODataset=_refcoco,
    GRefCOCODataset=_grefcoco,
    ReasonSegDataset=_reason_seg,
    CocoInstanceDataset=_coco,
    DRAMDataset=_dram,
    EgoHOSDataset=_egohos,
    IShapeDataset=_ishape,
    PIDRayDataset=_pidray,
    BSDS500Dataset=_bsds500,
)


def _references(dataset: Any) -> int | None:
    path = Path(dataset.split_file)
    splits = REFER_COUNTS.get(f'{path.parent.name}/{path.name}', {})
    names = [dataset.split]
    if dataset.split == 'test' and 'test' not in splits:
        names = [name for name in splits if name.startswith('test')]
    counts = [splits[name][dataset.sentence == 'all'] for name in names if name in splits]
    return sum(counts) if counts and None not in counts else None


def _excluded(dataset: Any) -> str:
    left_out = getattr(dataset, 'exclude_images', None)
    return 'exclude_images leaves some out' if left_out else ''


def _num_pictures(dataset: Any) -> int:
    return len({dataset.get_data_info(index)['img_id'] for index in range(len(dataset))})


def _num_files(folder: Path) -> int:
    if not folder.is_dir():
        return 0
    return sum(not path.name.startswith('.') for path in folder.iterdir())
