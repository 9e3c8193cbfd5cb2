"""Pictures that no training set may hold, over RefCOCO, RefCOCO+, RefCOCOg, gRefCOCO and captions."""

import json
import os
import pickle
from pathlib import Path

import pytest
from tiny_datasets import build_refcoco, maker

from genseg_mm.datasets.leakage import coco_image_id, evaluation_image_ids
from genseg_mm.datasets.reason_seg import ReasonSegDataset

# Pictures 101, 108, 115, 122, 129, 136 are scenes 0 to 5 of the tool: its splits, read by hand.
REFCOCO, PLUS = {122, 129, 136}, {101, 129, 136}
UMD, GOOGLE_VAL = {122, 129}, {108, 122, 136}


@pytest.fixture(scope='module')
def root(tmp_path_factory) -> Path:
    folder = maker('grefcoco')(tmp_path_factory.mktemp('leakage') / 'coco')
    maker('reasonseg')(folder.parent)
    return folder


@pytest.mark.parametrize(
    ('sources', 'expected'),
    [
        (['refcoco/refs(unc).p'], REFCOCO),
        (['refcoco+/refs(unc).p'], PLUS),
        (['refcocog/refs(umd).p'], UMD),
        (['refcocog/refs(google).p'], GOOGLE_VAL),  # 108, 122 and 136 are training pictures too
        (['grefcoco/grefs(unc).json'], REFCOCO),
        (['refcoco/refs(unc).p', 'refcoco+/refs(unc).p', 7], REFCOCO | PLUS | {7}),
        (['unc+umd'], {101, 122, 129, 136}),
        ('unc+umd+google', {101, 108, 122, 129, 136}),
        (['all'], {101, 108, 122, 129, 136}),
        (108, {108}),
        ([], set()),
    ],
)
def test_ids_of_the_files(root, sources, expected):
    assert evaluation_image_ids(sources, str(root)) == expected


@pytest.mark.parametrize(
    ('name', 'number'),
    [
        ('COCO_train2014_000000581857.jpg', 581857),
        ('000000581857.jpg', 581857),
        ('train2017/000000581857.jpg', 581857),
        ('COCO_train2014_000000581857_16.jpg', 581857),  # file_name of refs files
        ('COCO_val2014_000000000042', 42),
        ('581857.jpg', None),
        ('1015500020_b97c9c2f83_o.jpg', None),
        ('scene0000_00_000000000042x.jpg', None),
        ('0000000581857.jpg', None),
    ],
)
def test_one_number_in_2014_and_2017(name, number):
    assert coco_image_id(name) == number


def test_id_lists(root, tmp_path):
    (tmp_path / 'ids.txt').write_text('108\n\n000000000129\nCOCO_train2014_000000000136.jpg\n')
    (tmp_path / 'set.p').write_bytes(pickle.dumps({'000000000108', '000000000129'}))  # PolyFormer's
    (tmp_path / 'list.json').write_text('[1, "000000000002.jpg"]')
    captions = dict(images=[dict(id=5, file_name='000000000005.jpg')], annotations=[])
    (tmp_path / 'captions_val2017.json').write_text(json.dumps(captions))
    found = evaluation_image_ids(['ids.txt', 'set.p'], str(tmp_path))
    assert found == {108, 129, 136}
    assert evaluation_image_ids(['list.json', 'captions_val2017.json'], str(tmp_path)) == {1, 2, 5}
    assert evaluation_image_ids([str(tmp_path / 'ids.txt')], '/elsewhere') == {108, 129, 136}


def test_a_changed_file_is_read_again(tmp_path):
    path = tmp_path / 'ids.txt'
    path.write_text('1\n')
    assert evaluation_image_ids(['ids.txt'], str(tmp_path)) == {1}
    path.write_text('2\n')
    os.utime(path, ns=(1, 1))
    assert evaluation_image_ids(['ids.txt'], str(tmp_path)) == {2}


def test_old_and_new_name_of_grefcoco_both_count(root, tmp_path):
    for name in ('refcoco', 'refcoco+', 'refcocog'):
        (tmp_path / name).symlink_to(root / name)
    with pytest.raises(FileNotFoundError, match=r'grefs\(unc\)\.json.* or .*grefs\(unc\)\.p.*all'):
        evaluation_image_ids(['all'], str(tmp_path))
    (tmp_path / 'grefcoco').mkdir()
    refs = [dict(image_id=900, split='testA'), dict(image_id=901, split='train')]
    (tmp_path / 'grefcoco' / 'grefs(unc).p').write_bytes(pickle.dumps(refs, protocol=2))
    assert evaluation_image_ids(['all'], str(tmp_path)) == {101, 108, 122, 129, 136, 900}


def test_training_sets_have_none_of_them(root):
    everything = {101, 108, 115, 122, 129, 136}
    for preset, left in (('unc+umd', {108, 115}), ('unc+umd+google', {115})):
        evaluated = evaluation_image_ids([preset], str(root))
        for folder, by in (('refcoco', 'unc'), ('refcoco+', 'unc'), ('refcocog', 'umd')):
            files = dict(ann_file=f'{folder}/instances.json', split_file=f'{folder}/refs({by}).p')
            dataset = build_refcoco(root, exclude_images=preset, serialize_data=False, **files)
            images = {dataset.get_data_info(index)['img_id'] for index in range(len(dataset))}
            assert images == left == everything - evaluated
    dataset = build_refcoco(root)  # Without it, RefCOCO trains on a picture of RefCOCO+'s val
    assert {dataset.get_data_info(index)['img_id'] for index in range(7)} & PLUS == {101}


def test_pictures_of_reasonseg(root, tmp_path):
    top = str(root.parent)
    assert evaluation_image_ids(['ReasonSeg/val'], top) == set()  # not of COCO
    for split, names in (('train', ('000000000108', 'own')), ('val', ('000000000122',))):
        folder = tmp_path / 'ReasonSeg' / split
        folder.mkdir(parents=True)
        for name in names:
            (folder / f'{name}.jpg').write_bytes(b'')
            content = dict(text=['x'], is_sentence=False, shapes=[])
            (folder / f'{name}.json').write_text(json.dumps(content))
    assert evaluation_image_ids(['ReasonSeg/val'], str(tmp_path)) == {122}
    dataset = ReasonSegDataset(str(tmp_path), exclude_images=str(root / 'refcocog/refs(google).p'))
    assert [dataset.get_data_info(index)['img_id'] for index in range(len(dataset))] == ['own']


@pytest.mark.parametrize(
    ('name', 'content', 'message'),
    [
        ('a.txt', '108\nx12\n', r"a\.txt, line 2: expected one image id, but got 'x12'"),
        ('a.json', '{"image": []}', r'a\.json lacks the list images, it has'),
        ('a.json', '{"images": [{"id": "5"}]}', r'a\.json, images: expected a dict with id'),
        ('a.json', '[{"image_id": 5}]', r'reference 0: expected a dict with split \(str\)'),
        ('a.json', '[{"split": "val"}]', r'reference 0: expected a dict with image_id'),
        ('a.json', '[true]', r'a\.json: expected one image id, but got True'),
        ('a.json', '[]', r'a\.json: expected a list of references, but got \[\]'),
        ('a.json', '[1', r'a\.json is not a whole JSON file'),
        ('a.p', 'no', r'a\.p is not a whole pickle'),
    ],
)
def test_wrong_files(tmp_path, name, content, message):
    (tmp_path / name).write_text(content)
    with pytest.raises(ValueError, match=message):
        evaluation_image_ids([name], str(tmp_path))


def test_wrong_sources(tmp_path):
    with pytest.raises(FileNotFoundError, match=r'no file .*umd.*or one of .*unc\+umd'):
        evaluation_image_ids(['umd'], str(tmp_path))
    with pytest.raises(ValueError, match=r"'unc\+umd\+google', 'all'\), but got 1.5"):
        evaluation_image_ids([1.5], str(tmp_path))
