"""The index of tools/dataset_tools/prepare_hypersim.py: counts, damaged files, resuming."""

import json
import runpy
from pathlib import Path

import h5py
import numpy as np
import pytest
from tiny_datasets import TOOLS, maker

from genseg_mm.datasets.hypersim import Counts, Frame, HypersimDataset, read_index
from genseg_mm.datasets.instance_maps import read_instance_map, write_plain_map

TOOL = runpy.run_path(str(TOOLS / 'prepare_hypersim.py'))
prepare_hypersim, instance_ids = TOOL['prepare_hypersim'], TOOL['instance_ids']
make_tiny_hypersim = maker('hypersim')


@pytest.fixture
def root(tmp_path):
    return make_tiny_hypersim(tmp_path / 'hypersim')


def map_path(root: Path, scene: str, number: int) -> Path:
    folder = root / scene / 'images' / 'scene_cam_00_geometry_hdf5'
    return folder / f'frame.{number:04d}.semantic_instance.hdf5'


def test_ids_of_a_map():
    ids = np.array([[9, 9, 0, 4166], [0, 0, 0, 0], [300, 9, 9, 2]])
    assert instance_ids(ids) == [2, 9, 300, 4166]
    assert instance_ids(np.zeros((3, 3), int)) == []
    random = np.random.default_rng(0).integers(0, 50, (20, 20))
    assert instance_ids(random) == np.unique(random[random > 0]).tolist()


def test_counts_of_frames_and_scenes(root):
    text, whole = prepare_hypersim(root, root / 'index.csv')
    counts, settings = read_index(root / 'index.csv')
    assert whole and len(counts) == 18
    assert counts[Frame('ai_001_001', 'cam_00', 2)] == Counts(11, 12)
    assert counts[Frame('ai_001_002', 'cam_00', 0)] == Counts(0, 0)
    assert counts[Frame('ai_002_001', 'cam_00', 3)] == Counts(3, 3)
    assert settings == dict(min_instances='1', min_scene_instances='10', layout='official')
    assert text.splitlines()[:3] == [
        '18 frames of 5 scenes; 1 scenes have no instance at all',
        '       6 frames dropped: 2 scenes with fewer than 10 instances',
        '       0 frames dropped: fewer than 1 instances',
    ]
    assert '      12 frames kept' in text
    assert len(HypersimDataset(str(root), index_file='index.csv')) == 12
    assert sorted(path.name for path in root.glob('*.csv*')) == ['index.csv', 'metadata_images_split_scene_v1.csv']


def test_converted_layout_counts_the_same(root, tmp_path):
    converted = make_tiny_hypersim(tmp_path / 'converted', converted=True)
    prepare_hypersim(root, tmp_path / 'a.csv')
    prepare_hypersim(converted, tmp_path / 'b.csv')
    assert read_index(tmp_path / 'a.csv')[0] == read_index(tmp_path / 'b.csv')[0]


def ids_of(dataset: HypersimDataset) -> list[np.ndarray]:
    return [read_instance_map(dataset.get_data_info(index)['instance_map_path']) for index in range(len(dataset))]


@pytest.mark.parametrize('is_converted', [False, True])
def test_plain_maps_are_the_same_ids(tmp_path, is_converted):
    root = make_tiny_hypersim(tmp_path / 'hypersim', converted=is_converted)
    prepare_hypersim(root, root / 'index.csv', plain_maps=root / 'plain')
    stored = HypersimDataset(str(root), index_file='index.csv')
    plain = HypersimDataset(str(root), index_file='index.csv', plain_maps='plain')
    assert len(plain) == len(stored) == 12
    for own, expected in zip(ids_of(plain), ids_of(stored), strict=True):
        assert own.dtype == np.int32 and own.max() > 0
        np.testing.assert_array_equal(own, expected)
    first = stored.get_data_info(0)
    path = plain.get_data_info(0)['instance_map_path']
    assert path == str(map_path(root / 'plain', 'ai_001_001', 0))
    assert plain.get_data_info(0) == first | dict(instance_map_path=path)
    with h5py.File(path) as file:
        node = file['dataset']
        assert node.dtype == (np.int32 if is_converted else np.uint16)  # colours are larger numbers
        assert node.compression is None and node.chunks is None
    Path(path).unlink()
    with pytest.raises(FileNotFoundError, match=f'no instance map, such as {path}'):
        HypersimDataset(str(root), index_file='index.csv', plain_maps='plain')
    with pytest.raises(FileNotFoundError, match='no folder .*nowhere. Make it with: .* --plain-maps FOLDER'):
        HypersimDataset(str(root), plain_maps='nowhere')


def test_plain_maps_hold_large_ids_and_never_replace_the_dataset(root):
    path = root / 'large.hdf5'
    large = np.array([[0, 2**16], [2**31 - 1, 5]], np.int32)
    write_plain_map(path, large)
    np.testing.assert_array_equal(read_instance_map(path), large)
    before = map_path(root, 'ai_001_001', 0).read_bytes()
    with pytest.raises(ValueError, match='--plain-maps .*: expected another folder than that of Hypersim'):
        prepare_hypersim(root, root / 'index.csv', plain_maps=root / 'ai_001_001' / '..')
    assert map_path(root, 'ai_001_001', 0).read_bytes() == before


def test_split_file_and_thresholds(root):
    split = root / 'metadata_images_split_scene_v1.csv'
    lines = split.read_text().splitlines()
    split.write_text('\n'.join(line for line in lines if 'ai_001_003' not in line))
    text, _ = prepare_hypersim(root, root / 'index.csv', split, 11, 2)
    counts, settings = read_index(root / 'index.csv')
    assert len(counts) == 15 and 'ai_001_003' not in {frame.scene for frame in counts}
    assert (settings['min_instances'], settings['min_scene_instances']) == ('11', '2')
    kept = sum(own.frame >= 11 for own in counts.values())
    assert kept == 3 and f'{kept:8d} frames kept' in text
    assert len(HypersimDataset(str(root), split.name, index_file='index.csv')) == kept


def test_damaged_and_missing_files_are_named_counted_and_not_fatal(root, capsys, run_tool):
    damaged, gone = map_path(root, 'ai_001_003', 2), map_path(root, 'ai_003_001', 0)
    content = damaged.read_bytes()
    damaged.write_bytes(content[:200])
    gone.unlink()
    words = (root, '--out', root / 'index.csv', '--workers', '2')
    code, printed, errors = run_tool('dataset_tools/prepare_hypersim.py', *words)
    assert code == 1, errors
    assert f'damaged: {damaged}: expected an HDF5 file' in printed
    assert f'missing: {gone}' in printed
    assert '       1 frames dropped: damaged files' in printed
    counts, _ = read_index(root / 'index.csv')
    assert counts[Frame('ai_001_003', 'cam_00', 2)].frame == -1 and len(counts) == 17
    dataset = HypersimDataset(str(root), index_file='index.csv', missing='skip')
    assert dataset.skipped['unreadable instance map'] == [str(damaged)]
    assert dataset.skipped['no instance map'] == [str(gone)]
    # mended, only the two scenes are counted again
    damaged.write_bytes(content)
    make_tiny_hypersim(root)
    capsys.readouterr()
    assert prepare_hypersim(root, root / 'index.csv')[1]
    assert '3 of 5 scenes were counted before' in capsys.readouterr().out
    assert read_index(root / 'index.csv')[0][Frame('ai_001_003', 'cam_00', 2)] == Counts(10, 11)


def test_an_interrupted_run_goes_on(root, capsys):
    prepare_hypersim(root, root / 'whole.csv')
    # as after a kill in the middle of writing the third scene
    lines = [dict(root=str(root.resolve()), layout='official')]
    for scene, cameras, seen in (
        ('ai_001_001', {'cam_00': {'0': 10, '2': 11, '3': 11}, 'cam_01': {'0': 11, '2': 7, '3': 7}}, 12),
        ('ai_001_002', {'cam_00': {'0': 0, '2': 0, '3': 77}}, 0),  # 77: to see that it is used
    ):
        lines.append(dict(scene=scene, counts=cameras, instances=seen, missing=[], damaged=[]))
    text = ''.join(json.dumps(line) + '\n' for line in lines) + '{"scene": "ai_001_003", "cou'
    (root / 'index.csv.part').write_text(text)
    prepare_hypersim(root, root / 'index.csv')
    assert '2 of 5 scenes were counted before' in capsys.readouterr().out
    counts, _ = read_index(root / 'index.csv')
    expected, _ = read_index(root / 'whole.csv')
    assert counts.pop(Frame('ai_001_002', 'cam_00', 3)) == Counts(77, 0)
    assert expected.pop(Frame('ai_001_002', 'cam_00', 3)) == Counts(0, 0)
    assert counts == expected
    (root / 'index.csv.part').write_text('{"root": "elsewhere", "layout": "official"}\n')
    with pytest.raises(ValueError, match='index.csv.part is not of .* delete it'):
        prepare_hypersim(root, root / 'index.csv')


def test_a_folder_of_something_else_is_said_so(tmp_path, run_tool):
    code, _, errors = run_tool('dataset_tools/prepare_hypersim.py', tmp_path, '--out', tmp_path / 'a.csv')
    assert code == 2 and 'Traceback' not in errors
    assert f'{tmp_path}: expected Hypersim as ai_VVV_NNN/images/' in errors
