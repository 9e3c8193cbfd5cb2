"""From outputs of the network to the prediction of an image."""

from typing import Any

import numpy as np
import torch
from mmengine.structures import InstanceData, PixelData
from mmseg.structures import SegDataSample
from torch import Tensor

from genseg_mm.functional.point_prompting import prompt_settings
from genseg_mm.inference.jobs import Job
from genseg_mm.inference.prompts import Prompts
from genseg_mm.models.automatic_instances import as_instances, settings_of
from genseg_mm.models.map_prompting import MapPrompting


def colored_sample(job: Job) -> SegDataSample:
    """The prediction of Gen2Seg: ``pred_color_map`` and ``pred_instances``, whose number may be 0."""
    sample = _sample(job)
    colors, sample.pred_instances = job.outputs[0]
    sample.pred_color_map = PixelData(data=colors)
    return sample


def generated_sample(job: Job, threshold: float) -> SegDataSample:
    """The prediction of GenMask: ``pred_instances`` with one mask per text.

    A score is the brightness of the generated mask image, in [0, 1], averaged inside the mask.

    Args:
        job: Its outputs are logits (H, W), see ``GenerativeMaskHead.grey_to_logits``.
        threshold: Of the mask head.
    """
    sample = _sample(job)
    empty = torch.zeros(0, *job.image.shape[:2])
    logits = torch.stack(job.outputs) if job.outputs else empty  # (T, H, W)
    masks = logits > 0
    brightness = logits / 2 + threshold
    scores = (brightness * masks).sum((1, 2)) / masks.sum((1, 2)).clamp(min=1)
    sample.pred_instances = as_instances(masks, scores)
    return sample


def _sample(job: Job) -> SegDataSample:
    meta = dict(img_path=job.source.path, ori_shape=job.image.shape[:2])
    if job.descriptions is not None:
        meta['descriptions'] = job.descriptions
    return SegDataSample(metainfo=meta)


def instances_of(
    model: MapPrompting,
    colors: Tensor,
    network_map: Tensor,
    prompts: Prompts,
    name: str,
    automatic: bool | dict | None,
    prompting: dict,
) -> InstanceData:
    """Instances of one colour map, on the CPU.

    Args:
        model: That made the map.
        colors: Colour map at the size of the image, (3, H, W), for prompts.
        network_map: The same at the network's size, for instances without prompts.
        prompts: Points and boxes; there may be none.
        name: Of the image, for messages.
        automatic: Instances without prompts, with these settings; None does as the model's own ``automatic`` says.
        prompting: Settings of ``masks_from_points`` over those of the model.
    """
    given = dict(points=prompts.points, point_labels=prompts.point_labels, boxes=prompts.boxes)
    given = {key: value for key, value in given.items() if value is not None}
    try:
        if given:
            return model.prompt(colors, **given, **prompting).cpu()
        if is_set(model.automatic if automatic is None else automatic):
            settings = automatic if isinstance(automatic, dict) else {}
            if network_map.shape != colors.shape:
                settings = dict(settings, size=tuple(colors.shape[-2:]))
            return model.automatic_instances(network_map, **settings).cpu()
    except ValueError as error:
        raise ValueError(f'{name}: {error}') from error
    return as_instances(torch.zeros(0, *colors.shape[1:], dtype=torch.bool), torch.zeros(0))


def check_settings(automatic: Any, prompting: Any) -> None:
    """Raises ValueError, before the network runs, for settings of a call that its colour map could not take."""
    settings_of(automatic)
    if prompting is not None and not isinstance(prompting, dict):
        raise ValueError(f'prompting: expected a dict of settings or None, but got {prompting!r}')
    prompt_settings(**(prompting or {}))


def is_set(option: Any) -> bool:
    """Whether an option that takes True or settings is on: an empty dict means with default settings."""
    return option is not None and option is not False


def arrays_of(result: SegDataSample | InstanceData) -> dict[str, Any]:
    """``masks``, ``scores``, ``bboxes`` and, if there are any, ``color_map`` as arrays and ``descriptions``."""
    instances = result if isinstance(result, InstanceData) else result.pred_instances
    arrays = {key: np.asarray(instances[key].cpu()) for key in ('masks', 'scores', 'bboxes')}
    if 'pred_color_map' in result:
        arrays = dict(color_map=color_array(result.pred_color_map.data), **arrays)
    if 'descriptions' in result:
        arrays['descriptions'] = result.descriptions
    return arrays


class ColorMap(np.ndarray):
    """A colour map that a notebook shows in one line, not as all of its numbers."""

    def __repr__(self) -> str:
        if self.ndim != 3 or self.shape[2] != 3:  # a part of one
            return repr(self.view(np.ndarray))
        height, width, _ = self.shape
        return f'colour map of {height} x {width} pixels, {self.dtype}, RGB in [0, 255]'


def color_array(colors: Tensor) -> np.ndarray:
    """Colours (3, H, W) as an array (H, W, 3), float32."""
    return np.ascontiguousarray(colors.float().cpu().numpy().transpose(1, 2, 0))
