"""ClevrTexDataset on a tiny folder in the published layout."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tiny_datasets import maker

from genseg_mm.datasets import ClevrTexDataset, LoadImage, LoadInstanceMap

make_tiny_clevrtex = maker('clevrtex')


@pytest.fixture
def root(tmp_path):
    return make_tiny_clevrtex(tmp_path / 'clevrtex', image_size=(24, 32))


def numbers(root, split, **kwargs):
    return [item['img_id'] for item in ClevrTexDataset(root, split=split, **kwargs)]


def flat_file(root, number):
    return next(root.rglob(f'CLEVRTEX_*_{number:06d}_flat.png'))


def test_splits_go_by_sorted_number_over_all_folders(root):
    assert numbers(root, 'test') == [0, 1]
    assert numbers(root, 'val') == [2, 3]
    assert numbers(root, 'train') == list(range(4, 20))
    assert numbers(root, None) == list(range(20))
    folders = {Path(item['img_path']).parent.name for item in ClevrTexDataset(root, split='train')}
    assert folders == {'0', '1', '2', '3'}


def test_gaps_in_the_numbers_do_not_matter(root):
    for number in (0, 7):
        for path in root.rglob(f'CLEVRTEX_full_{number:06d}*'):
            path.unlink()
    # 18 scenes: floor(1.8) = 1 for testing, floor(3.6) - 1 = 2 for validation
    assert numbers(root, 'test') == [1]
    assert numbers(root, 'val') == [2, 3]
    assert len(numbers(root, 'train')) == 15


def test_ids_are_palette_indices_and_the_picture_has_three_channels(root):
    dataset = ClevrTexDataset(root, split='val', pipeline=[LoadImage(), LoadInstanceMap()])
    item = dataset[1]
    assert item['img'].shape == (24, 32, 3) and item['subset'] == 'full'
    assert item['ignore_background'] is False
    assert Path(item['metadata_path']).name == 'CLEVRTEX_full_000003.json'
    with Image.open(item['instance_map_path']) as image:
        assert image.mode == 'P'
        ids = np.array(image)
    assert item['gt_instance_map'].tolist() == ids.tolist()
    assert ids.max() == 3 and ids.min() == 0


def test_variants_lie_side_by_side(root):
    make_tiny_clevrtex(root, variant='outd', num_scenes=3, image_size=(24, 32))
    assert numbers(root, None, variant='outd') == [0, 1, 2]
    assert len(numbers(root, None)) == 20
    with pytest.raises(ValueError, match="'outd' is for testing as a whole.*but got 'val'"):
        ClevrTexDataset(root, variant='outd', split='val')


def test_a_missing_file_is_an_error_or_a_named_skip_and_moves_no_split(root):
    flat_file(root, 5).unlink()
    with pytest.raises(FileNotFoundError, match='no instance map.*CLEVRTEX_full_000005_flat.png'):
        ClevrTexDataset(root, split='train')
    dataset = ClevrTexDataset(root, split='train', missing='skip')
    assert [Path(path).name for path in dataset.skipped['no instance map']] == ['CLEVRTEX_full_000005_flat.png']
    assert len(dataset) == 15
    assert numbers(root, 'val') == [2, 3]
    (flat_file(root, 1).parent / 'CLEVRTEX_full_000001.png').unlink()
    with pytest.raises(FileNotFoundError, match='no image.*CLEVRTEX_full_000001.png'):
        ClevrTexDataset(root, split='test')


def test_colours_in_place_of_indices_are_refused(root):
    path = flat_file(root, 2)
    with Image.open(path) as image:
        colours = image.convert('RGB')
    colours.save(path)
    with pytest.raises(ValueError, match='000002_flat.png: expected a palette PNG.*mode RGB'):
        ClevrTexDataset(root, split='val')
    # The first file is looked at early, the others when they are read.
    dataset = ClevrTexDataset(root, split=None, pipeline=[LoadInstanceMap()])
    assert dataset[3]['gt_instance_map'].max() == 3
    with pytest.raises(ValueError, match='000002_flat.png: expected a palette PNG.*mode RGB'):
        dataset[2]


def test_the_same_scene_twice_is_refused_but_a_circle_of_links_is_not(root):
    (root / 'clevrtex_full' / 'circle').symlink_to(root)
    assert len(numbers(root, None)) == 20
    shutil.copytree(root / 'clevrtex_full' / '0', root / 'copy')
    with pytest.raises(ValueError, match='holds CLEVRTEX_full_00000. twice'):
        ClevrTexDataset(root)


def test_bad_arguments_and_folders(root, tmp_path):
    with pytest.raises(ValueError, match="variant must be one of .*but got 'easy'"):
        ClevrTexDataset(root, variant='easy')
    with pytest.raises(ValueError, match="split must be one of .*but got 'dev'"):
        ClevrTexDataset(root, split='dev')
    with pytest.raises(FileNotFoundError, match='nowhere'):
        ClevrTexDataset(tmp_path / 'nowhere')
    with pytest.raises(ValueError, match='found no pair'):
        ClevrTexDataset(root, variant='camo')
