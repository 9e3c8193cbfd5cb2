"""Point-prompted mIoU of colour maps beside trivial controls (gen2seg, arXiv 2505.15263)."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from mmengine.evaluator import BaseMetric
from mmengine.logging import print_log
from torch import Tensor
from torch.nn import functional as F

from genseg_mm.dataset_configs import single_datasets
from genseg_mm.evaluation.collapse_share import MapSums, collapse_share
from genseg_mm.evaluation.point_prompt_scores import (
    COCO_BOUNDS,
    PointSample,
    Prompts,
    PromptTable,
    check_choices,
    checked_bounds,
    choose_points,
    mask_ious,
    masks_of_model,
    mean_of_owners,
    num_without_prompt,
    percent,
    radius_ious,
    read_sample,
    truth_pixels,
    write_prompts,
)
from genseg_mm.functional.color_maps import position_map, raw_image
from genseg_mm.functional.point_prompting import masks_from_points, prompt_settings
from genseg_mm.registry import METRICS

MAPS = ('mIoU', 'control_rgb', 'control_position', 'oracle_foreground')  # the model's, and the controls
RADII = (2, 3, 5, 8, 12, 16, 20, 26, 34, 44, 56, 70, 90, 110, 140)
PROMPTS_AT_ONCE = 128
MASK_PIXELS = 1 << 28  # of the masks made at once; bounds the memory on large paintings


@METRICS.register_module()
class PointPromptMetric(BaseMetric):
    """Mean IoU over point prompts, one number for the model and one for each control.

    A score alone does not show that instances are told apart, so three maps that know nothing of
    instances are prompted with the same points in the same way: the raw image (``control_rgb``), a
    fixed map of position, whose masks are disks around the prompt (``control_position``), and the
    same disks cut by the true foreground (``oracle_foreground``, which only ground truth can
    reach). ``collapse_share`` is the share of colour variance that one image-independent map
    explains: 1 is a collapsed model. The model :class:`genseg_mm.models.control_map.ControlMap`
    makes the same maps, so that a table can hold them as rows of their own; then ``controls=False``.

    Masks are made by the rule of the reference code (``threshold='reference'``, the default, which any
    evaluation set can take) or of the paper, the same for all maps. With ``'calibrate'`` they are the
    pixels whose colour is nearer than a radius to the colour around the prompt; the radius is chosen
    for the model and for each control on ``calibration_subset``, by mIoU, and then used on all
    subsets: better for the noisy maps of small models, but a part of the evaluation set has to be
    given up for it. Where the model made masks of the same prompts by the same rule and settings, as
    its ``pred_instances`` say, they are not made again. ``'best'`` takes the radius that is best on
    the very instances that are scored, which flatters: it is for controls, beside a model that chose
    nothing.

    Data samples need ``pred_color_map`` (or ``seg_logits`` of 3 channels) in [0, 255] and
    ``gt_instance_map`` of the same size; they may have the metainfo ``points`` and ``point_ids`` of
    ``PointPrompt`` and, for several evaluation sets in one, ``subset``. ``point_keys`` are the
    instances' own ids (default: ``point_ids``, else the ids in the map), ``point_areas`` the areas
    that annotations state (default: the pixels in the map). A mask is cut to ``pred_foreground``
    where the model gives one.

    Metrics (percent; ``<subset>_`` is left out for samples without a subset): ``<subset>_mIoU``,
    ``<subset>_control_rgb``, ``<subset>_control_position``, ``<subset>_oracle_foreground``; the
    same without a subset, over the instances of all subsets but the calibration's;
    ``collapse_share`` in [0, 1], over all samples but the calibration's; ``radius`` (the model's,
    in colour units), ``num_prompts`` (instances) and ``instances_without_prompt``. The numbers of
    the calibration subset are those the radii were chosen by: for choosing checkpoints, not for
    reporting. All are the same to the last bit for any batch size and number of processes.

    Args:
        threshold: ``'reference'``, ``'paper'``, a radius in colour units, ``'calibrate'`` or ``'best'``.
        radii: Radii that ``'calibrate'`` and ``'best'`` choose from (default: 15 from 2 to 140).
        calibration_subset: The subset to choose on.
        sigma: Of the Gaussian over which the query colour is averaged, in widths and heights of the
            map; 0 takes the colour of the prompt's own pixel.
        point_choice: Where instances are prompted, one or several of ``'given'`` (by the pipeline),
            ``'random'`` (one pixel, as ``PointPrompt(seed=seed)`` draws it), ``'deepest'`` (farthest
            from the instance's edge) and ``'all'`` (the mean IoU of ``num_all`` pixels spread
            evenly). The first one's metrics have the names above, the others' have ``random_``,
            ``deepest_`` or ``all_`` before the map's name, with radii of their own. Default:
            ``'given'`` for samples that the pipeline gave points, ``'random'`` for others.
        controls: Measures the controls, too.
        size_bands: Also ``small_mIoU``, ``medium_mIoU`` and ``large_mIoU``. True: by COCO's areas, below
            32 squared, up to 96 squared, above; two sides of squares in pixels: by theirs, for pictures of other sizes.
        sample_file: Path of a file to write with one row per prompt, see
            :class:`genseg_mm.evaluation.sample_results.SampleResults`; without the calibration's.
        seed: Of the random points.
        num_all: Largest number of points per instance of ``'all'``.
        grid_size: Side of the maps that ``collapse_share`` compares.
        collect_device: MMEngine's.
        prefix: MMEngine's.
        collect_dir: MMEngine's.

    Raises:
        ValueError: If the threshold or a point choice is not known, a number is not positive, or radii
            are given to a threshold that chooses none.
    """

    def __init__(
        self,
        threshold: str | float = 'reference',
        radii: Sequence[float] | None = None,
        calibration_subset: str = 'val',
        sigma: float = 0.01,
        point_choice: str | Sequence[str] | None = None,
        controls: bool = True,
        size_bands: bool | Sequence[float] = False,
        sample_file: str | None = None,
        seed: int = 0,
        num_all: int = 16,
        grid_size: int = 32,
        collect_device: str = 'cpu',
        prefix: str | None = None,
        collect_dir: str | None = None,
    ) -> None:
        super().__init__(collect_device=collect_device, prefix=prefix, collect_dir=collect_dir)
        if isinstance(threshold, str):
            known = threshold in ('calibrate', 'best', 'reference', 'paper')
        else:
            known = threshold > 0
        if not known:
            raise ValueError(
                "threshold must be 'reference', 'paper', a positive radius, 'calibrate' or 'best', "
                f'but got {threshold!r}'
            )
        if radii is not None and threshold not in ('calibrate', 'best'):
            raise ValueError(
                "radii are what threshold='calibrate' or 'best' chooses from, but got radii with "
                f'threshold={threshold!r}'
            )
        radii = RADII if radii is None else radii
        if not len(radii) or not min(radii) > 0:
            raise ValueError(f'radii must be positive, at least one, but got {radii!r}')
        if not sigma >= 0:
            raise ValueError(f'sigma must be 0 or positive, but got {sigma}')
        for name, number in (('num_all', num_all), ('grid_size', grid_size)):
            if number < 1:
                raise ValueError(f'{name} must be at least 1, but got {number}')
        self.rule = threshold if threshold in ('reference', 'paper') else None
        self.calibrate = threshold == 'calibrate'
        self.choose = threshold in ('calibrate', 'best')
        chosen = sorted(radii) if self.choose else [] if self.rule else [threshold]
        self.radii = torch.tensor(chosen, dtype=torch.float32)
        self.settings = None  # of masks_from_points that make the same masks; none for many radii
        if not self.choose and sigma > 0:
            how = dict(rule=self.rule) if self.rule else dict(radius=threshold)
            self.settings = prompt_settings(sigma=sigma, **how)
        self.calibration_subset = calibration_subset
        self.sigma = sigma
        self.point_choice = check_choices('given' if point_choice is None else point_choice)
        self.draws_missing_points = point_choice is None
        self.controls = controls
        self.size_bands = checked_bounds(size_bands)
        self.sample_file = sample_file
        self.seed = seed
        self.num_all = num_all
        self.grid_size = grid_size

    def process(self, data_batch: dict[str, Any] | None, data_samples: Sequence[dict]) -> None:
        """Adds one entry per sample: IoU of every prompt at every radius. The first and last hold sums of small maps.

        Args:
            data_batch: The loader's batch; its ``inputs`` (uint8 BGR images) are the raw-image
                control. Not needed without controls.
            data_samples: The model's output.

        Raises:
            ValueError: If something that the metric needs is missing or has the wrong size.
        """
        if data_batch is None and self.controls:
            raise ValueError(
                "PointPromptMetric needs the loader's batch for its raw-image control, "
                'but got None; give Evaluator.offline_evaluate the data too, or set controls=False'
            )
        images = data_batch['inputs'] if self.controls else [None] * len(data_samples)
        for data_sample, image in zip(data_samples, images, strict=True):
            entry = self._measure(data_sample, image)
            if len(self.results) > 1:  # the last is left alone: MMEngine cuts it off if it is a repetition
                _add_up(self.results[0]['maps'], self.results[-1].pop('maps'))
            self.results.append(entry)

    def _measure(self, data_sample: dict, image: Tensor | None) -> dict[str, Any]:
        has_points = data_sample.get('points') is not None
        draws = self.draws_missing_points and not has_points
        choices = ('random',) if draws else self.point_choice
        sample = read_sample(data_sample, 'given' in choices)
        truth = truth_pixels(sample.ids, sample.point_ids)
        maps = self._maps(data_sample, sample, image)
        ious = []
        for choice in choices:
            prompts = choose_points(choice, data_sample, sample, truth, seed=self.seed, num_all=self.num_all)
            for name, (colors, allowed) in maps.items():
                masks = None
                if name == 'mIoU' and choice == 'given' and self.settings is not None:
                    masks = masks_of_model(data_sample, self.settings)
                ious.append(self._ious(colors, prompts, truth, allowed, masks))
        areas = np.array([len(pixels) for pixels in truth], np.float64)
        if sample.areas is not None:
            areas = np.where(np.isnan(sample.areas), areas, sample.areas)
        subset = data_sample.get('subset') or ''
        return dict(
            subset=subset,
            picture=sample.picture,
            img_id=data_sample.get('img_id'),
            own_ids=sample.own_ids,
            areas=areas,
            ious=np.stack(ious),  # (choices and maps, K, R)
            maps={subset: MapSums.of(F.adaptive_avg_pool2d(sample.colors, self.grid_size).cpu().numpy())},
            without_prompt=num_without_prompt(sample.ids, sample.point_ids),
        )

    def _maps(
        self, data_sample: dict, sample: PointSample, image: Tensor | None
    ) -> dict[str, tuple[Tensor, Tensor | None]]:
        """Every map with the pixels to which its masks are cut."""
        maps = [(sample.colors, sample.allowed)]
        if self.controls:
            size = tuple(sample.ids.shape)
            img_shape = data_sample.get('img_shape', image.shape[-2:])[:2]
            position = position_map(size).to(sample.colors)
            maps.append((raw_image(image, img_shape, size).to(sample.colors), None))
            maps += [(position, None), (position, sample.ids > 0)]
        return dict(zip(MAPS, maps, strict=False))

    def _ious(
        self, colors: Tensor, prompts: Prompts, truth: list[Tensor], allowed: Tensor | None, masks: Tensor | None
    ) -> np.ndarray:
        """IoU of K instances at R radii (R = 1 under a rule), (K, R) float64."""
        parts = [np.zeros((0, max(1, len(self.radii))))]
        num = len(truth)
        if prompts.owners is not None:
            truth = [truth[own] for own in prompts.owners]
        at_once = max(1, min(PROMPTS_AT_ONCE, MASK_PIXELS // colors[0].numel()))
        for start in range(0, len(prompts.points), at_once):
            part = slice(start, start + at_once)
            points = prompts.points[part]
            labels = None if prompts.labels is None else prompts.labels[part]
            if masks is not None or self.rule:
                found = masks[part] if masks is not None else None
                if found is None:
                    found = masks_from_points(colors, points, labels, **self.settings)
                parts.append(mask_ious(found, truth[part], allowed)[:, None])
                continue
            if labels is not None and (labels != 1).any():
                raise ValueError(
                    'a colour radius takes positive points only, but got negative point_labels '
                    "(0, or -1 for no point); use threshold='reference' or 'paper'"
                )
            parts.append(radius_ious(colors, points, truth[part], self.radii, self.sigma, allowed))
        return mean_of_owners(np.concatenate(parts), prompts.owners, num)

    def check_dataset(self, dataset: Any, where: str) -> None:
        """Refuses a dataset without the part to calibrate on, before anything is predicted.

        Args:
            dataset: That is evaluated, built.
            where: Key of the evaluator in the config, for the message.

        Raises:
            ValueError: If it has no part with that ``subset``.
        """
        parts = single_datasets(dataset)
        subsets = [(own.subset or '') if hasattr(own, 'subset') else None for own in parts]
        # None: only the samples can tell.
        if not self.calibrate or None in subsets or self.calibration_subset in subsets:
            return
        raise ValueError(
            f"{where}: PointPromptMetric(threshold='calibrate') needs a part of the evaluation set with "
            f'subset={self.calibration_subset!r}, but got the subsets {sorted(set(subsets))}; leave threshold out '
            "('reference'), or set it to a radius"
        )

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
        num_prompts = sum(len(entry['own_ids']) for entry in results)
        if num_prompts == 0:
            raise ValueError(
                f'PointPromptMetric got no point prompt in {len(results)} samples; '
                'does the evaluation set have instances?'
            )
        names = [
            f'{choice}/{name}' if place else name
            for place, choice in enumerate(self.point_choice)
            for name in MAPS[: None if self.controls else 1]
        ]
        table = PromptTable.of(results, names, self.size_bands or COCO_BOUNDS)
        columns = {name: self._choose(table, name) for name in table.ious}
        held_out = np.full(num_prompts, True)
        if self.calibrate:
            held_out = table.subset != self.calibration_subset
        metrics = table.means(columns, held_out, self.size_bands is not None)
        metrics['collapse_share'] = self._collapse_share(results)
        if not self.rule:
            metrics['radius'] = float(self.radii[columns['mIoU']])
        without_prompt = sum(entry['without_prompt'] for entry in results)
        # MMEngine's log writes null for integers.
        metrics['num_prompts'] = float(num_prompts)
        metrics['instances_without_prompt'] = float(without_prompt)
        if without_prompt:
            print_log(
                f'PointPromptMetric: {without_prompt} instances have no '
                f'prompt and are in no average; {num_prompts} prompts counted',
                logger='current',
            )
        if self.sample_file:
            write_prompts(self.sample_file, results, table, columns, self.point_choice, held_out)
        return metrics

    def _collapse_share(self, results: list[dict[str, Any]]) -> float:
        sums: dict[str, MapSums] = {}
        for entry in results:
            _add_up(sums, entry.get('maps', {}))
        if self.calibrate and len(sums) > 1:
            sums.pop(self.calibration_subset, None)
        return collapse_share(sums.values())

    def _choose(self, table: PromptTable, name: str) -> int:
        """Column of one map's radius: the best on the calibration subset, smallest of equals."""
        if not self.choose:
            return 0
        ious = table.ious[name]
        if self.calibrate:
            ious = ious[table.subset == self.calibration_subset]
        if len(ious) == 0:
            raise ValueError(
                f"threshold='calibrate' needs prompts in the subset {self.calibration_subset!r}, "
                f'but got the subsets {sorted(set(table.subset))}; give a part of the evaluation set '
                f'subset={self.calibration_subset!r}, or set '
                "threshold to 'reference' (the default), 'paper' or a radius"
            )
        return int(np.argmax([percent(column) for column in ious.T]))


def _add_up(sums: dict[str, MapSums], others: dict[str, MapSums]) -> None:
    """Adds sums by subset to others in place."""
    for subset, own in others.items():
        sums[subset] = sums[subset] + own if subset in sums else own
