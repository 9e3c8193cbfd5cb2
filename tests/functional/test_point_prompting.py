"""Prompts against loops over pixels in float64, and by hand."""

import numpy as np
import pytest
import torch
from plain_prompting import POINTS, grey_row, patches, plain_mask, plain_query

from genseg_mm.functional import similarity_masks
from genseg_mm.functional.point_prompting import (
    box_queries,
    check_prompts,
    masks_from_points,
    pixel_ranges,
    query_colors,
)


def test_mask_is_where_the_level_exceeds_three():
    """Levels 254, 126, 24, 4, 3, 2, 0 as above; the query is next to black at the first pixel."""
    row = grey_row(0.0, 1.0, 2.0, 10.0, 50.0, 60.0, 85.0, 255.0)
    arguments = {'sigma': 1e-3, 'rule': 'paper', 'smooth': False}
    mask = masks_from_points(row, [[0, 0]], **arguments)
    assert mask.tolist() == [[[True] * 5 + [False] * 3]]
    mask = masks_from_points(row, [[0, 0]], threshold=2 / 255, **arguments)
    assert mask.tolist() == [[[True] * 6 + [False] * 2]]
    mask = masks_from_points(row, [[0, 0]], threshold=0.4, **arguments)  # level 102
    assert mask.tolist() == [[[True] * 3 + [False] * 5]]


@pytest.mark.parametrize('rule', ['reference', 'paper'])
@pytest.mark.parametrize('smooth', [True, False])
def test_masks_equal_the_plain_loop(rule, smooth):
    color_map, _ = patches()
    masks = masks_from_points(torch.from_numpy(color_map), POINTS, rule=rule, smooth=smooth)
    for mask, point in zip(masks.numpy(), POINTS.numpy(), strict=True):
        assert np.array_equal(mask, plain_mask(color_map, [point], [1], rule, smooth))
    assert 0.02 < masks.float().mean() < 0.9  # neither side is trivial


def test_the_reference_rule_reads_whole_levels_and_no_other_rule_does():
    color_map = torch.from_numpy(patches()[0]).float()
    cut = color_map.byte().float()
    boxes = dict(boxes=[[2, 3, 20, 15]] * len(POINTS))
    for extra in ({}, boxes, dict(component=True), dict(smooth=False)):
        masks = masks_from_points(color_map, POINTS, **extra)
        assert torch.equal(masks, masks_from_points(color_map.byte(), POINTS, **extra))
        assert torch.equal(masks, masks_from_points(cut, POINTS, **extra))
        assert masks.any()
    # Colours that a filter pushed past the ends are cut, too, and the map that was given stays.
    wide = (color_map - 20) * 1.2
    before = wide.clone()
    assert torch.equal(masks_from_points(wide, POINTS), masks_from_points(wide.clamp(0, 255).byte(), POINTS))
    assert torch.equal(wide, before)
    near = grey_row(10.0, 10.9, 20.0, 90.0)  # 10 and 10 in whole levels
    query = dict(sigma=1e-3, smooth=False)
    assert masks_from_points(near, [[0, 0]], **query).tolist() == [[[True, True, False, False]]]
    for settings in (dict(radius=0.5), dict(rule='paper', threshold=0.99)):
        mask = masks_from_points(near, [[0, 0]], **settings, **query)
        assert mask[0, 0, 0] and mask[0, 0, 1] == ('rule' in settings)


def test_several_and_negative_points_equal_the_plain_loop():
    color_map, _ = patches()
    points = POINTS[torch.tensor([[0, 1, 2], [3, 4, 0], [1, 1, 1]])]
    labels = [[1, 1, 0], [1, 0, 0], [1, 1, 1]]
    masks = masks_from_points(torch.from_numpy(color_map), points, labels)
    for mask, prompt, label in zip(masks.numpy(), points.numpy(), labels, strict=True):
        assert np.array_equal(mask, plain_mask(color_map, prompt, label))


def test_flat_patches_are_found():
    color_map, patch = patches(60, 80, seed=2, noise=0.0)
    x, y = 10, 12
    truth = torch.from_numpy(patch == patch[y, x])
    color_map = torch.from_numpy(color_map).float()
    assert torch.equal(masks_from_points(color_map, [[x, y]], radius=20.0)[0], truth)
    assert torch.equal(masks_from_points(color_map, [[x, y]], smooth=False)[0], truth)
    # The filter lets the mask grow by at most its window.
    smooth = masks_from_points(color_map, [[x, y]])[0]
    grown = torch.nn.functional.max_pool2d(truth[None].float(), 9, 1, 4)[0] > 0
    assert (smooth | truth).equal(smooth) and (smooth & grown).equal(smooth)


def test_points_are_x_then_y():
    color_map = torch.zeros(3, 40, 90)
    color_map[:, 10:20, 60:70] = 200
    mask = masks_from_points(color_map, torch.tensor([[65, 15]]), radius=50.0)[0]
    assert torch.equal(mask, color_map[0] == 200)


def test_a_batch_is_its_prompts_one_at_a_time(monkeypatch):
    color_map = torch.from_numpy(patches()[0]).float()
    together = masks_from_points(color_map, POINTS)
    singles = [masks_from_points(color_map, point[None])[0] for point in POINTS]
    assert torch.equal(together, torch.stack(singles))
    assert torch.equal(together, masks_from_points(color_map, POINTS[:, None]))
    points, labels = POINTS[torch.tensor([[0, 1], [2, 3], [4, 0]])], [[1, 0], [1, 1], [1, 0]]
    expected = [masks_from_points(color_map, points, labels, radius=r) for r in (None, 70.0)]
    monkeypatch.setattr(
        similarity_masks, 'parts', lambda num_maps, *_, **__: (slice(start, start + 1) for start in range(num_maps))
    )
    for radius, masks in zip((None, 70.0), expected, strict=True):
        parts = masks_from_points(color_map, points, labels, radius=radius)
        assert torch.equal(parts, masks)


def test_several_points_are_the_union():
    color_map = torch.from_numpy(patches()[0])
    masks = masks_from_points(color_map, POINTS)
    assert torch.equal(masks_from_points(color_map, POINTS[None])[0], masks.any(0))
    masks = masks_from_points(color_map, POINTS, radius=60.0)
    assert torch.equal(masks_from_points(color_map, POINTS[None], radius=60.0)[0], masks.any(0))


def test_radius_by_hand():
    row = grey_row(0.0, 9.0, 10.0, 11.0, 200.0)
    prompts = [[[0, 0], [4, 0]]]
    query = {'sigma': 1e-3}  # the pixel itself, but for 1e-6 of it
    assert masks_from_points(row, [[0, 0]], radius=10.0, **query).tolist() == [[[True, True, False, False, False]]]
    assert masks_from_points(row, prompts, radius=10.5, **query).tolist() == [[[True, True, True, False, True]]]
    negative = masks_from_points(row, prompts, [[1, 0]], radius=300.0, **query)
    assert negative.tolist() == [[[True, True, True, True, False]]]


def test_a_tie_with_a_negative_point_stays():
    row = grey_row(0.0, 100.0, 200.0)
    mask = masks_from_points(row, [[[0, 0], [0, 0]]], [[1, 0]], radius=300.0)
    assert mask.tolist() == [[[True, True, True]]]


def test_one_color_gives_an_empty_mask_unless_a_radius_is_given():
    color_map = torch.full((3, 20, 30), 77.0)
    assert masks_from_points(color_map, [[3, 4]]).sum() == 0
    assert masks_from_points(color_map, [[3, 4]], rule='paper').sum() == 0
    assert masks_from_points(color_map, [[3, 4]], radius=1.0).sum() == 600


def test_types_of_maps_and_no_prompt():
    color_map = torch.from_numpy(patches()[0].round())
    expected = masks_from_points(color_map, POINTS, rule='paper')
    for dtype in (torch.uint8, torch.float32, torch.bfloat16):
        masks = masks_from_points(color_map.to(dtype), POINTS.numpy(), rule='paper')
        assert (masks != expected).float().mean() < 1e-3
    assert masks_from_points(color_map, torch.zeros(0, 2)).shape == (0, 22, 27)
    assert masks_from_points(color_map, torch.zeros(0, 3, 2), torch.zeros(0, 3)).numel() == 0


def test_autocast_changes_nothing():
    color_map = torch.from_numpy(patches()[0]).float().requires_grad_()
    expected = masks_from_points(color_map, POINTS)
    with torch.autocast('cpu', dtype=torch.bfloat16):
        masks = masks_from_points(color_map, POINTS)
    assert torch.equal(masks, expected) and masks.any()


GOOD = {'color_map': torch.zeros(3, 4, 5), 'points': [[1.0, 2.0]]}


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        ({'color_map': torch.zeros(4, 4, 5)}, r'color_map: .*\(4, 4, 5\)'),
        ({'color_map': torch.zeros(1, 3, 4, 5)}, r'color_map: .*\(1, 3, 4, 5\)'),
        ({'color_map': torch.zeros(3, 4, 5, dtype=torch.int32)}, 'color_map: .*torch.int32'),
        ({'color_map': torch.full((3, 4, 5), torch.nan)}, 'color_map: .*NaN'),
        ({'points': [1.0, 2.0]}, r'points: .*\(2,\)'),
        ({'points': torch.zeros(2, 3)}, r'points: .*\(2, 3\)'),
        ({'points': torch.zeros(2, 0, 2)}, r'points: .*\(2, 0, 2\)'),
        ({'points': [[5.0, 2.0]]}, r'points: .*width 5 and height 4, but got \(5.0, 2.0\)'),
        ({'points': [[2.0, -1.0]]}, r'points: .*\(2.0, -1.0\)'),
        ({'points': [[2.0, torch.nan]]}, r'points: .*\(2.0, nan\)'),
        ({'points': [[True, False]]}, 'points: .*torch.bool'),
        ({'point_labels': [[1]]}, r'point_labels: expected \(1,\).*\(1, 1\)'),
        ({'point_labels': [2]}, r'point_labels: .*\[2\]'),
        ({'points': None}, 'points: expected points, boxes or both, but got neither'),
        ({'points': None, 'point_labels': [1], 'boxes': [[0, 0, 2, 2]]}, 'point_labels: .*none without'),
        ({'boxes': [0, 0, 2, 2]}, r'boxes: expected \(1, 4\) .*\(4,\)'),
        ({'boxes': [[3, 0, 3, 2]]}, r'boxes: .*prompt 0 has \[3.0, 0.0, 3.0, 2.0\]'),
        ({'boxes': [[5, 0, 9, 2]]}, 'boxes: .*width 5 and height 4'),
        ({'boxes': [[0, 0, torch.nan, 2]]}, 'boxes: .*nan'),
        ({'point_labels': [-1]}, 'prompt 0 has none'),
        ({'point_labels': [0]}, 'point_labels: .*prompt 0 has none'),
        ({'rule': 'papers'}, "rule: .*'papers'"),
        ({'threshold': 3.0}, r'threshold: .*3\.0'),
        ({'radius': 0.0}, r'radius: .*0\.0'),
        ({'sigma': 0.0}, r'sigma: .*0\.0'),
    ],
)
def test_bad_arguments_are_named(change, message):
    with pytest.raises(ValueError, match=message):
        masks_from_points(**{**GOOD, **change})


def test_prompts_are_checked_before_there_is_a_map():
    points, labels, ranges = check_prompts([[500, -3], [1, 2]], [1, -1], [[0, 0, 900.4, 2], [-1, 0, 2.6, 1]])
    assert points.tolist() == [[[500, -3]], [[0, 0]]] and labels.tolist() == [[1], [-1]]
    assert ranges.tolist() == [[0, 0, 900, 2], [-1, 0, 3, 1]]
    points, labels, ranges = check_prompts(boxes=[[0, 0, 2, 2]], size=(1, 5))
    assert points.shape == (1, 0, 2) and labels.shape == (1, 0) and ranges.tolist() == [[0, 0, 2, 1]]
    with pytest.raises(
        ValueError, match=r'boxes: expected x0 < x1 and y0 < y1, but prompt 1 has \[2.0, 0.0, 2.0, 1.0\]'
    ):
        check_prompts(boxes=[[0, 0, 2, 2], [2, 0, 2, 1]])
    with pytest.raises(ValueError, match='points: expected .* inside the map of width 5 and height 1'):
        check_prompts([[3, 2]], size=(1, 5))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason='needs a CUDA device')
def test_cuda_equals_cpu():
    color_map = torch.from_numpy(patches()[0])
    points, labels = (POINTS[torch.tensor([[0, 1, 2], [3, 4, 0]])], torch.tensor([[1, 1, 0], [1, 0, 0]]))
    expected = masks_from_points(color_map, points, labels)
    masks = masks_from_points(color_map.cuda(), points, labels)
    assert (masks.cpu() != expected).float().mean() < 1e-3


@pytest.mark.parametrize('shape', [(0, 2), (0, 3, 2)])
@pytest.mark.parametrize('settings', [{}, {'radius': 5.0}])
def test_no_prompt_gives_no_mask(shape, settings):
    labels = torch.ones(shape[:-1])
    for point_labels in (None, labels):
        masks = masks_from_points(torch.zeros(3, 4, 5), torch.zeros(shape), point_labels, **settings)
        assert masks.tolist() == [] and masks.shape == (0, 4, 5)


def two_squares():
    """Two red squares and a green one on black, (3, 40, 60): rows 10 to 19."""
    color_map = torch.zeros(3, 40, 60)
    color_map[0, 10:20, 5:15] = color_map[0, 10:20, 35:45] = 200
    color_map[1, 10:20, 20:30] = 180
    return color_map


def square(left, right, top=10, bottom=20):
    mask = torch.zeros(40, 60, dtype=torch.bool)
    mask[top:bottom, left:right] = True
    return mask


PLAIN = {'radius': 40.0, 'sigma': 0.001}


def test_a_box_cuts_the_mask_of_a_point():
    masks = masks_from_points(two_squares(), [[7, 12], [7, 12]], boxes=[[0, 0, 30, 40], [3.0, 12.4, 9, 40]], **PLAIN)
    assert torch.equal(masks[0], square(5, 15))
    assert torch.equal(masks[1], square(5, 9, top=12))  # 12.5, a centre, is below 12.4


def test_a_box_alone_finds_its_object():
    boxes = [[5, 10, 15, 20], [20, 10, 30, 20], [18.0, 8.0, 33.0, 23.0]]
    masks = masks_from_points(two_squares(), boxes=boxes, **PLAIN)
    assert torch.equal(masks, torch.stack([square(5, 15), square(20, 30), square(20, 30)]))
    smooth = masks_from_points(two_squares(), boxes=torch.tensor(boxes[:1]))[0]
    assert torch.equal(smooth, square(5, 15))  # the filter's growth is cut off
    single = [masks_from_points(two_squares(), boxes=[box], **PLAIN)[0] for box in boxes]
    assert torch.equal(masks, torch.stack(single))


def test_prompts_with_and_without_points_in_one_batch():
    """A box alone, a box with a negative point, a point with a box, two points without padding."""
    nothing = [torch.nan, torch.inf]
    masks = masks_from_points(
        two_squares(),
        [[nothing, nothing], [[40, 15], nothing], [[7, 12], nothing], [[7, 12], [25, 15]]],
        [[-1, -1], [0, -1], [1, -1], [1, 1]],
        boxes=[[20, 10, 30, 20], [20, 10, 45, 20], [0, 0, 60, 40], [0, 0, 60, 40]],
        **PLAIN,
    )
    red = square(5, 15) | square(35, 45)
    # The box over green and red asks for one of them; if for red, the negative point takes it all.
    assert torch.equal(masks[0], square(20, 30))
    assert not (masks[1] & red).any()
    assert torch.equal(masks[2], red)
    assert torch.equal(masks[3], red | square(20, 30))


def test_component_keeps_what_the_points_are_on():
    both = square(5, 15) | square(35, 45)
    color_map = two_squares()
    assert torch.equal(masks_from_points(color_map, [[7, 12]], **PLAIN)[0], both)
    masks = masks_from_points(
        color_map,
        [[[7, 12], [7, 12]], [[40, 15], [7, 12]], [[40, 15], [25, 15]]],
        [[1, -1], [1, 1], [1, 0]],
        component=True,
        **PLAIN,
    )
    assert torch.equal(masks, torch.stack([square(5, 15), both, square(35, 45)]))


def test_component_of_a_box_is_the_largest():
    color_map = two_squares()
    color_map[1] = 0
    masks = masks_from_points(color_map, boxes=[[8, 10, 45, 20], [5, 10, 40, 20]], component=True, **PLAIN)
    assert torch.equal(masks, torch.stack([square(35, 45), square(5, 15)]))


def test_component_next_to_a_point_off_the_mask():
    """A speck under the point; 3 sigma reach 3 x 0.02 x 60 = 3.6 pixels."""
    color_map = two_squares()
    color_map[:, 12, 7] = 0
    settings = {'radius': 120.0, 'sigma': 0.02, 'component': True}
    expected = square(5, 15)
    expected[12, 7] = False
    assert torch.equal(masks_from_points(color_map, [[7, 12]], **settings)[0], expected)


# Query colours: of points against sums over the whole map, of boxes by hand


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
