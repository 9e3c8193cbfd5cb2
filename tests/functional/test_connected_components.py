"""Connected components against scipy, number by number, on random masks and winding ones."""

import numpy as np
import pytest
import torch
from scipy import ndimage

from genseg_mm.functional.connected_components import connected_components


def scipys(masks, connectivity):
    structure = np.ones((3, 3)) if connectivity == 8 else None
    return np.stack([ndimage.label(mask, structure)[0] for mask in masks])


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
    assert connected_components(mask[None], connectivity=4).tolist() == [
        [[1, 0, 0, 2], [0, 3, 0, 2], [0, 0, 0, 0], [4, 4, 0, 5]]
    ]


@pytest.mark.parametrize('connectivity', [4, 8])
@pytest.mark.parametrize('size', [(1, 1), (1, 9), (9, 1), (13, 17), (40, 70)])
def test_random_masks_equal_scipy(size, connectivity):
    rng = np.random.default_rng(0)
    for share in (0.0, 0.3, 0.5, 0.6, 0.9, 1.0):
        masks = rng.random((3, *size)) < share
        labels = connected_components(torch.from_numpy(masks), connectivity)
        assert labels.dtype == torch.int64
        assert np.array_equal(labels.numpy(), scipys(masks, connectivity))


@pytest.mark.parametrize('connectivity', [4, 8])
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
def test_winding_masks_equal_scipy(mask, connectivity):
    labels = connected_components(torch.from_numpy(mask)[None], connectivity)
    assert np.array_equal(labels.numpy(), scipys(mask[None], connectivity))


def test_the_spiral_is_one_long_way():
    mask = torch.from_numpy(spiral(61))
    assert connected_components(mask[None], 4).unique().tolist() == [0, 1]
    assert mask[30, 30] and mask.float().mean().item() == pytest.approx(0.51, abs=0.01)


def test_colors_of_a_label_map_do_not_join():
    values = torch.tensor([[5, 5, 7, 7], [0, 7, 5, 7], [5, 0, 5, 0]])
    assert connected_components(values[None]).tolist() == [[[1, 1, 2, 2], [0, 2, 1, 2], [3, 0, 1, 0]]]
    assert connected_components(values[None].to(torch.uint8), 4).tolist() == [
        [[1, 1, 2, 2], [0, 3, 4, 2], [5, 0, 4, 0]]
    ]
    rng = np.random.default_rng(1)
    values = rng.integers(0, 3, (2, 20, 30))
    labels = connected_components(torch.from_numpy(values)).numpy()
    for value in (1, 2):
        for ours, theirs in zip(labels, scipys(values == value, 8), strict=True):
            pairs = np.unique(np.stack([ours, theirs])[:, theirs > 0], axis=1)
            assert pairs.shape[1] == len(np.unique(pairs[0])) == theirs.max()


def test_parts_and_empty_batches():
    masks = torch.from_numpy(np.random.default_rng(2).random((3, 1500, 1000)) < 0.5)
    labels = connected_components(masks)  # in two parts
    assert np.array_equal(labels[2].numpy(), scipys(masks[2:].numpy(), 8)[0])
    assert connected_components(torch.zeros(0, 4, 5).bool()).shape == (0, 4, 5)
    assert connected_components(torch.zeros(2, 4, 5).bool()).tolist() == [[[0] * 5] * 4] * 2


@pytest.mark.parametrize(
    ('masks', 'connectivity', 'message'),
    [
        (torch.zeros(4, 5).bool(), 8, r'masks: .*\(4, 5\) torch.bool'),
        (torch.zeros(1, 4, 5), 8, 'masks: .*torch.float32'),
        (torch.zeros(1, 4, 5).bool(), 6, 'connectivity: expected 4 or 8, but got 6'),
    ],
)
def test_bad_arguments_are_named(masks, connectivity, message):
    with pytest.raises(ValueError, match=message):
        connected_components(masks, connectivity)
