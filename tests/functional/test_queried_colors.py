"""Queries that are carried to other maps, by hand."""

import pytest
import torch

from genseg_mm.functional.point_prompting import masks_from_points, masks_from_queries, queries_from_points
from genseg_mm.functional.queried_colors import followed_queries


def row(*reds: float) -> torch.Tensor:
    """A map of one row, (3, 1, W), of these reds."""
    return torch.tensor([reds, [0.0] * len(reds), [0.0] * len(reds)])[:, None]


@pytest.mark.parametrize('settings', [{}, dict(rule='paper', smooth=False), dict(radius=30.0), dict(component=True)])
def test_queries_on_their_own_map_give_the_masks_of_the_points(settings):
    generator = torch.Generator().manual_seed(0)
    color_map = torch.randint(0, 3, (8, 12), generator=generator) * 90.0
    color_map = torch.stack([color_map, 200 - color_map, color_map / 2]).repeat_interleave(4, 1).repeat_interleave(4, 2)
    points, labels = [[[5, 5], [30, 20]], [[40, 9], [2, 30]]], [[1, 0], [1, 1]]
    expected = masks_from_points(color_map, points, labels, **settings)
    queries, known = queries_from_points(color_map, points, labels, **settings)
    assert queries.shape == (2, 2, 3) and known.tolist() == labels
    assert torch.equal(masks_from_queries(color_map, queries, known, expected, **settings), expected)
    assert 0 < expected.float().mean() < 1


def test_boxes_give_a_query_and_do_not_cut_later_masks():
    color_map = torch.zeros(3, 20, 20)
    color_map[0, 4:10, 4:10] = 200
    queries, labels = queries_from_points(color_map, boxes=[[4, 4, 10, 10]], radius=30.0)
    assert queries[0, 0].tolist() == pytest.approx([200, 0, 0], abs=1) and labels.tolist() == [[1]]
    moved = color_map.roll(8, 2)
    assert torch.equal(masks_from_queries(moved, queries, labels, radius=30.0)[0], moved[0] > 0)


def test_parts_are_those_that_touch_the_mask_before_or_the_largest():
    color_map = row(9, 0, 9, 9, 9, 0, 9, 9)
    queries, labels = torch.tensor([[[9.0, 0, 0]]]), torch.ones(1, 1, dtype=torch.long)
    options = dict(radius=3.0, component=True)
    before = torch.zeros(1, 1, 8, dtype=torch.bool)
    assert masks_from_queries(color_map, queries, labels, before, **options)[0, 0].int().tolist() == [
        0,
        0,
        1,
        1,
        1,
        0,
        0,
        0,
    ]
    before[0, 0, 5:7] = True
    assert masks_from_queries(color_map, queries, labels, before, **options)[0, 0].int().tolist() == [
        0,
        0,
        0,
        0,
        0,
        0,
        1,
        1,
    ]
    assert not masks_from_queries(row(0, 0), queries, labels, **options).any()


def test_queries_follow_the_pixels_that_are_nearest_to_them():
    color_map = row(10, 14, 100, 110, 250)
    masks = torch.tensor([[[True, True, True, True, False]], [[False] * 5]])
    queries = torch.tensor([[[8.0, 0, 0], [120, 0, 0], [50, 0, 0]], [[7, 0, 0], [0, 0, 0], [0, 0, 0]]])
    labels = torch.tensor([[1, 1, 0], [1, -1, -1]])
    moved = followed_queries(color_map, masks, queries, labels, 1.0)
    assert moved[..., 0].tolist() == [[12, 105, 50], [7, 0, 0]]
    assert followed_queries(color_map, masks, queries, labels, 0.5)[0, :, 0].tolist() == [10, 112.5, 50]
    assert torch.equal(followed_queries(color_map, masks, queries, labels, 0), queries)
    with pytest.raises(ValueError, match=r'rate: expected a part in \[0, 1\], but got 1.5'):
        followed_queries(color_map, masks, queries, labels, 1.5)


def test_wrong_settings_are_named():
    color_map, queries, labels = row(1, 2), torch.zeros(1, 1, 3), torch.ones(1, 1, dtype=torch.long)
    for call in (
        lambda **own: masks_from_queries(color_map, queries, labels, **own),
        lambda **own: queries_from_points(color_map, [[0, 0]], **own),
    ):
        with pytest.raises(ValueError, match='radius: expected a positive distance'):
            call(radius=-1)
        with pytest.raises(ValueError, match='expected settings out of'):
            call(radios=1)
