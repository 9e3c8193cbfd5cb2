"""Similarity levels by hand; masks at once against the levels, the filter and the threshold."""

import numpy as np
import pytest
import torch
from plain_prompting import POINTS, grey_row, patches

from genseg_mm.functional import queried_colors, similarity_masks
from genseg_mm.functional.joint_bilateral import FilterTile, joint_bilateral_filter
from genseg_mm.functional.point_prompting import masks_from_points, query_colors
from genseg_mm.functional.similarity_masks import (
    color_distances,
    lengths,
    masks_within,
    similar_masks,
    similarity_levels,
)


def test_distances_by_hand():
    color_map = torch.tensor([[[0.0, 3.0]], [[0.0, 4.0]], [[0.0, 12.0]]])  # one row, two pixels
    distances = color_distances(color_map, torch.tensor([[0.0, 0, 0], [3, 4, 0], [255, 255, 255]]))
    assert distances[0].tolist() == [[0, 13]]
    assert distances[1].tolist() == [[5, 12]]
    assert distances[2, 0].tolist() == pytest.approx([255 * 3**0.5, (252**2 + 251**2 + 243**2) ** 0.5])


def test_levels_by_hand():
    """255 (1/d - 1/255) / (1/1 - 1/255) is 126.996 at d = 2, 4.12 at 50, 3.26 at 60."""
    distances = [1.0, 2.0, 10.0, 50.0, 60.0, 85.0, 255.0]
    levels = similarity_levels(grey_row(*distances), torch.zeros(1, 3))
    assert levels.tolist() == [[[254, 126, 24, 4, 3, 2, 0]]]
    # The paper's clamp: d = 0.01 and d = 1 are the same; unclamped, everything else drops.
    row = grey_row(0.01, *distances)
    assert similarity_levels(row, torch.zeros(1, 3), 'paper').tolist() == [[[254, 254, 126, 24, 4, 3, 2, 0]]]
    levels = similarity_levels(row.double(), torch.zeros(1, 3))  # 254.9999975, 2.54, 1.27, 0.25 ...
    assert levels.tolist() == [[[254, 2, 1, 0, 0, 0, 0, 0]]]


def noisy_map(height, width, noise, dtype=torch.float32):
    color_map, _ = patches(height, width, seed=height, noise=noise)
    return torch.from_numpy(color_map).to(dtype)


def some_queries(color_map, num=40):
    generator = torch.Generator().manual_seed(1)
    size = torch.tensor([color_map.shape[2] - 1, color_map.shape[1] - 1])
    return query_colors(color_map, torch.rand(num, 2, generator=generator) * size)


@pytest.mark.parametrize('rule', ['reference', 'paper'])
@pytest.mark.parametrize('size', [(70, 150), (33, 41), (8, 8), (3, 5), (1, 1)])
@pytest.mark.parametrize('noise', [0.0, 12.0])
@pytest.mark.parametrize('few', [0, 100])
def test_masks_are_the_levels_above_the_threshold(monkeypatch, rule, size, noise, few):
    """Squares, or pixels, that are decided without the filter are decided as the filter would."""
    monkeypatch.setattr(similarity_masks, 'FEW', few)
    monkeypatch.setattr(similarity_masks, 'BAND', 1000)
    color_map = noisy_map(*size, noise)
    queries = some_queries(color_map, 16)
    levels = similarity_levels(color_map, queries, rule)
    smooth = joint_bilateral_filter(color_map, levels)
    for level in (3.0, 0.0, 102.0, 2.5, 255.0):
        assert torch.equal(similar_masks(color_map, queries, level, rule, False), levels > level)
        assert torch.equal(similar_masks(color_map, queries, level, rule, True), smooth > level)


def test_masks_in_float64_and_for_no_query():
    color_map = noisy_map(40, 50, 12.0, torch.float64)
    queries = some_queries(color_map)
    levels = joint_bilateral_filter(color_map, similarity_levels(color_map, queries))
    assert torch.equal(similar_masks(color_map, queries, 3.0), levels > 3)
    assert similar_masks(color_map, queries[:0], 3.0).shape == (0, 40, 50)


@pytest.mark.parametrize('radius', [1e-3, 5.0, 30.0, 0.1, 441.0])
def test_masks_within_a_radius_are_the_distances_below_it(radius):
    color_map = noisy_map(33, 41, 12.0)
    queries = some_queries(color_map)
    expected = color_distances(color_map, queries) < radius
    assert torch.equal(masks_within(color_map, queries, radius), expected)


def test_a_distance_of_the_radius_is_outside():
    row, black = grey_row(0.0, 9.0, 10.0, 10.000001, 200.0), torch.zeros(1, 3)
    assert masks_within(row, black, 10.0).tolist() == [[[True, True, False, False, False]]]
    row = grey_row(0.0, 0.1, float(np.nextafter(np.float32(0.1), np.float32(0))))
    assert masks_within(row, black, 0.1).tolist() == [[[True, False, True]]]


def test_squares_that_are_decided_cost_nothing(monkeypatch):
    """Only one of the 3 x 5 tiles of a map with one small object reaches its border."""
    color_map = torch.zeros(3, 96, 320)
    color_map[:, 40:56, 80:100] = 200
    queries = query_colors(color_map, torch.tensor([[90.0, 48.0]]).repeat(40, 1))
    expected = joint_bilateral_filter(color_map, similarity_levels(color_map, queries)) > 3
    filtered = []
    means = FilterTile.means

    def spy(tile, padded, radius):
        filtered.append((tile.top, tile.left, len(padded)))
        return means(tile, padded, radius)

    monkeypatch.setattr(FilterTile, 'means', spy)
    assert torch.equal(similar_masks(color_map, queries, 3.0), expected)
    assert filtered == [(32, 64, 40)]


@pytest.mark.parametrize('dtype', [torch.uint8, torch.float64])
def test_pixels_that_are_decided_cost_nothing(monkeypatch, dtype):
    """Only those within the window's reach of the object's border are filtered."""
    color_map = torch.zeros(3, 96, 320, dtype=dtype)
    color_map[:, 40:56, 80:100] = 200
    queries = query_colors(color_map, torch.tensor([[90.0, 48.0]]))
    expected = joint_bilateral_filter(color_map, similarity_levels(color_map, queries)) > 3
    filtered = []
    plain = similarity_masks.filtered_pixels

    def spy(guide, stride, pixels, levels_of):
        filtered.append(len(pixels))
        return plain(guide, stride, pixels, levels_of)

    monkeypatch.setattr(similarity_masks, 'filtered_pixels', spy)
    assert torch.equal(similar_masks(color_map, queries, 3.0), expected)
    inner, outer = (16 - 8) * (20 - 8), (16 + 8) * (20 + 8)
    corners = 4 * (16 - 8)  # of the 4 x 4 pixels at a corner 8 are within the disk
    assert filtered == [outer - inner - corners]


def test_no_query_gives_no_mask(monkeypatch):
    for large in (similarity_masks.LARGE, 50):
        monkeypatch.setattr(similarity_masks, 'LARGE', large)
        for masks in (
            similar_masks(torch.zeros(3, 9, 12), torch.zeros(0, 3), 3.0),
            masks_within(torch.zeros(3, 9, 12), torch.zeros(0, 3), 20.0),
        ):
            assert masks.tolist() == [] and masks.shape[1:] == (9, 12)


def test_bad_rule_is_named():
    with pytest.raises(ValueError, match="rule: expected 'reference' or 'paper', but got 'x'"):
        similar_masks(torch.zeros(3, 4, 5), torch.zeros(1, 3), 3.0, 'x')


@pytest.mark.parametrize('noise', [0.0, 3.0, 40.0])
@pytest.mark.parametrize(
    'settings', [{}, dict(rule='paper'), dict(radius=40.0), dict(smooth=False), dict(component=True)]
)
def test_similarity_masks_get_the_masks_of_small_ones(monkeypatch, noise: float, settings: dict):
    """In bands and cells, filtered only where cells are undecided: never another pixel."""
    color_map = torch.from_numpy(patches(61, 83, seed=3, noise=noise)[0]).float()
    points = torch.cat([POINTS, torch.tensor([[82.0, 60.0], [40.0, 33.0]])])
    boxes = [[x // 2, y // 2, x + 1, y + 1] for x, y in points.tolist()]
    for extra in ({}, dict(boxes=boxes)):
        expected = masks_from_points(color_map, points, **extra, **settings)
        with monkeypatch.context() as patched:
            patched.setattr(similarity_masks, 'BAND', 1000)
            for module in (similarity_masks, queried_colors):
                patched.setattr(module, 'LARGE', 1000)
            masks = masks_from_points(color_map, points, **extra, **settings)
            single = masks_from_points(
                color_map, points[:1], **{key: value[:1] for key, value in extra.items()}, **settings
            )
        assert torch.equal(masks, expected) and torch.equal(single[0], expected[0])
    assert 0.001 < expected.float().mean() < 0.9


def test_lengths_by_hand():
    vectors = torch.tensor([[3.0, 0.0], [4.0, 0.0], [12.0, -2.0]])
    assert lengths(vectors).tolist() == [13.0, 2.0]
