"""HypersimDataset on tiny folders in the official and the converted layout."""

import shutil
from collections import Counter
from pathlib import Path

import cv2
import h5py
import numpy as np
import pytest
from mmengine.registry import DATASETS
from mmseg.datasets.transforms import RandomFlip, Resize
from tiny_datasets import maker

from genseg_mm.datasets import HypersimDataset, KeepClasses, LoadImage, LoadInstanceMap
from genseg_mm.datasets.hypersim import Counts, Frame, read_index, read_split, write_index

make_tiny_hypersim = maker('hypersim')
LOAD = (LoadImage(), LoadInstanceMap())
SPLIT = 'metadata_images_split_scene_v1.csv'


@pytest.fixture(scope='module')
def official(tmp_path_factory):
    return make_tiny_hypersim(tmp_path_factory.mktemp('official') / 'hypersim')


@pytest.fixture(scope='module')
def converted(tmp_path_factory):
    root = tmp_path_factory.mktemp('converted') / 'hypersim'
    return make_tiny_hypersim(root, converted=True)


@pytest.fixture
def own(official, tmp_path):
    """A copy to damage."""
    return Path(shutil.copytree(official, tmp_path / 'hypersim'))


def items(dataset) -> list[dict]:
    return [dataset.get_data_info(index) for index in range(len(dataset))]


def stored_ids(path: str) -> np.ndarray:
    with h5py.File(path) as file:
        return file['dataset'][()]


def test_only_colour_previews_with_their_own_ids(official):
    dataset = HypersimDataset(str(official), pipeline=LOAD)
    assert len(dataset) == 18 and dataset.skipped == {}
    for index, info in enumerate(items(dataset)):
        frame = f'{info["scene"]}/images/scene_{info["camera"]}_'
        name = f'frame.{info["frame"]:04d}'
        assert info['img_path'] == f'{official}/{frame}final_preview/{name}.color.jpg'
        path = f'{official}/{frame}geometry_hdf5/{name}.semantic_instance.hdf5'
        assert info['instance_map_path'] == path
        assert (info['img_id'], info['subset'], info['ignore_background']) == (index, 'all', False)
    assert [(i['scene'], i['camera'], i['frame']) for i in items(dataset)[:4]] == [
        ('ai_001_001', 'cam_00', 0),
        ('ai_001_001', 'cam_00', 2),
        ('ai_001_001', 'cam_00', 3),
        ('ai_001_001', 'cam_01', 0),
    ]


def test_ids_over_255_stay_and_minus_one_is_background(official):
    item = HypersimDataset(str(official), pipeline=LOAD)[1]
    stored = stored_ids(item['instance_map_path'])
    assert stored.dtype == np.int16 and stored.min() == -1
    assert item['gt_instance_map'].tolist() == np.where(stored == -1, 0, stored).tolist()
    ids = [0, 3, 17, 18, 255, 256, 260, 517, 1030, 2051, 4165, 4166]
    assert np.unique(item['gt_instance_map']).tolist() == ids
    # the picture shows what the map says: an object's colours differ from the wall around it
    grey = item['img'].astype(float)
    inside = grey[item['gt_instance_map'] == 2051].mean(axis=0)
    assert np.abs(inside - grey[item['gt_instance_map'] == 0].mean(axis=0)).max() > 30


def test_resize_and_flip_keep_every_id_exact(official):
    pipeline = [*LOAD, Resize(scale=(64, 48), keep_ratio=False), RandomFlip(prob=1.0)]
    item = HypersimDataset(str(official), pipeline=pipeline)[1]
    stored = np.maximum(stored_ids(item['instance_map_path']), 0)  # (96, 128)
    assert item['gt_instance_map'].tolist() == stored[::2, ::2][:, ::-1].tolist()
    assert item['gt_instance_map'].dtype == np.int32
    assert item['gt_instance_map'].max() == 4166 and item['img'].shape == (48, 64, 3)
    big = [*LOAD, Resize(scale=(300, 224), keep_ratio=False)]
    large = HypersimDataset(str(official), pipeline=big)[1]['gt_instance_map']
    assert np.unique(large).tolist() == np.unique(stored).tolist()


@pytest.mark.parametrize(
    ('partition', 'scenes'),
    [
        ('train', {'ai_001_001': 6, 'ai_001_002': 3, 'ai_001_003': 3}),
        ('val', {'ai_002_001': 3}),
        ('test', {'ai_003_001': 3}),
        (None, dict(ai_001_001=6, ai_001_002=3, ai_001_003=3, ai_002_001=3, ai_003_001=3)),
    ],
)
def test_official_split_takes_public_frames_of_a_partition(official, partition, scenes):
    dataset = HypersimDataset(str(official), split_file=SPLIT, partition=partition)
    found = items(dataset)
    assert Counter(item['scene'] for item in found) == scenes
    assert {item['frame'] for item in found} == {0, 2, 3}  # 1 was never published
    assert {item['subset'] for item in found} == {partition or 'all'}


def test_converted_layout_has_the_same_instances(official, converted):
    here, there = HypersimDataset(str(official)), HypersimDataset(str(converted))
    assert len(there) == len(here) == 18
    for first, second in zip(items(here), items(there), strict=True):
        assert [first[key] for key in ('scene', 'camera', 'frame')] == [
            second[key] for key in ('scene', 'camera', 'frame')
        ]
        ids = LoadInstanceMap()(dict(first))['gt_instance_map']
        codes = LoadInstanceMap()(dict(second))['gt_instance_map']
        assert ((ids == 0) == (codes == 0)).all()
        pairs = set(zip(ids.ravel().tolist(), codes.ravel().tolist(), strict=True))
        assert len(pairs) == len(np.unique(ids)) == len(np.unique(codes))
        assert codes.max() > 65535 or ids.max() == 0
        assert cv2.imread(first['img_path']).tolist() == cv2.imread(second['img_path']).tolist()


def test_layout_is_recognised_or_asked_for(official, converted, tmp_path):
    assert len(HypersimDataset(str(official), layout='official')) == 18
    with pytest.raises(FileNotFoundError, match=r"but got \['official'\] for layout='converted'"):
        HypersimDataset(str(official), layout='converted')
    with pytest.raises(FileNotFoundError, match="but got neither for layout='auto'"):
        HypersimDataset(str(tmp_path))
    both = shutil.copytree(converted, tmp_path / 'both')
    (both / 'ai_001_001').mkdir()
    with pytest.raises(ValueError, match='holds both layouts'):
        HypersimDataset(str(both))
    assert len(HypersimDataset(str(both), layout='converted')) == 18
    with pytest.raises(ValueError, match="layout must be one of .* but got 'png'"):
        HypersimDataset(str(official), layout='png')


def index_of(root: Path, **changes) -> dict[Frame, Counts]:
    counts = {}
    for item in items(HypersimDataset(str(root))):
        frame = Frame(item['scene'], item['camera'], item['frame'])
        counts[frame] = Counts(*changes.get(item['scene'], (12, 20)))
    return counts


def test_index_leaves_out_by_count_and_says_how_many(own):
    counts = index_of(own, ai_001_002=(0, 0), ai_002_001=(9, 9), ai_003_001=(9, 30))
    counts[Frame('ai_001_001', 'cam_00', 2)] = Counts(-1, 20)
    write_index(own / 'index.csv', counts, dict(min_instances=1, min_scene_instances=10))
    path = dict(index_file='index.csv')

    def scenes(dataset):
        return Counter(item['scene'] for item in items(dataset))

    dataset = HypersimDataset(str(own), **path)
    assert scenes(dataset) == dict(ai_001_001=5, ai_001_003=3, ai_003_001=3)
    assert {reason: len(paths) for reason, paths in dataset.skipped.items()} == {
        'unreadable instance map': 1,
        'fewer than 10 instances in the scene': 6,
    }
    stricter = HypersimDataset(str(own), min_instances=10, **path)
    assert scenes(stricter) == dict(ai_001_001=5, ai_001_003=3)
    assert len(stricter.skipped['fewer than 10 instances']) == 3
    every = HypersimDataset(str(own), min_instances=0, min_scene_instances=0, **path)
    assert len(every) == 17
    only = HypersimDataset(str(own), min_scene_instances=0, **path)
    assert len(only.skipped['fewer than 1 instances']) == 3


def test_index_survives_writing_and_tells_its_settings(tmp_path):
    counts = {Frame('ai_001_002', 'cam_01', 7): Counts(3, 40), Frame('ai_001_001', 'cam_00', 0): Counts(-1, 5)}
    write_index(tmp_path / 'a.csv', counts, dict(min_instances=2, layout='official'))
    assert (tmp_path / 'a.csv').read_text().splitlines() == [
        '# min_instances=2 layout=official',
        'scene_name,camera_name,frame_id,num_instances,scene_instances',
        'ai_001_001,cam_00,0,-1,5',
        'ai_001_002,cam_01,7,3,40',
    ]
    assert read_index(tmp_path / 'a.csv') == (counts, dict(min_instances='2', layout='official'))
    assert list(tmp_path.iterdir()) == [tmp_path / 'a.csv']


def test_index_that_does_not_fit_says_how_to_make_it(own):
    command = r'prepare_hypersim.py .*hypersim --out .*index.csv'
    with pytest.raises(ValueError, match=rf'min_instances=10 .*need index_file.*{command}'):
        HypersimDataset(str(own), min_instances=10)
    with pytest.raises(FileNotFoundError, match=rf'no index .*{command}'):
        HypersimDataset(str(own), index_file='index.csv')
    counts = index_of(own)
    del counts[Frame('ai_002_001', 'cam_00', 3)]
    write_index(own / 'index.csv', counts, {})
    with pytest.raises(ValueError, match=rf'1 of 18 frames, such as ai_002_001/cam_00/frame.0003.*{command}'):
        HypersimDataset(str(own), index_file='index.csv')
    assert len(HypersimDataset(str(own), SPLIT, 'train', index_file='index.csv')) == 12
    (own / 'index.csv').write_text('a,b\n1,2\n')
    with pytest.raises(ValueError, match=r"index.csv, line 1: expected the columns .* but got \['a', 'b'\]"):
        HypersimDataset(str(own), index_file='index.csv')


def test_split_file_that_does_not_fit(own):
    with pytest.raises(ValueError, match="partition='train' needs split_file"):
        HypersimDataset(str(own), partition='train')
    with pytest.raises(ValueError, match="partition must be one of .* but got 'dev'"):
        HypersimDataset(str(own), SPLIT, 'dev')
    with pytest.raises(FileNotFoundError, match='no file .*nothing.csv'):
        HypersimDataset(str(own), 'nothing.csv')
    lines = (own / SPLIT).read_text().splitlines()
    (own / 'train.csv').write_text('\n'.join(line for line in lines if not line.endswith('val')))
    with pytest.raises(ValueError, match=r"no public frame of partition 'val'; it has \['test', 'train'\]"):
        read_split(own / 'train.csv', 'val')
    (own / 'bad.csv').write_text(f'{lines[0]}\nai_001_001,cam_00,first,True,,train\n')
    with pytest.raises(ValueError, match='frame_id to be a whole number'):
        HypersimDataset(str(own), 'bad.csv')


def test_missing_files_of_a_split_are_an_error_or_counted(own):
    first, second, third = (item for item in items(HypersimDataset(str(own), SPLIT, 'val')))
    Path(first['img_path']).unlink()
    Path(second['instance_map_path']).unlink()
    for split in (SPLIT, None):
        with pytest.raises(FileNotFoundError, match=r'1 left out .* no image.*1 left out .* no instance map'):
            HypersimDataset(str(own), split)
    dataset = HypersimDataset(str(own), SPLIT, 'val', missing='skip')
    assert [item['img_path'] for item in items(dataset)] == [third['img_path']]
    assert dataset.skipped == {'no image': [first['img_path']], 'no instance map': [second['instance_map_path']]}
    shutil.rmtree(own / 'ai_001_003')
    dataset = HypersimDataset(str(own), SPLIT, 'train', missing='skip')
    assert len(dataset) == 9 and len(dataset.skipped['no image']) == 3


def test_damaged_ids_are_named_when_they_are_read(own):
    dataset = HypersimDataset(str(own), pipeline=LOAD)
    path = Path(items(dataset)[0]['instance_map_path'])
    path.write_bytes(path.read_bytes()[:300])
    with pytest.raises(ValueError, match='frame.0000.semantic_instance.hdf5: expected an HDF5 file'):
        dataset[0]
    with h5py.File(path, 'w') as file:
        file['dataset'] = np.ones((48, 64), np.int16)
    with pytest.raises(ValueError, match=r'\(96, 128\), but got \(48, 64\)'):
        dataset[0]


def test_scene_without_instances_is_redrawn(official):
    kept = HypersimDataset(str(official), pipeline=LOAD)
    bare = next(i for i, item in enumerate(items(kept)) if item['scene'] == 'ai_001_002')
    assert kept[bare]['gt_instance_map'].max() == 0 and kept.num_empty == 1
    redrawn = HypersimDataset(str(official), pipeline=LOAD, empty='redraw')
    np.random.seed(0)
    found = [redrawn[bare] for _ in range(8)]
    assert all(item['gt_instance_map'].max() > 0 for item in found)
    assert all(item['scene'] != 'ai_001_002' for item in found) and redrawn.num_empty >= 8


def test_classes_can_be_kept_by_the_semantic_file(official, converted):
    # the tiny files have class 1 + id % 40: of 3, 17, 18, ..., 4166 only 2051 has class 12
    item = HypersimDataset(str(official), pipeline=[*LOAD, KeepClasses([12])])[1]
    assert np.unique(item['gt_instance_map']).tolist() == [0, 2051]
    assert 'semantic_map_path' not in HypersimDataset(str(converted))[0]


def test_it_is_found_by_name(official):
    cfg = dict(type='genseg_mm.HypersimDataset', data_root=str(official), indices=2)
    assert len(DATASETS.build(cfg)) == 2
