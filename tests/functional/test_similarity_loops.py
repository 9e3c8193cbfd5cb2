"""Masks by compiled loops against the levels, the filter and the threshold, and when they are loaded."""

import numpy as np
import pytest
import torch
from plain_prompting import patches

from genseg_mm import compiled_loops
from genseg_mm.functional import similarity_loops, similarity_masks
from genseg_mm.functional.joint_bilateral import SIGMA, joint_bilateral_filter
from genseg_mm.functional.point_prompting import query_colors
from genseg_mm.functional.similarity_masks import similar_masks, similarity_levels

SIZES = [(70, 150), (33, 41), (8, 8), (3, 5), (1, 1)]


def whole_map(height: int, width: int, noise: float) -> torch.Tensor:
    return torch.from_numpy(patches(height, width, seed=height, noise=noise)[0]).to(torch.uint8)


def some_queries(color_map: torch.Tensor, num: int = 20) -> torch.Tensor:
    size = torch.tensor([color_map.shape[2] - 1, color_map.shape[1] - 1])
    return query_colors(color_map, torch.rand(num, 2, generator=torch.Generator().manual_seed(1)) * size)


@pytest.fixture(autouse=True)
def one_thread(monkeypatch):
    monkeypatch.setattr(torch, 'get_num_threads', lambda: 1)


@pytest.fixture
def loaded(monkeypatch):
    monkeypatch.setattr(similarity_masks, '_answered', similarity_masks.LOADED_AFTER)


@pytest.mark.parametrize('rule', ['reference', 'paper'])
@pytest.mark.parametrize('noise', [0.0, 12.0])
def test_masks_are_the_levels_above_the_threshold(monkeypatch, loaded, rule, noise):
    """Pixel by pixel what the filter of the whole map gives: in one band, in several, at borders, in flat parts."""
    asked = []
    undecided = similarity_loops.undecided
    monkeypatch.setattr(similarity_loops, 'undecided', lambda *steps: asked.append(undecided(*steps)) or asked[-1])
    for size in SIZES:
        color_map = whole_map(*size, noise)
        queries = some_queries(color_map)
        levels = similarity_levels(color_map, queries, rule)
        smooth = joint_bilateral_filter(color_map, levels)
        for level, band in ((3.0, 1 << 18), (3.0, 2000), (0.0, 2000), (102.0, 1 << 18), (2.5, 1), (255.0, 2000)):
            monkeypatch.setattr(similarity_loops, 'BAND', band)
            assert torch.equal(similar_masks(color_map, queries, level, rule), smooth > level)
    assert sum(map(len, asked)) > 10_000


def test_undecided_pixels_are_those_of_the_plain_steps():
    inside = torch.rand(40, 64, generator=torch.Generator().manual_seed(0)) < 0.02
    inside[20:, 30:] = True
    expected = similarity_masks._undecided(inside.flatten(), 64).view(40, 64)
    expected[:, 54:] = expected[:, :4] = False
    found = similarity_loops.undecided(inside.view(torch.uint8).flatten().numpy(), 64, 50, np.zeros(5 * 2560, np.uint8))
    np.testing.assert_array_equal(found, expected.flatten().nonzero()[:, 0])
    assert 300 < len(found) < 1500


def test_means_beside_a_half_are_decided_as_exact_sums_do():
    """Levels 3 and 4 with half of the weight each: thousands of means within 0.001 of 3.5."""
    generator = np.random.default_rng(0)
    stride, rows = 64, 400
    colors = generator.integers(0, 80, (3, rows * stride), np.uint8)
    levels = generator.integers(3, 5, rows * stride).astype(np.float32)
    pixels = np.array([row * stride + x for row in range(4, rows - 4) for x in range(4, stride - 4)])
    window = [(y, x) for y in range(-4, 5) for x in range(-4, 5) if y * y + x * x <= 16]
    total, norm = 0, 0
    for y, x in window:
        there = pixels + y * stride + x
        change = np.abs(colors[:, there].astype(int) - colors[:, pixels]).sum(0)
        weight = np.exp(-0.5 * (change**2 + y * y + x * x) / SIGMA**2)
        total, norm = total + weight * levels[there], norm + weight
    means = total / norm
    after = [own for own in window if own > (0, 0)]
    shifts = np.array([y * stride + x for y, x in after])
    nearness = np.array([np.exp(-0.5 * (y * y + x * x) / SIGMA**2) for y, x in after])
    likeness = np.exp(-0.5 * np.arange(766) ** 2 / SIGMA**2)
    inside = np.full(rows * stride, 9, np.uint8)
    similarity_loops.filter_pixels(colors, levels, pixels, shifts, nearness, likeness, 3.5, inside)
    assert np.abs(means - 3.5).min() > 1e-9
    np.testing.assert_array_equal(inside[pixels], means > 3.5)
    assert (np.abs(means - 3.5) < 1e-3).sum() > 100 and (inside == 9).sum() == len(inside) - len(pixels)


def test_the_loops_are_loaded_when_torch_has_taken_as_long(monkeypatch):
    """After so many pixels, for few queries on whole levels, with few threads, and where there is Numba."""
    color_map = whole_map(20, 30, 12.0)
    queries = some_queries(color_map, 5)
    expected = similar_masks(color_map, queries, 3.0)
    monkeypatch.setattr(similarity_masks, '_answered', 0)
    monkeypatch.setattr(similarity_masks, 'LOADED_AFTER', 2 * 5 * 600)
    answered = []
    loops = similarity_loops.filtered_masks
    monkeypatch.setattr(similarity_loops, 'filtered_masks', lambda *given: answered.append(1) or loops(*given))

    def by_loops(colors=color_map, asked=queries, smooth=True) -> bool:
        answered.clear()
        masks = similar_masks(colors, asked, 3.0, smooth=smooth)
        assert not smooth or len(asked) != 5 or torch.equal(masks, expected)
        return bool(answered)

    assert [by_loops() for _ in range(4)] == [False, False, True, True]
    assert not by_loops(color_map.float()) and not by_loops(color_map, queries.double()) and not by_loops(smooth=False)
    for threads, most in ((1, 100), (2, 50), (4, 25)):
        with monkeypatch.context() as patched:
            patched.setattr(torch, 'get_num_threads', lambda threads=threads: threads)
            many = queries[:1].expand(most + 1, 3)
            assert by_loops(asked=many[1:]) and not by_loops(asked=many)
            patched.setattr(similarity_masks, 'LARGE', 599)
            assert by_loops(asked=many)
            patched.setattr(torch, 'get_num_threads', lambda: similarity_masks.MAX_THREADS + 1)
            assert not by_loops()
    monkeypatch.setattr(compiled_loops, 'njit', None)
    assert not by_loops()


def test_programs_that_ask_for_much_load_them_at_once(monkeypatch):
    monkeypatch.setattr(similarity_masks, '_answered', 0)
    answered = []
    monkeypatch.setattr(similarity_loops, 'filtered_masks', lambda *given: answered.append(given[0].shape))
    similarity_masks.load_loops()
    similar_masks(torch.zeros(3, 6, 7, dtype=torch.uint8), torch.zeros(1, 3), 3.0)
    assert answered == [(3, 1, 1), (3, 6, 7)]
