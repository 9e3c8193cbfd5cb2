"""VirtualKITTI2Dataset on a tiny folder in the published layout."""

import shutil
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from mmengine.registry import DATASETS
from PIL import Image
from tiny_datasets import maker

from genseg_mm.datasets import LoadImage, LoadInstanceMap, PackGenSegInputs, RandomInstanceCrop, VirtualKITTI2Dataset
from genseg_mm.datasets.virtual_kitti2 import SCENES, VARIATIONS

make_tiny = maker('virtual_kitti2')
LOAD = (LoadImage(), LoadInstanceMap())
TINY = dict(scenes=('Scene01', 'Scene02'), variations=('fog', 'morning'))


@pytest.fixture(scope='module')
def tiny(tmp_path_factory):
    return make_tiny(tmp_path_factory.mktemp('vkitti2'))


@pytest.fixture
def own(tiny, tmp_path):
    return Path(shutil.copytree(tiny, tmp_path / 'vkitti2'))


def items(dataset) -> list[dict]:
    return [dataset.get_data_info(index) for index in range(len(dataset))]


def test_pairs_of_both_spellings_in_order(tiny):
    dataset = VirtualKITTI2Dataset(str(tiny), **TINY)
    found = items(dataset)
    assert len(found) == 2 * 2 * 2 * 3 and dataset.skipped == {}
    names = {'Scene01': 'instanceSegmentation', 'Scene02': 'instancesegmentation'}
    for item in found:
        frames = f'{tiny}/{item["scene"]}/{item["variation"]}/frames'
        camera, number = f'Camera_{item["camera"]}', f'{item["frame"]:05d}'
        assert item['img_path'] == f'{frames}/rgb/{camera}/rgb_{number}.jpg'
        folder = names[item['scene']]
        assert item['instance_map_path'] == f'{frames}/{folder}/{camera}/instancegt_{number}.png'
        assert item['ignore_background'] is True
    assert [(i['scene'], i['variation'], i['camera'], i['frame']) for i in found[:4]] == [
        ('Scene01', 'fog', 0, 0),
        ('Scene01', 'fog', 0, 1),
        ('Scene01', 'fog', 0, 2),
        ('Scene01', 'fog', 1, 0),
    ]


def test_settings_choose_scenes_variations_and_cameras(tiny):
    chosen = VirtualKITTI2Dataset(str(tiny), ['Scene02'], ['clone'], cameras=[1], ignore_background=False)
    assert {(i['scene'], i['variation'], i['camera']) for i in items(chosen)} == {('Scene02', 'clone', 1)}
    assert len(chosen) == 3 and items(chosen)[0]['ignore_background'] is False


def test_the_default_is_the_selection_of_the_paper(tmp_path):
    """5 scenes x 5 variations x 2 cameras; with the real 2,126 frames that is 21,260."""
    root = make_tiny(tmp_path, (20, 40), 1, SCENES, ('clone', *VARIATIONS, '15-deg-left'))
    found = items(VirtualKITTI2Dataset(str(root)))
    counts = Counter((item['scene'], item['variation']) for item in found)
    weather = ('morning', 'fog', 'rain', 'sunset', 'overcast')
    assert counts == {
        (scene, variation): 2
        for scene in ('Scene01', 'Scene02', 'Scene06', 'Scene18', 'Scene20')
        for variation in weather
    }


def test_ids_are_palette_indices_even_where_colours_repeat(tiny):
    item = VirtualKITTI2Dataset(str(tiny), pipeline=LOAD, **TINY)[0]
    with Image.open(item['instance_map_path']) as image:
        assert image.mode == 'P'
        indices, colours = np.array(image), np.array(image.convert('RGB'))
    assert item['gt_instance_map'].tolist() == indices.tolist()
    ids = np.unique(indices).tolist()
    assert ids == [0, 5, 6, 7, 8, 9, 10, 11, 13, 16, 18, 20, 21, 23, 25, 27, 29, 32, 39]
    assert colours[indices == 5][0].tolist() == colours[indices == 21][0].tolist()
    assert len(np.unique(colours.reshape(-1, 3), axis=0)) == len(ids) - 1  # colours lose one


def test_crop_shows_a_vehicle_and_empty_frames_are_kept(tiny):
    pipeline = [*LOAD, RandomInstanceCrop((48, 64)), PackGenSegInputs()]
    dataset = VirtualKITTI2Dataset(str(tiny), pipeline=pipeline, **TINY)
    np.random.seed(0)
    for index, info in enumerate(items(dataset)):
        sample = dataset[index]['data_samples']
        shown = sample.gt_instance_map.data.unique().tolist()
        empty = info['scene'] == 'Scene02' and info['frame'] == 2
        assert (shown == [0]) == empty
        assert sample.ignore_background is True and sample.img_shape == (48, 64)
    assert dataset.num_empty == dataset.pipeline.transforms[2].num_empty == 4


def test_missing_files_and_folders(own):
    rgb = own / 'Scene01/fog/frames/rgb/Camera_0/rgb_00001.jpg'
    ids = own / 'Scene02/fog/frames/instancesegmentation/Camera_1/instancegt_00000.png'
    rgb.unlink()
    ids.unlink()
    with pytest.raises(FileNotFoundError, match=r'no image, such as .*rgb_00001.*no instance map'):
        VirtualKITTI2Dataset(str(own), **TINY)
    dataset = VirtualKITTI2Dataset(str(own), missing='skip', **TINY)
    assert dataset.skipped == {'no image': [str(rgb)], 'no instance map': [str(ids)]}
    assert len(dataset) == 22
    with pytest.raises(FileNotFoundError, match='no folder, such as .*Scene01/rain/frames/rgb'):
        VirtualKITTI2Dataset(str(own), ['Scene01'])
    dataset = VirtualKITTI2Dataset(str(own), missing='skip')
    # 3 scenes x 5 variations and 2 scenes x 3, each with 2 cameras of 2 folders
    assert len(dataset.skipped['no folder']) == (15 + 6) * 4 and len(dataset) == 22
    shutil.rmtree(own / 'Scene01/fog/frames/rgb/Camera_0')
    (own / 'Scene01/fog/frames/rgb/Camera_0').mkdir()
    for path in (own / 'Scene01/fog/frames/instanceSegmentation/Camera_0').iterdir():
        path.unlink()
    with pytest.raises(FileNotFoundError, match='no picture in the folder, such as .*Camera_0'):
        VirtualKITTI2Dataset(str(own), ['Scene01'], ['fog'])


def test_colours_in_place_of_indices_are_refused(own):
    dataset = VirtualKITTI2Dataset(str(own), pipeline=LOAD, **TINY)
    path = items(dataset)[0]['instance_map_path']
    with Image.open(path) as image:
        image.convert('RGB').save(path)
    with pytest.raises(ValueError, match='instancegt_00000.png: expected a palette PNG .* got mode RGB'):
        dataset[0]


def test_ids_of_another_size_are_refused(own):
    dataset = VirtualKITTI2Dataset(str(own), pipeline=LOAD, **TINY)
    Image.new('P', (31, 9)).save(items(dataset)[4]['instance_map_path'])
    with pytest.raises(ValueError, match=r'\(94, 310\), but got \(9, 31\)'):
        dataset[4]


@pytest.mark.parametrize('wrong', [dict(scenes='Scene01'), dict(variations=[]), dict(cameras=(0, 0))])
def test_settings_are_lists_of_different_entries(tiny, wrong):
    with pytest.raises(ValueError, match='must be a list of different entries, but got'):
        VirtualKITTI2Dataset(str(tiny), **wrong)


def test_it_is_found_by_name(tiny):
    cfg = dict(type='genseg_mm.VirtualKITTI2Dataset', data_root=str(tiny), **TINY)
    assert len(DATASETS.build(cfg)) == 24
