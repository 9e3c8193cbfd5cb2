"""Masks, instance maps, prompts and packing by hand-worked values."""

import numpy as np
import pytest
import torch
from PIL import Image

from genseg_mm.datasets.transforms import LoadReferringMask, PackGenSegInputs, PointPrompt, TextPrompt
from genseg_mm.datasets.transforms.instances import LoadInstanceMap

SQUARE = [0, 0, 4, 0, 4, 4, 0, 4]  # pixels 0..3 of both axes
SHIFTED = [2, 2, 6, 2, 6, 6, 2, 6]


def test_referring_mask_is_the_or_of_all_parts():
    results = dict(height=8, width=8, segmentations=[[SQUARE, SHIFTED]], img_path='a.jpg')
    mask = LoadReferringMask()(results)['gt_seg_map']
    expected = np.zeros((8, 8), np.uint8)
    expected[:4, :4] = expected[2:6, 2:6] = 1
    assert mask.tolist() == expected.tolist() and mask.max() == 1  # an overlap is 1, not 2
    assert results['seg_fields'] == ['gt_seg_map']
    two = dict(height=8, width=8, segmentations=[[SQUARE], [SHIFTED]], img_path='a.jpg')
    assert LoadReferringMask()(two)['gt_seg_map'].tolist() == expected.tolist()
    nothing = dict(height=8, width=8, segmentations=[], img_path='a.jpg')
    assert LoadReferringMask()(nothing)['gt_seg_map'].sum() == 0


def test_referring_mask_reads_rle_and_names_bad_polygons():
    rle = dict(size=[2, 3], counts=[1, 2, 3])  # column-major: 0, 1 1, 0 0 0
    results = dict(height=2, width=3, segmentations=[rle])
    assert LoadReferringMask()(results)['gt_seg_map'].tolist() == [[0, 1, 0], [1, 0, 0]]
    with pytest.raises(ValueError, match=r'a.jpg, annotations \[7\].*at least 3 points.*\[4\]'):
        LoadReferringMask()(dict(height=8, width=8, segmentations=[[[0, 0, 1, 1]]], img_path='a.jpg', ann_ids=[7]))
    with pytest.raises(ValueError, match=r'size \(8, 8\), but got \(2, 3\)'):
        LoadReferringMask()(dict(height=8, width=8, segmentations=[rle]))


IDS = np.array([[0, 1, 300], [2, 2, 300]])


@pytest.mark.parametrize('kind', ['palette', '16-bit', 'rgb'])
def test_instance_map_from_png_keeps_the_ids(tmp_path, kind):
    path = tmp_path / 'ids.png'
    if kind == 'palette':
        ids = IDS % 256
        image = Image.fromarray(ids.astype(np.uint8), mode='P')
        image.putpalette(list(range(255, -1, -1)) * 3)
        image.save(path)
    elif kind == '16-bit':
        ids = IDS
        Image.fromarray(ids.astype(np.uint16)).save(path)
    else:
        ids = IDS + 70_000
        coded = np.stack([ids >> 16, ids >> 8 & 255, ids & 255], -1)
        Image.fromarray(coded.astype(np.uint8)).save(path)
    results = LoadInstanceMap()(dict(instance_map_path=str(path), ori_shape=(2, 3)))
    assert results['gt_instance_map'].tolist() == ids.tolist()
    assert results['gt_instance_map'].dtype == np.int32


def test_instance_map_from_mmdet_instances_paints_later_ones_on_top():
    instances = [
        dict(mask=[SQUARE], ignore_flag=0),
        dict(mask=[SQUARE], ignore_flag=1),
        dict(mask=[SHIFTED], ignore_flag=0),
    ]
    instance_map = LoadInstanceMap()(dict(instances=instances, ori_shape=(8, 8)))['gt_instance_map']
    assert instance_map[1].tolist() == [1, 1, 1, 1, 0, 0, 0, 0]
    assert instance_map[3].tolist() == [1, 1, 2, 2, 2, 2, 0, 0]


def test_bad_instance_maps_name_the_file(tmp_path):
    path = tmp_path / 'ids.png'
    with pytest.raises(FileNotFoundError, match='ids.png'):
        LoadInstanceMap()(dict(instance_map_path=str(path)))
    path.write_bytes(b'no picture')
    with pytest.raises(ValueError, match='ids.png: expected a PNG'):
        LoadInstanceMap()(dict(instance_map_path=str(path)))
    Image.fromarray(np.zeros((2, 3), np.uint8)).save(path)
    with pytest.raises(ValueError, match=r'ids.png.*a.jpg \(4, 4\), but got \(2, 3\)'):
        LoadInstanceMap()(dict(instance_map_path=str(path), ori_shape=(4, 4), img_path='a.jpg'))
    Image.fromarray(np.zeros((2, 3, 4), np.uint8)).save(path)
    with pytest.raises(ValueError, match='but got mode RGBA'):
        LoadInstanceMap()(dict(instance_map_path=str(path), ori_shape=(2, 3)))
    with pytest.raises(ValueError, match=r"but got the keys \['img'\]"):
        LoadInstanceMap()(dict(img=None))


def test_text_prompt():
    results = TextPrompt('Segment {}.')(dict(text=' The LEFT one '))
    assert results == dict(text='Segment the left one.', expression='the left one')
    assert TextPrompt(lower=False)(dict(text='A b'))['text'] == 'A b'
    with pytest.raises(ValueError, match="exactly once, but got 'Segment'"):
        TextPrompt('Segment')
    with pytest.raises(ValueError, match="sample of 'a.jpg', but got None"):
        TextPrompt()(dict(img_path='a.jpg'))


def instance_map():
    ids = np.zeros((9, 12), np.int32)
    ids[1:8, 1:8] = 5
    ids[0, 11] = 9
    return ids


def test_points_lie_inside_their_instance_and_follow_the_seed():
    draws = {}
    for seed in (0, 0, 1):
        results = PointPrompt(num_points=3, seed=seed)(dict(gt_instance_map=instance_map(), sample_idx=2))
        assert results['point_ids'].tolist() == [5, 9] and results['points'].shape == (2, 3, 2)
        for own, points in zip(results['point_ids'], results['points'], strict=True):
            assert [instance_map()[int(y), int(x)] for x, y in points] == [own] * 3
        assert (results['point_labels'] == 1).all()
        draws.setdefault(seed, []).append(results['points'].tolist())
    assert draws[0][0] == draws[0][1] != draws[1][0]
    other = PointPrompt(num_points=3)(dict(gt_instance_map=instance_map(), sample_idx=3))
    assert other['points'].tolist() != draws[0][0]


def test_a_point_does_not_move_when_another_instance_comes():
    alone = instance_map()
    alone[0, 11] = 0
    first = PointPrompt()(dict(gt_instance_map=alone))['points'][0]
    assert first.tolist() == PointPrompt()(dict(gt_instance_map=instance_map()))['points'][0].tolist()


def test_deepest_point_min_area_and_empty_maps():
    results = PointPrompt(mode='deepest', min_area=2)(dict(gt_instance_map=instance_map()))
    assert results['points'].tolist() == [[[4.0, 4.0]]]  # centre of the 7 x 7 square, as (x, y)
    results = PointPrompt()(dict(gt_instance_map=np.zeros((4, 4), np.int32)))
    assert results['points'].shape == (0, 1, 2) and results['point_ids'].tolist() == []
    with pytest.raises(ValueError, match="'deepest', but got 'centre'"):
        PointPrompt(mode='centre')
    with pytest.raises(ValueError, match='but got 2'):
        PointPrompt(mode='deepest', num_points=2)
    with pytest.raises(ValueError, match='put LoadInstanceMap before it'):
        PointPrompt()({})


def test_packing_keeps_values_and_ids():
    image = np.arange(24, dtype=np.uint8).reshape(2, 4, 3)
    mask = np.array([[0, 1, 255, 0]] * 2, np.uint8)
    ids = np.array([[0, 70_000, 1, 2]] * 2, np.int32)
    packed = PackGenSegInputs()(dict(img=image, gt_seg_map=mask, gt_instance_map=ids, text='a', task='mask', junk=1))
    assert packed['inputs'][:, 1, 2].tolist() == image[1, 2].tolist()
    sample = packed['data_samples']
    assert sample.gt_sem_seg.data.tolist() == mask[None].tolist()
    assert sample.gt_instance_map.data.tolist() == ids[None].tolist()
    assert sample.gt_instance_map.data.dtype == torch.int64
    assert sample.metainfo == dict(text='a', task='mask')
