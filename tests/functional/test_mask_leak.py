"""How far masks show through their noise: readers against closed forms, and the width of the law that follows."""

import math

import pytest
import torch

from genseg_mm.functional.mask_leak import (
    DISTANCES,
    MaskLeak,
    encode_masks,
    fit_linear_reader,
    held_out_iou,
    leaks,
    linear_leak,
    long_tail_width,
    thinned,
)
from genseg_mm.models.timestep_samplers import LongTailTimesteps

NUM = 6000


def white_or_black(cells):
    """Masks (NUM, 1, cells) that are all white or all black, as many, and an identity codec's latents, 1 or -1."""
    masks = (torch.arange(NUM) * 7919 % NUM < NUM // 2)[:, None, None].expand(-1, 1, cells)
    return masks, masks[:, None].float() * 2 - 1


def ideal_iou(snr):
    """Overall IoU of the best threshold t of snr m + noise, m = -1 or 1: P(found | 1) / (1 + P(found | -1))."""
    threshold = torch.linspace(-8 - snr, 8 + snr, 4001, dtype=torch.float64)
    hit, false = (torch.special.ndtr(sign * snr - threshold) for sign in (1, -1))
    return float((hit / (1 + false)).max())


def test_one_pixel_leaks_as_the_normal_distribution_says():
    """An identity codec and one pixel: all that a reader can do is to cut s m + (1 - s) noise at a threshold."""
    masks, latents = white_or_black(1)
    pixels = thinned(masks)
    reader = fit_linear_reader(latents.flatten(1), pixels)
    torch.testing.assert_close(reader.variances, torch.ones(1), atol=1e-3, rtol=0)
    # E[m | z] of the best linear reader, m in {0, 1}: 1/2 + s z / (s^2 + (1 - s)^2) / 2.
    torch.testing.assert_close(reader(torch.tensor([[0.4]]), 0.5), torch.tensor([[0.7]]), atol=1e-3, rtol=0)
    distances = (0.0, 0.1, 0.3, 0.5, 0.7)
    found = list(leaks(lambda noisy, s: reader(noisy.flatten(1), s), latents, pixels, distances))
    expected = [ideal_iou(s / (1 - s)) for s in distances]
    assert expected[0] == pytest.approx(0.5, abs=1e-3)  # all of it, of which half is right
    assert found == pytest.approx(expected, abs=0.02)


def test_neighbours_that_share_the_mask_leak_it_together():
    """16 cells of one mask at a distance s are one cell at s' with s' / (1 - s') = 4 s / (1 - s)."""
    masks, latents = white_or_black(16)
    pixels = thinned(masks)
    together = fit_linear_reader(latents.flatten(1), pixels)
    assert len(together.variances) == 1 and float(together.variances) == pytest.approx(16, rel=1e-3)
    alone = fit_linear_reader(latents.reshape(-1, 1), pixels.reshape(-1, 1))
    (found,) = leaks(lambda noisy, s: together(noisy.flatten(1), s), latents, pixels, [0.2])
    (single,) = leaks(lambda noisy, s: alone(noisy.reshape(-1, 1), s).reshape(-1, 16), latents, pixels, [0.2])
    assert (found, single) == pytest.approx((ideal_iou(4 * 0.25), ideal_iou(0.25)), abs=0.02)
    leak = linear_leak(latents, masks)
    assert leak.distances == DISTANCES and leak.floor == pytest.approx(0.5, abs=0.02)
    # A share of 5 % of what is not guessed is overall IoU 0.525.
    at = leak.first_distance()
    assert ideal_iou(4 * at / (1 - at)) == pytest.approx(0.525, abs=0.015)


def test_where_a_leak_begins_by_hand():
    leak = MaskLeak((0.01, 0.1, 0.2), (0.2, 0.6, 0.9), 0.2)
    assert leak.shares() == pytest.approx([0, 0.5, 0.875])
    assert leak.first_distance(0.05) == pytest.approx(0.01 * 10**0.1)  # a tenth of the way on a log scale
    for iou in ((0.2, 0.2, 0.21), (0.6, 0.7, 0.8)):
        with pytest.raises(ValueError, match='leak above 0.05 somewhere between the distances 0.01 and 0.2'):
            MaskLeak((0.01, 0.1, 0.2), iou, 0.2).first_distance()


def test_each_half_takes_the_threshold_of_the_other():
    scores = torch.tensor([[0.9, 0.1], [0.8, 0.2]])
    masks = torch.tensor([[True, False], [True, False]])
    assert held_out_iou(scores, masks) == 1
    # The threshold of the second, 0.5, takes both pixels of the first; that of the first, 1.5, none of the second.
    assert held_out_iou(torch.tensor([[2.0, 1.0], [0.8, 0.2]]), masks) == pytest.approx(1 / 3)


def test_the_width_keeps_draws_where_nothing_leaks():
    # a^2 / (a^2 + d^2) = 0.2 at a = d / 2.
    assert long_tail_width(0.02, 0.2) == 0.01
    assert long_tail_width(0.0333, 0.01) == 0.0033  # 0.003347, rounded down
    sigma = LongTailTimesteps(a=long_tail_width(0.02, 0.2))(200_000, torch.Generator().manual_seed(0))
    assert float((1 - sigma > 0.02).float().mean()) == pytest.approx(0.2, abs=0.004)
    with pytest.raises(ValueError, match='positive distance and leaked_share in'):
        long_tail_width(0.02, 1.0)


def test_masks_that_are_all_alike_set_no_width():
    masks = torch.ones(12, 4, 4, dtype=torch.bool)
    latents = encode_masks(lambda images: images[:, :1], masks)
    assert float(latents.min()) == 1
    with pytest.raises(ValueError, match=r'but got 0.000 at the first .* no width of the timestep law'):
        linear_leak(latents, masks).first_distance()
    with pytest.raises(ValueError, match='at least 6 masks to measure a leak, but got 5'):
        linear_leak(latents[:5], masks[:5])


def test_so_many_pixels_are_read_at_most():
    masks = torch.zeros(1, 96, 128, dtype=torch.bool)
    masks[:, ::2, ::2] = True
    assert thinned(masks).shape == (1, 48 * 64) and bool(thinned(masks).all())
    assert math.prod(thinned(masks[:, :64, :64]).shape) == 4096
