"""Instances without prompts: exact on perfect maps, robust on noisy ones; boxes and scores by hand."""

import pytest
import torch

from genseg_mm.functional.color_grouping import group_colors, instance_scores
from genseg_mm.models.map_prompting import automatic_instances, boxes_of, flatness, settings_of

COLORS = torch.tensor([[0, 0, 0], [255, 0, 0], [0, 255, 0], [0, 0, 255], [255, 255, 0], [200, 90, 0], [60, 0, 60.0]])


def scene():
    """Ids: 1 in two parts, 2 and 3 side by side, 4 in 3, 5 and 6 alone; (48, 64)."""
    ids = torch.zeros(48, 64, dtype=torch.long)
    ids[4:12, 4:12] = ids[30:40, 4:14] = 1
    ids[4:20, 20:30], ids[4:20, 30:44] = 2, 3
    ids[8:14, 33:40] = 4
    ids[30:44, 20:34], ids[30:36, 44:60] = 5, 6
    return ids


def painted(ids, colors=COLORS):
    return colors[ids].permute(2, 0, 1)


def masks_of(ids):
    return {tuple(map(tuple, mask.nonzero().tolist())) for mask in ids}


def each(ids):
    return [ids == number for number in ids[ids > 0].unique()]


def test_perfect_maps_give_their_instances():
    ids = scene()
    found = automatic_instances(painted(ids), split_components=False)
    assert len(found) == 6
    assert masks_of(found.masks) == masks_of(each(ids))
    split = automatic_instances(painted(ids))
    assert len(split) == 7
    ids[30:40, 4:14] = 7
    assert masks_of(split.masks) == masks_of(each(ids))
    assert split.labels.tolist() == [0] * 7
    assert torch.equal(split.bboxes, boxes_of(split.masks))
    assert split.scores.tolist() == sorted(split.scores.tolist(), reverse=True)


def test_many_touching_colors_of_all_sizes():
    """48 colours of a 4 x 4 x 4 grid, 70 apart, in cells from 5 x 5 to 40 x 40 pixels."""
    generator = torch.Generator().manual_seed(0)
    levels = torch.tensor([30.0, 100, 170, 240])
    colors = torch.cartesian_prod(levels, levels, levels)[torch.randperm(64, generator=generator)]
    rows = torch.arange(6).repeat_interleave(torch.tensor([5, 8, 12, 20, 30, 40]))
    columns = torch.arange(8).repeat_interleave(torch.tensor([5, 40, 6, 30, 9, 20, 7, 12]))
    ids = rows[:, None] * 8 + columns + 1
    color_map = painted(ids, torch.cat([torch.zeros(1, 3), colors]))
    assert torch.equal(group_colors(color_map, split_components=False), ids)
    assert torch.equal(group_colors(color_map), ids)


def test_ids_are_in_the_order_of_their_first_pixel():
    ids = scene()
    expected = torch.tensor([0, 1, 2, 3, 4, 5, 6])[ids]
    assert torch.equal(group_colors(painted(ids), split_components=False), expected)


def test_small_parts_and_background_are_dropped():
    ids = scene()
    ids[46:48, 60:64] = 2  # 8 pixels
    color_map = painted(ids)
    without = ids.clone()
    without[46:48, 60:64] = 0
    assert masks_of(automatic_instances(color_map, split_components=False).masks) == masks_of(each(without))
    small = automatic_instances(color_map, split_components=False, min_area=8, min_flatness=0.0)
    assert masks_of(small.masks) == masks_of(each(ids))
    dark = automatic_instances(color_map, background=85.0, split_components=False)  # 60 sqrt(2)
    assert masks_of(dark.masks) == masks_of(each(torch.where(without == 6, 0, without)))
    assert len(automatic_instances(torch.zeros(3, 20, 30))) == 0
    assert len(automatic_instances(color_map, max_instances=2)) == 2


def test_noisy_blurred_maps_keep_their_instances():
    generator = torch.Generator().manual_seed(0)
    ids = scene().repeat_interleave(3, 0).repeat_interleave(3, 1)
    color_map = torch.nn.functional.avg_pool2d(painted(ids)[None], 3, 1, 1)[0]
    color_map = (color_map + 8 * torch.randn(color_map.shape, generator=generator)).clamp(0, 255)
    found = automatic_instances(color_map, split_components=False)
    truth = torch.stack(each(ids))
    both = (found.masks[:, None] & truth).sum((2, 3))
    iou = both / (found.masks[:, None] | truth).sum((2, 3))
    assert len(found) == 6
    assert iou.amax(0).min() > 0.75 and iou.amax(0).mean() > 0.85


def test_scores_by_hand():
    """Red (200) on black, 3 pixels from it: 100 / 100 * 200 / 300; grey next to it likewise."""
    ids = torch.zeros(20, 40, dtype=torch.long)
    ids[5:15, 5:15] = 1
    color_map = torch.zeros(3, 20, 40)
    color_map[0, 5:15, 5:15] = 200
    assert instance_scores(color_map, ids).tolist() == pytest.approx([2 / 3])
    color_map[0, 5:15, 5:15:2] = 160
    color_map[0, 5:15, 6:15:2] = 240  # 40 from their mean, 200
    assert instance_scores(color_map, ids).tolist() == pytest.approx([100 / 140 * 200 / 300])
    ids[:] = 1
    assert instance_scores(color_map * 0 + 50, ids).tolist() == pytest.approx([(50 * 3**0.5) / (100 + 50 * 3**0.5)])


def test_a_map_of_a_pixel_and_types_of_maps():
    assert len(automatic_instances(torch.full((3, 1, 1), 200.0), min_area=1)) == 1
    found = automatic_instances(painted(scene()).to(torch.uint8))
    assert len(found) == 7
    assert found.masks[0].dtype == torch.bool


def test_flatness_and_boxes_by_hand():
    colors = torch.zeros(3, 2, 2)
    colors[0, 0, 1] = 6.0  # with (0, 0): mean 3, both 3 away
    masks = torch.tensor([[[1, 1], [0, 0]], [[0, 0], [1, 1]], [[0, 0], [0, 0]]]).bool()
    assert flatness(colors, masks).tolist() == [0.25, 1.0, 0.0]
    assert boxes_of(masks).tolist() == [[0, 0, 2, 1], [0, 1, 2, 2], [0, 0, 0, 0]]
    assert flatness(colors, masks[:0]).tolist() == []
    assert boxes_of(masks[:0]).shape == (0, 4)


def test_flatness_of_many_large_masks_is_that_of_each():
    """3 masks of 700 x 800 pixels are more than a part."""
    generator = torch.Generator().manual_seed(0)
    colors = torch.rand(3, 700, 800, generator=generator) * 255
    masks = torch.zeros(3, 700, 800, dtype=torch.bool)
    masks[0, :200], masks[2, 100:, 300:] = True, True
    singles = [flatness(colors, mask[None]).item() for mask in masks]
    assert flatness(colors, masks).tolist() == pytest.approx(singles, rel=1e-6)
    inside = colors[:, masks[2]].double()
    spread = (inside - inside.mean(1, keepdim=True)).norm(dim=0).mean()
    assert singles[1] == 0 and singles[2] == pytest.approx(1 / (1 + spread.item()), rel=1e-6)


def test_settings_of_a_config():
    assert settings_of(None) is None
    assert settings_of(False) is None
    assert settings_of(True) == {}
    assert settings_of({'min_area': 5}) == {'min_area': 5}
    with pytest.raises(ValueError, match='automatic: expected settings out of background, .*minarea'):
        settings_of({'minarea': 5})
    with pytest.raises(ValueError, match="automatic: expected settings, True or None, but got 'on'"):
        settings_of('on')


@pytest.mark.parametrize(
    ('setting', 'message'),
    [
        ({'background': -1.0}, r'background: .*-1\.0'),
        ({'bandwidth': 0.0}, r'bandwidth: .*0\.0'),
        ({'min_area': 0}, 'min_area: .*0'),
        ({'min_flatness': 2.0}, r'min_flatness: .*2\.0'),
        ({'max_instances': 0}, 'max_instances: .*0'),
    ],
)
def test_bad_settings_are_named(setting, message):
    with pytest.raises(ValueError, match=message):
        automatic_instances(torch.zeros(3, 4, 5), **setting)


def test_bad_map_is_named():
    with pytest.raises(ValueError, match=r'color_map: .*\(1, 4, 5\)'):
        automatic_instances(torch.zeros(1, 4, 5))
