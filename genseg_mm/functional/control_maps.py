"""Colour maps that know nothing of instances: what a point-prompt score is to be compared with."""

import torch
from torch import Tensor
from torch.nn import functional as F


def position_map(size: tuple[int, int]) -> Tensor:
    """The position control: red is x, green is y, each from 0 to 255; (3, H, W)."""
    height, width = size
    y, x = torch.meshgrid(torch.linspace(0, 255, height), torch.linspace(0, 255, width), indexing='ij')
    return torch.stack([x, y, torch.zeros_like(x)])


def raw_image(image: Tensor, img_shape: tuple[int, int], size: tuple[int, int]) -> Tensor:
    """The raw-image control: a loader's image as RGB colours at the original size.

    Args:
        image: BGR in [0, 255], (3, h, w), maybe padded at the right and bottom.
        img_shape: Height and width without padding.
        size: Height and width of the original image.

    Returns:
        (3, H, W) float32.
    """
    colors = image[:, : img_shape[0], : img_shape[1]].flip(0).float()
    if tuple(colors.shape[-2:]) != tuple(size):
        colors = F.interpolate(colors[None], size=tuple(size), mode='bilinear', align_corners=False)[0]
    return colors
