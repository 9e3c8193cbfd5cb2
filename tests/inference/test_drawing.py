"""Large pictures are drawn by tables and OpenCV's own conversions: the bits of the plain formulas."""

import cv2
import numpy as np
import pytest
import torch

from genseg_mm import pictures
from genseg_mm.inference.results import bytes_of, color_array

SIZES = [(1, 1), (7, 300), (61, 83)]


def plain_overlay(picture, masks, colors):
    """In floating point over the whole picture."""
    result = (0.6 * picture).astype(np.uint8)
    for mask, color in zip(masks, colors, strict=True):
        result[mask] = (0.45 * picture[mask] + 0.55 * np.array(color)).astype(np.uint8)
        outlines, _ = cv2.findContours(mask.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
        cv2.drawContours(result, outlines, -1, color, 1)
    return result


@pytest.mark.parametrize('size', SIZES)
def test_masks_over_a_picture(size):
    rng = np.random.default_rng(size[1])
    picture = rng.integers(0, 256, (*size, 3), dtype=np.uint8)
    smooth = cv2.GaussianBlur(rng.random(size), (0, 0), 3)
    masks = [smooth > np.quantile(smooth, 0.8), np.zeros(size, bool), np.ones(size, bool), rng.random(size) > 0.5]
    colors = [pictures.color_of(number) for number in range(4)]
    before = picture.copy()
    for count in range(5):
        drawn = pictures.overlay_masks(picture, masks[:count], colors[:count])
        assert np.array_equal(drawn, plain_overlay(picture, masks[:count], colors[:count]))
    assert np.array_equal(picture, before)


@pytest.mark.parametrize('size', SIZES)
def test_colors_as_arrays_and_bytes(size):
    colors = torch.randn(3, *size, generator=torch.Generator().manual_seed(0)) * 200
    colors.flatten()[:3] = torch.tensor([0.5, 1.5, 254.5])
    array = color_array(colors)
    assert array.dtype == np.float32 and np.array_equal(array, colors.numpy().transpose(1, 2, 0))
    assert np.array_equal(bytes_of(array), np.clip(np.rint(array), 0, 255).astype(np.uint8))
