"""Prompts against loops over pixels in float64, and by hand."""

import numpy as np
import pytest
import torch
from plain_prompting import POINTS, grey_row, patches, plain_mask

from genseg_mm.functional import similarity_masks
from genseg_mm.functional.point_prompting import masks_from_points


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
