"""What a prompt may be: shapes, types and values of maps, points, labels and boxes."""

from collections.abc import Sequence

import torch
from torch import Tensor

from genseg_mm.functional.prompt_queries import pixel_ranges


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
    color_map: Tensor,
    points: Tensor | Sequence | None,
    point_labels: Tensor | Sequence | None,
    boxes: Tensor | Sequence | None,
) -> tuple[Tensor, Tensor]:
    """Points (K, P, 2) and their labels (K, P) int64, or a ValueError; P is 0 without points."""
    if points is None:
        if boxes is None:
            raise ValueError('points: expected points, boxes or both, but got neither')
        if point_labels is not None:
            raise ValueError('point_labels: expected none without points')
        points = color_map.new_zeros(len(torch.as_tensor(boxes)), 0, 2)
        return points, torch.zeros(points.shape[:2], dtype=torch.int64, device=points.device)
    points = torch.as_tensor(points, device=color_map.device)
    shape = points.shape[:-1]
    if points.ndim not in (2, 3) or points.shape[-1] != 2 or 0 in shape[1:]:
        raise ValueError(
            f'points: expected (K, 2) or (K, P, 2) with P at least 1, as (x, y), but got {tuple(points.shape)}'
        )
    if points.is_complex() or points.dtype == torch.bool:
        raise ValueError(f'points: expected numbers, but got {points.dtype}')
    if point_labels is None:
        labels = torch.ones(shape, dtype=torch.int64, device=color_map.device)
    else:
        labels = torch.as_tensor(point_labels, device=color_map.device)
        _check_labels(labels, shape, boxes is not None)
    points = _check_inside(points, labels >= 0, *color_map.shape[1:])
    points = points.unsqueeze(1) if points.ndim == 2 else points
    return points, labels.long().reshape(points.shape[:2])


def _check_inside(points: Tensor, real: Tensor, height: int, width: int) -> Tensor:
    """The points, with zeros for those that are none, or a ValueError."""
    points = points.masked_fill(~real[..., None], 0)
    x, y = points.unbind(-1)
    inside = (x >= -0.5) & (x <= width - 0.5) & (y >= -0.5) & (y <= height - 0.5)  # NaN is not
    if not inside.all():
        place = tuple((~inside).nonzero()[0].tolist())
        point = tuple(round(side, 4) for side in points[place].tolist())
        raise ValueError(
            f'points: expected (x, y) inside the map of width {width} and height {height}, '
            f'but got {point} in prompt {place[0]}'
        )
    return points


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


def check_boxes(color_map: Tensor, boxes: Tensor | Sequence, num_prompts: int) -> Tensor:
    """Pixel ranges of the boxes within the map, (K, 4) int64, or a ValueError."""
    boxes = torch.as_tensor(boxes, device=color_map.device)
    if boxes.is_complex() or boxes.dtype == torch.bool:
        raise ValueError(f'boxes: expected numbers, but got {boxes.dtype}')
    if boxes.shape != (num_prompts, 4):
        raise ValueError(f'boxes: expected ({num_prompts}, 4) xyxy, one per prompt, but got {tuple(boxes.shape)}')
    height, width = color_map.shape[1:]
    boxes = boxes.to(color_map.dtype)
    ranges = pixel_ranges(boxes.nan_to_num().clamp(-1e6, 1e6))
    ranges[:, ::2].clamp_(0, width)
    ranges[:, 1::2].clamp_(0, height)
    wrong = ~(ranges[:, :2] < ranges[:, 2:]).all(1) | boxes.isnan().any(1)
    if wrong.any():
        number = int(wrong.nonzero()[0])
        raise ValueError(
            'boxes: expected left < right and top < bottom around a pixel of the map of '
            f'width {width} and height {height}, but prompt {number} has {boxes[number].tolist()}'
        )
    return ranges
