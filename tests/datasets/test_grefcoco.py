"""GRefCOCODataset on a tiny folder in the published layout."""

import json
import logging
import pickle
from pathlib import Path

import pytest
from tiny_datasets import edit_json, maker

from genseg_mm.datasets.grefcoco import GRefCOCODataset
from genseg_mm.datasets.transforms import LoadReferringMask

make_tiny_grefcoco = maker('grefcoco')
CROSS = 2 * 24 * 6 - 6 * 6
GREFS, INSTANCES = 'grefcoco/grefs(unc).json', 'grefcoco/instances.json'


@pytest.fixture(scope='module')
def root(tmp_path_factory) -> Path:
    return make_tiny_grefcoco(tmp_path_factory.mktemp('grefcoco') / 'coco')


@pytest.fixture
def own_root(tmp_path) -> Path:
    """A folder that the test may damage."""
    return make_tiny_grefcoco(tmp_path / 'coco')


def build(root: Path, **kwargs) -> GRefCOCODataset:
    return GRefCOCODataset(data_root=str(root), serialize_data=False, **kwargs)


def items(root: Path, **kwargs) -> list[dict]:
    dataset = build(root, **kwargs)
    return [dataset.get_data_info(index) for index in range(len(dataset))]


@pytest.mark.parametrize(
    ('split', 'num_sentences', 'num_refs'),
    [('train', 6, 5), ('val', 6, 3), ('testA', 2, 2), ('testB', 1, 1), ('test', 3, 3)],
)
def test_every_sentence_is_an_item_also_in_training(root, split, num_sentences, num_refs):
    assert len(build(root, split=split)) == num_sentences
    assert len(build(root, split=split, test_mode=True)) == num_sentences
    assert len(build(root, split=split, sentence='first')) == num_refs


def test_no_one_and_several_targets(root):
    found = [(item['text'], item['kind'], item['ann_ids']) for item in items(root)]
    assert found == [
        ('The square and the cross', 'multi-target', [5001, 5002]),
        ('both on top', 'multi-target', [5001, 5002]),
        ('The yellow square.', 'no-target', []),
        ('green triangle', 'one-target', [5003]),
        ('everything', 'multi-target', [5004, 5005, 9001]),
        ('left shape', 'one-target', [5007]),  # a bare number in the file
    ]
    assert items(root, text_field='sent')[2]['text'] == 'the yellow square'


def test_targets_are_the_union_of_the_objects(root):
    masks = [LoadReferringMask()(item)['gt_seg_map'] for item in items(root)]
    assert [int(mask.max()) for mask in masks] == [1, 1, 0, 1, 1, 1]
    assert masks[0].sum() == 16 * 16 + CROSS
    assert masks[2].sum() == 0
    # Without the crowd region, the first twenty columns: the yellow triangle and the green square of 12 x 12
    triangle = next(item for item in items(root) if item['ann_ids'][0:1] == [5004])
    alone = dict(triangle, segmentations=triangle['segmentations'][:1])
    assert masks[4].sum() == 12 * 12 + LoadReferringMask()(alone)['gt_seg_map'].sum()
    assert masks[4][0].sum() == 0


def test_overlapping_objects_count_once(own_root):
    def same_place(content):
        content['annotations'][1]['segmentation'] = content['annotations'][0]['segmentation'][:1]

    edit_json(own_root / INSTANCES, same_place)
    assert LoadReferringMask()(items(own_root)[0])['gt_seg_map'].sum() == 16 * 16


def test_what_is_left_out_is_counted(own_root, log_lines):
    def edit(content):
        content['annotations'][2]['segmentation'] = [[1, 2, 3, 4], [1, 2, 3, 4, 5, 6, 7]]

    edit_json(own_root / INSTANCES, edit)
    dataset = build(own_root)
    polygons = 'polygons of fewer than 6 or an odd number of coordinates'
    # The line beside 5001 and both outlines of 5003; the crowd region; 5003 has none left
    assert dataset.dropped == {polygons: 3, 'objects without a polygon': 1, 'crowd regions': 1}
    assert dataset.num_left_empty == 1
    assert (logging.WARNING, f'left out 3 {polygons}') in log_lines
    assert (logging.WARNING, '1 references have an empty mask: all their objects were left out') in log_lines
    assert log_lines[-1] == (logging.INFO, 'items: 1 no-target, 2 one-target, 3 multi-target')
    item = dataset.get_data_info(3)
    assert (item['text'], item['kind'], item['segmentations']) == ('green triangle', 'one-target', [])


def test_bare_minus_one_is_no_target(own_root):
    edit_json(own_root / GREFS, lambda refs: refs[1].update(ann_id=-1))
    assert [item['kind'] for item in items(own_root)][2] == 'no-target'


def test_old_copies_are_pickles(own_root):
    refs = json.loads((own_root / GREFS).read_text())
    (own_root / 'grefcoco' / 'grefs(unc).p').write_bytes(pickle.dumps(refs, protocol=2))
    assert items(own_root, split_file='grefcoco/grefs(unc).p') == [dict(item) for item in items(own_root)]


def test_leakage_from_refcoco_plus(root):
    left = items(root, exclude_images=['refcoco+/refs(unc).p'])  # its val is picture 101
    assert {item['img_id'] for item in left} == {108, 115}


@pytest.mark.parametrize(
    ('name', 'edit', 'message'),
    [
        (GREFS, lambda refs: refs[0].update(ann_id=[5001, -1]), 'has no annotation -1, asked for by'),
        (GREFS, lambda refs: refs[0].update(ann_id='5001'), "ann_id must be int or list, but got '5001'"),
        (GREFS, lambda refs: refs[0].update(ann_id=[5001, 5008]), 'annotation 5008 lies in image 122'),
        (GREFS, lambda refs: refs[0]['sentences'][0].update(raw=7), 'sentence 0: raw: expected a string, but got 7'),
        (
            INSTANCES,
            lambda content: content['annotations'][0].update(segmentation=[5]),
            r'annotations\[0\]: segmentation must be a list of polygons .*got \[5\] \(id 5001\)',
        ),
        (
            INSTANCES,
            lambda content: content['annotations'][0].update(segmentation=[[0, 0, 9, 9, 0, None]]),
            r'annotation 5001: expected polygons \[x0, y0',
        ),
    ],
)  # fmt: skip
def test_wrong_files(own_root, name, edit, message):
    edit_json(own_root / name, edit)
    with pytest.raises(ValueError, match=message):
        items(own_root)


def test_missing_files(own_root):
    (own_root / GREFS).unlink()
    with pytest.raises(FileNotFoundError, match=r'expected <data_root>/grefcoco/instances\.json'):
        items(own_root)
