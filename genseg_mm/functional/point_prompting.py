"""Prompts on a colour map (gen2seg, Sec. 3.3): the mask has the colour at the point."""

import inspect
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from genseg_mm.functional.color_grouping import connected_components
from genseg_mm.functional.similarity_masks import (
    EPS,
    LARGE,
    check_rule,
    color_distances,
    masks_within,
    parts,
    similar_masks,
)

BOX_TOLERANCE = 30.0  # distance of colours; the median radius of the public code's masks
SETTINGS = ('rule', 'threshold', 'radius', 'sigma', 'smooth', 'component')  # of masks_from_points


@torch.no_grad()
def masks_from_points(
    color_map: Tensor,
    points: Tensor | Sequence | None = None,
    point_labels: Tensor | Sequence | None = None,
    boxes: Tensor | Sequence | None = None,
    rule: str = 'reference',
    threshold: float = 3 / 255,
    radius: float | None = None,
    sigma: float = 0.01,
    smooth: bool = True,
    component: bool = False,
) -> Tensor:
    """Binary masks for a batch of prompts on one colour map (gen2seg, Sec. 3.3; public code).

    Per point: the query colour (``query_colors``), the 8-bit similarity of every pixel to it (``similarity_levels``),
    smoothed by ``joint_bilateral_filter`` with the colour map as guide. The mask is where the largest value over the
    prompt's points exceeds ``255 * threshold``, so the mask of several points is the union of theirs. A map of a single
    colour has no contrast: its masks are empty.

    The public code reads an 8-bit picture of the map, and its similarity divides by the distance of the closest pixel,
    so that fractions of a level decide how far a mask reaches: under ``rule='reference'`` the map is cut to whole
    levels first. A map that was resized has to be given after that.

    Beyond the paper: ``radius``; negative points, which drop every pixel that is strictly closer in colour to one of
    them than to every positive query of the prompt; ``boxes``, which cut the mask and, for prompts without a positive
    point, give the query (``box_queries``); ``component``.

    Args:
        color_map: (3, H, W), uint8 or floating point, finite, in [0, 255].
        points: (K, 2) or (K, P, 2): K prompts of P points, (x, y) in pixels, with pixel centres at integers. None:
            prompts of a box alone.
        point_labels: (K, P), or (K,) beside (K, 2) points; 1 positive, 0 negative, -1 no point (to fill up prompts of
            fewer points). None: all positive.
        boxes: (K, 4) xyxy in pixels, right and bottom exclusive, as the bounding boxes of masks: on these axes pixel i
            reaches from i to i + 1, and pixels belong to a box by their centres. What lies outside the map is cut off.
            None: no boxes.
        rule: 'reference' or 'paper', see ``similarity_levels``.
        threshold: On the similarity in [0, 1].
        radius: If given, the mask is where the distance in colour, in [0, 442], to a positive query is below it;
            threshold and smooth have no part in it. The paper's threshold amounts to a radius of about 50, the public
            code's to 6 ... 216, depending on the closest pixel.
        sigma: Of the Gaussian around a point, in widths and heights of the map.
        smooth: Apply the joint bilateral filter.
        component: Keep of each mask the connected parts (8 neighbours) that hold a positive point, or the pixel of the
            mask nearest to it within 3 sigma (of the longer side, at most 32 pixels); for a prompt without a positive
            point, the largest part.

    Returns:
        Masks, (K, H, W) bool.

    Raises:
        ValueError: If a shape, type or value is wrong, a point lies outside the map, or a prompt has neither a positive
            point nor a box.
    """
    color_map = check_color_map(color_map)
    if rule == 'reference' and radius is None:
        color_map = color_map.clamp(0, 255).floor_()
    points, labels, ranges = check_prompts(points, point_labels, boxes, color_map.shape[1:], color_map.device)
    check_rule(rule)
    if not 0 <= threshold <= 1:
        raise ValueError(f'threshold: expected a similarity in [0, 1], but got {threshold}')
    if radius is not None and not radius > 0:
        raise ValueError(f'radius: expected a positive distance of colours or None, but got {radius}')
    if not sigma > 0:
        raise ValueError(f'sigma: expected a positive number, but got {sigma}')
    if len(points) == 0:
        return torch.zeros(0, *color_map.shape[1:], dtype=torch.bool, device=color_map.device)
    queries = query_colors(color_map, points.flatten(0, 1), sigma).view(*labels.shape, 3)
    if ranges is not None and (missing := ~(labels == 1).any(1)).any():
        extra = labels.new_full((len(labels), 1), -1)
        extra[missing] = 1
        filled = queries.new_zeros(len(queries), 1, 3)
        filled[missing, 0] = box_queries(color_map, ranges[missing], radius or BOX_TOLERANCE)
        queries, labels = torch.cat([queries, filled], 1), torch.cat([labels, extra], 1)
    masks = _union(color_map, queries, labels == 1, rule, threshold, radius, smooth)
    _drop_negatives(masks, color_map, queries, labels)
    if ranges is not None:
        masks &= _box_masks(ranges, *color_map.shape[1:])
    return _prompted_parts(masks, points, labels, sigma) if component else masks


def prompt_settings(**settings: Any) -> dict[str, Any]:
    """All that decides how :func:`masks_from_points` makes masks, with the defaults filled in.

    The same settings make the same masks: with a radius, those that it overrides are left out.

    Args:
        settings: Any of ``rule``, ``threshold``, ``radius``, ``sigma``, ``smooth``, ``component``.

    Raises:
        ValueError: If there is no such setting.
    """
    parameters = inspect.signature(masks_from_points).parameters
    known = {name: parameters[name].default for name in SETTINGS}
    unknown = sorted(set(settings) - set(known))
    if unknown:
        raise ValueError(f'prompting: expected settings out of {", ".join(known)}, but got {", ".join(unknown)}')
    known.update(settings)
    check_rule(known['rule'])  # also where a radius leaves it without a part
    if known['radius'] is not None:
        del known['rule'], known['threshold'], known['smooth']
    return known


def _union(
    color_map: Tensor,
    queries: Tensor,
    positive: Tensor,
    rule: str,
    threshold: float,
    radius: float | None,
    smooth: bool,
) -> Tensor:
    """Union of the masks of every prompt's positive queries, (K, Q, 3) and (K, Q) -> (K, H, W)."""
    masks = None
    # The n-th positive queries of all prompts together: no prompt is computed twice or for nothing.
    turn = positive.cumsum(1) * positive
    for number in range(1, int(turn.max()) + 1):
        prompt, slot = (turn == number).nonzero().T
        if radius is None:
            level = round(255 * threshold, 6)  # 3 / 255 means exactly 3
            found = similar_masks(color_map, queries[prompt, slot], level, rule, smooth)
        else:
            found = masks_within(color_map, queries[prompt, slot], radius)
        if len(prompt) == len(queries):
            masks = found if masks is None else masks.logical_or_(found)
        else:
            if masks is None:
                masks = found.new_zeros(len(queries), *found.shape[1:])
            masks[prompt] |= found
    return masks


def _drop_negatives(masks: Tensor, color_map: Tensor, queries: Tensor, labels: Tensor) -> None:
    """Drops, in place, what is closer to a negative query than to every positive one."""
    prompts = (labels == 0).any(1).nonzero().flatten()
    for part in parts(len(prompts), masks[0].numel(), masks.device):
        mine = prompts[part]
        to_positive = _nearest(color_map, queries[mine], labels[mine] == 1)
        masks[mine] &= to_positive <= _nearest(color_map, queries[mine], labels[mine] == 0)


def _nearest(color_map: Tensor, queries: Tensor, chosen: Tensor) -> Tensor:
    """Distance to the nearest chosen query of every prompt, (K, P, 3) and (K, P) -> (K, H, W)."""
    nearest = color_map.new_full((len(queries), *color_map.shape[1:]), torch.inf)
    for query, mine in zip(queries.unbind(1), chosen.unbind(1), strict=True):
        distance = color_distances(color_map, query)
        distance.masked_fill_(~mine[:, None, None], torch.inf)
        torch.minimum(nearest, distance, out=nearest)
    return nearest


def _box_masks(ranges: Tensor, height: int, width: int) -> Tensor:
    """Pixels of boxes, (K, 4) -> (K, H, W) bool."""
    left, top, right, bottom = ranges[..., None].unbind(1)  # (K, 1) each
    x, y = torch.arange(width, device=ranges.device), torch.arange(height, device=ranges.device)
    across, down = (x >= left) & (x < right), (y >= top) & (y < bottom)
    return down[:, :, None] & across[:, None]


def _prompted_parts(masks: Tensor, points: Tensor, labels: Tensor, sigma: float) -> Tensor:
    """Keeps of each mask the connected parts that its positive points are on, or the largest."""
    kept = torch.zeros_like(masks)
    pointed = (labels[:, : points.shape[1]] == 1).any(1)
    for part in parts(len(masks), masks[0].numel(), masks.device):
        numbers = connected_components(masks[part])  # (k, H, W)
        areas = numbers.new_zeros(len(numbers), int(numbers.max()) + 1)
        areas.scatter_add_(1, numbers.flatten(1), masks[part].flatten(1).long())
        largest = torch.where(pointed[part], 0, areas.argmax(1))
        kept[part] = numbers == largest[:, None, None]
        for place, label in zip(points[part].unbind(1), labels[part, : points.shape[1]].unbind(1), strict=True):
            number = torch.where(label == 1, _number_at(numbers, place, sigma), 0)
            kept[part] |= numbers == number[:, None, None]
    return kept & masks


def _number_at(numbers: Tensor, points: Tensor, sigma: float) -> Tensor:
    """Number of the part at a point, (K, 2), or nearest to it within 3 sigma, (K,); else 0."""
    height, width = numbers.shape[1:]
    reach = min(3 * sigma * max(height, width), 32)
    steps = torch.arange(-int(reach), int(reach) + 1, device=numbers.device)
    x, y = (points + 0.5).floor().long().T[..., None] + steps  # (K, S) each
    known = ((y >= 0) & (y < height))[:, :, None] & ((x >= 0) & (x < width))[:, None]
    prompts = torch.arange(len(numbers), device=numbers.device)[:, None, None]
    window = numbers[prompts, y.clamp(0, height - 1)[:, :, None], x.clamp(0, width - 1)[:, None]]  # (K, S, S)
    distance = (y - points[:, 1:]).square()[:, :, None] + (x - points[:, :1]).square()[:, None]
    far = (window == 0) | ~known | (distance > max(reach, 1) ** 2)
    distance = distance.float().masked_fill(far, torch.inf).flatten(1)
    nearest = distance.argmin(1, keepdim=True)
    number = window.flatten(1).gather(1, nearest)[:, 0]
    return torch.where(distance.gather(1, nearest)[:, 0] < torch.inf, number, 0)


def check_color_map(color_map: Tensor) -> Tensor:
    """The map in float32 or float64, or a ValueError."""
    if color_map.ndim != 3 or color_map.shape[0] != 3 or color_map.numel() == 0:
        raise ValueError(f'color_map: expected a non-empty (3, H, W), but got {tuple(color_map.shape)}')
    if color_map.dtype != torch.uint8 and not color_map.is_floating_point():
        raise ValueError(f'color_map: expected uint8 or floating point, but got {color_map.dtype}')
    color_map = color_map.detach().to(torch.promote_types(color_map.dtype, torch.float32))
    # Part by part: on a large map the answers would fill as much memory as the map.
    if not all(bool(part.isfinite().all()) for part in color_map.flatten(1).split(1 << 19, 1)):
        raise ValueError('color_map: expected finite colours, but got NaN or infinity')
    return color_map


def check_prompts(
    points: Tensor | Sequence | None = None,
    point_labels: Tensor | Sequence | None = None,
    boxes: Tensor | Sequence | None = None,
    size: tuple[int, int] | None = None,
    device: torch.device | None = None,
) -> tuple[Tensor, Tensor, Tensor | None]:
    """The one check of what a prompt may be.

    Args:
        points: As of :func:`masks_from_points`.
        point_labels: The same.
        boxes: The same.
        size: (height, width) of the map. None: it is not known yet, and nothing lies outside of it.
        device: Where the result is to be.

    Returns:
        Points, (K, P, 2), with zeros for those that are none; P is 0 without points. Their labels, (K, P) int64. First
        and one past the last column and row of the pixels in the boxes, (K, 4) int64 xyxy, cut to the map; None without
        boxes.

    Raises:
        ValueError: If a shape, type or value is wrong, something lies outside the map, or a prompt has neither a
            positive point nor a box.
    """
    if points is None and point_labels is not None:
        raise ValueError('point_labels: expected none without points')
    if points is None and boxes is None:
        raise ValueError('points: expected points, boxes or both, but got neither')
    if points is None:
        ranges = _checked_boxes(torch.as_tensor(boxes, device=device), None, size)
        return ranges.new_zeros(len(ranges), 0, 2).float(), ranges[:, :0], ranges
    points = torch.as_tensor(points, device=device)
    shape = points.shape[:-1]
    if points.ndim not in (2, 3) or points.shape[-1] != 2 or 0 in shape[1:]:
        raise ValueError(
            'points: expected (K, 2) or (K, P, 2) with P at least 1, as (x, y), '
            f'but got {tuple(points.shape)}; a single point is [[x, y]]'
        )
    if points.is_complex() or points.dtype == torch.bool:
        raise ValueError(f'points: expected numbers, but got {points.dtype}')
    if point_labels is None:
        labels = torch.ones(shape, dtype=torch.int64, device=points.device)
    else:
        labels = torch.as_tensor(point_labels, device=device)
        _check_labels(labels, shape, boxes is not None)
    points = points.masked_fill((labels < 0)[..., None], 0)
    if size is not None:
        _check_inside(points, *size)
    ranges = None if boxes is None else _checked_boxes(torch.as_tensor(boxes, device=device), len(points), size)
    points = points.unsqueeze(1) if points.ndim == 2 else points
    return points, labels.long().reshape(points.shape[:2]), ranges


def _check_inside(points: Tensor, height: int, width: int) -> None:
    x, y = points.unbind(-1)
    inside = (x >= -0.5) & (x <= width - 0.5) & (y >= -0.5) & (y <= height - 0.5)  # NaN is not
    if not inside.all():
        place = tuple((~inside).nonzero()[0].tolist())
        point = tuple(round(side, 4) for side in points[place].tolist())
        raise ValueError(
            f'points: expected (x, y) inside the map of width {width} and height {height}, '
            f'but got {point} in prompt {place[0]}'
        )


def _check_labels(labels: Tensor, shape: torch.Size, has_boxes: bool) -> None:
    if labels.shape != shape:
        raise ValueError(f'point_labels: expected {tuple(shape)}, one per point, but got {tuple(labels.shape)}')
    if not ((labels == 1) | (labels == 0) | (labels == -1)).all():
        raise ValueError(
            f'point_labels: expected 1 (positive), 0 (negative) or -1 (no point), but got {labels.unique().tolist()}'
        )
    positive = labels == 1
    alone = ~(positive if positive.ndim == 2 else positive[:, None]).any(1)
    if alone.any() and not has_boxes:
        raise ValueError(
            'point_labels: expected a positive point in every prompt without a box, '
            f'but prompt {int(alone.nonzero()[0])} has none'
        )


def _checked_boxes(boxes: Tensor, num_prompts: int | None, size: tuple[int, int] | None) -> Tensor:
    """Pixel ranges of the boxes, (K, 4) int64."""
    if boxes.is_complex() or boxes.dtype == torch.bool:
        raise ValueError(f'boxes: expected numbers, but got {boxes.dtype}')
    expected = (len(boxes) if boxes.ndim == 2 else 'K') if num_prompts is None else num_prompts
    if boxes.ndim != 2 or tuple(boxes.shape) != (expected, 4):
        raise ValueError(
            f'boxes: expected ({expected}, 4) xyxy, one per prompt, but got {tuple(boxes.shape)}; '
            'a single box is [[x0, y0, x1, y1]]'
        )
    boxes = boxes.to(torch.promote_types(boxes.dtype, torch.float32))
    wrong = ~(boxes[:, :2] < boxes[:, 2:]).all(1)  # NaN is
    ranges = pixel_ranges(boxes.nan_to_num().clamp(-1e6, 1e6))
    form = 'boxes: expected x0 < x1 and y0 < y1'
    if size is not None:
        height, width = size
        ranges[:, ::2].clamp_(0, width)
        ranges[:, 1::2].clamp_(0, height)
        wrong |= ~(ranges[:, :2] < ranges[:, 2:]).all(1)
        form += f' around a pixel of the map of width {width} and height {height}'
    if wrong.any():
        number = int(wrong.nonzero()[0])
        raise ValueError(f'{form}, but prompt {number} has {boxes[number].tolist()}')
    return ranges


# The colour that a prompt asks for: around a point, or the one that fills a box.


def query_colors(color_map: Tensor, points: Tensor, sigma: float = 0.01) -> Tensor:
    """Gaussian-weighted mean colour around every point (gen2seg, Sec. 3.3).

    The Gaussian spans the whole map, on axes that run from 0 to 1 over the pixel centres. Its weights are relative to
    the pixel nearest to the point: between the pixels of a tiny map they would all but vanish and leave the query to
    the 1e-6 in the denominator, that is black.

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
    points = points.to(exact)
    height, width = color_map.shape[1:]
    queries = [torch.zeros(0, 3, dtype=exact, device=color_map.device)]
    if height * width > LARGE:
        queries += [_query_nearby(color_map, point, sigma, exact) for point in points]
        return torch.cat(queries).to(dtype)
    colors = color_map.to(exact)
    for part in points.split(1024):
        across = _axis_weights(part[:, 0], width, sigma)  # (Q, W)
        down = _axis_weights(part[:, 1], height, sigma)  # (Q, H)
        total = ((colors @ across.T) * down.T).sum(1)  # (3, Q)
        queries.append((total / (across.sum(1) * down.sum(1) + EPS)).T)
    return torch.cat(queries).to(dtype)


def _query_nearby(color_map: Tensor, point: Tensor, sigma: float, exact: torch.dtype) -> Tensor:
    """The weighted mean, (1, 3), from the pixels within 9 sigma: all others together weigh less than rounding does."""
    ranges, weights = [], []
    for position, size in zip(point.flip(0), color_map.shape[1:], strict=True):
        reach = 9 * sigma * max(size - 1, 1) + 2
        first = max(int(position - reach), 0)
        last = min(int(position + reach) + 1, size)
        ranges.append(slice(first, last))
        weights.append(_axis_weights(position[None], size, sigma)[:, first:last])
    down, across = weights
    colors = color_map[:, ranges[0], ranges[1]].to(exact)
    total = ((colors @ across.T) * down.T).sum(1)  # (3, 1)
    return (total / (across.sum(1) * down.sum(1) + EPS)).T


def _axis_weights(position: Tensor, size: int, sigma: float) -> Tensor:
    """Gaussian around a position over the pixels of an axis, (Q, size), 1 at the nearest pixel."""
    extent = max(size - 1, 1)
    pixels = torch.linspace(0, 1, size, dtype=position.dtype, device=position.device)
    squared = (pixels - position[:, None] / extent).square()
    return torch.exp((squared.amin(1, keepdim=True) - squared) / (2 * sigma**2))


def pixel_ranges(boxes: Tensor) -> Tensor:
    """First and one past the last column and row of the pixels in a box, (K, 4) integers xyxy.

    Pixel i reaches from i to i + 1 on the axes of a box and belongs to it by its centre, so that the box around a mask
    (right and bottom exclusive, as in COCO) holds just its pixels.
    """
    return torch.ceil(boxes - 0.5).long()


INSIDE = 24  # samples across a box
FRAME = 6  # samples across the frame on either side of it
STEP = 2  # every second sample, across and down, is a candidate


def box_queries(color_map: Tensor, ranges: Tensor, tolerance: float = BOX_TOLERANCE) -> Tensor:
    """The colour of the object that a box is drawn around (ours; the paper prompts with points).

    12 x 12 candidates are spread over the box, and 24 x 24 samples over the box and 6 more on either side over a frame
    around it, a quarter of the box wide (at least 2 pixels). Colours at a distance d agree to exp(-d^2 / (2
    tolerance^2)). A candidate is the better,

    - the larger the part of the box that agrees with it,
    - the more of the box's columns and of its rows have a pixel that agrees (a tight box touches its object on all
      sides: a ring, not the disk within),
    - the smaller the part of the frame that agrees (background, neighbours that reach in):

    part of the box * part of the columns * part of the rows - part of the frame. The query is the mean of the samples
    in the box that agree with the best one (mean shift of half the tolerance, 3 steps), so that neither a pixel's noise
    nor an object's empty middle matters.

    Args:
        color_map: (3, H, W) floating point.
        ranges: Pixels of the boxes, see ``pixel_ranges``; (K, 4), within the map, not empty.
        tolerance: Distance of colours.

    Returns:
        (K, 3).
    """
    queries = color_map.new_empty(len(ranges), 3)
    num_pairs = (INSIDE // STEP) ** 2 * (INSIDE + 2 * FRAME) ** 2
    for part in parts(len(ranges), num_pairs, color_map.device):
        queries[part] = _box_queries(color_map, ranges[part], tolerance)
    return queries


def _box_queries(color_map: Tensor, ranges: Tensor, tolerance: float) -> Tensor:
    (left, top, right, bottom), (height, width) = ranges.unbind(1), color_map.shape[1:]
    x, y = _sample_axis(left, right), _sample_axis(top, bottom)  # (K, S)
    known = ((y >= 0) & (y < height))[:, :, None] & ((x >= 0) & (x < width))[:, None]  # (K, S, S)
    samples = color_map[:, y.clamp(0, height - 1)[:, :, None], x.clamp(0, width - 1)[:, None]].movedim(
        0, -1
    )  # (K, S, S, 3)
    middle = slice(FRAME, FRAME + INSIDE)
    inside = samples[:, middle, middle]  # (K, I, I, 3)
    candidates = inside[:, STEP // 2 :: STEP, STEP // 2 :: STEP].flatten(1, 2)  # (K, C, 3)
    agree = _agreement(candidates[:, :, None], samples.flatten(1, 2)[:, None], tolerance)
    agree = agree.unflatten(2, known.shape[1:]) * known[:, None]  # (K, C, S, S)
    in_box = agree[:, :, middle, middle]
    columns, rows = in_box.amax(2).mean(2), in_box.amax(3).mean(2)  # (K, C)
    in_frame = known.flatten(1).sum(1) - INSIDE**2
    total = in_box.sum((2, 3))
    frame = (agree.sum((2, 3)) - total) / in_frame.clamp(min=1)[:, None]
    best = (total / INSIDE**2 * columns * rows - frame).argmax(1)
    query = candidates[torch.arange(len(best), device=best.device), best]  # (K, 3)
    inside = inside.flatten(1, 2)
    for _ in range(3):
        weight = _agreement(query[:, None], inside, tolerance / 2)[..., None]  # (K, I I, 1)
        query = (weight * inside).sum(1) / weight.sum(1)
    return query


def _sample_axis(start: Tensor, end: Tensor) -> Tensor:
    """Pixels along an axis at which a box and its frame are sampled, (K, FRAME + INSIDE + FRAME).

    The frame's may lie outside the map.
    """
    size = (end - start)[:, None].float()
    steps = (torch.arange(INSIDE, device=start.device) + 0.5) / INSIDE
    margin = (torch.arange(FRAME, device=start.device) + 0.5) / FRAME * (size / 4).clamp(min=2)
    inside = start[:, None] + (steps * size).long()
    before = start[:, None] - 1 - margin.long().flip(1)
    return torch.cat([before, inside, end[:, None] + margin.long()], 1)


def _agreement(first: Tensor, second: Tensor, tolerance: float) -> Tensor:
    """How much colours, (..., 3), agree: 1 for equal ones, 0.6 at the tolerance."""
    squared = (first[..., 0] - second[..., 0]).square_()
    for channel in (1, 2):
        squared.add_((first[..., channel] - second[..., channel]).square_())
    return squared.mul_(-0.5 / tolerance**2).exp_()
