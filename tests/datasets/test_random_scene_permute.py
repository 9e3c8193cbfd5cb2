"""RandomScenePermute."""

import numpy as np
import pytest

from genseg_mm.datasets.shapes_dataset import ShapesDataset
from genseg_mm.datasets.transforms.instances import RandomScenePermute
from genseg_mm.registry import TRANSFORMS

ITEMS = ShapesDataset(1, task='instance', test_mode=True)


def test_transpose_moves_image_map_and_points_together():
    item, before = ITEMS[0], ITEMS[0]
    RandomScenePermute(transpose_prob=1, channel_prob=0)(item)
    np.testing.assert_array_equal(item['img'], before['img'].transpose(1, 0, 2))
    np.testing.assert_array_equal(item['gt_instance_map'], before['gt_instance_map'].T)
    x, y = item['points'][:, 0].astype(int).T
    np.testing.assert_array_equal(item['gt_instance_map'][y, x], item['point_ids'])
    assert item['img'].flags.c_contiguous
    assert TRANSFORMS.get('RandomScenePermute') is RandomScenePermute


def test_channels_are_permuted_alike_everywhere():
    np.random.seed(0)
    before = ITEMS[0]
    orders = set()
    for _ in range(60):
        item = ITEMS[0]
        RandomScenePermute(transpose_prob=0)(item)
        order = [next(k for k in range(3) if (item['img'][..., c] == before['img'][..., k]).all()) for c in range(3)]
        np.testing.assert_array_equal(item['img'], before['img'][..., order])
        orders.add(tuple(order))
    assert len(orders) == 6


def test_permutation_follows_the_global_seed_and_its_probability():
    transform = RandomScenePermute(transpose_prob=0.25, channel_prob=0)
    drawn = []
    for _ in range(2):
        np.random.seed(1)
        drawn.append([transform._draw()[0] for _ in range(400)])
    assert drawn[0] == drawn[1]
    assert np.mean(drawn[0]) == pytest.approx(0.25, abs=0.06)


def test_permutation_refuses_what_would_become_wrong():
    with pytest.raises(ValueError, match='without text'):
        RandomScenePermute()(ShapesDataset(1)[0])
    with pytest.raises(ValueError, match=r'square image, but got \(40, 64\)'):
        RandomScenePermute()(ShapesDataset(1, (40, 64), task='instance')[0])
    with pytest.raises(ValueError, match='transpose_prob must be in'):
        RandomScenePermute(transpose_prob=2)
