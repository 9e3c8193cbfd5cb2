"""Point prompts on a colour map (gen2seg, Sec. 3.3): the mask has the colour at the point."""

from collections.abc import Iterator, Sequence
from functools import reduce

import torch
from torch import Tensor

from genseg_mm.functional.joint_bilateral import joint_bilateral_filter

EPS = 1e-6  # of the public code, in every denominator


@torch.no_grad()
def masks_from_points(
    color_map: Tensor,
    points: Tensor | Sequence,
    point_labels: Tensor | Sequence | None = None,
    rule: str = 'reference',
    threshold: float = 3 / 255,
    radius: float | None = None,
    sigma: float = 0.01,
    smooth: bool = True,
) -> Tensor:
    """Binary masks for a batch of point prompts on one colour map (gen2seg, Sec. 3.3; public code).

    Per point: the query colour (``query_colors``), the 8-bit similarity of every pixel to it
    (``similarity_levels``), smoothed by ``joint_bilateral_filter`` with the colour map as guide.
    The mask is where the largest value over the prompt's points exceeds ``255 * threshold``, so the
    mask of several points is the union of theirs. A map of a single colour has no contrast: its
    masks are empty.

    Beyond the paper: ``radius``; negative points, which drop every pixel that is strictly closer in
    colour to one of them than to every positive point of the prompt.

    Args:
        color_map: (3, H, W), uint8 or floating point, finite, in [0, 255].
        points: (K, 2) or (K, P, 2): K prompts of P points, (x, y) in pixels, with pixel centres at
            integers.
        point_labels: (K, P), or (K,) beside (K, 2) points; 1 positive, 0 negative. None: all
            positive.
        rule: 'reference' or 'paper', see ``similarity_levels``.
        threshold: On the similarity in [0, 1].
        radius: If given, the mask is where the distance in colour, in [0, 442], to a positive query
            is below it; threshold and smooth have no part in it. The paper's threshold amounts to a
            radius of about 50, the public code's to 6 ... 216, depending on the closest pixel.
        sigma: Of the Gaussian around a point, in widths and heights of the map.
        smooth: Apply the joint bilateral filter.

    Returns:
        Masks, (K, H, W) bool.

    Raises:
        ValueError: If a shape, type or value is wrong, or a point lies outside the map.
    """
    color_map = _check_color_map(color_map)
    points, positive = _check_prompts(color_map, points, point_labels)
    _check_rule(rule)
    if not 0 <= threshold <= 1:
        raise ValueError(f'threshold: expected a similarity in [0, 1], but got {threshold}')
    if radius is not None and not radius > 0:
        raise ValueError(
            f'radius: expected a positive distance of colours or None, but got {radius}'
        )
    (num_prompts, num_points), (height, width) = positive.shape, color_map.shape[1:]
    if num_prompts == 0:
        return torch.zeros(0, height, width, dtype=torch.bool, device=color_map.device)
    queries = query_colors(color_map, points.flatten(0, 1), sigma).view(num_prompts, num_points, 3)
    masks = torch.zeros(num_prompts, height, width, dtype=torch.bool, device=color_map.device)
    if radius is None:
        level = round(255 * threshold, 6)  # 3 / 255 means exactly 3
        # The filter's weights are computed once per part, and levels are bytes: larger parts.
        for part in _parts(num_prompts, num_points * height * width, color_map.device, scale=32):
            levels = similarity_levels(color_map, queries[part].flatten(0, 1), rule)
            levels[~positive[part].flatten()] = 0
            if smooth:
                levels = joint_bilateral_filter(color_map, levels)
            levels = levels.view(-1, num_points, height, width).unbind(1)
            masks[part] = reduce(torch.maximum, levels) > level
    else:
        for part in _parts(num_prompts, height * width, color_map.device):
            masks[part] = _nearest(color_map, queries[part], positive[part]) < radius
    if not positive.all():
        for part in _parts(num_prompts, height * width, color_map.device):
            to_positive = _nearest(color_map, queries[part], positive[part])
            masks[part] &= to_positive <= _nearest(color_map, queries[part], ~positive[part])
    return masks


def query_colors(color_map: Tensor, points: Tensor, sigma: float = 0.01) -> Tensor:
    """Gaussian-weighted mean colour around every point (gen2seg, Sec. 3.3).

    The Gaussian spans the whole map, on axes that run from 0 to 1 over the pixel centres. Its
    weights are relative to the pixel nearest to the point: between the pixels of a tiny map they
    would all but vanish and leave the query to the 1e-6 in the denominator, that is black.

    Args:
        color_map: (3, H, W).
        points: (Q, 2), (x, y) in pixels.
        sigma: Standard deviation, in widths and heights of the map.

    Returns:
        (Q, 3), summed in float64 and returned in the map's floating type (at least float32).

    Raises:
        ValueError: If sigma is not positive.
    """
    if not sigma > 0:
        raise ValueError(f'sigma: expected a positive number, but got {sigma}')
    dtype = torch.promote_types(color_map.dtype, torch.float32)
    # float64 is also what keeps these products out of reach of autocast and TF32.
    exact = torch.float32 if color_map.device.type == 'mps' else torch.float64
    colors, points = color_map.to(exact), points.to(exact)
    height, width = color_map.shape[1:]
    queries = []
    for part in points.split(1024):
        across = _axis_weights(part[:, 0], width, sigma)  # (Q, W)
        down = _axis_weights(part[:, 1], height, sigma)  # (Q, H)
        total = ((colors @ across.T) * down.T).sum(1)  # (3, Q)
        queries.append((total / (across.sum(1) * down.sum(1) + EPS)).T)
    return torch.cat(queries).to(dtype)


def _axis_weights(position: Tensor, size: int, sigma: float) -> Tensor:
    """Gaussian around a position over the pixels of an axis, (Q, size), 1 at the nearest pixel."""
    extent = max(size - 1, 1)
    pixels = torch.linspace(0, 1, size, dtype=position.dtype, device=position.device)
    squared = (pixels - position[:, None] / extent).square()
    return torch.exp((squared.amin(1, keepdim=True) - squared) / (2 * sigma**2))


@torch.no_grad()
def color_distances(color_map: Tensor, queries: Tensor) -> Tensor:
    """Distances of all pixels' colours, (3, H, W), to all queries, (Q, 3): (Q, H, W)."""
    dtype = torch.promote_types(color_map.dtype, torch.float32)
    squared = torch.zeros(len(queries), *color_map.shape[1:], dtype=dtype, device=color_map.device)
    difference = torch.empty_like(squared)
    for channel, query in zip(color_map.to(dtype), queries.to(dtype).T, strict=True):
        torch.sub(channel, query[:, None, None], out=difference)
        squared.addcmul_(difference, difference)
    return squared.sqrt_()


@torch.no_grad()
def similarity_levels(color_map: Tensor, queries: Tensor, rule: str = 'reference') -> Tensor:
    """8-bit similarity of every pixel to every query colour.

    With d the distance of colours, s is 1 / (d + 1e-6) in the public code ('reference') and
    min(1, 1 / d) in the paper ('paper'). Either is stretched to [0, 1] over the map,
    (s - min) / (max - min + 1e-6), and 255 times that is cut to integers.

    Args:
        color_map: (3, H, W).
        queries: (Q, 3).
        rule: 'reference' or 'paper'.

    Returns:
        (Q, H, W), uint8.

    Raises:
        ValueError: If the rule is unknown.
    """
    _check_rule(rule)
    levels = torch.empty(
        len(queries), *color_map.shape[1:], dtype=torch.uint8, device=color_map.device
    )
    for part in _parts(len(queries), color_map[0].numel(), color_map.device):
        similarity = color_distances(color_map, queries[part])
        similarity = similarity.add_(EPS) if rule == 'reference' else similarity.clamp_(min=1.0)
        similarity.reciprocal_()
        low = similarity.amin((1, 2), keepdim=True)
        high = similarity.amax((1, 2), keepdim=True)
        levels[part] = similarity.sub_(low).div_(high - low + EPS).mul_(255).to(torch.uint8)
    return levels


def _parts(num_maps: int, map_size: int, device: torch.device, scale: int = 1) -> Iterator[slice]:
    """Splits the maps into parts of scale times the pixels that fit a cache, or a part of a GPU."""
    limit = scale << (20 if device.type == 'cpu' else 24)
    size = max(1, limit // map_size)
    return (slice(start, start + size) for start in range(0, num_maps, size))


def _nearest(color_map: Tensor, queries: Tensor, chosen: Tensor) -> Tensor:
    """Distance to the nearest chosen query of every prompt, (K, P, 3) and (K, P) -> (K, H, W)."""
    nearest = color_map.new_full((len(queries), *color_map.shape[1:]), torch.inf)
    for query, mine in zip(queries.unbind(1), chosen.unbind(1), strict=True):
        distance = color_distances(color_map, query)
        distance.masked_fill_(~mine[:, None, None], torch.inf)
        torch.minimum(nearest, distance, out=nearest)
    return nearest


def _check_rule(rule: str) -> None:
    if rule not in ('reference', 'paper'):
        raise ValueError(f"rule: expected 'reference' or 'paper', but got {rule!r}")


def _check_color_map(color_map: Tensor) -> Tensor:
    """The map in float32 or float64, or a ValueError."""
    if color_map.ndim != 3 or color_map.shape[0] != 3 or color_map.numel() == 0:
        raise ValueError(
            f'color_map: expected a non-empty (3, H, W), but got {tuple(color_map.shape)}'
        )
    if color_map.dtype != torch.uint8 and not color_map.is_floating_point():
        raise ValueError(f'color_map: expected uint8 or floating point, but got {color_map.dtype}')
    color_map = color_map.detach().to(torch.promote_types(color_map.dtype, torch.float32))
    if not color_map.isfinite().all():
        raise ValueError('color_map: expected finite colours, but got NaN or infinity')
    return color_map


def _check_prompts(
    color_map: Tensor, points: Tensor | Sequence, point_labels: Tensor | Sequence | None
) -> tuple[Tensor, Tensor]:
    """Points (K, P, 2) and which of them are positive, (K, P) bool, or a ValueError."""
    points = torch.as_tensor(points, device=color_map.device)
    shape = points.shape[:-1]
    if points.ndim not in (2, 3) or points.shape[-1] != 2 or 0 in shape[1:]:
        raise ValueError(
            'points: expected (K, 2) or (K, P, 2) with P at least 1, as (x, y), '
            f'but got {tuple(points.shape)}'
        )
    if points.is_complex() or points.dtype == torch.bool:
        raise ValueError(f'points: expected numbers, but got {points.dtype}')
    height, width = color_map.shape[1:]
    x, y = points.unbind(-1)
    inside = (x >= -0.5) & (x <= width - 0.5) & (y >= -0.5) & (y <= height - 0.5)  # NaN is not
    if not inside.all():
        raise ValueError(
            f'points: expected (x, y) inside the map of width {width} and height {height}, '
            f'but got {tuple(points[~inside][0].tolist())}'
        )
    if point_labels is None:
        positive = torch.ones_like(x, dtype=torch.bool)
    else:
        positive = _check_labels(torch.as_tensor(point_labels, device=color_map.device), shape)
    num_points = shape[1] if len(shape) == 2 else 1
    return points.reshape(len(points), num_points, 2), positive.reshape(len(points), num_points)


def _check_labels(labels: Tensor, shape: torch.Size) -> Tensor:
    """Which points are positive, bool of the shape, or a ValueError."""
    if labels.shape != shape:
        raise ValueError(
            f'point_labels: expected {tuple(shape)}, one per point, but got {tuple(labels.shape)}'
        )
    positive = labels == 1
    if not (positive | (labels == 0)).all():
        raise ValueError(
            'point_labels: expected 1 (positive) or 0 (negative), '
            f'but got {labels.unique().tolist()}'
        )
    alone = ~(positive if positive.ndim == 2 else positive[:, None]).any(1)
    if alone.any():
        raise ValueError(
            'point_labels: expected a positive point in every prompt, '
            f'but prompt {int(alone.nonzero()[0])} has none'
        )
    return positive
