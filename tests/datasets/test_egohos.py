"""EgoHOSDataset on the tiny copy."""

import runpy
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from genseg_mm.datasets import EgoHOSDataset, LoadImage, LoadInstanceMap

TOOL = Path(__file__).parents[2] / 'tools' / 'dataset_tools' / 'make_tiny_egohos.py'
make_tiny_egohos = runpy.run_path(str(TOOL))['make_tiny_egohos']
LOADING = [LoadImage(), LoadInstanceMap()]
# Not serialised: that is for training, and waits for the garbage collector each time.
build_egohos = partial(EgoHOSDataset, serialize_data=False)


@pytest.fixture
def root(tmp_path):
    return make_tiny_egohos(tmp_path / 'egohos')


def ids(root, **kwargs):
    dataset = build_egohos(root, pipeline=LOADING, test_mode=True, **kwargs)
    return [np.unique(item['gt_instance_map'])[1:].tolist() for item in dataset]


def test_splits_and_names_without_files_of_macos(root):
    names = {
        split: [item['img_id'] for item in build_egohos(root, split=split)]
        for split in ('train', 'val', 'test_indomain', 'test_outdomain')
    }
    assert names == dict(
        train=['train/ego4d_0001', 'train/epick_0002'],
        val=['val/thu_0003'],
        test_indomain=[f'test_indomain/{n}' for n in ('ego4d_0004', 'ego4d_0005', 'escape_0006')],
        test_outdomain=['test_outdomain/youtube_0007'],
    )
    assert (root / 'test_indomain/image/._ego4d_0004.jpg').is_file()
    item = build_egohos(root, split='val', subset='v')[0]
    assert Path(item['instance_map_path']) == root / 'val/label/thu_0003.png'
    assert item['subset'] == 'v'


def test_all_eight_roles(root):
    path = root / 'test_outdomain/label/youtube_0007.png'
    with Image.open(path) as image:
        label = np.zeros(image.size[::-1], np.uint8)
    label[:9, 5] = range(9)
    Image.fromarray(label).save(path)
    for roles, expected in (
        ('all', [1, 2, 3, 4, 5, 6, 7, 8]),
        ('hands', [1, 2]),
        ('objects', [3, 4, 5, 6, 7, 8]),
        ([8, 2], [2, 8]),
    ):
        assert ids(root, split='test_outdomain', ids=roles) == [expected]


def test_roles_and_components(root):
    assert ids(root) == [[1, 2, 3, 6], [1, 2, 5], [1, 2, 3, 4]]
    assert ids(root, instances='components') == [
        [10001, 20001, 30001, 60001],
        [10001, 20001, 50001],
        [10001, 20001, 30001, 40001, 40002],  # the object in the left hand lies before it
    ]
    # the bar of 80 x 14 pixels from x = 30 on, without the column x = 56 to 73
    item = build_egohos(root, instances='components', pipeline=LOADING, test_mode=True)[2]
    assert (item['gt_instance_map'] == 40001).sum() == 26 * 14
    assert (item['gt_instance_map'] == 40002).sum() == 36 * 14
    whole = build_egohos(root, pipeline=LOADING, test_mode=True)[2]
    assert (whole['gt_instance_map'] == 4).sum() == 62 * 14


def test_choice_of_roles(root):
    assert ids(root, ids='hands') == [[1, 2]] * 3
    assert ids(root, ids='objects') == [[3, 6], [5], [3, 4]]
    assert ids(root, ids=[5]) == [[], [5], []]
    assert ids(root, ids='objects', instances='components', min_area=400)[2] == [30001, 40002]


def test_ids_that_are_no_role_are_refused(root):
    path = root / 'test_indomain/label/ego4d_0005.png'
    labels = np.array(Image.open(path))
    labels[0, :2] = 9, 30
    Image.fromarray(labels).save(path)
    dataset = build_egohos(root, pipeline=LOADING, test_mode=True)
    with pytest.raises(ValueError, match=r'ego4d_0005.png: expected the labels .*but got \[9, 30\]'):
        dataset[1]


def test_missing_files_and_bad_arguments(root):
    (root / 'test_indomain/label/ego4d_0005.png').unlink()
    (root / 'test_indomain/image/escape_0006.jpg').unlink()
    with pytest.raises(FileNotFoundError, match='no instance map.*ego4d_0005.png; .*no image.*escape_0006.jpg'):
        build_egohos(root)
    assert len(build_egohos(root, missing='skip')) == 1
    (root / 'val/label').rename(root / 'val/labels')
    with pytest.raises(FileNotFoundError, match='no folder, such as .*val/label'):
        build_egohos(root, split='val')
    for arguments, message in (
        (dict(split='test'), "split must be one of .* but got 'test'"),
        (dict(ids='feet'), "ids must be one of .* but got 'feet'"),
        (dict(ids=[0, 1]), r'labels must be some of \[1, 2, .*but got \[0, 1\]'),
        (dict(instances='classes'), "instances must be 'roles' or 'components', but got 'classes'"),
    ):
        with pytest.raises(ValueError, match=message):
            build_egohos(root, **arguments)
