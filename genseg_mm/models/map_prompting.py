"""Prompts and automatic instances on colour maps: what every model that gives a colour map shares."""

from typing import Any

import torch
from mmengine.structures import InstanceData
from torch import Tensor

from genseg_mm.functional.point_prompting import masks_from_points, prompt_settings
from genseg_mm.models.automatic_instances import as_instances, automatic_instances, flatness, settings_of


class MapPrompting:
    """The part of a model that reads instances off a colour map.

    Attributes:
        prompting: Settings of :func:`genseg_mm.functional.point_prompting.masks_from_points`.
        automatic: Settings of :func:`genseg_mm.models.automatic_instances.automatic_instances`; None: samples without
            prompts get no instances.
    """

    prompting: dict[str, Any]
    automatic: dict[str, Any] | None

    def prompt(
        self, colors: Tensor, points: Any = None, point_labels: Any = None, boxes: Any = None, **prompting: Any
    ) -> InstanceData:
        """Masks of one colour map for points, boxes or both.

        Args:
            colors: Colours in [0, 255], (3, H, W).
            points: (K, P, 2) or (K, 2) as (x, y) in pixels of the map; array or tensor.
            point_labels: (K, P), 1 positive, 0 negative, -1 no point; all positive by default.
            boxes: (K, 4) xyxy in pixels of the map, right and bottom exclusive.
            prompting: Settings of
                :func:`genseg_mm.functional.point_prompting.masks_from_points` that replace those of
                the model.

        Returns:
            ``masks`` (K, H, W) bool, ``scores`` (K,) in [0, 1]: 1 / (1 + d) with d the mean
            distance of a mask's colours to their mean, 0 for an empty mask; ``labels`` (K,) zeros;
            ``bboxes`` (K, 4) xyxy. The metainfo ``prompted`` holds the prompts and all settings, so
            that a metric need not make the same masks again.

        Raises:
            ValueError: If a prompt or setting is wrong.
        """

        def tensor(values: Any, dtype: torch.dtype | None = None) -> Tensor | None:
            return None if values is None else torch.as_tensor(values, dtype=dtype).to(colors.device)

        settings = prompt_settings(**{**self.prompting, **prompting})
        masks = masks_from_points(
            colors, tensor(points, torch.float32), tensor(point_labels), tensor(boxes, torch.float32), **settings
        )
        instances = as_instances(masks, flatness(colors, masks))
        prompts = dict(points=points, point_labels=point_labels, boxes=boxes)
        instances.set_metainfo(dict(prompted=dict(prompts, settings=settings)))
        return instances

    def automatic_instances(self, colors: Tensor, size: tuple[int, int] | None = None, **settings: Any) -> InstanceData:
        """Instances of one colour map without prompts.

        Args:
            colors: Colours in [0, 255], (3, h, w); best as the network gave them, because ``min_area`` and edges are
                measured in pixels of this map.
            size: (H, W) that the masks are brought to; None: the map's own.
            settings: Of :func:`genseg_mm.models.automatic_instances.automatic_instances`; they
                replace those of the model.

        Returns:
            ``masks`` (K, H, W) bool, ``scores`` (K,) in [0, 1), descending, ``labels`` (K,) zeros,
            ``bboxes`` (K, 4) xyxy.

        Raises:
            ValueError: If a setting is wrong.
        """
        settings = settings_of({**(self.automatic or {}), **settings})
        return automatic_instances(colors, size=size, **settings)
