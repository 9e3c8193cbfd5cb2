"""Instances of a colour map without prompts: colours first, then connected parts."""

import torch
from torch import Tensor
from torch.nn import functional as F

from genseg_mm.functional.similarity_masks import lengths

BIN = 8.0  # side of the colour histogram's bins, in units of colour
EDGE = 20.0  # change of colour over 2 pixels at which a pixel counts half in the histogram
REACH = 3  # pixels from an instance to the surroundings that it is compared with
SCALE = 100.0  # distance of colours at which a score is halved
EIGHT = [[1, 1, 1]] * 3  # neighbours that a pixel is connected with


@torch.no_grad()
def group_colors(
    color_map: Tensor,
    background: float = 30.0,
    bandwidth: float = 12.0,
    min_area: int = 20,
    min_flatness: float = 0.1,
    split_components: bool = True,
) -> Tensor:
    """Groups a colour map into instances.

    Pixels climb the hills of the map's colour histogram (square roots of counts, smoothed: mean shift on a grid); those
    that reach one summit have one colour. Pixels on edges, whose colours are mixtures, count less. Background is what
    is nearly black, and what is nearer to black than to the mean colour of its hill, as the faint rims of instances
    are. Connected parts (8 neighbours) of one colour that are smaller than ``min_area`` or have no flat pixels are
    background, too.

    Args:
        color_map: (3, H, W) floating point, finite, in [0, 255].
        background: Largest distance to black, in [0, 442), of the background.
        bandwidth: Standard deviation of the smoothing, in units of colour. Colours of instances of like size are told
            apart from about twice that distance on.
        min_area: Smallest part, in pixels.
        min_flatness: Smallest mean of a part's pixels, where a pixel counts 1 / (1 + (e / 20)^2) with e the change of
            colour between its neighbours. Seams between instances, which have colours of their own, are all edge; so
            are lines 2 pixels wide: 0 keeps them.
        split_components: Every connected part is an instance; otherwise every colour is one, in however many parts.

    Returns:
        (H, W) int64: 0 for the background, instances 1 ... K in the order of their first pixel.

    Raises:
        ValueError: If a setting is out of range.
    """
    _check_settings(background, bandwidth, min_area, min_flatness)
    norm = lengths(color_map)
    weight = 1 / (1 + (_edges(color_map) / EDGE).square())
    hill = _hills(color_map, (norm > background) * weight, bandwidth)  # (H, W), 0 ... n - 1
    mean = _means(color_map, hill, weight)
    hill = hill + 1
    hill[(norm <= background) | (lengths(color_map - mean) > norm)] = 0
    parts = connected_components(hill[None])[0]
    areas = parts.flatten().bincount()
    flat = parts.flatten().bincount(weight.flatten().double()) / areas.clamp(min=1)
    kept = (areas >= min_area) & (flat >= min_flatness)
    kept[0] = False
    parts = torch.where(kept[parts], parts, 0)
    if split_components:
        return _renumbered(parts)
    return _renumbered(torch.where(parts > 0, hill, 0))


@torch.no_grad()
def instance_scores(color_map: Tensor, ids: Tensor) -> Tensor:
    """How sure an instance is: flat inside, unlike its surroundings.

    With f the mean distance of an instance's colours to their mean, and c the mean distance to the same mean of the
    colours 3 pixels outside of its border, 100 / (100 + f) * c / (100 + c). An instance without surroundings is
    compared with black.

    Args:
        color_map: (3, H, W) floating point, in [0, 255].
        ids: (H, W) int64, 0 background, 1 ... K.

    Returns:
        (K,) in [0, 1).
    """
    num = int(ids.max()) + 1
    mean = _sums(ids, color_map.flatten(1), num)  # (3, num)
    mean /= ids.flatten().bincount(minlength=num).clamp(min=1)
    spread = _sums(ids, lengths(color_map - mean[:, ids]).view(1, -1), num)[0]
    spread /= ids.flatten().bincount(minlength=num).clamp(min=1)
    height, width = ids.shape
    total, count = torch.zeros_like(spread), torch.zeros_like(spread)
    for dy in (-REACH, 0, REACH):
        for dx in (-REACH, 0, REACH):
            here = (_overlap(height, -dy), _overlap(width, -dx))
            there = (_overlap(height, dy), _overlap(width, dx))
            inner, outer = ids[here], color_map[:, there[0], there[1]]
            border = (inner != ids[there]) & (inner > 0)
            inner, outer = inner[border], outer[:, border]
            total.index_add_(0, inner, lengths(outer - mean[:, inner]))
            count += inner.bincount(minlength=num)
    contrast = torch.where(count > 0, total / count.clamp(min=1), lengths(mean))
    return (SCALE / (SCALE + spread) * contrast / (SCALE + contrast))[1:]


def _overlap(size: int, shift: int) -> slice:
    """Part of an axis that is still on it when moved back by a shift."""
    return slice(max(shift, 0), max(size + min(shift, 0), 0))


def _check_settings(background: float, bandwidth: float, min_area: int, min_flatness: float) -> None:
    if not 0 <= background < 442:
        raise ValueError(f'background: expected a distance to black in [0, 442), but got {background}')
    if not 2 <= bandwidth <= 128:
        raise ValueError(f'bandwidth: expected colours in [2, 128], but got {bandwidth}')
    if not min_area >= 1:
        raise ValueError(f'min_area: expected at least 1 pixel, but got {min_area}')
    if not 0 <= min_flatness <= 1:
        raise ValueError(f'min_flatness: expected a share in [0, 1], but got {min_flatness}')


def _edges(color_map: Tensor) -> Tensor:
    """Largest change of colour between the two neighbours of a pixel, across or down, (H, W)."""
    padded = F.pad(color_map[None], (1, 1, 1, 1), mode='replicate')[0]
    across = padded[:, 1:-1, 2:] - padded[:, 1:-1, :-2]
    down = padded[:, 2:, 1:-1] - padded[:, :-2, 1:-1]
    return torch.maximum(lengths(across), lengths(down))


def _hills(color_map: Tensor, weight: Tensor, bandwidth: float) -> Tensor:
    """Number of every pixel's hill in the histogram of the weighted colours, (H, W)."""
    side = int(255 / BIN) + 2
    bins = (color_map.clamp(0, 255) / BIN).round().long()
    bins = (bins[0] * side + bins[1]) * side + bins[2]  # (H, W)
    density = torch.zeros(side**3, dtype=torch.float64, device=color_map.device)
    density.index_add_(0, bins.flatten(), weight.flatten().double())
    # The root keeps a small instance from drowning in the slope of a large one.
    density = _smoothed(density.sqrt().view(1, 1, side, side, side), bandwidth / BIN)
    # The first of equal bins is the higher one, so that every way ends.
    uphill = F.max_pool3d(density[0], 3, stride=1, padding=1, return_indices=True)[1].flatten()
    while True:
        further = uphill[uphill]
        if torch.equal(further, uphill):
            break
        uphill = further
    summit = uphill[bins]
    used = torch.zeros_like(uphill).index_fill_(0, summit.flatten(), 1)
    return (used.cumsum(0) - 1)[summit]


def _smoothed(volume: Tensor, sigma: float) -> Tensor:
    """Gaussian smoothing along the three axes of (1, 1, D, D, D)."""
    radius = max(1, round(3 * sigma))
    steps = torch.arange(-radius, radius + 1, dtype=volume.dtype, device=volume.device)
    kernel = torch.exp(-0.5 * (steps / sigma).square())
    kernel /= kernel.sum()
    for axis in range(3):
        shape, padding = [1] * 5, [0] * 3
        shape[2 + axis], padding[axis] = len(kernel), radius
        volume = F.conv3d(volume, kernel.view(shape), padding=padding)
    return volume


def _sums(ids: Tensor, values: Tensor, num: int) -> Tensor:
    """Sums of values, (C, H W), over the pixels of every id, (C, num)."""
    sums = torch.zeros(len(values), num, dtype=values.dtype, device=values.device)
    return sums.index_add_(1, ids.flatten(), values)


def _means(color_map: Tensor, ids: Tensor, weight: Tensor) -> Tensor:
    """Every pixel's weighted mean colour of its id, (3, H, W)."""
    num, weight = int(ids.max()) + 1, weight.view(1, -1)
    return (_sums(ids, color_map.flatten(1) * weight, num) / _sums(ids, weight, num))[:, ids]


def _renumbered(ids: Tensor) -> Tensor:
    """Ids as 1 ... K in the order of their first pixel; 0 stays."""
    flat = ids.flatten()
    order = torch.arange(len(flat), device=ids.device)
    first = torch.full((int(ids.max()) + 1,), len(flat), device=ids.device)
    first.scatter_reduce_(0, flat, order, 'amin')
    first[0] = -1
    rank = torch.empty_like(first)
    rank[first.argsort()] = torch.arange(len(first), device=ids.device)
    known = first < len(flat)  # ids without a pixel come last
    return torch.where(known, rank, 0)[ids]


@torch.no_grad()
def connected_components(masks: Tensor) -> Tensor:
    """Numbers the connected components (8 neighbours) of every mask, or of every colour of label maps.

    SciPy does it, on the CPU; masks of a GPU go there and come back.

    Args:
        masks: (K, H, W) bool, or integers from 0 on, where pixels belong together if they have the same value, which is
            not 0. Time and memory grow with the largest value.

    Returns:
        (K, H, W) int64: 0 outside of the mask, and 1, 2, ... in the order of each component's first pixel, row by row.

    Raises:
        ValueError: If a shape, type or value is wrong.
    """
    from scipy import ndimage  # slow to import

    if masks.ndim != 3 or masks.is_floating_point() or masks.is_complex():
        raise ValueError(f'masks: expected (K, H, W) bool or integers, but got {tuple(masks.shape)} {masks.dtype}')
    labels = torch.zeros(masks.shape, dtype=torch.int64)
    if masks.numel() == 0:
        return labels.to(masks.device)
    if masks.dtype != torch.bool and masks.min() < 0:
        raise ValueError(f'masks: expected integers from 0 on, but got {int(masks.min())}')
    for mask, own in zip(masks.cpu().numpy(), labels, strict=True):
        out = own.numpy()
        if masks.dtype == torch.bool:
            out[:] = ndimage.label(mask, EIGHT)[0]
            continue
        num = 0
        for value, box in enumerate(ndimage.find_objects(mask), start=1):
            if box is not None:
                inside = mask[box] == value
                numbers, more = ndimage.label(inside, EIGHT)
                out[box] += numbers + num * inside
                num += more
        own.copy_(_renumbered(own))
    return labels.to(masks.device)
