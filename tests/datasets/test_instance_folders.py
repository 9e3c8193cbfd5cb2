"""InstanceFolderDataset: the four formats give the same instances, splits are drawn by names, damage is one line."""

import json
import pickle
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tiny_datasets import edit_json, infos, maker

from genseg_mm.datasets import InstanceFolderDataset, LoadImage, LoadInstanceMap, Visit
from genseg_mm.datasets.own_splits import drawn_split
from genseg_mm.datasets.yolo_polygons import folder_of, label_path, read_data_yaml

NUM, SIZE = 8, (72, 96)
NAMES = [f'{number:03d}' for number in range(NUM)]


@pytest.fixture(scope='module')
def made(tmp_path_factory) -> Path:
    return maker('own')(tmp_path_factory.mktemp('own'), NUM)


@pytest.fixture
def own(made, tmp_path) -> Path:
    """A copy that the test may damage."""
    return shutil.copytree(made, tmp_path / 'own')


def build(root: Path, **kwargs) -> InstanceFolderDataset:
    return InstanceFolderDataset(str(root), **{'serialize_data': False, **kwargs})


def instance_map(item: dict) -> np.ndarray:
    return LoadInstanceMap()(LoadImage()(dict(item)))['gt_instance_map']


def test_maps_polygons_and_json_are_the_same_instances(made):
    maps = infos(build(made / 'maps'))
    coco = infos(build(made / 'coco', format='coco'))
    lvis = infos(build(made / 'lvis', format='coco', images='.', annotations='lvis.json'))
    yolo = [own for split in ('train', 'val') for own in infos(
        build(made / 'yolo', format='yolo', annotations='data.yaml', split=split))]  # fmt: skip
    assert [own['img_id'] for own in maps] == NAMES
    assert [own['img_id'] for own in coco] == list(range(1, NUM + 1))
    assert [Path(own['img_path']).stem for own in yolo] == NAMES
    assert {Path(own['img_path']).parent.name for own in lvis} == {'train2017', 'val2017'}
    for drawn, *outlined in zip(maps, coco, lvis, yolo, strict=True):
        exact = instance_map(drawn)
        assert exact.shape == SIZE and exact.max() >= 2
        masks = [instance_map(own) for own in outlined]
        assert all(len(np.unique(mask)) == len(np.unique(exact)) for mask in masks)
        # Outlines through pixel centres lose half a pixel of each side; which of two objects is in front may differ.
        assert all(((mask > 0) == (exact > 0)).mean() > 0.9 for mask in masks)
        assert np.array_equal(masks[0], masks[1]) and (masks[0] == masks[2]).mean() > 0.95  # rounded to 6 digits


def test_a_split_is_drawn_by_the_names_alone(made, own):
    whole = {split: [item['img_id'] for item in infos(build(made / 'maps', split=split))] for split in ('train', 'val')}
    assert len(whole['val']) == round(0.2 * NUM) and sorted(whole['train'] + whole['val']) == NAMES
    half = [item['img_id'] for item in infos(build(made / 'maps', split='val', val_share=0.5))]
    assert len(half) == NUM // 2 and set(whole['val']) <= set(half)
    assert drawn_split(reversed(NAMES), 'val', 0.2, '?') == set(whole['val'])
    assert whole['val'] == ['000', '005']  # on every machine
    by_yolo = build(own / 'yolo', format='yolo', images='images/train', annotations='labels/train', split='val')
    assert {item['img_id'] for item in infos(by_yolo)} < set(NAMES)
    with pytest.raises(ValueError, match=r"one of \('train', 'val'\), but got 'test'"):
        build(made / 'maps', split='test')
    with pytest.raises(ValueError, match='at least 2 pictures to split into .*, but got 1'):
        drawn_split(['a'], 'train', 0.2, 'here')
    for share in (0, 1, True, 'x', float('nan')):
        with pytest.raises(ValueError, match='val_share must be a share'):
            build(made / 'maps', val_share=share)


def test_what_pixels_of_maps_mean_is_said(tmp_path):
    ids = np.zeros((8, 10), np.uint16)
    ids[1:3, 1:3], ids[5:7, 1:3], ids[5:7, 6:9] = 300, 300, 7
    colors = np.stack([ids >> 8, ids & 255, ids * 0], -1).astype(np.uint8)
    black_white = ((ids > 0) * 255).astype(np.uint8)
    (tmp_path / 'images/below').mkdir(parents=True)
    Image.fromarray(np.zeros((8, 10, 3), np.uint8)).save(tmp_path / 'images/below/a.JPG', 'JPEG')
    white_16 = (ids > 0).astype(np.uint16) * 65535
    for folder, array in (('ids', ids), ('colors', colors), ('marks', black_white), ('marks_16', white_16)):
        (tmp_path / folder / 'below').mkdir(parents=True)
        Image.fromarray(array).save(tmp_path / folder / 'below/a_mask.png')

    def read(folder: str, how: str) -> np.ndarray:
        (item,) = infos(build(tmp_path, annotations=folder, ids=how, map_suffix='_mask.png'))
        assert item['img_id'] == 'below/a'
        return instance_map(item)

    assert np.array_equal(read('ids', 'index'), ids)
    rgb = read('colors', 'rgb')
    assert rgb[1, 1] == 1 << 16 | 44 << 8 and rgb[5, 6] == 7 << 8 and np.array_equal(rgb > 0, ids > 0)
    components = read('marks', 'components')
    assert np.array_equal(components > 0, ids > 0) and len(np.unique(components)) == 4
    wide = read('marks_16', 'components')
    assert np.array_equal(wide > 0, ids > 0) and len(np.unique(wide)) == 4
    with pytest.raises(ValueError, match=r"a_mask\.png: expected a palette PNG.* mode RGB, .*ids='rgb'"):
        read('colors', 'index')
    with pytest.raises(ValueError, match=r"a_mask\.png: expected ids coded as RGB \(ids='rgb'\), but got mode I;16"):
        read('ids', 'rgb')
    with pytest.raises(ValueError, match=r'a_mask\.png: expected the labels 0 to 255, 65535, but got \[300\]'):
        read('ids', 'components')


def test_pictures_and_maps_in_one_folder(tmp_path):
    Image.fromarray(np.zeros((4, 4, 3), np.uint8)).save(tmp_path / 'a.png')
    Image.fromarray(np.eye(4, dtype=np.uint8)).save(tmp_path / 'a_ids.png')
    (item,) = infos(build(tmp_path, images='.', annotations='.', map_suffix='_ids.png'))
    assert (item['img_id'], instance_map(item).sum()) == ('a', 4)
    with pytest.raises(ValueError, match='are in one folder .* map_suffix has to tell them apart'):
        build(tmp_path, images='.', annotations='.')
    with pytest.raises(ValueError, match="map_suffix must end with one of .* which lose nothing, but got '.jpg'"):
        build(tmp_path, map_suffix='.jpg')


def test_missing_files_are_an_error_or_left_out(own):
    (own / 'maps/masks/003.png').unlink()
    (own / 'maps/images/005.jpg').unlink()
    with pytest.raises(
        FileNotFoundError,
        match=r'no instance map, such as .*003\.png; .*no image, such as .*005\.\*; missing=.skip. goes on',
    ):
        build(own / 'maps')
    dataset = build(own / 'maps', missing='skip')
    assert len(dataset) == NUM - 2 and [len(own) for own in dataset.skipped.values()] == [1, 1]
    labels = own / 'yolo/labels/train'
    (labels / '000.txt').unlink()
    (labels / '001.txt').write_text('\n')
    (own / 'yolo/images/train/002.jpg').write_bytes(b'no picture')
    kwargs = dict(format='yolo', annotations='data.yaml', split='train')
    with pytest.raises(
        FileNotFoundError, match=r'no file of labels, such as .*000\.txt; .*no readable picture, such as'
    ):
        build(own / 'yolo', **kwargs)
    kept = infos(build(own / 'yolo', missing='skip', **kwargs))
    assert [Path(item['img_path']).stem for item in kept] == ['001', '003', '004', '005']
    assert kept[0]['instances'] == [] and instance_map(kept[0]).max() == 0


LINES = {
    '0 0.1 0.1 0.5 0.1 0.5 0.9 0.3': r'expected class x0 y0 x1 y1 \.\.\., but got 8 numbers',
    '0 10 10 50 10 50 90': 'expected corners in shares of width and height, 0 to 1, but got .10.: are they pixels',
    '0 0.1 0.1 0.5 0.1 0.5 nan': "but got 'nan'",
    '0 0.1 0.1 0.5 0.1 0.5 -0.2': "but got '-0.2'",
    '0 0.1 0.1 0.5 0.1 0.5 x': "expected numbers, but got 'x'",
    '3 0.1 0.1 0.5 0.1 0.5 0.9': "expected a class, one of the 1 in names, but got '3'",
    '-1 0.1 0.1 0.5 0.1 0.5 0.9': "expected a class, one of the 1 in names, but got '-1'",
    'shape 0.1 0.1 0.5 0.1 0.5 0.9': "expected a class, one of the 1 in names, but got 'shape'",
}


@pytest.mark.parametrize('line', LINES)
def test_lines_of_yolo_that_are_none(own, line):
    path = own / 'yolo/labels/val/007.txt'
    path.write_text(f'0 0.1 0.1 0.5 0.1 0.5 0.9\n{line}\n')
    with pytest.raises(ValueError, match=rf'007\.txt, line 2: .*{LINES[line]}'):
        build(own / 'yolo', format='yolo', annotations='data.yaml', split='val')


def test_boxes_and_overlaps_of_yolo(own):
    path = own / 'yolo/labels/val/007.txt'
    path.write_text('0.0 0.25 0.25 0.5 0.25 0.5 0.5 0.25 0.5\n0 0.5 0.5 0.2 0.2\n0 0.5 0.5\n0 0 0 1.004 0 1 1 0 1\n')
    dataset = build(own / 'yolo', format='yolo', annotations='data.yaml', split='val')
    item = infos(dataset)[-1]
    assert dict(dataset.dropped) == {'boxes without a polygon': 1, 'polygons of fewer than 3 points': 1}
    assert [one['area'] for one in item['instances']] == [24 * 18, 72 * 96]
    assert item['instances'][0]['bbox'] == [24, 18, 48, 36]
    ids = instance_map(item)
    assert (ids == 1).sum() == 24 * 18 and (ids == 2).sum() == 72 * 96 - 24 * 18  # the smaller one lies on top
    few = build(own / 'yolo', format='yolo', annotations='data.yaml', split='val', classes=['shape'])
    assert infos(few)[-1]['instances'] == item['instances']
    with pytest.raises(ValueError, match=r"classes must be one of \['shape'\], but got \['cat'\]"):
        build(own / 'yolo', format='yolo', annotations='data.yaml', classes=['cat'])


YAMLS = {
    'names: [a\ntrain: x': 'expected YAML, but got',
    '- 1': 'expected a dict with names',
    'train: images/train': 'but got the names None',
    'names: {x: 1}\ntrain: a': "but got the names {'x': 1}",
    'names: [a]\ntrain: 3': 'but got train: 3',
    'names: [a]\ntrain: a\npath: [1]': 'path must be a folder',
    'names: [a]\nval: images/val': "has no split 'train', but val",
    '[' * 3000: 'expected YAML, but got',
}


@pytest.mark.parametrize('text', YAMLS)
def test_data_yaml_that_is_none(own, text):
    (own / 'yolo/data.yaml').write_text(text)
    with pytest.raises(ValueError, match=rf'data\.yaml:? .*{re.escape(YAMLS[text])}'):
        build(own / 'yolo', format='yolo', annotations='data.yaml', split='train')


def test_folders_of_data_yaml_that_travelled(own):
    for text in (
        'path: /home/somebody/datasets/shapes\ntrain: images/train\nval: images/val\nnames: [shape]\n',
        'train: ../images/train\nval: ../images/val\nnames: {0: shape}\n',
        'path: ../yolo\ntrain: [images/train]\nval: ./images/val\nnames: {0: shape}\n',
    ):
        (own / 'yolo/data.yaml').write_text(text)
        data = read_data_yaml(own / 'yolo/data.yaml')
        assert folder_of(data.splits['train'][0], data, own / 'yolo/data.yaml') == str(own / 'yolo/images/train')
        sizes = [
            len(build(own / 'yolo', format='yolo', annotations='data.yaml', split=one)) for one in ('train', 'val')
        ]
        assert sizes == [6, 2]
    assert label_path('/a/images/b/images/c/d.jpg') == '/a/images/b/labels/c/d.txt'
    # Without 'val', both sides are drawn of 'train'; a list in place of a folder.
    (own / 'yolo/list.txt').write_text('images/train/000.jpg\n./images/train/001.jpg\n\nimages/train/004.jpg\n')
    (own / 'yolo/data.yaml').write_text('train: list.txt\nnames: [shape]\n')
    kwargs = dict(format='yolo', annotations='data.yaml')
    sides = [[Path(own['img_path']).stem for own in infos(build(own / 'yolo', split=one, **kwargs))]
             for one in ('train', 'val')]  # fmt: skip
    assert sorted(sum(sides, [])) == ['000', '001', '004'] and len(sides[1]) == 1
    (own / 'yolo/data.yaml').write_text('train: nowhere\nnames: [shape]\n')
    with pytest.raises(FileNotFoundError, match="names 'nowhere', but there is none of"):
        build(own / 'yolo', split='train', **kwargs)


def test_paths_stay_inside(own, tmp_path_factory):
    outside = tmp_path_factory.mktemp('outside')
    for name in ('images', 'labels'):
        (outside / name).mkdir()
    Image.fromarray(np.zeros((4, 4, 3), np.uint8)).save(outside / 'images/a.png')
    (outside / 'labels/a.txt').write_text('0 0 0 1 0 1 1\n')
    (own / 'yolo/data.yaml').write_text(f'train: {outside}/images\nval: {outside}/images\nnames: [shape]\n')
    kwargs = dict(format='yolo', annotations='data.yaml', split='train')
    with pytest.raises(ValueError, match='which leads elsewhere; allow_outside=True reads it'):
        build(own / 'yolo', **kwargs)
    assert len(build(own / 'yolo', allow_outside=True, **kwargs)) == 1
    (own / 'yolo/list.txt').write_text(f'{outside}/images/a.png\n')
    (own / 'yolo/data.yaml').write_text('train: list.txt\nval: list.txt\nnames: [shape]\n')
    with pytest.raises(ValueError, match=r'list\.txt, line 1: expected a picture below'):
        build(own / 'yolo', **kwargs)
    with pytest.raises(ValueError, match='which leads elsewhere'):
        build(own / 'maps', annotations=str(outside))
    edit_json(own / 'lvis/lvis.json', lambda content: content['images'][0].update(coco_url='http://x/../../etc'))
    with pytest.raises(ValueError, match='which leads elsewhere'):
        build(own / 'lvis', format='coco', images='.', annotations='lvis.json')


def test_lvis_without_a_name(own):
    edit_json(own / 'lvis/lvis.json', lambda content: content['images'][1].pop('coco_url'))
    with pytest.raises(ValueError, match=r"lvis\.json, images\[1\] lacks the key 'file_name'"):
        build(own / 'lvis', format='coco', images='.', annotations='lvis.json')


def test_a_json_of_ones_own_may_leave_out_what_follows(own):
    path, kwargs = own / 'coco/annotations.json', dict(format='coco')
    whole = infos(build(own / 'coco', **kwargs))
    box = dict(image_id=1, bbox=[1, 2, 3, 4], area=12)

    def thin(content: dict) -> None:
        del content['categories']
        for one in content['annotations']:
            for key in ('id', 'bbox', 'area', 'category_id', 'iscrowd'):
                del one[key]
        content['annotations'].append(box)

    edit_json(path, thin)
    dataset = build(own / 'coco', **kwargs)
    assert dict(dataset.dropped) == {'boxes without a mask': 1}
    for one, other in zip(infos(dataset), whole, strict=True):
        assert [part['bbox'] for part in one['instances']] == [part['bbox'] for part in other['instances']]
        assert np.array_equal(instance_map(one), instance_map(other))
    rle = dict(size=[*SIZE], counts=[72 * 10 + 5, 20, 52, 20, 72 * 96 - 72 * 10 - 5 - 92])
    content = json.loads(path.read_text())
    path.write_text(json.dumps(dict(content, annotations=[dict(image_id=1, segmentation=rle)])))
    (instance,) = infos(build(own / 'coco', **kwargs))[0]['instances']
    assert (instance['bbox'], instance['area'], instance['ann_id']) == ([10, 5, 12, 25], 40, 1)
    path.write_text(json.dumps(dict(content, annotations=[dict(image_id=1, segmentation=[[1, 2]])])))
    with pytest.raises(ValueError, match=r"annotations\[0\] lacks the key 'bbox'"):
        build(own / 'coco', **kwargs)


def test_huge_pictures_are_refused_by_their_header(own, monkeypatch):
    monkeypatch.setenv('GENSEG_MAX_IMAGE_PIXELS', str(72 * 96 - 1))
    with pytest.raises(FileNotFoundError, match='no readable picture, such as .*at most 6911 pixels, .* says 72x96'):
        build(own / 'yolo', format='yolo', annotations='data.yaml', split='val')
    (item, *_) = infos(build(own / 'maps'))
    with pytest.raises(ValueError, match='at most 6911 pixels'):
        LoadInstanceMap()(item)


def test_endings_in_capitals_are_no_other_kind_of_file(own):
    masks = own / 'maps/masks'
    (masks / '000.png').rename(masks / '000.PNG')
    wanted = {info['img_id'] for info in infos(build(own / 'maps'))}
    assert '000' in wanted
    (masks / '001.PNG').write_bytes((masks / '001.png').read_bytes())
    dataset = build(own / 'maps')
    assert {info['img_id'] for info in infos(dataset)} == wanted
    assert list(dataset.skipped['the second map of a name']) == [str(masks / '001.PNG')]


def test_maps_that_lie_as_the_photograph_is_stored(own):
    Image.fromarray(np.ones((96, 72), np.uint8)).save(own / 'maps/masks/000.png')
    with pytest.raises(ValueError, match=r'but got \(96, 72\); is one of them turned, as EXIF'):
        instance_map(infos(build(own / 'maps'))[0])


def test_maps_of_another_size(own):
    Image.fromarray(np.ones((5, 5), np.uint8)).save(own / 'maps/masks/000.png')
    with pytest.raises(ValueError, match=r'000\.png: expected the size of the image .*\(72, 96\), but got \(5, 5\)'):
        instance_map(infos(build(own / 'maps'))[0])


@pytest.mark.parametrize(('kwargs', 'message'), [
    (dict(format='voc'), "format must be one of .*, but got 'voc'"),
    (dict(void=255, ids='rgb'), "void must be a value from 1 to 255 and goes with ids='index', but got 255 and 'rgb'"),
    (dict(void=0), 'void must be a value from 1 to 255'),
    (dict(ids='colour'), "ids must be one of .*, but got 'colour'"),
    (dict(classes=['a']), "classes goes with format='coco' and 'yolo', but got format='maps'"),
    (dict(rows=[1]), "rows go with format='rows', but got format='maps'"),
    (dict(images='none'), 'there is no folder of pictures'),
    (dict(annotations='none'), 'there is no folder of maps'),
    (dict(format='coco', annotations='none.json'), 'there is no json'),
    (dict(format='yolo', annotations='none.yaml'), 'there is no file'),
])  # fmt: skip
def test_wrong_arguments(made, kwargs, message):
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        build(made / 'maps', **kwargs)


def test_draws_follow_from_the_visit_in_any_process(made):
    pipeline = [
        dict(type='genseg_mm.LoadImage'),
        dict(type='genseg_mm.LoadInstanceMap'),
        dict(type='genseg_mm.RandomInstanceFlip', prob=0.5, direction='horizontal'),
        dict(type='genseg_mm.PackGenSegInputs'),
    ]
    dataset = build(made / 'maps', pipeline=pipeline)
    drawn = [dataset[Visit(3, visit, seed=7)]['inputs'].sum(0) for visit in range(8)]
    again = pickle.loads(pickle.dumps(dataset))
    assert all((again[Visit(3, visit, seed=7)]['inputs'].sum(0) == own).all() for visit, own in enumerate(drawn))
    assert any((own != drawn[0]).any() for own in drawn)


def test_rows_of_hugging_face(made, tmp_path):
    datasets = pytest.importorskip('datasets', reason="needs datasets: pip install 'genseg_mm[huggingface]'")
    maps = infos(build(made / 'maps'))
    saved = build(made / 'rows', format='rows')
    assert len(saved) == NUM
    for one, other in zip(infos(saved), maps, strict=True):
        assert one['img_path'].startswith('rows://') and np.array_equal(instance_map(one), instance_map(other))
    sides = [{item['img_id'] for item in infos(build(made / 'rows', format='rows', split=split))}
             for split in ('train', 'val')]  # fmt: skip
    assert len(sides[0] | sides[1]) == NUM and not sides[0] & sides[1]
    again = pickle.loads(pickle.dumps(build(made / 'rows', format='rows', pipeline=[dict(type='genseg_mm.LoadImage')])))
    assert again[0]['img'].shape == (*SIZE, 3)
    # The object itself, with polygons and RLE in a list; and a dict of splits.
    picture = Image.fromarray(np.zeros((8, 10, 3), np.uint8))
    shapes = json.dumps([[1, 1, 4, 1, 4, 4, 1, 4]])
    table = datasets.Dataset.from_dict(
        dict(
            photo=[picture], objects=[dict(segmentation=[[[1.0, 1, 4, 1, 4, 4, 1, 4]], [[5.0, 5, 9, 5, 9, 7, 5, 7]]])]
        ),
        features=datasets.Features(
            photo=datasets.Image(),
            objects=dict(segmentation=datasets.List(datasets.List(datasets.List(datasets.Value('float64'))))),
        ),
    )
    kwargs = dict(format='rows', images='photo', annotations='objects.segmentation')
    (item,) = infos(InstanceFolderDataset(rows=table, **kwargs))
    assert [one['area'] for one in item['instances']] == [9, 8] and np.bincount(instance_map(item).flat).tolist()[
        1:
    ] == [9, 8]
    splits = datasets.DatasetDict(train=table, validation=datasets.concatenate_datasets([table, table]))
    assert [len(InstanceFolderDataset(rows=splits, split=one, **kwargs)) for one in ('train', 'val')] == [1, 2]
    with pytest.raises(ValueError, match=r"expected one of the splits \['train', 'validation'\], but got split='test'"):
        InstanceFolderDataset(rows=splits, split='test', **kwargs)
    with pytest.raises(ValueError, match=r"expected the columns 'image' and 'mask', but got \['photo', 'objects'\]"):
        InstanceFolderDataset(rows=table, format='rows')
    with pytest.raises(ValueError, match='rows must be a datasets.Dataset, but got list'):
        InstanceFolderDataset(rows=[1], format='rows')
    with pytest.raises(ValueError, match='expected a folder that save_to_disk of datasets wrote, but got'):
        build(tmp_path, format='rows')
    assert shapes


def test_rows_without_their_package(made, monkeypatch):
    monkeypatch.setitem(__import__('sys').modules, 'datasets', None)
    with pytest.raises(ImportError, match=r"need the package datasets: pip install 'genseg_mm\[huggingface\]'"):
        build(made / 'maps', format='rows')
