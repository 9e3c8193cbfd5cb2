"""What a point-prompt metric reads from a data sample, with the errors that say what is missing."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from genseg_mm.finite import check_finite
from genseg_mm.point_choices import picture_name


class PointSample(NamedTuple):
    """One picture with K prompts."""

    picture: str
    colors: Tensor  # (3, H, W) float32
    ids: Tensor  # (H, W) int64
    points: Tensor  # (K, P, 2) float32; (K, 0, 2) where the sample has none
    point_ids: Tensor  # (K,); all ids of the map where the sample has none
    own_ids: np.ndarray  # (K,) int64
    areas: np.ndarray | None  # (K,) float64, nan where none is stated
    allowed: Tensor | None  # (H, W) bool


def read_sample(sample: Mapping[str, Any], needs_points: bool = True) -> PointSample:
    """Reads a data sample.

    Args:
        sample: A data sample as a dictionary.
        needs_points: Whether the pipeline's points are used.

    Raises:
        ValueError: If something is missing or has the wrong size.
    """
    where = sample.get('img_path') or f'sample {sample.get("sample_idx", "?")}'
    needed = [('gt_instance_map', 'LoadInstanceMap')]
    if needs_points:
        needed += [('points', 'PointPrompt'), ('point_ids', 'PointPrompt')]
    for key, cause in needed:
        if sample.get(key) is None:
            raise ValueError(
                f'PointPromptMetric expects {key}, but got a sample without ({where}); '
                f'add dict(type="genseg_mm.{cause}") to the test pipeline'
            )
    colors = _colors(sample, where)
    size = tuple(colors.shape[-2:])
    ids = sample['gt_instance_map']['data'][0].to(colors.device)
    if ids.shape != size:
        raise ValueError(
            'PointPromptMetric expects gt_instance_map of the original size '
            f'{size}, but got {tuple(ids.shape)} ({where}); '
            'load it after Resize in the test pipeline'
        )
    if sample.get('point_ids') is None:
        point_ids = ids[ids > 0].unique()
    else:
        point_ids = torch.as_tensor(sample['point_ids'], device=colors.device)
    num = len(point_ids)
    own_ids = sample.get('point_keys')
    own_ids = point_ids.cpu().numpy() if own_ids is None else np.asarray(own_ids)
    areas = sample.get('point_areas')
    points = torch.zeros(num, 0, 2, device=colors.device)
    if sample.get('points') is not None:
        points = torch.as_tensor(sample['points'], dtype=torch.float32, device=colors.device)
        points = points[:, None] if points.ndim == 2 else points
    for name, values in (('points', points), ('point_keys', own_ids), ('point_areas', areas)):
        if values is not None and len(values) != num:
            raise ValueError(
                f'PointPromptMetric expects one of {name} for each of the {num} point_ids, '
                f'but got {len(values)} ({where})'
            )
    allowed = sample.get('pred_foreground')
    allowed = None if allowed is None else allowed['data'][0].to(colors.device, torch.bool)
    if allowed is not None and allowed.shape != size:
        raise ValueError(
            f'PointPromptMetric expects pred_foreground of the size {size} of the colour map, '
            f'but got {tuple(allowed.shape)} ({where})'
        )
    return PointSample(
        picture_name(sample),
        colors,
        ids,
        points,
        point_ids,
        own_ids.astype(np.int64),
        None if areas is None else np.asarray(areas, np.float64),
        allowed,
    )


def masks_of_model(sample: Mapping[str, Any], settings: Mapping[str, Any]) -> Tensor | None:
    """The model's masks, (K, H, W) bool, if they are those of the sample's points by the settings.

    Gen2Seg writes into its ``pred_instances`` what they were prompted with: ``prompted``, a dictionary
    of ``points``, ``point_labels``, ``boxes`` and ``settings``.

    Args:
        sample: A data sample as a dictionary.
        settings: What :func:`genseg_mm.functional.point_prompting.prompt_settings` gives.

    Returns:
        None if the model made no masks, made other ones, or does not say.
    """
    instances = sample.get('pred_instances')
    said = None if instances is None else instances.get('prompted')
    if said is None or said['boxes'] is not None or said['settings'] != settings:
        return None
    masks = instances.get('masks')
    if not isinstance(masks, Tensor) or len(masks) != len(sample['point_ids']):
        return None
    for key in ('points', 'point_labels'):
        mine, theirs = sample.get(key), said[key]
        if (mine is None) != (theirs is None):
            return None
        if mine is not None and not np.array_equal(_array(mine), _array(theirs)):
            return None
    return masks


def _array(values: Any) -> np.ndarray:
    return np.asarray(values.cpu() if isinstance(values, Tensor) else values)


def _colors(sample: Mapping[str, Any], where: str) -> Tensor:
    prediction = sample.get('pred_color_map') or sample.get('seg_logits')
    if prediction is None or len(prediction['data']) != 3:
        came = 'neither' if prediction is None else f'{len(prediction["data"])} channels'
        raise ValueError(
            f'PointPromptMetric expects pred_color_map, or seg_logits of 3 channels, but got {came} ({where})'
        )
    colors = prediction['data'].float()
    check_finite(colors, 'colours', f'PointPromptMetric ({where})')
    return colors
