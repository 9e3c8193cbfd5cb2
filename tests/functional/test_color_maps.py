"""Edges and scales of colour maps by hand; the controls are tested with the metric."""

import math

import pytest
import torch
from torch.testing import assert_close

from genseg_mm.functional.color_maps import color_edges, edge_strength, normalize_colors, stretch_colors, thin_edges


def two_colors(where: torch.Tensor, first=(0.0, 0.0, 0.0), second=(255.0, 0.0, 0.0)):
    """Colour map (3, H, W): second where ``where`` (H, W), else first."""
    first, second = torch.tensor(first)[:, None, None], torch.tensor(second)[:, None, None]
    return torch.where(where, second, first)


def grid(size: int = 9) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.meshgrid(torch.arange(size), torch.arange(size), indexing='ij')


def lines_of(colors: torch.Tensor, sigma: float) -> list[tuple[int, int]]:
    """(row, column) of what is left after suppression."""
    return (thin_edges(*color_edges(colors, sigma)) > 1e-6).nonzero().tolist()


ROWS, COLUMNS = grid()


@pytest.mark.parametrize('sigma', [0.0, 0.7, 1.0, 2.0])
def test_a_step_is_one_line_just_before_it(sigma):
    upright = lines_of(two_colors(COLUMNS >= 4), sigma)
    assert upright == [[row, 3] for row in range(9)]
    lying = lines_of(two_colors(ROWS >= 4), sigma)
    assert lying == [[3, column] for column in range(9)]
    # The same with the colours exchanged: the normal has no direction.
    assert lines_of(two_colors(COLUMNS < 4), sigma) == upright


@pytest.mark.parametrize('sigma', [0.0, 1.0, 2.5])
def test_strength_of_a_straight_step_is_its_height(sigma):
    step = two_colors(COLUMNS >= 4, (10, 20, 30), (40, 60, 30))  # at distance 50
    strength = edge_strength(step, sigma)
    expected = torch.full((9,), 50 / 255)
    torch.testing.assert_close(strength[:, 3], expected, rtol=0, atol=1e-6 if sigma < 2 else 2e-3)
    torch.testing.assert_close(strength[:, 4], strength[:, 3])
    assert (strength[:, 3] >= strength.max(1).values - 1e-6).all()


def test_values_without_smoothing():
    colors = torch.zeros(3, 1, 5)
    colors[1, 0] = torch.tensor([0.0, 0, 51, 255, 255])
    # Differences (f[x + 1] - f[x - 1]) / 2, and a step of 1 has 1 / 2: f[x + 1] - f[x - 1] in units of 255.
    expected = torch.tensor([[0, 51, 255, 204, 0]]) / 255
    torch.testing.assert_close(edge_strength(colors, 0), expected)
    # Steps of two channels add up as in the plane of their colours: 3, 4 -> 5.
    colors = two_colors(COLUMNS >= 4, second=(30.0, 40, 0))
    torch.testing.assert_close(edge_strength(colors, 0)[0, 3], torch.tensor(50 / 255))
    # Opposite steps of two channels do not cancel.
    colors = two_colors(COLUMNS >= 4, (40.0, 0, 0), (0.0, 30, 0))
    torch.testing.assert_close(edge_strength(colors, 0)[0, 3], torch.tensor(50 / 255))


@pytest.mark.parametrize(
    ('where', 'angle'),
    [
        (COLUMNS >= 4, 0),
        (COLUMNS < 4, 0),
        (ROWS >= 4, 90),
        (ROWS < 4, 90),
        (COLUMNS + ROWS >= 9, 45),
        (COLUMNS - ROWS >= 1, -45),
    ],
    ids=['right', 'left', 'down', 'up', 'to lower right', 'to upper right'],
)
def test_normals(where, angle):
    _, normal = color_edges(two_colors(where), 1.0)
    expected = torch.tensor([math.cos(math.radians(angle)), math.sin(math.radians(angle))])
    torch.testing.assert_close(normal[:, 4, 4], expected, atol=1e-5, rtol=0)
    torch.testing.assert_close(normal.norm(dim=0), torch.ones(9, 9))


@pytest.mark.parametrize('sigma', [0.0, 1.0])
def test_a_diagonal_step_is_the_two_diagonals_beside_it(sigma):
    size = 12
    rows, columns = grid(size)
    line = lines_of(two_colors(columns + rows >= size), sigma)
    inner = [(row, column) for row, column in line if 2 <= row <= 9 and 2 <= column <= 9]
    expected = [(row, size - 1 - row + side) for row in range(2, 10) for side in (0, 1)]
    assert inner == [(row, column) for row, column in expected if column <= 9]


def test_flat_maps_have_no_edges():
    flat = torch.full((3, 6, 7), 200.0)
    assert edge_strength(flat, 1.0).abs().max() < 1e-6
    strength, normal = color_edges(flat, 0)
    assert strength.count_nonzero() == 0
    torch.testing.assert_close(normal, torch.tensor([1.0, 0])[:, None, None].expand(2, 6, 7))
    assert thin_edges(strength, normal).count_nonzero() == 0
    assert edge_strength(torch.full((3, 1, 1), 7.0), 1.0).tolist() == [[0.0]]


def test_whole_numbers_are_taken_and_precision_is_kept():
    step = two_colors(COLUMNS >= 4, (10, 20, 30), (40, 60, 30)).to(torch.uint8)
    strength = edge_strength(step, 0)
    assert strength.dtype == torch.float32
    torch.testing.assert_close(strength[0, 3], torch.tensor(50 / 255))
    torch.testing.assert_close(edge_strength(step.double(), 0)[0, 3].item(), 50 / 255)


def test_steps_at_the_border():
    assert lines_of(two_colors(COLUMNS >= 1), 0) == [[row, 0] for row in range(9)]
    assert lines_of(two_colors(COLUMNS >= 8), 0) == [[row, 7] for row in range(9)]
    assert lines_of(two_colors(ROWS >= 8), 1.0) == [[7, column] for column in range(9)]


def test_strength_never_passes_one():
    where = COLUMNS + ROWS >= 9
    strength = edge_strength(two_colors(where, (0, 0, 0), (255, 255, 255)), 0)
    assert strength.max() == 1 and strength[0, 0] == 0


def test_suppression_by_hand():
    strength = torch.tensor([[0.0, 0.2, 0.9, 0.9, 0.1]] * 3)
    normal = torch.zeros(2, 3, 5)
    normal[0] = 1
    kept = [0, 0, 0.9, 0, 0]
    torch.testing.assert_close(thin_edges(strength, normal), torch.tensor([kept] * 3))
    # Against the other normal all rows are equal: beyond the border is nothing, so the first row stays.
    downward = normal.flip(0)
    expected = torch.zeros(3, 5)
    expected[0] = strength[0]
    torch.testing.assert_close(thin_edges(strength, downward), expected)
    # Half a pixel ahead the interpolated value is (0.9 + 0.1) / 2 = 0.5, behind (0.2 + 0.9) / 2.
    half = torch.tensor([[0.0, 0.2, 0.9, 0.1, 0.0]])
    kept = thin_edges(half, torch.tensor([0.5, 0.0])[:, None, None].expand(2, 1, 5))
    torch.testing.assert_close(kept, torch.tensor([[0, 0, 0.9, 0, 0]]))


def test_bad_arguments():
    with pytest.raises(ValueError, match=r'color_map must be \(3, H, W\), but got \(1, 3, 4, 4\)'):
        edge_strength(torch.zeros(1, 3, 4, 4))
    with pytest.raises(ValueError, match='sigma must not be negative, but got -1'):
        edge_strength(torch.zeros(3, 4, 4), -1)
    with pytest.raises(ValueError, match=r'normal \(2, H, W\), but got \(4, 4\) and \(2, 4, 5\)'):
        thin_edges(torch.zeros(4, 4), torch.zeros(2, 4, 5))


# Colour scales


def random_maps(height: int, width: int, num: int = 1) -> torch.Tensor:
    return torch.rand(num, 3, height, width, generator=torch.Generator().manual_seed(0)) * 2 - 1


def test_batch_scale_by_hand():
    raw = torch.tensor([[-1.0, 0.0], [2.0, 3.0]]).view(2, 1, 1, 2).expand(2, 3, 1, 2)
    colors = normalize_colors(raw, 'batch')  # (x + 1) / (3 + 1 + 1e-5) * 255
    expected = torch.tensor([[0.0, 63.75], [191.25, 255.0]]).view(2, 1, 1, 2).expand(2, 3, 1, 2)
    assert_close(colors, expected, rtol=0, atol=1e-3)


def test_batch_scale_keeps_the_references_formula_where_all_values_are_positive():
    raw = torch.tensor([1.0, 3.0]).view(1, 1, 1, 2).expand(1, 3, 1, 2)
    colors = normalize_colors(raw, 'batch')  # (1 + |1|) / (3 + 1) and (3 + |1|) / (3 + 1)
    assert_close(colors[0, 0, 0], torch.tensor([127.5, 255.0]), rtol=0, atol=1e-3)


def test_image_scale_does_not_depend_on_the_batch_and_batch_scale_does():
    raw = random_maps(32, 32, 2) * torch.tensor([1.0, 5.0]).view(2, 1, 1, 1)
    for scale, couples in (('image', False), ('sigmoid', False), ('none', False), ('batch', True)):
        together, alone = normalize_colors(raw, scale)[:1], normalize_colors(raw[:1], scale)
        assert torch.equal(together, alone) is not couples


def test_sigmoid_scale_by_hand():
    raw = torch.full((1, 3, 1, 1), 2 + math.log(3))
    assert_close(normalize_colors(raw, 'sigmoid', bias=-2.0), torch.full_like(raw, 191.25))


def test_none_scale_takes_raw_values_as_colors():
    raw = random_maps(32, 32)
    assert torch.equal(normalize_colors(raw, 'none'), raw)


def test_unknown_scale():
    with pytest.raises(ValueError, match="normalize must be one of batch.*but got 'minmax'"):
        normalize_colors(random_maps(8, 8), 'minmax')


def test_stretch_by_hand():
    colors = torch.tensor([10.0, 20.0, 50.0]).view(3, 1, 1)
    assert_close(stretch_colors(colors).flatten(), torch.tensor([0.0, 63.75, 255.0]))
    assert_close(stretch_colors(colors, gamma=0.5).flatten(), torch.tensor([0.0, 127.5, 255.0]))
    assert stretch_colors(torch.full((3, 2, 2), 7.0)).abs().max() == 0
