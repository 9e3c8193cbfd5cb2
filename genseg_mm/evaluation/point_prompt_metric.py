"""Point-prompted mIoU of colour maps beside trivial controls (gen2seg, arXiv 2505.15263)."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from mmengine.evaluator import BaseMetric
from mmengine.logging import print_log
from torch import Tensor
from torch.nn import functional as F

from genseg_mm.evaluation.point_prompt_controls import (
    collapse_share,
    deepest_pixels,
    position_map,
    raw_image,
)
from genseg_mm.functional.point_prompting import color_distances, masks_from_points, query_colors
from genseg_mm.registry import METRICS

RADII = (2, 3, 5, 8, 12, 16, 20, 26, 34, 44, 56, 70, 90, 110, 140)
MAPS = ('mIoU', 'control_rgb', 'control_position', 'oracle_foreground')
PROMPTS_AT_ONCE = 32  # bounds the memory of distance maps


@METRICS.register_module()
class PointPromptMetric(BaseMetric):
    """Mean IoU over point prompts, one number for the model and one for each control.

    A score alone does not show that instances are told apart, so three maps that know nothing of
    instances are prompted with the same points in the same way: the raw image (``control_rgb``), a
    fixed map of position, whose masks are disks around the prompt (``control_position``), and the
    same disks cut by the true foreground (``oracle_foreground``, which only ground truth can
    reach). ``collapse_share`` is the share of colour variance that one image-independent map
    explains: 1 is a collapsed model.

    Masks are the pixels whose colour is nearer than a radius to the colour around the prompt; the
    radius is chosen for the model and for each control on ``calibration_subset``, by mIoU, and then
    used on all subsets. With ``threshold='reference'`` or ``'paper'`` nothing is chosen: the rules
    of the reference code or the paper apply to all maps.

    Data samples need ``pred_color_map`` (or ``seg_logits`` of 3 channels) in [0, 255],
    ``gt_instance_map`` of the same size, and the metainfo ``points``, ``point_ids`` and, for
    several evaluation sets in one, ``subset``.

    Metrics (percent; ``<subset>_`` is left out for samples without a subset): ``<subset>_mIoU``,
    ``<subset>_control_rgb``, ``<subset>_control_position``, ``<subset>_oracle_foreground``;
    ``collapse_share`` in [0, 1], over all samples but the calibration's; ``radius`` (the model's,
    in colour units), ``num_prompts`` and ``instances_without_prompt``. The numbers of the
    calibration subset are those the radii were chosen by: for choosing checkpoints, not for
    reporting.

    Args:
        threshold: ``'calibrate'``, a radius in colour units, ``'reference'`` or ``'paper'``.
        radii: Radii to choose from.
        calibration_subset: The subset to choose on.
        sigma: Of the Gaussian over which the query colour is averaged, in widths and heights of the
            map; 0 takes the colour of the prompt's own pixel.
        deepest: Also prompts each instance at its deepest pixel (farthest from its edge): further
            metrics with ``deepest_`` before the map's name, with radii of their own.
        grid_size: Side of the maps that ``collapse_share`` compares.
        collect_device: MMEngine's.
        prefix: MMEngine's.
        collect_dir: MMEngine's.

    Raises:
        ValueError: If the threshold is not known or not positive.
    """

    def __init__(
        self,
        threshold: str | float = 'calibrate',
        radii: Sequence[float] = RADII,
        calibration_subset: str = 'val',
        sigma: float = 0.01,
        deepest: bool = False,
        grid_size: int = 32,
        collect_device: str = 'cpu',
        prefix: str | None = None,
        collect_dir: str | None = None,
    ) -> None:
        super().__init__(collect_device=collect_device, prefix=prefix, collect_dir=collect_dir)
        if isinstance(threshold, str):
            known = threshold in ('calibrate', 'reference', 'paper')
        else:
            known = threshold > 0
        if not known:
            raise ValueError(
                "threshold must be 'calibrate', a positive radius, 'reference' or 'paper', "
                f'but got {threshold!r}'
            )
        self.rule = threshold if threshold in ('reference', 'paper') else None
        self.calibrate = threshold == 'calibrate'
        chosen = sorted(radii) if self.calibrate else [] if self.rule else [threshold]
        self.radii = torch.tensor(chosen, dtype=torch.float32)
        self.calibration_subset = calibration_subset
        self.sigma = sigma
        self.deepest = deepest
        self.grid_size = grid_size

    def process(self, data_batch: dict[str, Any] | None, data_samples: Sequence[dict]) -> None:
        """Adds one entry per sample: IoU of every prompt at every radius, thumbnail of the map.

        Args:
            data_batch: The loader's batch; its ``inputs`` (uint8 BGR images) are the raw-image
                control.
            data_samples: The model's output.

        Raises:
            ValueError: If something that the metric needs is missing or has the wrong size.
        """
        if data_batch is None:
            raise ValueError(
                "PointPromptMetric needs the loader's batch for its raw-image control, "
                'but got None; give Evaluator.offline_evaluate the data too'
            )
        for sample, image in zip(data_samples, data_batch['inputs'], strict=True):
            self.results.append(self._measure(sample, image))

    def _measure(self, sample: dict, image: Tensor) -> dict[str, Any]:
        colors, ids, points, point_ids = _read_sample(sample)
        size = tuple(colors.shape[-2:])
        position = position_map(size).to(colors)
        maps = {
            'mIoU': colors,
            'control_rgb': raw_image(image, sample, size).to(colors),
            'control_position': position,
            'oracle_foreground': position,
        }
        labels = sample.get('point_labels')
        prompts = {'': (points, labels)}
        if self.deepest:
            prompts['deepest_'] = (deepest_pixels(ids, point_ids).to(points), None)
        ious = {}
        for kind, (places, place_labels) in prompts.items():
            for name, one_map in maps.items():
                allowed = ids > 0 if name == 'oracle_foreground' else None
                ious[kind + name] = self._ious(
                    one_map, places, place_labels, ids, point_ids, allowed
                )
        present = torch.unique(ids[ids > 0])
        return dict(
            subset=sample.get('subset') or '',
            ious=ious,
            thumbnail=F.adaptive_avg_pool2d(colors, self.grid_size).cpu().numpy(),
            without_prompt=int((~torch.isin(present, point_ids)).sum()),
        )

    def _ious(
        self,
        colors: Tensor,
        points: Tensor,
        labels: Any,
        ids: Tensor,
        point_ids: Tensor,
        allowed: Tensor | None,
    ) -> np.ndarray:
        """IoU of K prompts at R radii (R = 1 under a rule), (K, R) float64."""
        parts = [np.zeros((0, max(1, len(self.radii))))]
        for start in range(0, len(points), PROMPTS_AT_ONCE):
            part = slice(start, start + PROMPTS_AT_ONCE)
            truth = ids == point_ids[part, None, None]  # (k, H, W)
            part_labels = None if labels is None else torch.as_tensor(labels)[part].to(ids.device)
            if self.rule:
                masks = masks_from_points(
                    colors,
                    points[part],
                    point_labels=part_labels,
                    rule=self.rule,
                    sigma=self.sigma,
                )
                distances, radii = (~masks).float(), torch.tensor([0.5])
            else:
                if part_labels is not None and (part_labels != 1).any():
                    raise ValueError(
                        'a colour radius takes positive points only, but got negative point_labels '
                        "(0, or -1 for no point); use threshold='reference' or 'paper'"
                    )
                distances = self._distances(colors, points[part])
                radii = self.radii
            if allowed is not None:
                distances = distances.masked_fill(~allowed, torch.inf)
            parts.append(iou_by_radius(distances, truth, radii.to(distances)).cpu().numpy())
        return np.concatenate(parts)

    def _distances(self, colors: Tensor, points: Tensor) -> Tensor:
        """Colour distance to the nearest of each prompt's points, (K, H, W)."""
        num_prompts, num_points = points.shape[:2]
        flat = points.reshape(-1, 2)
        if self.sigma > 0:
            queries = query_colors(colors, flat, self.sigma)  # (K P, 3)
        else:
            height, width = colors.shape[-2:]
            columns = flat[:, 0].round().long().clamp(0, width - 1)
            rows = flat[:, 1].round().long().clamp(0, height - 1)
            queries = colors[:, rows, columns].T
        distances = color_distances(colors, queries)  # (K P, H, W)
        return distances.unflatten(0, (num_prompts, num_points)).amin(1)

    def compute_metrics(self, results: list[dict[str, Any]]) -> dict[str, float]:
        """Chooses the radii and averages.

        Args:
            results: The entries of :meth:`process`, one per sample.

        Returns:
            Metrics by name.

        Raises:
            ValueError: If there is no calibration sample to choose a radius on, or no prompt at
                all.
        """
        subsets = list(dict.fromkeys(entry['subset'] for entry in results))
        names = list(results[0]['ious']) if results else []
        stacked = {
            subset: {
                name: np.concatenate([e['ious'][name] for e in results if e['subset'] == subset])
                for name in names
            }
            for subset in subsets
        }
        num_prompts = sum(len(stacked[subset][names[0]]) for subset in subsets)
        if num_prompts == 0:
            raise ValueError(
                f'PointPromptMetric got no point prompt in {len(results)} samples; '
                'does the evaluation set have instances?'
            )
        columns = {name: self._choose(stacked, name) for name in names}
        metrics = {}
        for subset, ious in stacked.items():
            for name in names:
                key = f'{subset}_{name}' if subset else name
                if len(ious[name]):
                    metrics[key] = 100 * float(ious[name][:, columns[name]].mean())
        held_out = [
            e for e in results if not (self.calibrate and e['subset'] == self.calibration_subset)
        ]
        metrics['collapse_share'] = collapse_share(
            np.stack([entry['thumbnail'] for entry in held_out or results])
        )
        if not self.rule:
            metrics['radius'] = float(self.radii[columns['mIoU']])
        metrics['num_prompts'] = num_prompts
        metrics['instances_without_prompt'] = sum(entry['without_prompt'] for entry in results)
        if metrics['instances_without_prompt']:
            print_log(
                f'PointPromptMetric: {metrics["instances_without_prompt"]} instances have no '
                f'prompt and are in no average; {num_prompts} prompts counted',
                logger='current',
            )
        return metrics

    def _choose(self, stacked: dict[str, dict[str, np.ndarray]], name: str) -> int:
        """Column of one map's radius: the best on the calibration subset, smallest of equals."""
        if not self.calibrate:
            return 0
        ious = stacked.get(self.calibration_subset, {}).get(name, ())
        if len(ious) == 0:
            raise ValueError(
                f"threshold='calibrate' needs prompts in the subset {self.calibration_subset!r}, "
                f'but got the subsets {sorted(stacked)}; give a part of the evaluation set '
                f'subset={self.calibration_subset!r}, or set '
                "threshold to a radius, 'reference' or 'paper'"
            )
        return int(ious.mean(0).argmax())


def iou_by_radius(distances: Tensor, truth: Tensor, radii: Tensor) -> Tensor:
    """IoU of the masks ``distances < radius`` for all radii at once.

    Args:
        distances: (K, H, W).
        truth: True masks, (K, H, W) bool.
        radii: Ascending, (R,).

    Returns:
        (K, R) float64; 0 where both masks are empty.
    """
    num, bins = len(distances), len(radii) + 1
    # Bin j holds radii[j - 1] <= distance < radii[j], so masks are running sums over bins.
    index = torch.bucketize(distances.flatten(1), radii, right=True)
    index += bins * torch.arange(num, device=index.device)[:, None]

    def sums(weights: Tensor | None) -> Tensor:
        counts = torch.bincount(
            index.flatten(), None if weights is None else weights.flatten().double(), num * bins
        )
        return counts.double().view(num, bins).cumsum(1)[:, :-1]

    area, overlap = sums(None), sums(truth)
    union = area + truth.flatten(1).sum(1)[:, None] - overlap
    return overlap / union.clamp(min=1)


def _read_sample(sample: dict) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Colours (3, H, W), ids (H, W), points (K, P, 2) and point ids (K,) of a data sample."""
    where = sample.get('img_path') or f'sample {sample.get("sample_idx", "?")}'
    for key, cause in (
        ('gt_instance_map', 'LoadInstanceMap'),
        ('points', 'PointPrompt'),
        ('point_ids', 'PointPrompt'),
    ):
        if sample.get(key) is None:
            raise ValueError(
                f'PointPromptMetric expects {key}, but got a sample without ({where}); '
                f'add dict(type="genseg_mm.{cause}") to the test pipeline'
            )
    prediction = sample.get('pred_color_map') or sample.get('seg_logits')
    if prediction is None or len(prediction['data']) != 3:
        came = 'neither' if prediction is None else f'{len(prediction["data"])} channels'
        raise ValueError(
            'PointPromptMetric expects pred_color_map, or seg_logits of 3 channels, '
            f'but got {came} ({where})'
        )
    colors = prediction['data'].float()
    ids = sample['gt_instance_map']['data'][0].to(colors.device)
    if ids.shape != colors.shape[-2:]:
        raise ValueError(
            'PointPromptMetric expects gt_instance_map of the original size '
            f'{tuple(colors.shape[-2:])}, but got {tuple(ids.shape)} ({where}); '
            'load it after Resize in the test pipeline'
        )
    points = torch.as_tensor(sample['points'], dtype=torch.float32, device=colors.device)
    if points.ndim == 2:
        points = points[:, None]
    point_ids = torch.as_tensor(sample['point_ids'], device=colors.device)
    return colors, ids, points, point_ids
