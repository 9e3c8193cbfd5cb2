"""RefCOCODataset on a tiny folder in the published layout."""

import logging
import os
import pickle
from pathlib import Path

import numpy as np
import pytest
from pycocotools import mask as mask_utils
from tiny_datasets import INSTANCES, REFS, edit_json, edit_refs, maker
from tiny_datasets import build_refcoco as build
from torch.utils.data import DataLoader

from genseg_mm.datasets.samplers import Visit
from genseg_mm.datasets.transforms import LoadReferringMask

make_tiny_refcoco = maker('refcoco')
CROSS_AREA = 2 * 24 * 6 - 6 * 6  # two bars of 24x6, their 6x6 overlap counted once


@pytest.fixture(scope='session')
def tiny_root(tmp_path_factory) -> Path:
    return make_tiny_refcoco(tmp_path_factory.mktemp('tiny') / 'coco')


@pytest.fixture(scope='module')
def family_root(tmp_path_factory) -> Path:
    return make_tiny_refcoco(tmp_path_factory.mktemp('family') / 'coco')


@pytest.fixture
def own_root(tmp_path) -> Path:
    """A folder that the test may damage."""
    return make_tiny_refcoco(tmp_path / 'coco')


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
    assert dataset[1]['visit'] == 0  # a given visit leaves the own count alone


def test_own_count_is_the_visit(tiny_root):
    dataset, fresh = build(tiny_root), build(tiny_root)
    own = [dataset[1]['text'] for _ in range(12)]
    assert own == [fresh[Visit(1, visit)]['text'] for visit in range(12)]
    assert len(set(own)) == 3
    assert [dataset[index]['visit'] for index in (0, 1, 6)] == [0, 12, 0]


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
    assert [subset[index]['visit'] for index in (0, 1)] == [0, 1]
    assert [dataset[index]['visit'] for index in (1, 4)] == [0, 0]
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


def test_exclude_images_of_another_dataset(own_root):
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


# ---- missing, damaged and inconsistent files


def test_missing_files(own_root, tmp_path):
    with pytest.raises(FileNotFoundError, match=r'nowhere.*GENSEG_DATA'):
        build(tmp_path / 'nowhere')
    with pytest.raises(FileNotFoundError, match=r'split_file: no file .*refs\(umd\)\.p.*refs\(unc\)'):
        build(own_root, split_file='refcoco/refs(umd).p')
    with pytest.raises(FileNotFoundError, match=r'ann_file: no file .*other\.json'):
        build(own_root, ann_file='refcoco/other.json')
    with pytest.raises(FileNotFoundError, match=r'folder .*train2015.* does not exist'):
        build(own_root, data_prefix=dict(img_path='train2015'))


def test_missing_picture(own_root, log_lines):
    picture = own_root / 'train2014' / 'COCO_train2014_000000000108.jpg'
    picture.unlink()
    assert len(build(own_root)) == 7
    assert log_lines[0] == (logging.WARNING, f'1 of 3 pictures are missing, the first is {picture}')
    assert len(build(own_root, split='val', check_images=True)) == 2
    with pytest.raises(FileNotFoundError, match=r'1 of 3 pictures .*000000000108\.jpg'):
        build(own_root, check_images=True)


@pytest.mark.parametrize(
    ('kwargs', 'message'),
    [
        (dict(split='minival'), r'no split .minival.; its splits are testA \(1 refs\), testB'),
        (dict(text_field='tokens'), "text_field must be 'sent' or 'raw', but got 'tokens'"),
        (dict(sentence='last'), "sentence must be one of .*'random'.*but got 'last'"),
        (dict(sentence='random', test_mode=True), "one of .'all', 'first'. with test_mode=True"),
        (dict(data_prefix=dict(img='train2014')), r'data_prefix must be dict\(img_path=...\)'),
    ],
)
def test_wrong_arguments(own_root, kwargs, message):
    with pytest.raises(ValueError, match=message):
        build(own_root, **kwargs)


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        (lambda refs: refs[4].pop('ann_id'), "reference 4 lacks the key 'ann_id'"),
        (lambda refs: refs[4].update(image_id='8'), "4: image_id must be int .* but got '8'"),
        (lambda refs: refs[4].update(ann_id=[1.5]), r'reference 4: ann_id must be of int.*1\.5'),
        (lambda refs: refs[4].update(ann_id=[]), r'reference 4: ann_id must name objects, or be \[-1\]'),
        (lambda refs: refs[4].update(sentences=[]), r'reference 4 \(ref_id 4\) has no sentence'),
        (lambda refs: refs[4]['sentences'][1].update(sent=7), 'sentence 1: sent: expected a string, but got 7'),
        (
            lambda refs: [own.pop('sent') for ref in refs for own in ref['sentences']],
            "reference 0, sentence 0 lacks the key 'sent', as all others do",
        ),
        (lambda refs: refs.__setitem__(4, 'ref'), "reference 4: expected a dict .* but got 'ref'"),
        (lambda refs: refs.clear(), r'expected a list of references, but got \[\]'),
        (
            lambda refs: refs[4].update(ann_id=77),
            r'instances\.json has no annotation 77, asked for by ref_id 4 \(ann_id 77\) of .*refs',
        ),
        (
            lambda refs: refs[4].update(image_id=66),
            r'instances\.json has no image 66, asked for by ref_id 4 \(ann_id 5005\) of .*refs',
        ),
        (
            lambda refs: refs[4].update(ann_id=5001),
            r'annotation 5001 lies in image 101, but ref_id 4 .* expects it in image 108',
        ),
    ],
)  # fmt: skip
def test_wrong_refs(own_root, change, message):
    edit_refs(own_root, change)
    with pytest.raises(ValueError, match=message) as caught:
        build(own_root)
    assert 'refs(unc).p' in str(caught.value)


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        (lambda found: found.pop('images'), 'but images is missing or no list'),
        (lambda found: found['images'][0].pop('height'), r"images\[0\] lacks the key 'height'"),
        (lambda found: found['annotations'][0].pop('id'), r"annotations\[0\] lacks the key 'id'"),
        (
            lambda found: found['annotations'][0].update(segmentation=[]),
            r'annotation 5001: expected at least one polygon of 3 points, but got \[\]',
        ),
        (
            lambda found: found['annotations'][0].update(segmentation=[[1, 2, 3, 4]]),
            'annotation 5001: expected at least one polygon of 3 points',
        ),
        (
            lambda found: found['annotations'][0].update(segmentation=[[1, 2, 3, 4, 5, 6, 7]]),
            r'annotation 5001: expected polygons \[x0, y0',
        ),
        (
            lambda found: found['annotations'][0].update(segmentation=[[1, 2, 3, 4, 5, None]]),
            r'annotation 5001: expected polygons \[x0, y0',
        ),
        (
            lambda found: found['annotations'][0].update(segmentation=dict(counts=[0, 4], size=[2, 2])),
            r'annotation 5001: expected an RLE of the size of image 101, \[48, 64\]',
        ),
    ],
)
def test_wrong_instances(own_root, change, message):
    edit_json(own_root / INSTANCES, change)
    with pytest.raises(ValueError, match=message) as caught:
        build(own_root)
    assert 'instances.json' in str(caught.value)


def test_entries_that_nobody_refers_to_do_not_matter(own_root):
    edit_json(own_root / INSTANCES, lambda found: found['annotations'][2].pop('segmentation'))
    assert len(build(own_root)) == 7


def test_polygons_without_area_are_counted(own_root, log_lines):
    edit_json(own_root / INSTANCES, lambda found: found['annotations'][0]['segmentation'].append([1, 1, 9, 9]))
    info = build(own_root, sentence='first').get_data_info(0)
    assert LoadReferringMask()(info)['gt_seg_map'].sum() == 16 * 16
    assert log_lines[0][0] == logging.WARNING
    assert 'left out 1 polygons of fewer than 3 points' in log_lines[0][1]


def test_truncated_json(own_root):
    text = (own_root / INSTANCES).read_text()
    (own_root / INSTANCES).write_text(text[: len(text) // 2])
    with pytest.raises(ValueError, match=r'instances\.json is not a whole JSON file'):
        build(own_root)


def test_pickle_that_wants_to_execute_code(own_root, tmp_path):
    class Attack:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / 'executed'),)

    (own_root / REFS).write_bytes(pickle.dumps([Attack()], protocol=2))
    with pytest.raises(ValueError, match=r'refs\(unc\)\.p is refused: it asks to load \w+\.mkdir'):
        build(own_root)
    assert sorted(path.name for path in tmp_path.iterdir()) == ['coco']


# ---- RefCOCO+, RefCOCOg UMD and RefCOCOg Google


def read(family_root: Path, name: str, by: str, split: str, **kwargs) -> list[dict]:
    dataset = build(
        family_root,
        ann_file=f'{name}/instances.json',
        split_file=f'{name}/refs({by}).p',
        split=split,
        test_mode=True,
        serialize_data=False,
        **kwargs,
    )
    return [dataset.get_data_info(index) for index in range(len(dataset))]


@pytest.mark.parametrize(
    ('name', 'by', 'split', 'num_refs', 'num_sentences', 'images'),
    [
        ('refcoco+', 'unc', 'train', 6, 12, {108, 115, 122}),
        ('refcoco+', 'unc', 'val', 3, 6, {101}),
        ('refcoco+', 'unc', 'testA', 1, 2, {129}),
        ('refcoco+', 'unc', 'testB', 2, 4, {136}),
        ('refcoco+', 'unc', 'test', 3, 6, {129, 136}),
        ('refcocog', 'umd', 'train', 9, 9, {101, 108, 115, 136}),
        ('refcocog', 'umd', 'val', 1, 1, {129}),
        ('refcocog', 'umd', 'test', 2, 2, {122}),  # a split of that very name
        ('refcocog', 'google', 'train', 9, 9, {101, 108, 115, 122, 129, 136}),
        ('refcocog', 'google', 'val', 3, 3, {108, 122, 136}),
    ],
)
def test_splits(family_root, name, by, split, num_refs, num_sentences, images):
    items = read(family_root, name, by, split)
    assert len(items) == num_sentences
    assert len(read(family_root, name, by, split, sentence='first')) == num_refs
    assert {item['img_id'] for item in items} == images
    assert {item['subset'] for item in items} <= {split, 'testA', 'testB'}


def test_google_divides_the_objects_of_a_picture(family_root):
    train, val = (read(family_root, 'refcocog', 'google', split) for split in ('train', 'val'))
    assert {item['ann_ids'][0] for item in val} == {5004, 5008, 5012}
    assert not {item['ann_ids'][0] for item in train} & {5004, 5008, 5012}
    assert [item['text'] for item in val] == [
        'a yellow triangle drawn on a grey background',
        'a red cross drawn on a grey background',
        'a red square drawn on a grey background',
    ]
    # Red cross of 24x24 with bars of 6; red square of 12x12, reaching over the columns 38 to 49
    assert LoadReferringMask()(val[1])['gt_seg_map'].sum() == 2 * 24 * 6 - 6 * 6
    square = LoadReferringMask()(val[2])['gt_seg_map']
    assert square.sum() == 144 and square[20:32, 38:50].all()
    with pytest.raises(ValueError, match=r"no split 'test'; its splits are train \(9 refs\), val \(3"):
        read(family_root, 'refcocog', 'google', 'test')


def test_text_fields_of_the_plus(family_root):
    items = read(family_root, 'refcoco+', 'unc', 'testB', text_field='raw')
    assert [item['text'] for item in items] == ['The blue triangle', 'blue one', 'The red square', 'red one']
    assert read(family_root, 'refcoco+', 'unc', 'testB')[0]['text'] == 'the blue triangle'
