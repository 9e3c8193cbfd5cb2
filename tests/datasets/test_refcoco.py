"""RefCOCODataset on a tiny folder in the published layout."""

import logging
import pickle
from pathlib import Path

import numpy as np
import pytest
from pycocotools import mask as mask_utils
from tiny_refcoco import REFS, build, edit_refs, make_tiny_refcoco
from torch.utils.data import DataLoader

from genseg_mm.datasets.refcoco import RefCOCODataset
from genseg_mm.datasets.samplers import Visit
from genseg_mm.datasets.transforms import LoadReferringMask

CROSS_AREA = 2 * 24 * 6 - 6 * 6  # two bars of 24x6, their 6x6 overlap counted once


@pytest.fixture(scope='session')
def tiny_root(tmp_path_factory) -> Path:
    return make_tiny_refcoco(tmp_path_factory.mktemp('tiny') / 'coco')


@pytest.fixture
def own_root(tmp_path) -> Path:
    """A folder that the test may damage."""
    return make_tiny_refcoco(tmp_path / 'coco')


@pytest.fixture
def log_lines(monkeypatch) -> list[tuple[int, str]]:
    lines = []
    monkeypatch.setattr(
        RefCOCODataset, '_log', lambda self, message, level=logging.INFO: lines.append((level, message))
    )
    return lines


# ---- items


@pytest.mark.parametrize(
    ('split', 'num_refs', 'num_sentences'),
    [('train', 7, 13), ('val', 2, 3), ('testA', 1, 2), ('testB', 2, 4), ('test', 3, 6)],
)
def test_number_of_items(tiny_root, split, num_refs, num_sentences):
    assert len(build(tiny_root, split=split, test_mode=True)) == num_sentences
    assert len(build(tiny_root, split=split)) == num_refs
    assert len(build(tiny_root, split=split, test_mode=True, sentence='first')) == num_refs
    assert len(build(tiny_root, split=split, sentence='all')) == num_sentences


def test_item_of_test_mode(tiny_root):
    info = build(tiny_root, split='testB', test_mode=True).get_data_info(1)
    square = [[38.0, 20.0, 50.0, 20.0, 50.0, 32.0, 38.0, 32.0]]
    assert info == dict(
        img_path=str(tiny_root / 'train2014' / 'COCO_train2014_000000000136.jpg'),
        img_id=136,
        height=40,
        width=56,
        ref_id=11,
        ann_ids=[5012],
        segmentations=[square],
        sentences=['red square', 'the right one', 'square'],
        sent_ids=[19, 20, 21],
        task='mask',
        subset='testB',
        seg_fields=[],
        text='red square',
        sent_id=19,
        sample_idx=1,
    )


def test_every_sentence_is_one_item_in_file_order(tiny_root):
    dataset = build(tiny_root, split='test', test_mode=True)
    texts = [dataset.get_data_info(index)['text'] for index in range(len(dataset))]
    assert texts == [*('yellow square', 'square'), *('blue triangle', 'red square', 'the right one', 'square')]
    raw = build(tiny_root, split='test', test_mode=True, text_field='raw')
    assert raw.get_data_info(5)['text'] == 'Square'
    assert build(tiny_root, text_field='raw', sentence='first')[0]['text'] == 'The red square.'


def test_mask_is_the_union_of_overlapping_parts(tiny_root):
    info = build(tiny_root, split='val', test_mode=True).get_data_info(0)
    assert [len(polygons) for polygons in info['segmentations']] == [2]
    rles = mask_utils.frPyObjects(info['segmentations'][0], info['height'], info['width'])
    assert mask_utils.area(mask_utils.merge(rles)) == CROSS_AREA
    mask = LoadReferringMask()(info)['gt_seg_map']
    assert mask.sum() == CROSS_AREA
    assert mask[20:26, 6:30].all()
    assert mask[12:36, 15:21].all()


def test_two_references_to_one_object_are_both_kept(tiny_root):
    dataset = build(tiny_root, sentence='first')
    infos = [dataset.get_data_info(index) for index in (2, 3)]
    assert [info['ann_ids'] for info in infos] == [[5004], [5004]]
    assert [info['ref_id'] for info in infos] == [2, 3]
    assert [info['text'] for info in infos] == ['yellow triangle', 'bottom left one']


def test_exact_test_split_is_preferred(own_root):
    edit_refs(own_root, lambda refs: refs[-1].update(split='test'))
    dataset = build(own_root, split='test', test_mode=True, sentence='first')
    assert [dataset.get_data_info(index)['ref_id'] for index in range(len(dataset))] == [11]


def test_several_targets_and_no_target(own_root):
    def change(refs):
        refs[0]['ann_id'] = [5001, 5002]
        refs[1]['ann_id'] = [-1]

    edit_refs(own_root, change)
    dataset = build(own_root, sentence='first')
    both, nothing = (LoadReferringMask()(dataset.get_data_info(index)) for index in (0, 1))
    assert both['ann_ids'] == [5001, 5002]
    assert both['gt_seg_map'].sum() == 16 * 16 + CROSS_AREA
    assert nothing['ann_ids'] == []
    assert nothing['gt_seg_map'].sum() == 0


def test_index_beyond_the_end(tiny_root):
    dataset = build(tiny_root, split='val', test_mode=True)
    assert dataset.get_data_info(-1)['sample_idx'] == 2
    assert dataset.get_data_info(-3)['sample_idx'] == 0
    for index in (3, -4):
        with pytest.raises(IndexError, match='3 items'):
            dataset.get_data_info(index)


# ---- drawn sentences


def test_sentence_follows_seed_index_and_visit(tiny_root):
    dataset = build(tiny_root, seed=5)
    sentences = ['blue cross', 'the cross', 'right thing blue']
    for visit in (0, 1, 7, 10**6):
        drawn = np.random.default_rng([5, 1, visit]).integers(3)
        info = dataset.get_data_info(Visit(1, visit))
        assert info['text'] == sentences[drawn]
        assert info['sent_id'] == 2 + drawn
        assert type(info['sample_idx']) is int
    assert dataset._visits.sum() == 0  # a given visit leaves the own count alone


def test_own_count_is_the_visit(tiny_root):
    dataset, fresh = build(tiny_root), build(tiny_root)
    own = [dataset[1]['text'] for _ in range(12)]
    assert own == [fresh[Visit(1, visit)]['text'] for visit in range(12)]
    assert len(set(own)) == 3
    assert dataset._visits.tolist() == [0, 12, 0, 0, 0, 0, 0]


def test_sentences_are_drawn_evenly(tiny_root):
    dataset = build(tiny_root)
    texts = [dataset.get_data_info(Visit(1, visit))['text'] for visit in range(3000)]
    for text in set(texts):
        assert abs(texts.count(text) - 1000) < 5 * np.sqrt(3000 * 2 / 9)  # 5 sigma of 3000 draws
    other = build(tiny_root, seed=1)
    same = sum(other.get_data_info(Visit(1, visit))['text'] == texts[visit] for visit in range(3000))
    assert abs(same - 1000) < 5 * np.sqrt(3000 * 2 / 9)


def test_restarted_workers_go_on_counting(tiny_root):
    dataset, fresh = build(tiny_root), build(tiny_root)
    loader = DataLoader(dataset, batch_size=7, num_workers=1, collate_fn=list)
    for epoch in range(4):
        texts = [item['text'] for item in next(iter(loader))]
        assert texts == [fresh[Visit(index, epoch)]['text'] for index in range(7)]


def test_subset_counts_on_its_own(tiny_root):
    dataset = build(tiny_root)
    subset = dataset.get_subset([1, 4])
    assert len(subset) == 2
    assert subset[1]['ref_id'] == 4
    assert subset._visits.tolist() == [0, 1]
    assert subset._visits.is_shared()
    assert dataset._visits.sum() == 0
    assert len(build(tiny_root, indices=3)) == 3


# ---- pictures left out


def test_exclude_images(tiny_root, tmp_path):
    ids = tmp_path / 'ids.txt'
    ids.write_text('108\n\n129\n')
    by_id = build(tiny_root, exclude_images=[101])
    assert {by_id.get_data_info(index)['img_id'] for index in range(len(by_id))} == {108, 115}
    assert len(build(tiny_root, exclude_images=[101, str(ids)])) == 2
    assert len(build(tiny_root, exclude_images=str(ids))) == 4
    assert len(build(tiny_root, exclude_images=REFS)) == 7  # its splits share no picture


def test_exclude_images_of_another_data_set(own_root):
    other = pickle.loads((own_root / REFS).read_bytes())
    other[0]['split'] = 'val'  # picture 101, training here
    (own_root / 'others.p').write_bytes(pickle.dumps(other, protocol=2))
    assert len(build(own_root, exclude_images='others.p')) == 5
    assert len(build(own_root, exclude_images=['others.p', 108, 4711])) == 2
    with pytest.raises(ValueError, match='leaves nothing'):
        build(own_root, exclude_images=['others.p', 108, 115])


def test_exclude_images_announces_numbers(tiny_root, log_lines):
    build(tiny_root, exclude_images=[101, 4711])
    assert log_lines == [
        (logging.INFO, 'exclude_images leaves out 2 of 7 referred objects'),
        (logging.INFO, '5 items of 5 referred objects'),
    ]


def test_exclude_images_is_for_training(tiny_root, tmp_path):
    with pytest.raises(ValueError, match="split='train'"):
        build(tiny_root, split='val', exclude_images=[129])
    (tmp_path / 'ids.txt').write_text('108\nx12\n')
    with pytest.raises(ValueError, match=r"ids\.txt, line 2: expected one image id, but got 'x12'"):
        build(tiny_root, exclude_images=str(tmp_path / 'ids.txt'))
