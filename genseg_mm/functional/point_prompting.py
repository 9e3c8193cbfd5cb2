"""Prompts on a colour map (gen2seg, Sec. 3.3): the mask has the colour at the point."""

import inspect
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from genseg_mm.functional.color_grouping import connected_components
from genseg_mm.functional.queried_colors import BOX_TOLERANCE, box_queries, pixel_ranges, query_colors
from genseg_mm.functional.similarity_masks import (
    LARGE,
    check_rule,
    color_distances,
    masks_within,
    parts,
    similar_masks,
)

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
    color_map = _readable_map(color_map, rule, radius)
    points, labels, ranges = check_prompts(points, point_labels, boxes, color_map.shape[1:], color_map.device)
    _check_settings(rule, threshold, radius, sigma)
    if len(points) == 0:
        return torch.zeros(0, *color_map.shape[1:], dtype=torch.bool, device=color_map.device)
    queries, labels = _queries_of(color_map, points, labels, ranges, radius, sigma)
    masks = _masks_of(color_map, queries, labels, rule, threshold, radius, smooth)
    if ranges is not None:
        masks &= _box_masks(ranges, *color_map.shape[1:])
    return _prompted_parts(masks, points, labels, sigma) if component else masks


@torch.no_grad()
def queries_from_points(
    color_map: Tensor,
    points: Tensor | Sequence | None = None,
    point_labels: Tensor | Sequence | None = None,
    boxes: Tensor | Sequence | None = None,
    **settings: Any,
) -> tuple[Tensor, Tensor]:
    """The colours that prompts ask for, to look for them in other pictures: what :func:`masks_from_points` begins with.

    Args:
        color_map: As there.
        points: As there.
        point_labels: As there.
        boxes: As there. For other pictures they give no more than a query.
        **settings: Those of :func:`masks_from_points`.

    Returns:
        Queries, (K, Q, 3), and their labels, (K, Q) int64: 1 positive, 0 negative, -1 none.

    Raises:
        ValueError: As there.
    """
    settings = _all_settings(settings)
    _check_settings(*(settings[name] for name in ('rule', 'threshold', 'radius', 'sigma')))
    color_map = _readable_map(color_map, settings['rule'], settings['radius'])
    points, labels, ranges = check_prompts(points, point_labels, boxes, color_map.shape[1:], color_map.device)
    return _queries_of(color_map, points, labels, ranges, settings['radius'], settings['sigma'])


@torch.no_grad()
def masks_from_queries(
    color_map: Tensor, queries: Tensor, labels: Tensor, before: Tensor | None = None, **settings: Any
) -> Tensor:
    """Masks of colours that were asked for on another map, such as that of an earlier picture of a video.

    Args:
        color_map: (3, H, W), as of :func:`masks_from_points`.
        queries: (K, Q, 3), of :func:`queries_from_points`.
        labels: (K, Q).
        before: Masks on the map before, (K, H, W) bool. With ``component``, the connected parts that touch the mask
            before are kept; the largest part where none does or none is given.
        **settings: Those of :func:`masks_from_points`.

    Returns:
        (K, H, W) bool.

    Raises:
        ValueError: If the map or a setting is wrong.
    """
    settings = _all_settings(settings)
    sigma, component = settings.pop('sigma'), settings.pop('component')
    _check_settings(settings['rule'], settings['threshold'], settings['radius'], sigma)
    color_map = _readable_map(color_map, settings['rule'], settings['radius'])
    if len(queries) == 0:
        return torch.zeros(0, *color_map.shape[1:], dtype=torch.bool, device=color_map.device)
    queries = queries.to(color_map.device, torch.promote_types(color_map.dtype, torch.float32))
    masks = _masks_of(color_map, queries, labels, **settings)
    if component:
        for number, mask in enumerate(masks):
            masks[number] = _touching_parts(mask, None if before is None else before[number])
    return masks


def _touching_parts(mask: Tensor, before: Tensor | None) -> Tensor:
    """The connected parts of a mask, (H, W), that share a pixel with that before, or the largest."""
    numbers = connected_components(mask[None])[0]
    areas = numbers.flatten().bincount()
    areas[0] = 0
    chosen = areas.argmax()[None] if before is None else numbers[before & mask].unique()
    return mask & torch.isin(numbers, chosen if len(chosen) else areas.argmax()[None])


def _all_settings(settings: dict[str, Any]) -> dict[str, Any]:
    """Those of :func:`masks_from_points`, with defaults for all that are not given."""
    prompt_settings(**settings)  # refuses unknown ones
    parameters = inspect.signature(masks_from_points).parameters
    return {name: settings.get(name, parameters[name].default) for name in SETTINGS}


def _readable_map(color_map: Tensor, rule: str, radius: float | None) -> Tensor:
    """The map in floating point; under the public code's rule cut to whole levels, a float32 map to 8 bits."""
    if rule != 'reference' or radius is not None:
        return check_color_map(color_map)
    _check_shape(color_map)
    if color_map.dtype == torch.uint8:
        return color_map
    color_map = check_color_map(color_map)
    if color_map.dtype == torch.float64:  # in which its queries are to stay
        return color_map.clamp(0, 255).floor_()
    whole = torch.empty(color_map.shape, dtype=torch.uint8, device=color_map.device)
    for part, out in zip(_row_parts(color_map), _row_parts(whole), strict=True):
        out.copy_(part.clamp(0, 255).to(torch.int16))  # a fourth of the time of one step on a CPU
    return whole


def _check_settings(rule: str, threshold: float, radius: float | None, sigma: float) -> None:
    check_rule(rule)
    if not 0 <= threshold <= 1:
        raise ValueError(f'threshold: expected a similarity in [0, 1], but got {threshold}')
    if radius is not None and not radius > 0:
        raise ValueError(f'radius: expected a positive distance of colours or None, but got {radius}')
    if not sigma > 0:
        raise ValueError(f'sigma: expected a positive number, but got {sigma}')


def _queries_of(
    color_map: Tensor, points: Tensor, labels: Tensor, ranges: Tensor | None, radius: float | None, sigma: float
) -> tuple[Tensor, Tensor]:
    """Queries, (K, Q, 3), and labels, (K, Q); a prompt without a positive point asks with its box."""
    queries = query_colors(color_map, points.flatten(0, 1), sigma).view(*labels.shape, 3)
    if ranges is not None and (missing := ~(labels == 1).any(1)).any():
        extra = labels.new_full((len(labels), 1), -1)
        extra[missing] = 1
        filled = queries.new_zeros(len(queries), 1, 3)
        filled[missing, 0] = box_queries(color_map, ranges[missing], radius or BOX_TOLERANCE)
        queries, labels = torch.cat([queries, filled], 1), torch.cat([labels, extra], 1)
    return queries, labels


def _masks_of(
    color_map: Tensor,
    queries: Tensor,
    labels: Tensor,
    rule: str,
    threshold: float,
    radius: float | None,
    smooth: bool,
) -> Tensor:
    masks = _union(color_map, queries, labels == 1, rule, threshold, radius, smooth)
    _drop_negatives(masks, color_map, queries, labels)
    return masks


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
    nearest = queries.new_full((len(queries), *color_map.shape[1:]), torch.inf)
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
    _check_shape(color_map)
    color_map = color_map.detach().to(torch.promote_types(color_map.dtype, torch.float32))
    # NaN and infinity come through to the extremes, which cost a tenth of asking every number.
    ends = [torch.stack(torch.aminmax(part)) for part in _row_parts(color_map)]
    if not torch.stack(ends).isfinite().all():
        raise ValueError('color_map: expected finite colours, but got NaN or infinity')
    return color_map


def _check_shape(color_map: Tensor) -> None:
    if color_map.ndim != 3 or color_map.shape[0] != 3 or color_map.numel() == 0:
        raise ValueError(f'color_map: expected a non-empty (3, H, W), but got {tuple(color_map.shape)}')
    if color_map.dtype != torch.uint8 and not color_map.is_floating_point():
        raise ValueError(f'color_map: expected uint8 or floating point, but got {color_map.dtype}')


def _row_parts(color_map: Tensor) -> Sequence[Tensor]:
    """A map channel by channel and in rows that fit a cache; whole on a GPU."""
    rows = max(LARGE // 8 // color_map.shape[2], 1)
    return [color_map] if color_map.is_cuda else [part for channel in color_map for part in channel.split(rows)]


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
