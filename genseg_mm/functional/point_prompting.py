"""Prompts on a colour map (gen2seg, Sec. 3.3): the mask has the colour at the point."""

import inspect
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from genseg_mm.functional.connected_components import connected_components
from genseg_mm.functional.prompt_checks import check_boxes, check_color_map, check_prompts
from genseg_mm.functional.prompt_queries import BOX_TOLERANCE, box_queries, query_colors
from genseg_mm.functional.similarity_masks import check_rule, color_distances, masks_within, parts, similar_masks


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

    Per point: the query colour (``query_colors``), the 8-bit similarity of every pixel to it
    (``similarity_levels``), smoothed by ``joint_bilateral_filter`` with the colour map as guide.
    The mask is where the largest value over the prompt's points exceeds ``255 * threshold``, so the
    mask of several points is the union of theirs. A map of a single colour has no contrast: its
    masks are empty.

    The public code reads an 8-bit picture of the map, and its similarity divides by the distance of the closest
    pixel, so that fractions of a level decide how far a mask reaches: under ``rule='reference'`` the map is cut to
    whole levels first. A map that was resized has to be given after that.

    Beyond the paper: ``radius``; negative points, which drop every pixel that is strictly closer in
    colour to one of them than to every positive query of the prompt; ``boxes``, which cut the mask
    and, for prompts without a positive point, give the query (``box_queries``); ``component``.

    Args:
        color_map: (3, H, W), uint8 or floating point, finite, in [0, 255].
        points: (K, 2) or (K, P, 2): K prompts of P points, (x, y) in pixels, with pixel centres at
            integers. None: prompts of a box alone.
        point_labels: (K, P), or (K,) beside (K, 2) points; 1 positive, 0 negative, -1 no point (to
            fill up prompts of fewer points). None: all positive.
        boxes: (K, 4) xyxy in pixels, right and bottom exclusive, as the bounding boxes of masks: on
            these axes pixel i reaches from i to i + 1, and pixels belong to a box by their centres.
            What lies outside the map is cut off. None: no boxes.
        rule: 'reference' or 'paper', see ``similarity_levels``.
        threshold: On the similarity in [0, 1].
        radius: If given, the mask is where the distance in colour, in [0, 442], to a positive query
            is below it; threshold and smooth have no part in it. The paper's threshold amounts to a
            radius of about 50, the public code's to 6 ... 216, depending on the closest pixel.
        sigma: Of the Gaussian around a point, in widths and heights of the map.
        smooth: Apply the joint bilateral filter.
        component: Keep of each mask the connected parts (8 neighbours) that hold a positive point,
            or the pixel of the mask nearest to it within 3 sigma (of the longer side, at most 32
            pixels); for a prompt without a positive point, the largest part.

    Returns:
        Masks, (K, H, W) bool.

    Raises:
        ValueError: If a shape, type or value is wrong, a point lies outside the map, or a prompt
            has neither a positive point nor a box.
    """
    color_map = check_color_map(color_map)
    if rule == 'reference' and radius is None:
        color_map = color_map.clamp(0, 255).floor_()
    points, labels = check_prompts(color_map, points, point_labels, boxes)
    ranges = None if boxes is None else check_boxes(color_map, boxes, len(points))
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
    known = {name: own.default for name, own in list(parameters.items())[4:]}
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
