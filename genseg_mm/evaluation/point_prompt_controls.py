"""What stands beside a point-prompt score: trivial maps, the deepest prompt, collapse share."""

import cv2
import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F


def collapse_share(maps: np.ndarray) -> float:
    """Share of the colour variance of (N, 3, h, w) maps that their mean map explains.

    1.0 where there is no variance at all.
    """
    maps = maps.astype(np.float64)
    mean_map = maps.mean(0)
    mean_color = maps.mean((0, 2, 3))[:, None, None]
    total = ((maps - mean_color) ** 2).mean()
    return float(((mean_map - mean_color) ** 2).mean() / total) if total > 0 else 1.0


def position_map(size: tuple[int, int]) -> Tensor:
    """The position control: red is x, green is y, each from 0 to 255; (3, H, W)."""
    height, width = size
    y, x = torch.meshgrid(
        torch.linspace(0, 255, height), torch.linspace(0, 255, width), indexing='ij'
    )
    return torch.stack([x, y, torch.zeros_like(x)])


def raw_image(image: Tensor, sample: dict, size: tuple[int, int]) -> Tensor:
    """The raw-image control: a loader's (3, h, w) BGR image as RGB colours at the original size."""
    height, width = sample.get('img_shape', image.shape[-2:])[:2]
    colors = image[:, :height, :width].flip(0).float()
    if tuple(colors.shape[-2:]) != size:
        colors = F.interpolate(colors[None], size=size, mode='bilinear', align_corners=False)[0]
    return colors


def deepest_pixels(ids: Tensor, point_ids: Tensor) -> Tensor:
    """The pixel of each instance that is farthest from its edge, (K, 1, 2) as (x, y).

    The border of the image is an edge, too.
    """
    points = []
    for instance in point_ids.tolist():
        mask = np.pad((ids == instance).cpu().numpy(), 1).astype(np.uint8)
        depth = cv2.distanceTransform(mask, cv2.DIST_L2, cv2.DIST_MASK_PRECISE)[1:-1, 1:-1]
        row, column = np.unravel_index(depth.argmax(), depth.shape)
        points.append([[float(column), float(row)]])
    return torch.tensor(points).reshape(-1, 1, 2)
