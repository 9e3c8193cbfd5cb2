"""The colours that prompts ask for: around a point, that which fills a box, or that of what was found before."""

import torch
from torch import Tensor

from genseg_mm.functional.similarity_masks import EPS, FEW, LARGE, color_distances, parts

BOX_TOLERANCE = 30.0  # distance of colours; the median radius of the public code's masks


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
    if height * width > LARGE or len(points) <= FEW:
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
        color_map: (3, H, W).
        ranges: Pixels of the boxes, see ``pixel_ranges``; (K, 4), within the map, not empty.
        tolerance: Distance of colours.

    Returns:
        (K, 3).
    """
    dtype = torch.promote_types(color_map.dtype, torch.float32)
    queries = torch.empty(len(ranges), 3, dtype=dtype, device=color_map.device)
    num_pairs = (INSIDE // STEP) ** 2 * (INSIDE + 2 * FRAME) ** 2
    for part in parts(len(ranges), num_pairs, color_map.device):
        queries[part] = _box_queries(color_map, ranges[part], tolerance)
    return queries


def _box_queries(color_map: Tensor, ranges: Tensor, tolerance: float) -> Tensor:
    (left, top, right, bottom), (height, width) = ranges.unbind(1), color_map.shape[1:]
    x, y = _sample_axis(left, right), _sample_axis(top, bottom)  # (K, S)
    known = ((y >= 0) & (y < height))[:, :, None] & ((x >= 0) & (x < width))[:, None]  # (K, S, S)
    samples = color_map[:, y.clamp(0, height - 1)[:, :, None], x.clamp(0, width - 1)[:, None]]
    samples = samples.movedim(0, -1).to(torch.promote_types(color_map.dtype, torch.float32))  # (K, S, S, 3)
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


@torch.no_grad()
def followed_queries(color_map: Tensor, masks: Tensor, queries: Tensor, labels: Tensor, rate: float) -> Tensor:
    """Queries that have moved towards the colours they have found, for the next picture of a video (ours).

    A pixel of a mask counts for the positive query of its prompt that is nearest in colour. Queries that found nothing,
    and negative ones, stay.

    Args:
        color_map: (3, H, W), as the masks were made on.
        masks: (K, H, W) bool.
        queries: (K, Q, 3).
        labels: (K, Q), 1 positive.
        rate: Part of the way, in [0, 1]; 0 keeps the queries.

    Returns:
        (K, Q, 3).

    Raises:
        ValueError: If the rate is out of range.
    """
    if not 0 <= rate <= 1:
        raise ValueError(f'rate: expected a part in [0, 1], but got {rate}')
    moved = queries.clone()
    for number, mask in enumerate(masks if rate else masks[:0]):
        slots = (labels[number] == 1).nonzero().flatten()
        colors = color_map[:, mask]  # (3, N)
        distances = color_distances(colors[:, None], queries[number, slots])[:, 0]  # (P, N)
        nearest, best = torch.zeros(colors.shape[1], dtype=torch.long, device=colors.device), None
        for place, distance in enumerate(distances):  # argmin(0) is ten times slower on a CPU
            if best is not None:
                nearest[distance < best] = place
            best = distance if best is None else torch.minimum(best, distance)
        for place, slot in enumerate(slots.tolist()):
            own = colors[:, nearest == place]
            if own.shape[1]:
                mean = own.double().mean(1).to(queries.dtype)
                moved[number, slot] += rate * (mean - queries[number, slot])
    return moved
