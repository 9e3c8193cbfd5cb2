"""Colour maps: raw output of a colorer as colours, maps that know nothing of instances, and the edges of a map."""

import math

import torch
from torch import Tensor
from torch.nn import functional as F

COLOR_SCALES = ('batch', 'image', 'sigmoid', 'none')
STRETCHES = ('image', 'padded', 'batch')


def normalize_colors(raw: Tensor, normalize: str, bias: float = 0.0) -> Tensor:
    """Raw output of a colorer as colours.

    ``'batch'`` is the reference's scale and what the released weights were trained with: ``x -> (x + |min|) /
    (|max| + |min| + 1e-5) * 255`` with the extremes of the whole batch. It couples the samples of a batch: most of a
    sample's gradient lands on the two extreme values, which may belong to other samples. ``'image'`` takes the extremes
    of each image, ``'sigmoid'`` is 255 * sigmoid(x + bias), and ``'none'`` takes raw values as colours.

    Args:
        raw: Output of a colorer, (N, 3, H, W).
        normalize: One of ``COLOR_SCALES``.
        bias: Added before the sigmoid; a negative one starts the training near black.

    Returns:
        Colours, (N, 3, H, W), float32; in [0, 255] unless ``'none'`` (or, with the reference's formula, when all values
        have one sign: it divides by ``|max| + |min|``, not by ``max - min``).

    Raises:
        ValueError: If the scale is not known.
    """
    check_color_scale(normalize)
    raw = raw.float()
    if normalize == 'none':
        return raw
    if normalize == 'sigmoid':
        return torch.sigmoid(raw + bias) * 255
    dims = (0, 1, 2, 3) if normalize == 'batch' else (1, 2, 3)
    low = raw.amin(dims, keepdim=True).abs()
    high = raw.amax(dims, keepdim=True).abs()
    return (raw + low) / (high + low + 1e-5) * 255


def stretch_colors(colors: Tensor, gamma: float = 1.0, extremes: tuple[Tensor, Tensor] | None = None) -> Tensor:
    """One map stretched to the full range: ((x - min) / (max - min)) ** gamma * 255.

    The reference does this at inference: to each map of the MAE, to the maps of a batch together with Stable Diffusion.

    Args:
        colors: One colour map, (3, H, W), without padding.
        gamma: Exponent on the stretched map in [0, 1]; the reference shows the MAE's maps with 0.7.
        extremes: Smallest and largest value to stretch by, such as a batch's (``extremes_of``). None: the map's own.

    Returns:
        Colours in [0, 255], (3, H, W), float32; a map of a single value becomes 0.
    """
    colors = colors.float()
    low, high = extremes or extremes_of([colors])
    unit = (colors - low) / (high - low).clamp(min=1e-5)
    return unit.pow(gamma) * 255 if gamma != 1.0 else unit * 255


def extremes_of(maps: list[Tensor]) -> tuple[Tensor, Tensor]:
    """Smallest and largest value of maps of any sizes."""
    low = torch.stack([one.float().min() for one in maps]).min()
    return low, torch.stack([one.float().max() for one in maps]).max()


def check_color_scale(normalize: str) -> None:
    """Raises ValueError for a colour scale that does not exist."""
    if normalize not in COLOR_SCALES:
        raise ValueError(f'normalize must be one of {", ".join(COLOR_SCALES)}, but got {normalize!r}')


def check_stretch(stretch: str) -> None:
    """Raises ValueError for a stretch that does not exist."""
    if stretch not in STRETCHES:
        raise ValueError(f'stretch must be one of {", ".join(STRETCHES)}, but got {stretch!r}')


# Controls, which know nothing of instances: what a point-prompt score is to be compared with.


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


# Edges: our own protocol, since gen2seg reports Edge AP on BSDS500 but not how its edges were made.

FULL_STEP = 255  # the whole range of one channel
# Normals of edges are turned to one side of this direction. It lies between those of straight and diagonal edges, so
# that rounding errors turn none of them.
_SIDE = (math.cos(math.pi / 8), math.sin(math.pi / 8))


def edge_strength(color_map: Tensor, sigma: float = 1.0) -> Tensor:
    """How strongly a colour map changes at each pixel: the height of the step there, 1 = 255 or more.

    See :func:`color_edges`.

    Args:
        color_map: (3, H, W) in [0, 255].
        sigma: Of the Gaussian smoothing, in pixels; 0 for none.

    Returns:
        (H, W) in [0, 1].
    """
    return color_edges(color_map, sigma)[0]


@torch.no_grad()
def color_edges(color_map: Tensor, sigma: float = 1.0) -> tuple[Tensor, Tensor]:
    """Strength and normal of the edge at each pixel of a colour map.

    After Gaussian smoothing, the largest rate of change of the colour over all directions, which is the root of the
    larger eigenvalue of the sum over channels of the gradients' outer products (Di Zenzo, 1986). A step between two
    flat colours at distance d has strength d / 255 in the pixels on either side of it, if it runs along rows or
    columns; along a diagonal some more, and never above 1. The border is continued with its own colours.

    Args:
        color_map: (3, H, W) in [0, 255], of any type.
        sigma: Of the smoothing, in pixels; 0 for none.

    Returns:
        Strength (H, W) in [0, 1], and the direction (x, y) in which the colour changes most, (2, H, W), of length 1,
        (1, 0) where nothing changes. Of the two opposite normals always the one with the positive product with
        (cos 22.5 deg, sin 22.5 deg).

    Raises:
        ValueError: If the map has another shape, or sigma is negative.
    """
    if color_map.ndim != 3 or len(color_map) != 3 or not color_map.numel():
        raise ValueError(f'color_map must be (3, H, W), but got {tuple(color_map.shape)}')
    if sigma < 0:
        raise ValueError(f'sigma must not be negative, but got {sigma}')
    kernel = _gaussian(sigma).to(color_map.device)
    smooth = _smooth(color_map.double(), kernel)
    padded = F.pad(smooth[None], (1, 1, 1, 1), mode='replicate')[0]
    right = (padded[:, 1:-1, 2:] - padded[:, 1:-1, :-2]) / 2
    down = (padded[:, 2:, 1:-1] - padded[:, :-2, 1:-1]) / 2
    xx, yy, xy = (right * right).sum(0), (down * down).sum(0), (right * down).sum(0)
    larger = (xx + yy + torch.hypot(xx - yy, 2 * xy)) / 2
    # A step of height 1 changes by this much per pixel, after smoothing, on either side of it.
    middle = len(kernel) // 2
    unit = (kernel[middle] + kernel[middle + 1]) / 2 if middle else kernel[0] / 2
    strength = (larger.clamp(min=0).sqrt() / (unit * FULL_STEP)).clamp(max=1)
    angle = torch.atan2(2 * xy, xx - yy) / 2  # of the first eigenvector
    normal = torch.stack([angle.cos(), angle.sin()])
    opposite = normal[0] * _SIDE[0] + normal[1] * _SIDE[1] < 0
    normal = torch.where(opposite, -normal, normal)
    dtype = color_map.dtype if color_map.is_floating_point() else torch.float32
    return strength.to(dtype), normal.to(dtype)


@torch.no_grad()
def thin_edges(strength: Tensor, normal: Tensor) -> Tensor:
    """Non-maximum suppression: keeps the strength where it is largest along the normal (Canny, 1986).

    A pixel stays if it is at least as strong as the point one pixel ahead along its normal, and stronger than the point
    one pixel behind, both interpolated bilinearly; so of two equal pixels across an edge the first stays. Diagonals,
    whose pixels lie nearer than that, may keep both. Beyond the border nothing is.

    Args:
        strength: (H, W).
        normal: (2, H, W), (x, y) of length 1, see :func:`color_edges`.

    Returns:
        (H, W), 0 where suppressed.

    Raises:
        ValueError: If the shapes do not fit.
    """
    if strength.ndim != 2 or tuple(normal.shape) != (2, *strength.shape):
        raise ValueError(
            f'strength must be (H, W) and normal (2, H, W), but got {tuple(strength.shape)} and {tuple(normal.shape)}'
        )
    ahead, behind = _at(strength, normal), _at(strength, -normal)
    stays = (strength >= ahead) & (strength > behind)
    return torch.where(stays, strength, torch.zeros_like(strength))


def _gaussian(sigma: float) -> Tensor:
    """Samples of a Gaussian with sum 1, up to 4 sigma, (2 r + 1,) float64."""
    radius = math.ceil(4 * sigma)
    steps = torch.arange(-radius, radius + 1, dtype=torch.float64)
    kernel = torch.exp(-(steps**2) / (2 * sigma**2)) if radius else torch.ones(1).double()
    return kernel / kernel.sum()


def _smooth(maps: Tensor, kernel: Tensor) -> Tensor:
    """Both ways of (C, H, W), the border continued."""
    radius = len(kernel) // 2
    for pad, shape in (((radius, radius, 0, 0), (1, -1)), ((0, 0, radius, radius), (-1, 1))):
        padded = F.pad(maps[:, None], pad, mode='replicate')
        maps = F.conv2d(padded, kernel.view(1, 1, *shape))[:, 0]
    return maps


def _at(strength: Tensor, offset: Tensor) -> Tensor:
    """Values at each pixel plus its offset of at most one pixel, bilinear, 0 beyond the border."""
    height, width = strength.shape
    padded = F.pad(strength, (1, 2, 1, 2))  # one more behind, as a right neighbour with weight 0
    rows = torch.arange(1, height + 1, device=strength.device)[:, None] + offset[1]
    columns = torch.arange(1, width + 1, device=strength.device) + offset[0]
    top, left = rows.floor().long(), columns.floor().long()
    down, right = rows - top, columns - left
    upper = padded[top, left] * (1 - right) + padded[top, left + 1] * right
    lower = padded[top + 1, left] * (1 - right) + padded[top + 1, left + 1] * right
    return upper * (1 - down) + lower * down
