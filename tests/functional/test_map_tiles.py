"""Tiles of colour maps: where they lie, how their colours are fitted, what comes of them."""

import pytest
import torch
from torch.testing import assert_close

from genseg_mm.functional.map_tiles import blend_tiles, fit_colors, tile_spans


def random_map(*size: int, seed: int = 0) -> torch.Tensor:
    return torch.rand(3, *size, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) * 255


def test_spans_by_hand():
    assert tile_spans(96, 2 / 3, 0.5) == [(0, 64), (32, 96)]
    assert tile_spans(95, 2 / 3, 0.5) == [(0, 63), (32, 95)]  # a rounded pixel makes no third one
    assert tile_spans(96, 0.5, 0.5) == [(0, 48), (24, 72), (48, 96)]
    assert tile_spans(96, 0.5, 0.0) == [(0, 48), (48, 96)]
    assert tile_spans(90, 0.4, 0.0) == [(0, 36), (27, 63), (54, 90)]  # at least so much overlap, evenly
    assert tile_spans(96, 1, 0.5) == [(0, 96)] and tile_spans(1, 0.5, 0.5) == [(0, 1)]
    for message, arguments in {
        'length: expected at least 1 pixel, but got 0': (0, 0.5, 0.5),
        r'size: expected a share of the side in \(0, 1\], but got 64': (96, 64, 0.5),
        r'overlap: expected a share of a tile in \[0, 1\), but got 1': (96, 0.5, 1),
    }.items():
        with pytest.raises(ValueError, match=message):
            tile_spans(*arguments)


def test_a_fit_undoes_any_affine_change_and_no_other():
    target = random_map(7, 9)
    change = torch.tensor([[0.5, -2, 0.1], [0, 0.3, 1], [1, 1, 0]], dtype=torch.float64)
    colors = (change @ target.flatten(1) + torch.tensor([[3.0], [-40], [8]])).view_as(target)
    assert_close(fit_colors(colors, target), target)
    # Nothing but a mean is left of a map of one colour, nor of one that has nothing to do with the target.
    mean = target.mean((1, 2), keepdim=True)
    assert_close(fit_colors(torch.full_like(target, 7), target), mean.expand_as(target))
    ends = torch.zeros(3, 1, 4, dtype=torch.float64)
    ends[0, 0] = torch.tensor([0, 255, 0, 255])
    other = torch.tensor([10.0, 10, 30, 30]).double().expand(3, 1, 4)
    assert_close(fit_colors(ends, other), torch.full_like(other, 20))
    # Least squares by hand: 0, 1, 2 to 0, 1, 5 is 2.5 x - 0.5; two channels without variance have no say.
    line = torch.tensor([[[0.0, 1, 2]], [[4, 4, 4]], [[0, 0, 0]]])
    wanted = torch.tensor([[[0.0, 1, 5]], [[9, 9, 9]], [[1, 0, 1]]])
    expected = torch.tensor([[[-0.5, 2, 4.5]], [[9, 9, 9]], [[2 / 3] * 3]])
    assert_close(fit_colors(line, wanted), expected)
    with pytest.raises(ValueError, match=r'of one size, but got \(3, 7, 9\) and \(3, 7, 8\)'):
        fit_colors(target, target[..., :8])


def test_tiles_that_are_affine_changes_of_the_whole_change_nothing():
    whole = random_map(12, 18)
    rows, columns = tile_spans(12, 2 / 3, 0.5), tile_spans(18, 2 / 3, 0.5)
    places = [(slice(None), slice(*row), slice(*column)) for row in rows for column in columns]
    tiles = [whole[place].flip(0) * (place_number + 1) - 9 for place_number, place in enumerate(places)]
    for blend in (0.3, 1.0):
        assert_close(blend_tiles(whole, tiles, rows, columns, blend), whole)
    other = [random_map(8, 12, seed=seed) for seed in range(1, 5)]
    assert torch.equal(blend_tiles(whole, other, rows, columns, 0.0), whole)
    half, full = (blend_tiles(whole, other, rows, columns, blend) for blend in (0.5, 1.0))
    assert_close(half, (whole + full) / 2)
    assert (full - whole).abs().mean() > 10
    # Where one tile lies alone, it is its fitted map; in the middle, weights fall to the borders of the tiles.
    fitted = [fit_colors(tile, whole[place]) for tile, place in zip(other, places, strict=True)]
    assert_close(full[:, :4, :6], fitted[0][:, :4, :6])
    assert_close(full[:, 5, 0], fitted[0][:, 5, 0] * 3 / 5 + fitted[2][:, 1, 0] * 2 / 5)
    with pytest.raises(ValueError, match='expected 2 x 2 maps, but got 3'):
        blend_tiles(whole, other[:3], rows, columns, 0.5)
    with pytest.raises(ValueError, match=r'blend: expected a share in \[0, 1\], but got 2'):
        blend_tiles(whole, other, rows, columns, 2)
