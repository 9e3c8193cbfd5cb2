"""Query colours of points against sums over the whole map, and of boxes by hand."""

import numpy as np
import pytest
import torch
from plain_prompting import patches, plain_query

from genseg_mm.functional.prompt_queries import box_queries, pixel_ranges, query_colors


@pytest.mark.parametrize('size', [(3, 40, 50), (3, 31, 90), (3, 25, 1)])
def test_query_is_the_gaussian_mean_over_the_whole_map(size):
    rng = np.random.default_rng(0)
    color_map = rng.uniform(0, 255, size)
    color_map[:, :, :1] = 200  # a border, so that width 1 has a hand-worked answer
    points = np.stack([rng.uniform(0, size[2] - 1, 20), rng.uniform(0, size[1] - 1, 20)], 1)
    points[:10] = points[:10].round()
    for sigma in (0.01, 0.05):
        queries = query_colors(torch.from_numpy(color_map), torch.from_numpy(points), sigma)
        if size[2] == 1:
            expected = np.full((20, 3), 200.0)
        else:
            expected = np.stack([plain_query(color_map, point, sigma) for point in points])
        assert queries.numpy() == pytest.approx(expected, rel=5e-6)
        rounded = query_colors(torch.from_numpy(color_map).float(), torch.from_numpy(points).float(), sigma)
        assert rounded.dtype == torch.float32
        assert rounded.numpy() == pytest.approx(expected, rel=5e-6)


def test_query_at_integers_is_exact():
    color_map, _ = patches(200, 310)
    points = np.array([[0, 0], [309, 199], [17, 150], [200, 3]])
    queries = query_colors(torch.from_numpy(color_map), torch.from_numpy(points))
    expected = np.stack([plain_query(color_map, point) for point in points])
    assert queries.numpy() == pytest.approx(expected, rel=1e-12)


def test_query_between_the_pixels_of_a_tiny_map_is_not_black():
    color_map = torch.zeros(3, 8, 8)
    color_map[0], color_map[1, :, 4:] = 90, 60
    queries = query_colors(color_map, torch.tensor([[3.5, 3.5], [3.0, 3.0], [4.0, 3.0]]))
    expected = [[90, 30, 0], [90, 0, 0], [90, 60, 0]]
    assert torch.allclose(queries, torch.tensor(expected, dtype=torch.float32), atol=1e-3)


def frame(height=40, width=60):
    """A black map, (3, H, W)."""
    return torch.zeros(3, height, width)


RED, GREEN, GREY = (torch.tensor(color)[:, None] for color in ([200.0, 0, 0], [0, 180.0, 40], [90.0] * 3))


def query_of(color_map, *box):
    return box_queries(color_map, torch.tensor([box]))[0].tolist()


def test_pixels_of_a_box_are_those_with_their_centre_inside():
    boxes = torch.tensor([[3.0, 2.0, 13.0, 10.0], [2.4, 1.6, 4.6, 3.4], [-3.0, 0.0, 2.5, 9.0]])
    assert pixel_ranges(boxes).tolist() == [[3, 2, 13, 10], [2, 2, 5, 3], [-3, 0, 2, 9]]


def test_box_around_an_object_asks_for_its_color():
    color_map = frame()
    color_map[:, 10:25, 20:30] = RED[..., None]
    assert query_of(color_map, 20, 10, 30, 25) == [200, 0, 0]
    assert query_of(color_map, 17, 8, 34, 29) == [200, 0, 0]  # drawn loosely: 45 % are the object


def test_object_off_the_centre_of_its_box():
    """A quarter of the box in its corner; its centre is background, which the frame gives away."""
    color_map = frame()
    color_map[:, 10:20, 20:30] = RED[..., None]
    assert color_map[:, 20, 30].tolist() == [0, 0, 0]
    assert query_of(color_map, 20, 10, 40, 30) == [200, 0, 0]


def test_ring_around_another_object():
    """A ring of 7 pixels touches all sides; the disk in it is larger, but does not."""
    y, x = torch.meshgrid(torch.arange(64.0), torch.arange(64.0), indexing='ij')
    distance = (x - 32).hypot(y - 32)
    color_map = frame(64, 64)
    color_map[:, distance < 28] = RED
    color_map[:, distance < 21] = GREEN
    assert (distance < 21).sum() > ((distance >= 21) & (distance < 28)).sum()
    assert query_of(color_map, 5, 5, 60, 60) == [200, 0, 0]
    assert query_of(color_map, 12, 12, 53, 53) == pytest.approx([0, 180, 40], abs=1e-4)
    color_map[:, distance < 21] = 0  # a hole: the centre is background
    assert query_of(color_map, 5, 5, 60, 60) == [200, 0, 0]


def test_neighbor_that_reaches_in_is_not_meant():
    color_map = frame()
    color_map[:, :, 28:] = GREEN[..., None]  # covers 60 % of the box, and goes on outside
    color_map[:, 10:30, 20:28] = RED[..., None]
    assert query_of(color_map, 20, 10, 40, 30) == [200, 0, 0]


def test_noise_is_averaged_and_prompts_do_not_mix():
    generator = torch.Generator().manual_seed(0)
    color_map = frame(80, 100) + 10
    color_map[:, 10:40, 5:45] = RED[..., None]
    color_map[:, 45:75, 50:90] = GREY[..., None]
    color_map += torch.randn(3, 80, 100, generator=generator) * 8
    boxes = torch.tensor([[5, 10, 45, 40], [50, 45, 90, 75], [0, 0, 4, 4]])
    queries = box_queries(color_map, boxes)
    expected = torch.tensor([[200.0, 0, 0], [90, 90, 90], [10, 10, 10]])
    assert (queries - expected).abs().max() < 5  # a pixel's own noise is 8
    alone = torch.cat([box_queries(color_map, box[None]) for box in boxes])
    assert torch.allclose(queries, alone)


@pytest.mark.parametrize('box', [(0, 0, 60, 40), (7, 9, 8, 10), (59, 0, 60, 40)])
def test_box_of_the_whole_map_of_a_pixel_and_of_the_border(box):
    color_map = frame() + 77
    assert query_of(color_map, *box) == [77, 77, 77]
