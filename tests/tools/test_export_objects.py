"""tools/dataset_tools/export_objects.py: what our readers find in an export is what the scenes hold."""

import runpy
from pathlib import Path

import cv2
import numpy as np
import pytest

from genseg_mm.datasets import (
    CocoCaptionsDataset,
    CocoInstanceDataset,
    GRefCOCODataset,
    ObjectScenesDataset,
    ReasonSegDataset,
    RefCOCODataset,
)
from genseg_mm.datasets.segmentations import decode_segmentation

TOOLS = Path(__file__).parents[2] / 'tools' / 'dataset_tools'
NUM = (3, 2, 4)
MASK = [dict(type='genseg_mm.LoadImage'), dict(type='genseg_mm.LoadReferringMask')]


@pytest.fixture(scope='module')
def bank(tmp_path_factory):
    folder = tmp_path_factory.mktemp('objects')
    made = runpy.run_path(str(TOOLS / 'make_tiny_objects.py'))['make_tiny_objects'](folder / 'objects')
    runpy.run_path(str(TOOLS / 'prepare_objects.py'))['prepare_objects'](folder / 'bank', made)
    return str(folder / 'bank')


@pytest.fixture(scope='module')
def exported(bank, tmp_path_factory):
    folder = tmp_path_factory.mktemp('exported')
    tool = runpy.run_path(str(TOOLS / 'export_objects.py'))
    lines = tool['export_objects'](folder, NUM, bank=bank, image_size=80, seed=3)
    assert [line.partition(':')[0] for line in lines] == list(tool['FORMATS'])
    return folder


def scenes(bank, split, task='referring', **settings):
    number = NUM[('train', 'val', 'test').index(split)]
    return ObjectScenesDataset(number, 80, task=task, split=split, seed=3, bank=bank, test_mode=True, **settings)


def test_coco(bank, exported):
    for split in ('train', 'val'):
        read = CocoInstanceDataset(
            str(exported / 'coco'),
            f'annotations/instances_{split}2017.json',
            dict(img=f'{split}2017/'),
            test_mode=True,
        )
        own = scenes(bank, split, 'instance')
        assert len(read) == len(own) and not read.dropped and not read.skipped
        for index in range(len(read)):
            item, scene = read[index], own.scene(index)
            np.testing.assert_array_equal(cv2.imread(item['img_path']), scene.image)
            assert len(item['instances']) == len(scene.objects)
            for number, instance in enumerate(item['instances']):
                mask = decode_segmentation(instance['mask'], 80, 80, '')
                np.testing.assert_array_equal(mask, scene.ids == number + 1)
                x0, y0, x1, y1 = scene.objects[number].box
                assert instance['bbox'] == [x0, y0, x1 + 1, y1 + 1]


@pytest.mark.parametrize('reader', [RefCOCODataset, GRefCOCODataset])
def test_referring(bank, exported, reader):
    only_one = reader is RefCOCODataset
    for part, split, wordings in (
        ('train', 'train', 'train'),
        ('val', 'val', 'train'),
        ('testA', 'test', 'train'),
        ('testB', 'test', 'held_out'),
    ):
        read = reader(data_root=str(exported / 'coco'), split=part, test_mode=True, pipeline=MASK)
        own = scenes(bank, split, wordings=wordings, expressions='each-kind')
        expected = {}
        for index in range(len(own)):
            item = own[index]
            targets = np.unique(item['gt_instance_map'][item['gt_seg_map'] == 1])
            if not only_one or len(targets) == 1:
                expected[item['img_id'], item['text']] = item['gt_seg_map'], item['img'], len(targets)
        assert len(read) == len(expected)
        for item in read:
            mask, image, number = expected[(item['img_id'] - 1) % 10_000_000, item['text']]
            np.testing.assert_array_equal(item['gt_seg_map'], mask)
            np.testing.assert_array_equal(item['img'], image)
            if not only_one:
                assert item['kind'] == ('no-target', 'one-target', 'multi-target')[min(number, 2)]
        assert not read.dropped


def test_captions(bank, exported):
    read = CocoCaptionsDataset(
        data_root=str(exported / 'coco'),
        ann_file='annotations/captions_train2014.json',
        data_prefix=dict(img_path='train2014/'),
        test_mode=True,
    )
    own = scenes(bank, 'train', 'text_to_image', caption='all')
    assert sorted(item['text'] for item in read) == sorted(item['text'] for item in own)


def test_reason_seg(bank, exported):
    found = 0
    for split in ('train', 'val', 'test'):
        read = ReasonSegDataset(
            data_root=str(exported / 'reason_seg'), split=split, sentence='all', test_mode=True, pipeline=MASK
        )
        owns = {own: scenes(bank, split, wordings=own) for own in ('train', 'held_out')}
        for item in read:
            number, wordings = item['img_id'].split('_', 1)
            scene = owns[wordings].scene(int(number))
            targets = {own.text: own.targets for own in owns[wordings].scene_expressions(int(number))}[item['text']]
            expected = np.isin(scene.ids, [target + 1 for target in targets])
            np.testing.assert_array_equal(item['gt_seg_map'] == 1, expected)
            assert item['length'] == ('long' if wordings == 'held_out' else 'short')
            found += 1
    assert found >= sum(NUM) + NUM[2]


def test_polygons_cover_a_mask_exactly():
    tool = runpy.run_path(str(TOOLS / 'export_objects.py'))
    rng = np.random.default_rng(0)
    for _ in range(30):
        mask = cv2.blur(rng.random((40, 50)), (3, 3)) > 0.52
        drawn = np.zeros((40, 50), np.uint8)
        for points in tool['polygons_of'](mask):
            assert len(points) >= 3
            cv2.polylines(drawn, [np.array([points], np.int32)], True, 1)
            cv2.fillPoly(drawn, np.array([points], np.int32), 1)
        np.testing.assert_array_equal(drawn == 1, mask)
    assert tool['polygons_of'](np.zeros((5, 5), bool)) == []
