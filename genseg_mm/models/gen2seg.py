"""gen2seg (arXiv 2505.15263): a generative model made an instance colorer, prompted or not."""

from collections.abc import Mapping
from typing import Any

import torch
from mmengine.structures import BaseDataElement, InstanceData, PixelData
from mmseg.structures import SegDataSample
from torch import Tensor
from torch.nn import functional as F

from genseg_mm.functional.point_prompting import masks_from_points, prompt_settings
from genseg_mm.models.automatic_instances import (
    as_instances,
    automatic_instances,
    flatness,
    settings_of,
)
from genseg_mm.models.base import GenSegModel
from genseg_mm.models.color_scale import (
    check_color_scale,
    check_stretch,
    extremes_of,
    normalize_colors,
    stretch_colors,
)
from genseg_mm.models.losses import coloring_losses
from genseg_mm.models.mmseg_api import refuse_mmseg_settings
from genseg_mm.registry import MODELS


@MODELS.register_module()
class Gen2Seg(GenSegModel):
    """Colours every instance of an image in one flat colour.

    Masks are read off the map: those of point and box prompts, or all instances without a prompt.

    Args:
        colorer: Config of a module with ``forward(images (N, 3, H, W) in [-1, 1]) -> (N, 3, H,
            W)``.
        loss: Config of the coloring loss.
        data_preprocessor: Config of the data preprocessor.
        normalize: Colour scale of the raw maps, see
            :func:`genseg_mm.models.color_scale.normalize_colors`. ``'sigmoid'`` for models trained
            from scratch; the released weights and the paper's recipe need ``'batch'``.
        bias: Added before the sigmoid.
        gamma: Exponent on the stretched map at inference; the reference uses 0.7 for the MAE.
        prompting: Keyword arguments of
            :func:`genseg_mm.functional.point_prompting.masks_from_points` (rule and its settings).
        automatic: Settings of
            :func:`genseg_mm.models.automatic_instances.automatic_instances`, or True for its
            defaults: samples without prompts then get instances too, as mmdet's ``CocoMetric``
            needs them. None: they get none.
        stretch: What a map is stretched over at inference: ``'image'``, itself, so that no map
            depends on others; ``'batch'``, all maps of its batch, as the released Stable Diffusion
            pipeline does.
        init_cfg: MMEngine's.
        pretrained: None, as ``mmseg.apis.init_model`` sets it; so ``train_cfg``.

    Raises:
        ValueError: If the colour scale, the stretch or a setting of ``automatic`` is not known, or
            gamma is not positive.
    """

    @classmethod
    def benchmark_tasks(cls, config: Mapping) -> tuple[str, ...]:
        """What a benchmark can measure of a model of this config."""
        return ('points', 'edges', 'instances')

    def __init__(
        self,
        colorer: dict[str, Any],
        loss: dict[str, Any] | None = None,
        data_preprocessor: dict[str, Any] | None = None,
        normalize: str = 'batch',
        bias: float = 0.0,
        gamma: float = 1.0,
        prompting: dict[str, Any] | None = None,
        automatic: dict[str, Any] | bool | None = None,
        stretch: str = 'image',
        init_cfg: dict[str, Any] | None = None,
        pretrained: None = None,
        train_cfg: None = None,
    ) -> None:
        super().__init__(
            data_preprocessor=data_preprocessor or {'type': 'genseg_mm.GenSegDataPreprocessor'},
            init_cfg=init_cfg,
        )
        refuse_mmseg_settings('Gen2Seg', pretrained=pretrained, train_cfg=train_cfg)
        check_color_scale(normalize)
        check_stretch(stretch)
        if gamma <= 0:
            raise ValueError(f'gamma must be positive, but got {gamma}')
        self.colorer = MODELS.build(colorer)
        self.coloring_loss = MODELS.build(loss or {'type': 'genseg_mm.InstanceColoringLoss'})
        self.normalize = normalize
        self.bias = bias
        self.gamma = gamma
        self.prompting = dict(prompting or {})
        self.automatic = settings_of(automatic)
        self.stretch = stretch

    def forward(
        self,
        inputs: Tensor,
        data_samples: list[BaseDataElement] | None = None,
        mode: str = 'tensor',
    ) -> Tensor | dict[str, Tensor] | list[BaseDataElement]:
        """MMEngine's three modes.

        Args:
            inputs: RGB in [-1, 1], (N, 3, H, W).
            data_samples: N data samples; needed by ``'loss'``.
            mode: ``'loss'``, ``'predict'`` or ``'tensor'``.

        Returns:
            Losses by name; data samples with predictions; or raw maps (N, 3, H, W).

        Raises:
            ValueError: If the mode is not known.
        """
        if mode == 'tensor':
            return self.colorer(inputs)
        if mode == 'loss':
            return self.loss(inputs, data_samples)
        if mode == 'predict':
            return self.predict(inputs, data_samples)
        raise ValueError(f'mode must be loss, predict or tensor, but got {mode!r}')

    def loss(self, inputs: Tensor, data_samples: list[BaseDataElement]) -> dict[str, Tensor]:
        """Instance-coloring loss against ``gt_instance_map``.

        Args:
            inputs: RGB in [-1, 1], (N, 3, H, W).
            data_samples: N data samples with ``gt_instance_map`` at the input's size; the metainfo
                ``ignore_background`` marks samples whose background is unlabelled.

        Returns:
            ``loss_variance``, ``loss_separation``, ``loss_means``.
        """
        colors = normalize_colors(self.colorer(inputs), self.normalize, self.bias)
        return coloring_losses(self.coloring_loss, colors, data_samples)

    @torch.no_grad()
    def predict(
        self, inputs: Tensor, data_samples: list[BaseDataElement] | None = None
    ) -> list[BaseDataElement]:
        """Colour maps, and instances for the samples with prompts, or for all with ``automatic``.

        A map is stretched to [0, 255] over its own valid area (without padding), whatever scale it
        was trained with, so that a prediction does not depend on its batch, unless ``stretch`` says
        so. Then it is resized to the original image.

        Args:
            inputs: RGB in [-1, 1], (N, 3, H, W).
            data_samples: N data samples; metainfo ``img_shape`` (valid area), ``ori_shape``, and
                for prompts, in pixels of the original image, ``points`` (K, P, 2) or (K, 2) as
                (x, y), ``point_labels`` (K, P), ``boxes`` (K, 4) xyxy.

        Returns:
            The samples with ``pred_color_map`` (3, H, W) and, given prompts or ``automatic``,
            ``pred_instances`` with ``masks`` (K, H, W), ``scores``, ``labels`` (zeros) and
            ``bboxes`` (xyxy); all at the original size.
        """
        raw = self.colorer(inputs)
        if data_samples is None:
            data_samples = [SegDataSample() for _ in raw]
        # Extremes of the batch or image only shift and scale a map, which the stretch undoes.
        scale = 'none' if self.normalize in ('batch', 'image') else self.normalize
        maps = []
        for colors, sample in zip(
            normalize_colors(raw, scale, self.bias), data_samples, strict=True
        ):
            height, width = sample.metainfo.get('img_shape', colors.shape[-2:])[:2]
            maps.append(colors[:, :height, :width])  # (3, h, w)
        extremes = extremes_of(maps) if self.stretch == 'batch' else None
        for colors, sample in zip(maps, data_samples, strict=True):
            size = sample.metainfo.get('ori_shape', colors.shape[-2:])[:2]
            colors = resize_map(stretch_colors(colors, self.gamma, extremes), size)
            sample.pred_color_map = PixelData(data=colors)
            prompts = {key: sample.metainfo.get(key) for key in ('points', 'point_labels', 'boxes')}
            if prompts['points'] is not None or prompts['boxes'] is not None:
                sample.pred_instances = self.prompt(colors, **prompts)
            elif self.automatic is not None:
                sample.pred_instances = self.automatic_instances(colors)
        return data_samples

    def prompt(
        self,
        colors: Tensor,
        points: Any = None,
        point_labels: Any = None,
        boxes: Any = None,
        **prompting: Any,
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
            return (
                None if values is None else torch.as_tensor(values, dtype=dtype).to(colors.device)
            )

        settings = prompt_settings(**{**self.prompting, **prompting})
        masks = masks_from_points(
            colors,
            tensor(points, torch.float32),
            tensor(point_labels),
            tensor(boxes, torch.float32),
            **settings,
        )
        instances = as_instances(masks, flatness(colors, masks))
        prompts = dict(points=points, point_labels=point_labels, boxes=boxes)
        instances.set_metainfo(dict(prompted=dict(prompts, settings=settings)))
        return instances

    def automatic_instances(self, colors: Tensor, **settings: Any) -> InstanceData:
        """Instances of one colour map without prompts.

        Args:
            colors: Colours in [0, 255], (3, H, W).
            settings: Of :func:`genseg_mm.models.automatic_instances.automatic_instances`; they
                replace those of the model.

        Returns:
            ``masks`` (K, H, W) bool, ``scores`` (K,) in [0, 1), descending, ``labels`` (K,) zeros,
            ``bboxes`` (K, 4) xyxy.

        Raises:
            ValueError: If a setting is wrong.
        """
        return automatic_instances(colors, **settings_of({**(self.automatic or {}), **settings}))


def resize_map(colors: Tensor, size: tuple[int, int]) -> Tensor:
    """Bilinear resize of (3, h, w) colours to (3, H, W)."""
    if tuple(colors.shape[-2:]) == tuple(size):
        return colors
    return F.interpolate(colors[None], size=tuple(size), mode='bilinear', align_corners=False)[0]
