"""Published counts: by how much tiny copies differ, through datasets of several, and the warning."""

import runpy
from functools import partial
from pathlib import Path

import pytest
from mmengine.dataset import ConcatDataset, RepeatDataset

from genseg_mm.datasets import (
    CocoInstanceDataset,
    DRAMDataset,
    EgoHOSDataset,
    IShapeDataset,
    PIDRayDataset,
    RefCOCODataset,
    published_counts,
)
from genseg_mm.datasets.published_counts import (
    Count,
    difference,
    differences,
    expected_items,
    shortage,
    warn_if_incomplete,
)

TOOLS = Path(__file__).parents[2] / 'tools' / 'dataset_tools'
UNSURE = 'of the complete dataset, a number that is not confirmed'
# Not serialised: that is for training, and waits for the garbage collector each time.
build_dram = partial(DRAMDataset, serialize_data=False)
build_egohos = partial(EgoHOSDataset, serialize_data=False)
build_ishape = partial(IShapeDataset, serialize_data=False)
build_pidray = partial(PIDRayDataset, serialize_data=False)
build_coco = partial(CocoInstanceDataset, serialize_data=False)
build_refcoco = partial(RefCOCODataset, serialize_data=False)


@pytest.fixture(scope='module')
def made(tmp_path_factory):
    """A tiny copy of each dataset; version 2 of PIDRay beside version 1."""
    root = tmp_path_factory.mktemp('made')
    for name in ('dram', 'egohos', 'ishape', 'pidray', 'coco', 'refcoco'):
        tool = runpy.run_path(str(TOOLS / f'make_tiny_{name}.py'))[f'make_tiny_{name}']
        tool(root / name)
        if name == 'pidray':
            tool(root / 'pidray2', version=2)
    return root


def refcoco(made, **kwargs):
    return build_refcoco(str(made / 'refcoco'), split='val', test_mode=True, **kwargs)


def pidray(made, split, version=1):
    return build_pidray(made / f'pidray{2 if version == 2 else ""}', split=split, test_mode=True)


def coco(made, **kwargs):
    return build_coco(
        str(made / 'coco'),
        ann_file='annotations/instances_val2017.json',
        data_prefix=dict(img='val2017/'),
        test_mode=True,
        **kwargs,
    )


def test_each_dataset_counts_what_its_publication_counts(made):
    assert differences(build_dram(made / 'dram')) == [f'712 pictures fewer than the 718 {UNSURE}']
    assert difference(build_dram(made / 'dram', movement='realism')) is None
    assert difference(build_egohos(made / 'egohos')) == (f'1123 pictures fewer than the 1126 {UNSURE}')
    assert difference(pidray(made, 'hard')) == f'3731 pictures fewer than the 3733 {UNSURE}'
    assert difference(pidray(made, 'train')) == ('29455 pictures fewer than the 29457 of the complete dataset')
    assert difference(pidray(made, 'hard', version=2)) == ('9744 pictures fewer than the 9746 of the complete dataset')
    assert difference(refcoco(made)) == ('10831 sentences fewer than the 10834 of the complete dataset')
    assert difference(refcoco(made, sentence='first')) == (
        '3809 references fewer than the 3811 of the complete dataset'
    )


def test_pictures_of_coco_are_counted_before_any_filter(made):
    for filters in ({}, dict(classes='coco_novel', filter_cfg=dict(filter_empty_gt=True))):
        dataset = coco(made, **filters)
        assert differences(dataset) == ['4996 pictures fewer than the 5000 of the complete dataset']
    assert len(dataset) == 2
    train = build_coco(str(made / 'coco'))
    assert differences(train) == [] and expected_items(train) == 118_287


def test_ishape_is_published_for_train_and_val_together(made):
    val = build_ishape(made / 'ishape', subset='wire')
    assert expected_items(val) is None
    assert difference(val) == ('2497 pictures fewer than the 2500 of the complete dataset (train and val together)')
    whole = build_ishape(made / 'ishape', subset='antenna', split=None, source='coco')
    assert expected_items(whole) == 370
    assert differences(whole) == [
        '367 pictures fewer than the 370 of the complete dataset',
        '3027 instances fewer than the 3036 of the complete dataset',
    ]


def test_a_copy_of_val_alone_cannot_be_checked(made, tmp_path):
    (tmp_path / 'wire').mkdir()
    (tmp_path / 'wire' / 'val').symlink_to(made / 'ishape' / 'wire' / 'val')
    assert difference(build_ishape(tmp_path, subset='wire')) is None


def test_published_numbers_add_up():
    totals = IShapeDataset.PUBLISHED.values()
    assert [sum(column) for column in zip(*totals, strict=True)] == [12_870, 175_840]
    first, second = (PIDRayDataset.PUBLISHED[version] for version in (1, 2))
    assert sum(first.values()) == 47_677 and sum(second.values()) == 124_486
    assert first['easy'] + first['hard'] + first['hidden'] == 18_220
    dram = DRAMDataset.PUBLISHED
    assert dram['dram'] + dram['unseen'] == dram['dram_with_unseen'] == 718
    egohos = EgoHOSDataset.PUBLISHED
    assert sum(egohos[split] for split in ('train', 'val', 'test_indomain')) == 11_243


def test_a_complete_copy_has_no_difference_and_more_is_told(made, monkeypatch):
    monkeypatch.setitem(DRAMDataset.PUBLISHED, 'dram', 5)
    assert differences(build_dram(made / 'dram', movement='dram')) == []
    monkeypatch.setitem(PIDRayDataset.PUBLISHED[2], 'easy', 1)
    assert difference(pidray(made, 'easy', version=2)) == ('1 pictures more than the 1 of the complete dataset')


def test_datasets_in_one(made):
    joined = ConcatDataset([pidray(made, split, 2) for split in ('easy', 'hard')])
    assert expected_items(joined) == 24_758 + 9_746
    lines = [
        'easy: 24756 pictures fewer than the 24758 of the complete dataset',
        'hard: 9744 pictures fewer than the 9746 of the complete dataset',
    ]
    assert differences(joined) == lines and difference(joined) == '; '.join(lines)
    classes = ConcatDataset([coco(made, classes=classes) for classes in ('all', 'coco_novel')])
    assert len(differences(classes)) == 1  # the same file
    mixed = ConcatDataset([pidray(made, 'easy', 2), build_ishape(made / 'ishape')])
    assert expected_items(mixed) is None and len(differences(mixed)) == 2
    repeated = RepeatDataset(pidray(made, 'easy', 2), times=3)
    assert differences(repeated) == lines[:1]


def test_shortage_is_short_and_forgives_a_tenth_of_unconfirmed_counts(made, monkeypatch):
    assert shortage(build_dram(made / 'dram')) == '6 of 718 pictures'
    assert shortage(ConcatDataset([pidray(made, split, 2) for split in ('easy', 'hard')])) == ('4 of 34,504 pictures')
    assert shortage(build_egohos(made / 'egohos', indices=1)) == 'only some items'
    assert shortage(build_dram(made / 'dram', movement='realism')) is None
    monkeypatch.setitem(DRAMDataset.PUBLISHED, 'dram', 60)  # 5 are there
    assert shortage(build_dram(made / 'dram', movement='dram')) == '5 of 60 pictures'
    monkeypatch.setattr(Count, 'speaks_against', lambda count: False)
    assert shortage(build_dram(made / 'dram', movement='dram')) is None


@pytest.mark.parametrize(
    ('found', 'published', 'confirmed', 'against'),
    [(99, 100, True, True), (100, 100, True, False), (90, 100, False, False), (89, 100, False, True)],
)
def test_which_counts_speak_against_a_copy(found, published, confirmed, against):
    assert Count(found, 'pictures', published, confirmed).speaks_against() is against


def test_a_part_on_purpose_is_not_compared(made):
    assert difference(build_egohos(made / 'egohos', indices=1)) is None
    assert expected_items(build_egohos(made / 'egohos', indices=1)) is None


def test_the_warning(made, monkeypatch):
    logged = []
    monkeypatch.setattr(published_counts, 'print_log', lambda *args: logged.append(args))
    found = warn_if_incomplete(pidray(made, 'easy', 2))
    assert found == ['24756 pictures fewer than the 24758 of the complete dataset']
    ((text, logger, level),) = logged
    assert text.startswith(f'PIDRayDataset: {found[0]}; numbers on this copy are not those of')
    assert (logger, level) == ('current', 30)
    assert warn_if_incomplete(build_dram(made / 'dram', movement='realism')) == []
    assert len(logged) == 1


def test_a_subclass_keeps_the_answers_and_a_new_dataset_gives_its_own(made):
    class Mine(RefCOCODataset):
        pass

    class Own(CocoInstanceDataset):
        def published_items(self):
            return 7

        def published_counts(self):
            yield Count(self.num_pictures, 'drawings', 7)

    mine = Mine(str(made / 'refcoco'), split='val', test_mode=True, serialize_data=False)
    assert expected_items(mine) == expected_items(refcoco(made)) == 10_834
    assert differences(mine) == differences(refcoco(made)) != []
    own = Own(str(made / 'coco'), 'annotations/instances_val2017.json', dict(img='val2017/'), serialize_data=False)
    assert expected_items(own) == 7
    assert differences(own) == ['3 drawings fewer than the 7 of the complete dataset']
