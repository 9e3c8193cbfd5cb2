"""A segmentor of mmseg behind ``InstanceColoringHead`` as a model that gives colour maps and takes prompts."""

from typing import Any

import torch
from mmengine.model import BaseModel
from mmengine.structures import BaseDataElement, PixelData
from torch import nn
from torch.nn import functional as F

from genseg_mm.models.coloring_head import InstanceColoringHead
from genseg_mm.models.gen2seg import Gen2Seg
from genseg_mm.models.genmask import GenMask
from genseg_mm.models.map_prompting import MapPrompting
from genseg_mm.network_sizes import network_resize_of, resize_to


class ColoringSegmentor(MapPrompting, BaseModel):
    """Predicts as the segmentor does, with its own preprocessor; its ``seg_logits`` are the colour maps.

    Args:
        segmentor: Built model of mmseg whose last decode head is an ``InstanceColoringHead``. Its config has no
            settings of prompts: those of a call, else the defaults.
    """

    def __init__(self, segmentor: nn.Module) -> None:
        super().__init__()
        self.segmentor = segmentor
        self.prompting = {}
        self.automatic = None
        self.processing_size: int | tuple[int, int] | None = None

    def network_resize(self) -> dict[str, Any] | None:
        """How pictures are brought to the size that the segmentor works at; None: they keep theirs."""
        if self.processing_size is None:
            return network_resize_of(self.segmentor)
        divisor = getattr(self.segmentor.data_preprocessor, 'size_divisor', None) or 1
        return resize_to(self.processing_size, divisor)

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """The segmentor's."""
        return self.segmentor(*args, **kwargs)

    @torch.no_grad()
    def test_step(self, data: dict) -> list[BaseDataElement]:
        """The segmentor's predictions with ``pred_color_map`` (3, H, W) and ``pred_network_map`` (3, h, w)."""
        samples = self.segmentor.test_step(data)
        for sample in samples:
            colors = sample.seg_logits.data.float()
            size = tuple(sample.metainfo.get('img_shape', colors.shape[-2:])[:2])
            small = colors
            if size != tuple(colors.shape[-2:]):
                small = F.interpolate(colors[None], size, mode='bilinear', antialias=True)[0]
            sample.pred_color_map = PixelData(data=colors)
            sample.pred_network_map = PixelData(data=small)
        return samples


def as_predictor(model: nn.Module) -> nn.Module:
    """A model that the inferencer runs: ``Gen2Seg`` and ``GenMask`` as they are, segmentors with our head wrapped.

    Raises:
        ValueError: If a model gives neither colour maps nor masks of texts; it says what to write.
    """
    if isinstance(model, (Gen2Seg, GenMask, ColoringSegmentor)):
        return model
    head = getattr(model, 'decode_head', None)
    head = head[-1] if isinstance(head, nn.ModuleList) else head
    if isinstance(head, InstanceColoringHead):
        return ColoringSegmentor(model)
    if head is not None:
        raise ValueError(
            f'GenSegInferencer needs a colour map, but the decode head of the {type(model).__name__} is a '
            f'{type(head).__name__}: write decode_head=dict(type="genseg_mm.InstanceColoringHead", in_channels=[...], '
            "in_index=[...]) and train it; for classes there is mmseg's MMSegInferencer"
        )
    raise ValueError(
        f'GenSegInferencer runs Gen2Seg and GenMask, but got {type(model).__name__}; a module that gives maps '
        '(N, 3, H, W) goes into model=dict(type="genseg_mm.Gen2Seg", colorer=dict(type=...)), a backbone of mmseg into '
        'an EncoderDecoder with decode_head=dict(type="genseg_mm.InstanceColoringHead"); other models have '
        "mmseg's MMSegInferencer and mmdet's DetInferencer"
    )
