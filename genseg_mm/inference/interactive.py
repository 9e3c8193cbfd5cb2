"""Many prompts on one image, whose colour map is computed once."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from torch import Tensor

from genseg_mm.inference.images import list_sources, read_image
from genseg_mm.inference.jobs import Job
from genseg_mm.inference.predictions import ColorMap, arrays_of, check_settings, color_array, instances_of, is_set
from genseg_mm.inference.prompts import Prompts, split_prompts
from genseg_mm.models import GenMask


class InteractivePrompting:
    """The part of :class:`GenSegInferencer` that keeps the colour map of an image."""

    _current: tuple[Job, Tensor, Tensor] | None = None  # of set_image

    def set_image(self, image: Any, image_size: int | Sequence[int] | None = None) -> np.ndarray:
        """Computes the colour map of one image, for :meth:`prompt`.

        Args:
            image: As ``inputs`` of a call.
            image_size: (height, width) of the network.

        Returns:
            The colour map, (H, W, 3) float32 RGB in [0, 255].
        """
        self._current = None
        sources, is_single = list_sources(image)
        if not is_single or isinstance(self.model, GenMask):
            what = 'GenMask, which has no colour map' if is_single else 'a list or folder'
            raise ValueError(f'set_image takes one image and a Gen2Seg model, but got {what}')
        job = Job(sources[0], Prompts(), read_image(sources[0]))
        sample = self._predict(list(self.preprocess(job, image_size)))[0]
        colors = sample.pred_color_map.data
        self._current = job, colors, sample.pred_network_map.data
        return color_array(colors).view(ColorMap)

    def prompt(
        self,
        points: Any = None,
        point_labels: Any = None,
        boxes: Any = None,
        automatic: bool | dict | None = None,
        **prompting: Any,
    ) -> dict[str, np.ndarray]:
        """Masks of the image of :meth:`set_image`; the network does not run again.

        Args:
            points: (K, 2) or (K, P, 2).
            point_labels: (K,) or (K, P).
            boxes: (K, 4).
            automatic: True, or settings: instances without prompts.
            **prompting: Settings of ``masks_from_points`` over those of the model.

        Returns:
            ``masks`` (K, H, W) bool, ``scores`` (K,), ``bboxes`` (K, 4).
        """
        if self._current is None:
            raise ValueError('prompt needs an image: call set_image before')
        job, colors, network_map = self._current
        prompts = split_prompts([job.source.name], True, points, point_labels, boxes)[0]
        if prompts.has_geometry == is_set(automatic):
            raise ValueError('prompt needs either points or boxes, or automatic=True')
        check_settings(automatic, prompting)
        prompts.check(job.source.name, job.image.shape[:2])
        found = instances_of(self.model, colors, network_map, prompts, job.source.name, automatic, prompting)
        return arrays_of(found)
