"""IShapeDataset on the tiny copy: id maps and json say the same."""

import json
import runpy
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from genseg_mm.datasets import IShapeDataset, LoadImage, LoadInstanceMap

TOOL = Path(__file__).parents[2] / 'tools' / 'dataset_tools' / 'make_tiny_ishape.py'
make_tiny_ishape = runpy.run_path(str(TOOL))['make_tiny_ishape']
LOADING = [LoadImage(), LoadInstanceMap()]
ANNOTATIONS = 'coco_format-mask_encoding=rle-instances_2017.json'
# Not serialised: that is for training, and waits for the garbage collector each time.
build_ishape = partial(IShapeDataset, serialize_data=False)


@pytest.fixture
def root(tmp_path):
    return make_tiny_ishape(tmp_path / 'ishape_dataset')


def test_six_subsets_and_splits(root):
    for subset in ('antenna', 'branch', 'fence', 'hanger', 'log', 'wire'):
        names = {
            split: [item['img_id'] for item in build_ishape(root, subset=subset, split=split)]
            for split in ('train', 'val', None)
        }
        assert names['train'] == [f'{subset}/train/0000']
        assert names['val'] == [f'{subset}/val/0000', f'{subset}/val/0001']
        assert names[None] == names['train'] + names['val']
    assert build_ishape(root, subset='wire')[0]['subset'] == 'wire'


def test_ids_above_8_bits_stay(root):
    dataset = build_ishape(root, subset='log', pipeline=LOADING, test_mode=True)
    for item in dataset:
        with Image.open(item['instance_map_path']) as image:
            assert image.mode == 'I;16'
        assert np.unique(item['gt_instance_map']).tolist() == [0, 254, 255, 256]


@pytest.mark.parametrize('subset', ['antenna', 'fence'])
def test_json_and_id_map_have_the_same_masks(root, subset):
    maps = build_ishape(root, subset=subset, pipeline=LOADING, test_mode=True)
    coco = build_ishape(root, subset=subset, source='coco', pipeline=LOADING, test_mode=True)
    forms = set()
    for own, other in zip(maps, coco, strict=True):
        assert own['img_id'] == other['img_id'] and own['img_path'] == other['img_path']
        expected = np.where(own['gt_instance_map'] > 0, own['gt_instance_map'] - 253, 0)
        assert other['gt_instance_map'].tolist() == expected.tolist()
        forms |= {type(instance['mask']['counts']) for instance in other['instances']}
    assert forms == {str, list}


def test_a_hollow_object_has_its_hole(root):
    item = build_ishape(root, subset='hanger', source='coco', pipeline=LOADING, test_mode=True)[0]
    # frame 1 from (6, 8) to (82, 30), 3 pixels wide: its middle is ground
    assert item['gt_instance_map'][8, 40] == 1 and item['gt_instance_map'][30, 40] == 1
    assert item['gt_instance_map'][19, 40] == 0


def test_links_are_not_needed_and_may_be_broken(root):
    folder = root / 'wire/val/coco_format'
    assert (folder / 'instances_train2017.json').resolve() == (root / 'wire/val' / ANNOTATIONS)
    assert (folder / 'train2017' / '0001.jpg').is_file()
    for link in folder.iterdir():
        link.unlink()
        link.symlink_to('nowhere')
    for source in ('instance_map', 'coco'):
        assert len(build_ishape(root, subset='wire', source=source)) == 2


def test_missing_files_are_named(root):
    (root / 'log/val/instance_map/0001.png').unlink()
    with pytest.raises(FileNotFoundError, match='no instance map.*log/val/instance_map/0001.png'):
        build_ishape(root, subset='log')
    (root / 'log/val/image/0000.jpg').unlink()
    with pytest.raises(FileNotFoundError, match='no image, such as .*log/val/image/0000.jpg'):
        build_ishape(root, subset='log', source='coco')
    assert len(build_ishape(root, subset='log', source='coco', missing='skip')) == 1
    (root / 'wire/val' / ANNOTATIONS).unlink()
    with pytest.raises(FileNotFoundError, match='rle-instances_2017.json'):
        build_ishape(root, subset='wire', source='coco')
    (root / 'wire/train/image').rename(root / 'wire/train/images')
    with pytest.raises(FileNotFoundError, match='no folder, such as .*wire/train/image'):
        build_ishape(root, subset='wire', split='train')


def test_masks_of_another_size_name_the_picture(root):
    path = root / 'branch/val' / ANNOTATIONS
    content = json.loads(path.read_text())
    content['annotations'][0]['segmentation']['size'] = [64, 96]
    path.write_text(json.dumps(content))
    dataset = build_ishape(root, subset='branch', source='coco', pipeline=LOADING, test_mode=True)
    with pytest.raises(ValueError, match=r'0000.jpg, annotation 0: expected .*\(96, 96\), but got \(64, 96\)'):
        dataset[0]


def test_bad_arguments(root):
    for arguments, message in (
        (dict(subset='rope'), "subset must be one of .* but got 'rope'"),
        (dict(split='test'), "split must be one of .* but got 'test'"),
        (dict(source='rle'), "source must be one of .* but got 'rle'"),
    ):
        with pytest.raises(ValueError, match=message):
            build_ishape(root, **arguments)
