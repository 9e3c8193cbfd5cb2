"""Images whose masks are known by hand, and a colorer that gives back the image."""

import numpy as np
import torch
from torch import nn

from genseg_mm.inferencers import GenSegInferencer
from genseg_mm.models import Gen2Seg

RED, GREEN, BLUE, WHITE = (255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255)
CONV = dict(type='torch.nn.Conv2d', in_channels=3, out_channels=3, kernel_size=1, bias=False)
PROMPTING = dict(radius=20.0, sigma=0.001)


class Recorder(nn.Module):
    """Gives back the image, and remembers the batches that it saw."""

    def __init__(self, stride: int = 1) -> None:
        super().__init__()
        self.stride, self.seen = stride, []

    def network_resize(self, size: int | None = None) -> dict:
        return dict(longer_side=size or 0, multiples=(self.stride, self.stride))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        self.seen.append(tuple(images.shape))
        return images


def inferencer(stride: int = 1, **settings: object) -> GenSegInferencer:
    model = Gen2Seg(dict(type='torch.nn.Identity'), normalize='none', prompting=PROMPTING, **settings)
    model.colorer = Recorder(stride)
    return GenSegInferencer(model, show_progress=False)


def scene(height: int, width: int, *squares: tuple) -> np.ndarray:
    """RGB: black, with (x0, y0, x1, y1, colour) rectangles."""
    image = np.zeros((height, width, 3), np.uint8)
    for x0, y0, x1, y1, color in squares:
        image[y0:y1, x0:x1] = color
    return image


def bgr(rgb: np.ndarray) -> np.ndarray:
    return rgb[..., ::-1].copy()


def region(height: int, width: int, x0: int, y0: int, x1: int, y1: int) -> np.ndarray:
    mask = np.zeros((height, width), bool)
    mask[y0:y1, x0:x1] = True
    return mask


SCENE = scene(20, 30, (2, 3, 9, 12, RED), (15, 5, 28, 16, GREEN), (20, 17, 24, 20, RED))
POINTS = [[5, 6], [20, 10]]
RED_MASK = region(20, 30, 2, 3, 9, 12) | region(20, 30, 20, 17, 24, 20)
GREEN_MASK = region(20, 30, 15, 5, 28, 16)
