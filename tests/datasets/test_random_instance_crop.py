"""RandomInstanceCrop: values, distribution, and what it refuses."""

import numpy as np
import pytest
from mmengine.registry import TRANSFORMS

from genseg_mm.datasets.transforms.instances import RandomInstanceCrop, instance_pixels


def sample(instance_map: np.ndarray) -> dict:
    instance_map = np.asarray(instance_map, np.int32)
    y, x = np.indices(instance_map.shape)
    image = np.stack([y, x, instance_map % 256], axis=-1).astype(np.uint8)
    return dict(
        img=image,
        gt_instance_map=instance_map,
        gt_seg_map=(instance_map > 0).astype(np.uint8),
        seg_fields=['gt_instance_map', 'gt_seg_map'],
        img_path='a.jpg',
    )


def corner_of(results: dict) -> tuple[int, int]:
    return tuple(results['img'][0, 0, :2].tolist())


def test_pixels_of_instances_in_each_crop():
    instance_map = np.array([[0, 0, 300, 0], [7, 0, 0, 0], [7, 7, 0, 0]])
    assert instance_pixels(instance_map, (2, 2)).tolist() == [[1, 1, 1], [3, 1, 0]]
    assert instance_pixels(instance_map, (3, 4)).tolist() == [[4]]
    assert instance_pixels(instance_map, (1, 4)).tolist() == [[1], [1], [2]]
    np.testing.assert_array_equal(instance_pixels(instance_map, (1, 1)), instance_map > 0)


def test_crop_moves_all_maps_together_and_keeps_the_ids():
    instance_map = np.zeros((9, 12), int)
    instance_map[2:5, 3:8] = 70000
    for seed in range(20):
        np.random.seed(seed)
        results = RandomInstanceCrop((4, 6))(sample(instance_map))
        top, left = corner_of(results)
        window = slice(top, top + 4), slice(left, left + 6)
        assert results['gt_instance_map'].tolist() == instance_map[window].tolist()
        assert results['gt_seg_map'].tolist() == (instance_map[window] > 0).astype(int).tolist()
        np.testing.assert_array_equal(results['img'][..., 1], np.tile(np.arange(left, left + 6), (4, 1)))
        assert results['img_shape'] == (4, 6) == results['img'].shape[:2]
        assert results['gt_instance_map'].max() == 70000
        assert all(results[key].flags.c_contiguous for key in ('img', 'gt_instance_map'))


def test_one_draw_has_the_distribution_of_redrawing_until_an_instance_shows():
    instance_map = np.zeros((6, 9), int)
    instance_map[0, 0] = instance_map[4, 6] = 1
    np.random.seed(0)
    crop = RandomInstanceCrop((3, 4))
    corners = [corner_of(crop(sample(instance_map))) for _ in range(2600)]
    redrawn, generator = set(), np.random.default_rng(0)
    for _ in range(600):
        top, left = generator.integers((4, 6))
        if instance_map[top : top + 3, left : left + 4].any():
            redrawn.add((top, left))
    counts = {corner: corners.count(corner) for corner in set(corners)}
    assert set(counts) == redrawn and len(counts) == 1 + 2 * 3
    expected = len(corners) / len(counts)
    chi_square = sum((count - expected) ** 2 / expected for count in counts.values())
    assert chi_square < 22.5  # 6 degrees of freedom: p = 0.001


def test_a_map_without_instances_is_cropped_anywhere_and_counted():
    crop = RandomInstanceCrop((2, 2))
    np.random.seed(0)
    corners = {corner_of(crop(sample(np.zeros((3, 3))))) for _ in range(50)}
    assert corners == {(0, 0), (0, 1), (1, 0), (1, 1)}
    assert crop.num_empty == 50


def test_draws_follow_the_global_seed():
    instance_map = np.ones((20, 20), int)
    crop, corners = RandomInstanceCrop((4, 4)), []
    for _ in range(2):
        np.random.seed(5)
        corners.append([corner_of(crop(sample(instance_map))) for _ in range(5)])
    assert corners[0] == corners[1] and len(set(corners[0])) > 1


def test_what_cannot_be_cropped_is_refused():
    crop = RandomInstanceCrop((4, 6))
    with pytest.raises(ValueError, match=r'a.jpg: .* at least the crop_size \(4, 6\) .* got \(4, 5\)'):
        crop(sample(np.ones((4, 5))))
    with pytest.raises(ValueError, match='put LoadInstanceMap before it'):
        crop(dict(img=np.zeros((9, 9, 3), np.uint8)))
    with pytest.raises(ValueError, match='put PointPrompt after it'):
        crop(dict(sample(np.ones((9, 9))), points=np.zeros((1, 1, 2))))
    with pytest.raises(ValueError, match=r'size of the image \(9, 9\), but got \(8, 9\)'):
        crop(dict(sample(np.ones((9, 9))), gt_instance_map=np.ones((8, 9), np.int32)))
    for wrong in ((4,), (0, 4), (4.0, 4)):
        with pytest.raises(ValueError, match='crop_size must be'):
            RandomInstanceCrop(wrong)


def test_it_is_found_by_name():
    crop = TRANSFORMS.build(dict(type='genseg_mm.RandomInstanceCrop', crop_size=[4, 6]))
    assert repr(crop) == 'RandomInstanceCrop(crop_size=(4, 6))'
