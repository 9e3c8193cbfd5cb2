"""IoU of masks with the instances that were prompted, by counting as few pixels as possible."""

import numpy as np
import torch
from torch import Tensor

from genseg_mm.functional.point_prompting import color_distances, query_colors


def mask_ious(masks: Tensor, truth: list[Tensor], allowed: Tensor | None = None) -> np.ndarray:
    """IoU of masks with instances.

    Args:
        masks: (K, H, W) bool.
        truth: Flat places of the pixels of each mask's instance, K tensors.
        allowed: Pixels that a mask may have, (H, W) bool; what lies outside is cut off.

    Returns:
        (K,) float64; 0 where mask and instance are empty.
    """
    ious = np.zeros(len(masks))
    for row, (mask, pixels) in enumerate(zip(masks, truth, strict=True)):
        mask = (mask if allowed is None else mask & allowed).flatten()
        ious[row] = _iou(_count(mask), _count(mask[pixels]), len(pixels))
    return ious


def radius_ious(
    colors: Tensor, points: Tensor, truth: list[Tensor], radii: Tensor, sigma: float, allowed: Tensor | None = None
) -> np.ndarray:
    """IoU of the masks of colours nearer than each radius to the colour at a prompt's points.

    Args:
        colors: (3, H, W) float32.
        points: (K, P, 2) as (x, y); the nearest of a prompt's P colours counts.
        truth: As in :func:`mask_ious`.
        radii: (R,) float32, on the map's device or a CPU.
        sigma: Of the Gaussian around a point; 0 takes the colour of the nearest pixel.
        allowed: As in :func:`mask_ious`.

    Returns:
        (K, R) float64.
    """
    num_prompts, num_points = points.shape[:2]
    ious = np.zeros((num_prompts, len(radii)))
    if num_prompts == 0:
        return ious
    queries = _queries(colors, points.reshape(-1, 2), sigma).unflatten(0, (num_prompts, num_points))
    for row, (query, pixels) in enumerate(zip(queries, truth, strict=True)):
        # One prompt at a time: its distances stay in the processor's cache for all radii.
        distances = color_distances(colors, query)
        distances = distances[0] if num_points == 1 else distances.amin(0)
        if allowed is not None:
            distances = distances.masked_fill(~allowed, torch.inf)
        distances = distances.flatten()
        areas = _counts_below(distances, radii)
        overlaps = _counts_below(distances[pixels], radii)
        ious[row] = [_iou(area, overlap, len(pixels)) for area, overlap in zip(areas, overlaps, strict=True)]
    return ious


def _counts_below(numbers: Tensor, bounds: Tensor) -> list[int]:
    """How many of (N,) float32 numbers are below each of (R,) float32 bounds."""
    if numbers.device.type != 'cpu':
        return [int((numbers < bound).count_nonzero()) for bound in bounds]
    plain = numbers.numpy()  # on a CPU, numpy compares and counts ten times faster than torch
    below = np.empty(plain.shape, bool)
    return [int(np.count_nonzero(np.less(plain, bound, out=below))) for bound in bounds.numpy()]


def truth_pixels(ids: Tensor, point_ids: Tensor) -> list[Tensor]:
    """Flat places of the pixels of each instance, K tensors; ids (H, W), point_ids (K,)."""
    flat = ids.flatten()
    if flat.device.type != 'cpu':
        return [(flat == own).nonzero()[:, 0] for own in point_ids]
    flat = flat.numpy()  # its search is some ten times faster than torch's
    return [torch.from_numpy(np.flatnonzero(flat == own)) for own in point_ids.tolist()]


def num_without_prompt(ids: Tensor, point_ids: Tensor) -> int:
    """Number of ids above 0 in a map, (H, W), that are not among the prompted ones, (K,)."""
    flat = ids.flatten()
    if flat.numel() and flat.min() >= 0 and flat.max() <= flat.numel():
        present = flat.bincount().nonzero()[:, 0]  # far faster than to sort all pixels
    else:
        present = flat.unique()
    return int((~torch.isin(present[present > 0], point_ids)).sum())


def _queries(colors: Tensor, points: Tensor, sigma: float) -> Tensor:
    if sigma > 0:
        return query_colors(colors, points, sigma)
    height, width = colors.shape[-2:]
    columns = points[:, 0].round().long().clamp(0, width - 1)
    rows = points[:, 1].round().long().clamp(0, height - 1)
    return colors[:, rows, columns].T


def _count(mask: Tensor) -> int:
    if mask.device.type == 'cpu':
        return int(np.count_nonzero(mask.numpy()))
    return int(mask.count_nonzero())


def _iou(area: int, overlap: int, true_area: int) -> float:
    return overlap / max(area + true_area - overlap, 1)
