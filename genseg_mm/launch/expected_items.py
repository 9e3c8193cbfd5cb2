"""How many items the complete datasets have: published numbers, for the tool that verifies a copy."""

from pathlib import Path
from typing import Any

COCO_IMAGES = {'instances_train2017.json': 118_287, 'instances_val2017.json': 5_000}
HYPERSIM_FRAMES = {'train': 59_543, 'val': 7_386, 'test': 7_690, None: 74_619}
VKITTI2_FRAMES, VKITTI2_SCENES = 2_126, 5  # of all scenes, per variation and camera
# By refs file and split: references (objects) and their sentences, None where no number is published.
REFER_COUNTS = {
    'refcoco/refs(unc).p': dict(
        train=(42_404, 120_624), val=(3_811, 10_834), testA=(1_975, 5_657), testB=(1_810, 5_095)
    ),
    'refcoco/refs(google).p': dict(train=(40_000, None), val=(5_000, None), test=(5_000, None)),
    'refcoco+/refs(unc).p': dict(
        train=(42_278, 120_191), val=(3_805, 10_758), testA=(1_975, 5_726), testB=(1_798, 4_889)
    ),
    'refcocog/refs(umd).p': dict(train=(42_226, 80_512), val=(2_573, 4_896), test=(5_023, 9_602)),
    'refcocog/refs(google).p': dict(train=(44_822, 85_474), val=(5_000, 9_536)),
}
# gRefCOCO's sentences are published for all splits together (278,232), its pictures are those of RefCOCO (UNC).
GREFCOCO_IMAGES = dict(train=16_994, val=1_500, testA=750, testB=750)
REASONSEG_IMAGES = dict(train=239, val=200, test=779)


def expected_items(dataset: Any) -> int | None:
    """Items of the complete dataset with these settings, None if that is not known."""
    name = type(dataset).__name__
    if getattr(dataset, '_indices', None) is not None:
        return None
    if name in ('CocoDataset', 'CocoInstanceDataset'):  # before filter_cfg: see what was left out
        return COCO_IMAGES.get(Path(dataset.ann_file).name)
    if name == 'RefCOCODataset':
        return _references(dataset)
    if name == 'ReasonSegDataset' and dataset.sentence != 'all':
        return sum(REASONSEG_IMAGES[split] for split in dataset.split.split('_'))
    if name == 'HypersimDataset' and dataset.split_file and not dataset.index_file:
        return HYPERSIM_FRAMES[dataset.partition]
    if name == 'VirtualKITTI2Dataset' and len(set(dataset.scenes)) == VKITTI2_SCENES:
        return VKITTI2_FRAMES * len(dataset.variations) * len(dataset.cameras)
    return None


def difference(dataset: Any) -> str | None:
    """A line on how a copy of a referring dataset differs from the complete one, None if it does not."""
    name, what, number, expected = type(dataset).__name__, 'items', len(dataset), None
    if name not in ('RefCOCODataset', 'GRefCOCODataset', 'ReasonSegDataset'):
        return None  # those are often used in part on purpose
    if name == 'GRefCOCODataset' and getattr(dataset, '_indices', None) is None:
        what, expected = 'pictures', GREFCOCO_IMAGES.get(dataset.split)
        number = len({dataset.get_data_info(index)['img_id'] for index in range(len(dataset))})
    else:
        expected = expected_items(dataset)
    if expected is None or number == expected:
        return None
    more = 'more' if number > expected else 'fewer'
    why = ' (exclude_images leaves some out)' if getattr(dataset, 'exclude_images', None) else ''
    return (
        f'{abs(number - expected)} {what} {more} than the {expected} of the complete dataset{why}'
    )


def _references(dataset: Any) -> int | None:
    path = Path(dataset.split_file)
    splits = REFER_COUNTS.get(f'{path.parent.name}/{path.name}', {})
    names = [dataset.split]
    if dataset.split == 'test' and 'test' not in splits:
        names = [name for name in splits if name.startswith('test')]
    counts = [splits[name][dataset.sentence == 'all'] for name in names if name in splits]
    return sum(counts) if counts and None not in counts else None
