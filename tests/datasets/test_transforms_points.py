"""PointPrompt by hand-worked values."""

import numpy as np
import pytest

from genseg_mm.datasets.transforms import PointPrompt


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
