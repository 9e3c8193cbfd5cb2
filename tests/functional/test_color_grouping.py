"""Connected components against a flood fill, number by number, on random maps and winding masks."""

import numpy as np
import pytest
import torch

from genseg_mm.functional.color_grouping import connected_components


def flooded(maps):
    """Components of equal values that are not 0, pixel by pixel from the first one on."""
    labels = np.zeros(maps.shape, np.int64)
    for values, numbers in zip(maps, labels, strict=True):
        for start in zip(*values.nonzero(), strict=True):
            if numbers[start]:
                continue
            numbers[start], waiting = numbers.max() + 1, [start]
            while waiting:
                y, x = waiting.pop()
                near = slice(max(y - 1, 0), y + 2), slice(max(x - 1, 0), x + 2)
                for dy, dx in zip(*((values[near] == values[y, x]) & (numbers[near] == 0)).nonzero(), strict=True):
                    place = near[0].start + dy, near[1].start + dx
                    numbers[place] = numbers[start]
                    waiting.append(place)
    return labels


def spiral(side):
    """One way of width 1 that winds inwards, (side, side) bool."""
    mask = np.zeros((side, side), bool)
    y, x, dy, dx = 0, -1, 0, 1
    length, turns = side, 0
    while length > 0:
        for _ in range(length):
            y, x = y + dy, x + dx
            mask[y, x] = True
        dy, dx, turns = dx, -dy, turns + 1
        if turns == 1:
            length = side - 1
        elif turns > 2 and turns % 2 == 1:
            length -= 2
    return mask


def comb(height, width):
    """Teeth that meet in the last row only."""
    mask = np.zeros((height, width), bool)
    mask[:, ::2] = mask[-1] = True
    return mask


def test_by_hand():
    mask = torch.tensor([[1, 0, 0, 1], [0, 1, 0, 1], [0, 0, 0, 0], [1, 1, 0, 1]]).bool()
    assert connected_components(mask[None]).tolist() == [[[1, 0, 0, 2], [0, 1, 0, 2], [0, 0, 0, 0], [3, 3, 0, 4]]]


@pytest.mark.parametrize('num_colors', [1, 3])
@pytest.mark.parametrize('size', [(1, 1), (1, 9), (9, 1), (13, 17), (40, 70)])
def test_random_maps_equal_a_flood_fill(size, num_colors):
    rng = np.random.default_rng(0)
    for share in (0.0, 0.3, 0.6, 1.0):
        maps = (rng.random((2, *size)) < share) * rng.integers(1, num_colors + 1, (2, *size))
        maps = maps > 0 if num_colors == 1 else maps
        labels = connected_components(torch.from_numpy(maps))
        assert labels.dtype == torch.int64
        assert np.array_equal(labels.numpy(), flooded(maps))


@pytest.mark.parametrize(
    'mask',
    [
        spiral(61),
        ~spiral(61),
        spiral(60)[::-1].copy(),
        comb(20, 41),
        comb(20, 41)[::-1].copy(),
        comb(20, 41).T.copy(),
        np.indices((30, 31)).sum(0) % 2 == 0,
        np.indices((30, 31)).sum(0) % 3 == 0,
    ],
    ids=['spiral', 'outside', 'flipped', 'comb', 'turned', 'sideways', 'chess', 'diagonals'],
)
def test_winding_masks_equal_a_flood_fill(mask):
    assert np.array_equal(connected_components(torch.from_numpy(mask)[None]).numpy(), flooded(mask[None]))


def test_the_spiral_is_one_long_way():
    mask = torch.from_numpy(spiral(61))
    assert connected_components(mask[None]).unique().tolist() == [0, 1]
    assert mask[30, 30] and mask.float().mean().item() == pytest.approx(0.51, abs=0.01)


def test_colors_of_a_label_map_do_not_join():
    values = torch.tensor([[5, 5, 7, 7], [0, 7, 5, 7], [5, 0, 5, 0]])
    for dtype in (torch.int64, torch.int32, torch.uint8):
        assert connected_components(values[None].to(dtype)).tolist() == [[[1, 1, 2, 2], [0, 2, 1, 2], [3, 0, 1, 0]]]


def test_empty_batches_and_masks():
    assert connected_components(torch.zeros(0, 4, 5).bool()).shape == (0, 4, 5)
    for dtype in (torch.bool, torch.int64):
        assert connected_components(torch.zeros(2, 4, 5, dtype=dtype)).tolist() == [[[0] * 5] * 4] * 2


@pytest.mark.parametrize(
    ('masks', 'message'),
    [
        (torch.zeros(4, 5).bool(), r'masks: .*\(4, 5\) torch.bool'),
        (torch.zeros(1, 4, 5), 'masks: .*torch.float32'),
        (torch.full((1, 4, 5), -2), 'masks: expected integers from 0 on, but got -2'),
    ],
)
def test_bad_arguments_are_named(masks, message):
    with pytest.raises(ValueError, match=message):
        connected_components(masks)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason='needs a CUDA device')
def test_masks_of_a_gpu_stay_there():
    mask = torch.from_numpy(spiral(61))[None].cuda()
    labels = connected_components(mask)
    assert labels.device == mask.device and torch.equal(labels, mask.long())
