"""Joint bilateral filter: smooth maps along the edges of a guide, as OpenCV contrib does it."""

import math

import torch
from torch import Tensor


@torch.no_grad()
def joint_bilateral_filter(
    guide: Tensor,
    src: Tensor,
    diameter: int = 9,
    sigma_color: float = 75.0,
    sigma_space: float = 75.0,
) -> Tensor:
    """Means over a window, weighted by the guide, as ``cv2.ximgproc.jointBilateralFilter`` does.

    Pixel q counts for pixel p with exp(-|G_p - G_q|_1^2 / (2 sigma_color^2)) *
    exp(-|p - q|^2 / (2 sigma_space^2)), where the distance of colours is the sum over channels and
    the window is the disk |p - q| <= diameter // 2. The border is mirrored without repeating the
    edge pixel (reflect-101). On 8-bit maps equal to OpenCV up to one level where a mean lies on .5.

    Args:
        guide: (C, H, W), in [0, 255], shared by all maps. Not rounded; OpenCV would want 8 bits.
        src: (K, H, W), uint8 or floating point.
        diameter: Of the window, in pixels.
        sigma_color: In units of the guide's summed difference.
        sigma_space: In pixels.

    Returns:
        (K, H, W) of the type of src; uint8 is rounded to the nearest, float is not rounded.

    Raises:
        ValueError: If shapes do not fit, or a setting is not positive.
    """
    _check_arguments(guide, src, diameter, sigma_color, sigma_space)
    dtype = torch.promote_types(guide.dtype, torch.float32)
    radius = diameter // 2
    (height, width), guide = guide.shape[1:], guide.to(dtype)
    offsets = [
        (dy, dx)
        for dy in range(-radius, radius + 1)
        for dx in range(-radius, radius + 1)
        if dy * dy + dx * dx <= radius * radius
    ]
    rows = _reflect_101(height, radius, guide.device)
    columns = _reflect_101(width, radius, guide.device)
    band, maps_at_once = _tile_shape(height, width, guide.device)
    out = torch.zeros_like(src)
    for top in range(0, height, band):
        bottom = min(top + band, height)
        padded_rows = rows[top : bottom + 2 * radius]
        taps = _tap_weights(
            guide[:, padded_rows][:, :, columns], offsets, radius, sigma_color, sigma_space
        )
        norm = torch.stack(taps).sum(0)
        # A map that is zero around the band stays zero; similarity maps mostly are.
        padded_src = src.index_select(1, padded_rows)
        live = padded_src.flatten(1).any(1).nonzero().flatten()
        for maps in live.split(maps_at_once):
            padded = padded_src.index_select(0, maps).index_select(2, columns).to(dtype)
            total = torch.zeros(len(maps), bottom - top, width, dtype=dtype, device=src.device)
            for (dy, dx), tap in zip(offsets, taps, strict=True):
                total.addcmul_(_shifted(padded, dy, dx, radius), tap)
            total /= norm
            if src.dtype == torch.uint8:
                total.round_()
            out[maps, top:bottom] = total.to(src.dtype)
    return out


def _check_arguments(
    guide: Tensor, src: Tensor, diameter: int, sigma_color: float, sigma_space: float
) -> None:
    if guide.ndim != 3 or guide.numel() == 0:
        raise ValueError(f'guide: expected a non-empty (C, H, W), but got {tuple(guide.shape)}')
    if src.ndim != 3 or src.shape[1:] != guide.shape[1:]:
        raise ValueError(
            f'src: expected (K, {guide.shape[1]}, {guide.shape[2]}) as the guide, '
            f'but got {tuple(src.shape)}'
        )
    if src.dtype != torch.uint8 and not src.is_floating_point():
        raise ValueError(f'src: expected uint8 or floating point, but got {src.dtype}')
    if src.device != guide.device:
        raise ValueError(f'src: expected on {guide.device} as the guide, but got {src.device}')
    settings = dict(diameter=diameter, sigma_color=sigma_color, sigma_space=sigma_space)
    for name, value in settings.items():
        if not value > 0:
            raise ValueError(f'{name}: expected a positive number, but got {value}')


def _reflect_101(size: int, radius: int, device: torch.device) -> Tensor:
    """Indices -radius ... size - 1 + radius, mirrored at pixels 0 and size - 1 until inside."""
    period = max(2 * (size - 1), 1)
    index = torch.arange(-radius, size + radius, device=device) % period
    return torch.where(index < size, index, period - index)


def _tile_shape(height: int, width: int, device: torch.device) -> tuple[int, int]:
    """Rows of a band and maps filtered at once: what fits a core's cache, or a part of a GPU."""
    limit, band = (1 << 18, 32) if device.type == 'cpu' else (1 << 26, height)
    band = min(band, height)
    return band, max(1, limit // (band * width))


def _shifted(padded: Tensor, dy: int, dx: int, radius: int) -> Tensor:
    """The window's neighbour (dy, dx) of every pixel, out of maps padded by the radius."""
    height, width = padded.shape[-2] - 2 * radius, padded.shape[-1] - 2 * radius
    return padded[..., radius + dy : radius + dy + height, radius + dx : radius + dx + width]


def _tap_weights(
    padded_guide: Tensor,
    offsets: list[tuple[int, int]],
    radius: int,
    sigma_color: float,
    sigma_space: float,
) -> list[Tensor]:
    """Weight of every neighbour for every pixel, one (H, W) per offset."""
    centre = _shifted(padded_guide, 0, 0, radius)
    weights = []
    for dy, dx in offsets:
        distance = (_shifted(padded_guide, dy, dx, radius) - centre).abs_().sum(0)
        weight = distance.square_().mul_(-0.5 / sigma_color**2).exp_()
        weights.append(weight.mul_(math.exp(-0.5 * (dy * dy + dx * dx) / sigma_space**2)))
    return weights
