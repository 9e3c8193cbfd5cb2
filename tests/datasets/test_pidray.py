"""PIDRayDataset on tiny copies of both versions."""

import json
import runpy
import shutil
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from mmengine.dataset import ConcatDataset

from genseg_mm.datasets import LoadImage, LoadInstanceMap, PIDRayDataset

TOOL = Path(__file__).parents[2] / 'tools' / 'dataset_tools' / 'make_tiny_pidray.py'
make_tiny_pidray = runpy.run_path(str(TOOL))['make_tiny_pidray']
LOADING = [LoadImage(), LoadInstanceMap()]
TEST_SPLITS = ('easy', 'hard', 'hidden')
# Not serialised: that is for training, and waits for the garbage collector each time.
build_pidray = partial(PIDRayDataset, serialize_data=False)


@pytest.fixture
def root(tmp_path):
    return make_tiny_pidray(tmp_path / 'pidray')


@pytest.fixture
def second(tmp_path):
    return make_tiny_pidray(tmp_path / 'second', version=2)


def test_ids_are_unique_over_the_splits(root):
    joined = ConcatDataset([build_pidray(root, split=split, test_mode=True) for split in TEST_SPLITS])
    items = [joined[index] for index in range(len(joined))]
    assert [item['img_id'] for item in items] == [
        'easy/0', 'easy/1', 'hard/0', 'hard/1', 'hidden/0', 'hidden/1',
    ]  # fmt: skip
    assert [item['subset'] for item in items] == ['easy'] * 2 + ['hard'] * 2 + ['hidden'] * 2
    names = [Path(item['img_path']).relative_to(root).as_posix() for item in items]
    assert names[2] == 'hard/xray_hard00000.png' and names[5] == 'hidden/xray_hidden00001.png'
    assert build_pidray(root, split='train', subset='x')[1]['subset'] == 'x'


def test_masks_from_polygons_and_rle(root):
    easy = build_pidray(root, split='easy', pipeline=LOADING, test_mode=True)
    assert (easy[0]['gt_instance_map'] == 1).sum() == 80 * 20
    assert [len(own) for own in easy[0]['instances'][0]['mask']] == [8]
    ring = easy[1]['gt_instance_map']
    assert ring[50, 56] == 0 and ring.sum() == 976  # handcuffs: a hole in the middle
    hard = build_pidray(root, split='hard', pipeline=LOADING, test_mode=True)[0]
    # the wrench (60 x 14) is smaller than the power bank (60 x 54) and keeps the 20 x 8 that they share
    assert [(hard['gt_instance_map'] == own).sum() for own in (1, 2)] == [840, 3240 - 160]
    assert [own['cat_id'] for own in hard['instances']] == [6, 4]


def test_files_of_macos_are_not_read(root):
    junk = list(root.rglob('._*'))
    assert len(junk) == 8 + 4
    for split in ('train', *TEST_SPLITS):
        dataset = build_pidray(root, split=split, pipeline=LOADING, test_mode=True)
        assert [item['img'].shape for item in dataset] == [(96, 128, 3)] * 2
        assert not any('._' in item['img_path'] for item in dataset)


def test_version_2_has_the_same_items_in_one_file(root, second):
    for split in ('train', *TEST_SPLITS):
        first = build_pidray(root, split=split, pipeline=LOADING, test_mode=True)
        other = build_pidray(second, split=split, pipeline=LOADING, test_mode=True)
        assert (first.version, other.version) == (1, 2)
        assert first.num_pictures == other.num_pictures == 2
        for one, two in zip(first, other, strict=True):
            assert np.array_equal(one['gt_instance_map'], two['gt_instance_map'])
            assert Path(one['img_path']).name == Path(two['img_path']).name
    hidden = build_pidray(second, split='hidden')
    assert [item['img_id'] for item in hidden] == ['hidden/4', 'hidden/5']
    assert Path(hidden[0]['img_path']) == second / 'test/xray_hidden00000.png'


def test_version_2_with_a_file_per_split(root, second):
    easy = json.loads((root / 'annotations/xray_test_easy.json').read_text())
    (second / 'annotations/test_easy.json').write_text(json.dumps(easy))
    dataset = build_pidray(second, split='easy')
    assert [item['img_id'] for item in dataset] == ['easy/0', 'easy/1']
    assert Path(dataset[1]['img_path']) == second / 'test/xray_easy00001.png'


def test_a_folder_with_both_versions_needs_a_choice(root, second):
    shutil.copytree(second, root, dirs_exist_ok=True)
    with pytest.raises(ValueError, match='holds both versions .*version=1 or version=2, but got None'):
        build_pidray(root, split='easy')
    assert build_pidray(root, split='easy', version=2).version == 2
    assert build_pidray(root, split='easy', version=1)[0]['img_id'] == 'easy/0'


def test_missing_and_wrong_input(root, second):
    (root / 'annotations/xray_test_hard.json').unlink()
    with pytest.raises(
        FileNotFoundError, match="no annotations of 'hard', expected .*xray_test_hard.json or .*test.json"
    ):
        build_pidray(root, split='hard')
    shutil.rmtree(root / 'easy')
    with pytest.raises(FileNotFoundError, match="folder of pictures '.*easy"):
        build_pidray(root, split='easy')
    path = second / 'annotations/test.json'
    content = json.loads(path.read_text())
    content['images'][0]['file_name'] = '000.png'
    path.write_text(json.dumps(content))
    with pytest.raises(ValueError, match="test.json: expected names xray_easy.* but got '000.png'"):
        build_pidray(second, split='easy')
    for arguments, message in (
        (dict(split='test'), "split must be one of .* but got 'test'"),
        (dict(version=3), 'version must be 1, 2 or None, but got 3'),
    ):
        with pytest.raises(ValueError, match=message):
            build_pidray(root, **arguments)
