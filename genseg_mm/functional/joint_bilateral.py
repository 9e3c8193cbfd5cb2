"""Joint bilateral filter: smooth maps along the edges of a guide, as OpenCV contrib does it."""

import math
from collections.abc import Callable, Iterator
from typing import NamedTuple

import torch
from torch import Tensor

DIAMETER, SIGMA = 9, 75.0  # of the public code's filter: pixels; units of colour and pixels
AT_ONCE = 1024  # pixels whose windows stay in a core's cache


@torch.no_grad()
def joint_bilateral_filter(
    guide: Tensor, src: Tensor, diameter: int = DIAMETER, sigma_color: float = SIGMA, sigma_space: float = SIGMA
) -> Tensor:
    """Means over a window, weighted by the guide, as ``cv2.ximgproc.jointBilateralFilter`` does.

    Pixel q counts for pixel p with
    ``exp(-|G_p - G_q|_1^2 / (2 sigma_color^2)) * exp(-|p - q|^2 / (2 sigma_space^2))``,
    where the distance of colours is the sum over channels and the window is the disk ``|p - q| <= diameter // 2``. The
    border is mirrored without repeating the edge pixel (reflect-101). On 8-bit maps equal to OpenCV up to one level
    where a mean lies on .5.

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
    radius, guide = diameter // 2, guide.to(torch.promote_types(guide.dtype, torch.float32))
    out = torch.zeros_like(src)
    for tile in filter_tiles(guide, len(src), diameter, sigma_color, sigma_space):
        # A map that is zero around the tile, mirrored or not, stays zero; similarities mostly are.
        top, left = max(tile.top - radius, 0), max(tile.left - radius, 0)
        around = src[:, top : tile.bottom + radius, left : tile.right + radius]
        live = around.flatten(1).any(1).nonzero().flatten()
        for maps in live.split(tile.maps_at_once) if len(live) else ():
            padded = around[maps][:, tile.rows - top][:, :, tile.columns - left]
            means = tile.means(padded.to(guide.dtype), radius)
            if src.dtype == torch.uint8:
                means.round_()
            out[maps, tile.top : tile.bottom, tile.left : tile.right] = means.to(src.dtype)
    return out


class FilterTile(NamedTuple):
    """The filter's window weights over a rectangle of the guide.

    ``rows`` and ``columns`` are the indices of the rectangle and the window's reach around it, mirrored at the border;
    a map's ``[rows][:, columns]`` is what ``means`` takes, and the guide's is there as ``guide``.
    """

    top: int
    bottom: int
    left: int
    right: int
    rows: Tensor  # (bottom - top + 2 radius,)
    columns: Tensor  # (right - left + 2 radius,)
    guide: Tensor  # (C, bottom - top + 2 radius, right - left + 2 radius)
    offsets: list[tuple[int, int]]  # T of (dy, dx)
    taps: Tensor  # (T, bottom - top, right - left + 2 radius), the last 2 radius columns unused
    norm: Tensor  # (bottom - top, right - left)
    maps_at_once: int

    def means(self, padded: Tensor, radius: int) -> Tensor:
        """Weighted means of maps (K, h + 2 radius, w + 2 radius) over the window, (K, h, w)."""
        height, stride = self.bottom - self.top, padded.shape[2]
        # In a flat map a neighbour is a shift, so that every step is one long contiguous run; the
        # 2 radius columns at the end of a row then hold sums across two rows and are cut off.
        length = height * stride - 2 * radius
        flat, taps = padded.flatten(1), self.taps.flatten(1)[:, :length].unbind()
        neighbours = []
        for dy in range(-radius, radius + 1):  # a line of the window at once, by one view
            line = [dx for y, dx in self.offsets if y == dy]
            start = flat.storage_offset() + (radius + dy) * stride + radius + line[0]
            shape = len(line), len(flat), length
            neighbours += flat.as_strided(shape, (1, *flat.stride()), start).unbind()
        total = padded.new_empty(len(padded), height * stride)
        used = total[:, :length]
        torch.mul(neighbours[0], taps[0], out=used)
        for neighbour, tap in zip(neighbours[1:], taps[1:], strict=True):
            used.addcmul_(neighbour, tap)
        return total.view(-1, height, stride)[..., : self.right - self.left] / self.norm


def filter_tiles(
    guide: Tensor, num_maps: int, diameter: int = DIAMETER, sigma_color: float = SIGMA, sigma_space: float = SIGMA
) -> Iterator[FilterTile]:
    """Cuts the guide, (C, H, W) floating point, into tiles with their window weights.

    The number of maps to be filtered decides the size of the tiles.
    """
    radius, (height, width) = diameter // 2, guide.shape[1:]
    offsets = window_offsets(radius)
    rows = reflect_101(height, radius, guide.device)
    columns = reflect_101(width, radius, guide.device)
    band, across, maps_at_once = _tile_shape(height, width, num_maps, guide.device)
    for top in range(0, height, band):
        bottom = min(top + band, height)
        band_rows = rows[top : bottom + 2 * radius]
        padded = guide[:, band_rows][:, :, columns]
        taps = _tap_weights(padded, offsets, radius, sigma_color, sigma_space)
        norm = taps.sum(0)
        for left in range(0, width, across):
            right = min(left + across, width)
            yield FilterTile(
                top,
                bottom,
                left,
                right,
                band_rows,
                columns[left : right + 2 * radius],
                padded[:, :, left : right + 2 * radius],
                offsets,
                taps[:, :, left : right + 2 * radius].contiguous(),
                norm[:, left:right],
                maps_at_once,
            )


def filtered_pixels(guide: Tensor, stride: int, pixels: Tensor, levels_of: Callable[[Tensor], Tensor]) -> Tensor:
    """The public code's filter at some pixels of a map only, whose values are made where a window reaches.

    Args:
        guide: (C, N) floating point, the rows of a map one after the other, with the window's reach around it.
        stride: Length of a row.
        pixels: Places to be filtered, (n,) int64.
        levels_of: From places, (m,), to the values there, (m,).

    Returns:
        Weighted means, (n,), not rounded.
    """
    offsets = window_offsets(DIAMETER // 2)
    shifts = torch.tensor([[dy * stride + dx] for dy, dx in offsets], device=guide.device)  # (T, 1)
    # exp2 takes a quarter of exp's time on a CPU.
    per_unit = -0.5 / SIGMA**2 * math.log2(math.e)
    near = [[(dy * dy + dx * dx) * per_unit] for dy, dx in offsets]
    near = torch.tensor(near, dtype=guide.dtype, device=guide.device)  # (T, 1)
    means = guide.new_empty(len(pixels))
    for part, out in zip(pixels.split(AT_ONCE), means.split(AT_ONCE), strict=True):
        places = (shifts + part).flatten()  # (T n,)
        distance = None
        for channel in guide:
            change = channel.index_select(0, places).view(len(shifts), -1)
            change.sub_(channel.index_select(0, part)).abs_()
            distance = change if distance is None else distance.add_(change)
        weight = torch.addcmul(near, distance, distance, value=per_unit).exp2_()
        levels = levels_of(places).view_as(weight)
        torch.div(levels.mul_(weight).sum(0), weight.sum(0), out=out)
    return means


def window_offsets(radius: int) -> list[tuple[int, int]]:
    """The window's (dy, dx)."""
    return [
        (dy, dx)
        for dy in range(-radius, radius + 1)
        for dx in range(-radius, radius + 1)
        if dy * dy + dx * dx <= radius * radius
    ]


def _check_arguments(guide: Tensor, src: Tensor, diameter: int, sigma_color: float, sigma_space: float) -> None:
    if guide.ndim != 3 or guide.numel() == 0:
        raise ValueError(f'guide: expected a non-empty (C, H, W), but got {tuple(guide.shape)}')
    if src.ndim != 3 or src.shape[1:] != guide.shape[1:]:
        raise ValueError(
            f'src: expected (K, {guide.shape[1]}, {guide.shape[2]}) as the guide, but got {tuple(src.shape)}'
        )
    if src.dtype != torch.uint8 and not src.is_floating_point():
        raise ValueError(f'src: expected uint8 or floating point, but got {src.dtype}')
    if src.device != guide.device:
        raise ValueError(f'src: expected on {guide.device} as the guide, but got {src.device}')
    settings = dict(diameter=diameter, sigma_color=sigma_color, sigma_space=sigma_space)
    for name, value in settings.items():
        if not value > 0:
            raise ValueError(f'{name}: expected a positive number, but got {value}')


def reflect_101(size: int, radius: int, device: torch.device) -> Tensor:
    """Indices -radius ... size - 1 + radius, mirrored at pixels 0 and size - 1 until inside."""
    period = max(2 * (size - 1), 1)
    index = torch.arange(-radius, size + radius, device=device) % period
    return torch.where(index < size, index, period - index)


def _tile_shape(height: int, width: int, num_maps: int, device: torch.device) -> tuple[int, int, int]:
    """Rows and columns of a tile and maps filtered at once: a core's cache, or a part of a GPU.

    The more maps, the less a small tile is slowed by its number of steps, and the more it saves: maps with nothing to
    do in it are left out.
    """
    if device.type != 'cpu':
        return height, width, max(1, (1 << 26) // (height * width))
    return (32, 64, 128) if num_maps >= 32 else (32, width, max(1, (1 << 13) // width))


def _tap_weights(
    padded_guide: Tensor, offsets: list[tuple[int, int]], radius: int, sigma_color: float, sigma_space: float
) -> Tensor:
    """Weight of every neighbour for every pixel.

    A pair of pixels has one weight, so half of the offsets are computed, on the padded guide, and seen from either end.

    Args:
        padded_guide: (C, h + 2 radius, w + 2 radius).
        offsets: T of (dy, dx), with (-dy, -dx) for each.
        radius: Of the window.
        sigma_color: In units of the guide's summed difference.
        sigma_space: In pixels.

    Returns:
        (T, h, w + 2 radius), zero in the last 2 radius columns.
    """
    padded_height, padded_width = padded_guide.shape[1:]
    height, width = padded_height - 2 * radius, padded_width - 2 * radius
    taps = padded_guide.new_empty(len(offsets), height, padded_width)
    taps[:, :, width:] = 0
    number = {offset: index for index, offset in enumerate(offsets)}
    for (dy, dx), index in number.items():
        if (dy, dx) < (0, 0):
            continue  # the other end of (-dy, -dx)
        # All pairs of the padded guide that lie (dy, dx) apart; x starts at 0, or at -dx.
        start, end = max(-dx, 0), padded_width - max(dx, 0)
        near = padded_guide[:, : padded_height - dy, start:end]
        far = padded_guide[:, dy:, start + dx : end + dx]
        distance = (far - near).abs_().sum(0)
        weight = distance.square_().mul_(-0.5 / sigma_color**2).exp_()
        weight.mul_(math.exp(-0.5 * (dy * dy + dx * dx) / sigma_space**2))
        for top, left, one in ((radius, radius, index), (radius - dy, radius - dx, number[-dy, -dx])):
            left -= start
            taps[one, :, :width] = weight[top : top + height, left : left + width]
    return taps
