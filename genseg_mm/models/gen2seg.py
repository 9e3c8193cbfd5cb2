"""gen2seg (arXiv 2505.15263): a generative model made an instance colorer, prompted by points."""

from typing import Any

import torch
from mmengine.structures import BaseDataElement, InstanceData, PixelData
from mmseg.structures import SegDataSample
from torch import Tensor
from torch.nn import functional as F

from genseg_mm.functional.point_prompting import masks_from_points
from genseg_mm.models.base import GenSegModel
from genseg_mm.models.color_scale import check_color_scale, normalize_colors, stretch_colors
from genseg_mm.models.losses import coloring_losses
from genseg_mm.registry import MODELS


@MODELS.register_module()
class Gen2Seg(GenSegModel):
    """Colours every instance of an image in one flat colour.

    Masks are read off the map around point prompts.

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
        init_cfg: MMEngine's.

    Raises:
        ValueError: If the colour scale is not known or gamma is not positive.
    """

    def __init__(
        self,
        colorer: dict[str, Any],
        loss: dict[str, Any] | None = None,
        data_preprocessor: dict[str, Any] | None = None,
        normalize: str = 'batch',
        bias: float = 0.0,
        gamma: float = 1.0,
        prompting: dict[str, Any] | None = None,
        init_cfg: dict[str, Any] | None = None,
    ) -> None:
        super().__init__(
            data_preprocessor=data_preprocessor or {'type': 'genseg_mm.GenSegDataPreprocessor'},
            init_cfg=init_cfg,
        )
        check_color_scale(normalize)
        if gamma <= 0:
            raise ValueError(f'gamma must be positive, but got {gamma}')
        self.colorer = MODELS.build(colorer)
        self.coloring_loss = MODELS.build(loss or {'type': 'genseg_mm.InstanceColoringLoss'})
        self.normalize = normalize
        self.bias = bias
        self.gamma = gamma
        self.prompting = dict(prompting or {})

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
        """Colour maps, and masks for the samples that carry point prompts.

        A map is stretched to [0, 255] over its own valid area (without padding), whatever scale it
        was trained with, so that a prediction does not depend on its batch. Then it is resized to
        the original image.

        Args:
            inputs: RGB in [-1, 1], (N, 3, H, W).
            data_samples: N data samples; metainfo ``img_shape`` (valid area), ``ori_shape``, and
                for masks ``points`` (K, P, 2) or (K, 2) as (x, y) in the original image,
                ``point_labels`` (K, P).

        Returns:
            The samples with ``pred_color_map`` (3, H, W) and, given points, ``pred_instances`` with
            ``masks`` (K, H, W), ``scores``, ``labels`` (zeros) and ``bboxes`` (xyxy); all at the
            original size.
        """
        raw = self.colorer(inputs)
        if data_samples is None:
            data_samples = [SegDataSample() for _ in raw]
        # Extremes of the batch or image only shift and scale a map, which the stretch undoes.
        scale = 'none' if self.normalize in ('batch', 'image') else self.normalize
        for colors, sample in zip(
            normalize_colors(raw, scale, self.bias), data_samples, strict=True
        ):
            meta = sample.metainfo
            height, width = meta.get('img_shape', colors.shape[-2:])[:2]
            colors = stretch_colors(colors[:, :height, :width], self.gamma)  # (3, h, w)
            colors = resize_map(colors, meta.get('ori_shape', (height, width))[:2])
            sample.pred_color_map = PixelData(data=colors)
            if meta.get('points') is not None:
                sample.pred_instances = self.prompt(
                    colors, meta['points'], meta.get('point_labels')
                )
        return data_samples

    def prompt(self, colors: Tensor, points: Any, point_labels: Any = None) -> InstanceData:
        """Masks of one colour map around points.

        Args:
            colors: Colours in [0, 255], (3, H, W).
            points: (K, P, 2) or (K, 2) as (x, y) in pixels of the map; array or tensor.
            point_labels: (K, P), 1 positive and 0 negative; all positive by default.

        Returns:
            ``masks`` (K, H, W) bool, ``scores`` (K,) in [0, 1]: 1 / (1 + d) with d the mean
            distance of a mask's colours to their mean, 0 for an empty mask; ``labels`` (K,) zeros;
            ``bboxes`` (K, 4) xyxy.
        """
        points = torch.as_tensor(points, dtype=torch.float32, device=colors.device)
        if point_labels is not None:
            point_labels = torch.as_tensor(point_labels, device=colors.device)
        masks = masks_from_points(colors, points, point_labels=point_labels, **self.prompting)
        return InstanceData(
            masks=masks,
            scores=flatness(colors, masks),
            labels=torch.zeros(len(masks), dtype=torch.long, device=colors.device),
            bboxes=boxes_of(masks),
        )


def resize_map(colors: Tensor, size: tuple[int, int]) -> Tensor:
    """Bilinear resize of (3, h, w) colours to (3, H, W)."""
    if tuple(colors.shape[-2:]) == tuple(size):
        return colors
    return F.interpolate(colors[None], size=tuple(size), mode='bilinear', align_corners=False)[0]


def flatness(colors: Tensor, masks: Tensor) -> Tensor:
    """How flat the colour of each mask is: 1 / (1 + mean distance to the mean colour).

    An empty mask scores 0.

    Args:
        colors: Colours in [0, 255], (3, H, W).
        masks: (K, H, W) bool.

    Returns:
        (K,) in [0, 1].
    """
    scores = colors.new_zeros(len(masks))
    for k, mask in enumerate(masks):
        inside = colors[:, mask]  # (3, n)
        if inside.shape[1]:
            distance = (inside - inside.mean(1, keepdim=True)).norm(dim=0).mean()
            scores[k] = 1 / (1 + distance)
    return scores


def boxes_of(masks: Tensor) -> Tensor:
    """Tight boxes of (K, H, W) bool masks, (K, 4) xyxy, right and bottom exclusive.

    An empty mask has a box of zeros.
    """
    boxes = torch.zeros(len(masks), 4, device=masks.device)
    for k, mask in enumerate(masks):
        rows, columns = mask.any(1).nonzero()[:, 0], mask.any(0).nonzero()[:, 0]
        if len(rows):
            corners = (columns[0], rows[0], columns[-1] + 1, rows[-1] + 1)
            boxes[k] = torch.stack(corners).float()
    return boxes
