"""The instance-coloring loss as a module, and a decode head that puts it behind any mmseg backbone."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from mmengine.model import BaseModule
from mmengine.structures import BaseDataElement
from torch import Tensor, nn
from torch.nn import functional as F

from genseg_mm.finite import check_finite, picture_of
from genseg_mm.functional.color_maps import check_color_scale, normalize_colors, stretch_colors
from genseg_mm.functional.instance_coloring import instance_coloring_loss
from genseg_mm.registry import MODELS


@MODELS.register_module()
class InstanceColoringHead(BaseModule):
    """Decode head for mmseg's ``EncoderDecoder`` that colours instances, as gen2seg's controls do.

    Every chosen feature level gets a 1x1 convolution, all are resized to the finest of them and
    added, two 3x3 convolutions follow, and a 1x1 convolution gives three colours, resized to the
    network input. Data samples need ``gt_instance_map``; no class is read.

    The head is found by mmseg by its interface and imports nothing of mmseg's models.
    ``EncoderDecoder`` returns the colour map, in [0, 255], as ``seg_logits``; its ``pred_sem_seg``
    is then the strongest colour channel and means nothing.

    Args:
        in_channels: Channels of the chosen levels; an int for one level.
        in_index: Which of the backbone's outputs; an int for one level.
        channels: Width of the head.
        num_groups: Groups of its group normalisation.
        normalize: Colour scale, see :func:`genseg_mm.functional.color_maps.normalize_colors`.
        bias: Added before the sigmoid.
        gamma: Exponent on the stretched map at inference.
        loss_decode: Config of the coloring loss.
        align_corners: Of every resize.
        init_cfg: MMEngine's.

    Raises:
        ValueError: If in_channels and in_index differ in length, or the colour scale is not known.
    """

    num_classes = 3
    out_channels = 3

    @classmethod
    def benchmark_tasks(cls, config: Mapping) -> tuple[str, ...]:
        """What a benchmark can measure of a model of this config."""
        return ('points', 'edges')

    def __init__(
        self,
        in_channels: int | Sequence[int],
        in_index: int | Sequence[int] = -1,
        channels: int = 128,
        num_groups: int = 8,
        normalize: str = 'sigmoid',
        bias: float = 0.0,
        gamma: float = 1.0,
        loss_decode: dict[str, Any] | None = None,
        align_corners: bool = False,
        init_cfg: dict[str, Any] | None = None,
    ) -> None:
        super().__init__(init_cfg)
        check_color_scale(normalize)
        self.in_channels = [in_channels] if isinstance(in_channels, int) else list(in_channels)
        self.in_index = [in_index] if isinstance(in_index, int) else list(in_index)
        if len(self.in_channels) != len(self.in_index):
            raise ValueError(
                'in_channels and in_index of InstanceColoringHead must name the same levels, '
                f'but got {in_channels} and {in_index}'
            )
        self.channels = channels
        self.normalize = normalize
        self.bias = bias
        self.gamma = gamma
        self.align_corners = align_corners
        self.loss_decode = MODELS.build(loss_decode or dict(type='genseg_mm.InstanceColoringLoss'))
        self.laterals = nn.ModuleList(nn.Conv2d(width, channels, 1) for width in self.in_channels)
        self.fuse = nn.Sequential(
            *[
                nn.Sequential(
                    nn.Conv2d(channels, channels, 3, padding=1), nn.GroupNorm(num_groups, channels), nn.GELU()
                )
                for _ in range(2)
            ]
        )
        self.conv_seg = nn.Conv2d(channels, 3, 1)

    def forward(self, inputs: Sequence[Tensor]) -> Tensor:
        """Raw map at the finest of the chosen levels.

        Args:
            inputs: The backbone's (or neck's) feature maps, (N, C_l, H_l, W_l).

        Returns:
            (N, 3, h, w).
        """
        levels = [lateral(inputs[i]) for lateral, i in zip(self.laterals, self.in_index, strict=True)]
        size = max((level.shape[-2:] for level in levels), key=lambda shape: shape[0] * shape[1])
        fused = sum(self._resize(level, size) for level in levels)  # (N, channels, h, w)
        return self.conv_seg(self.fuse(fused))

    def loss(
        self,
        inputs: Sequence[Tensor],
        batch_data_samples: list[BaseDataElement],
        train_cfg: dict[str, Any] | None = None,
    ) -> dict[str, Tensor]:
        """Instance-coloring loss at the resolution of the network input.

        Args:
            inputs: Feature maps.
            batch_data_samples: Data samples with ``gt_instance_map``.
            train_cfg: Not used.

        Returns:
            ``loss_variance``, ``loss_separation``, ``loss_means``.
        """
        meta = batch_data_samples[0].metainfo
        raw = self._resize(self(inputs).float(), _input_size(meta))
        colors = normalize_colors(raw, self.normalize, self.bias)
        return coloring_losses(self.loss_decode, colors, batch_data_samples)

    def predict(
        self, inputs: Sequence[Tensor], batch_img_metas: list[dict[str, Any]], test_cfg: dict[str, Any] | None = None
    ) -> Tensor:
        """Colour maps, each stretched to [0, 255] over its area without padding.

        Maps of sliding windows are averaged by mmseg, so they are not stretched one by one.

        Args:
            inputs: Feature maps.
            batch_img_metas: Metainfo of the samples.
            test_cfg: The segmentor's; ``mode`` is read.

        Returns:
            (N, 3, H, W) at the size of the network input.

        Raises:
            ValueError: If sliding windows meet a colour scale that depends on the window.
        """
        raw = self._resize(self(inputs).float(), _input_size(batch_img_metas[0]))
        for place, (own, meta) in enumerate(zip(raw, batch_img_metas, strict=True)):
            check_finite(own, 'colours', picture_of(meta, place))
        relative = self.normalize in ('batch', 'image')
        if (test_cfg or {}).get('mode') == 'slide':
            if relative:
                raise ValueError(
                    "test_cfg mode 'slide' needs colours that do not depend on the window: "
                    f"expected normalize 'sigmoid' or 'none', but got {self.normalize!r}; "
                    "use mode 'whole'"
                )
            return normalize_colors(raw, self.normalize, self.bias)
        colors = normalize_colors(raw, 'none' if relative else self.normalize, self.bias)
        return torch.stack([self._stretch(one, meta) for one, meta in zip(colors, batch_img_metas, strict=True)])

    def _stretch(self, colors: Tensor, meta: dict[str, Any]) -> Tensor:
        left, right, top, bottom = meta.get('img_padding_size', meta.get('padding_size', (0, 0, 0, 0)))
        height, width = colors.shape[-2:]
        valid = (slice(None), slice(top, height - bottom), slice(left, width - right))
        stretched = torch.zeros_like(colors)
        stretched[valid] = stretch_colors(colors[valid], self.gamma)
        return stretched

    def _resize(self, maps: Tensor, size: tuple[int, int]) -> Tensor:
        if tuple(maps.shape[-2:]) == tuple(size):
            return maps
        return F.interpolate(maps, size=tuple(size), mode='bilinear', align_corners=self.align_corners)


def _input_size(meta: dict[str, Any]) -> tuple[int, int]:
    """Size of the network input, from what mmseg's preprocessor or ours records."""
    height, width = meta['img_shape'][:2]
    if 'padding_size' in meta:  # by mmseg, in training
        left, right, top, bottom = meta['padding_size']
        return height + top + bottom, width + left + right
    if isinstance(meta['img_shape'], torch.Size):  # a window of mmseg's sliding inference
        return height, width
    return tuple(meta.get('batch_input_shape') or meta.get('pad_shape') or (height, width))[:2]


@MODELS.register_module()
class InstanceColoringLoss(nn.Module):
    """gen2seg's loss (arXiv 2505.15263, Section 3.2).

    See :func:`genseg_mm.functional.instance_coloring.instance_coloring_loss`.

    Args:
        formula: ``'reference'`` (the released weights') or ``'paper'``.
        loss_weight: Factor on all three terms.
        **settings: Further keyword arguments of ``instance_coloring_loss`` (weights of the terms,
            cap on instances).
    """

    def __init__(self, formula: str = 'reference', loss_weight: float = 1.0, **settings: float | int) -> None:
        super().__init__()
        self.settings = {'formula': formula, **settings}
        self.loss_weight = loss_weight

    def forward(self, colors: Tensor, ids: Tensor, ignore_background: Tensor | None = None) -> dict[str, Tensor]:
        """Loss of colour maps.

        Args:
            colors: Colours in [0, 255], (N, 3, H, W).
            ids: Instance ids, (N, H, W), integer; 0 is background.
            ignore_background: Whether the background of each sample is unlabelled, (N,) bool; none
                by default.

        Returns:
            Scalars ``loss_variance``, ``loss_separation`` and ``loss_means``; their sum is the
            loss.
        """
        terms = instance_coloring_loss(colors, ids, ignore_background=ignore_background, **self.settings)
        return {
            'loss_variance': self.loss_weight * terms.variance,
            'loss_separation': self.loss_weight * terms.separation,
            'loss_means': self.loss_weight * terms.means,
        }


def coloring_losses(loss: nn.Module, colors: Tensor, data_samples: Sequence[BaseDataElement]) -> dict[str, Tensor]:
    """Coloring loss of a batch against the instance maps of its data samples.

    Instance maps may be smaller than the colours, which are padded at the bottom and right; padding
    takes no part. The metainfo ``ignore_background`` (default False) says that a sample's
    background is unlabelled.

    Args:
        loss: An :class:`InstanceColoringLoss`.
        colors: Colours in [0, 255], (N, 3, H, W).
        data_samples: N data samples with ``gt_instance_map``.

    Returns:
        The losses by name, each a mean over the N samples.

    Raises:
        ValueError: If a sample has no instance map or one that is larger than its colours.
    """
    maps = [_instance_map(sample, colors.shape[-2:]) for sample in data_samples]
    ignore = torch.tensor(
        [bool(sample.metainfo.get('ignore_background', False)) for sample in data_samples], device=colors.device
    )
    if len({ids.shape for ids in maps}) == 1:
        height, width = maps[0].shape
        ids = torch.stack(maps).to(colors.device)
        return loss(colors[..., :height, :width], ids, ignore)
    # The loss is a mean over images, so images of different sizes may take turns.
    parts = [
        loss(colors[i : i + 1, :, : ids.shape[0], : ids.shape[1]], ids[None].to(colors.device), ignore[i : i + 1])
        for i, ids in enumerate(maps)
    ]
    return {name: torch.stack([part[name] for part in parts]).mean() for name in parts[0]}


def _instance_map(sample: BaseDataElement, size: tuple[int, int]) -> Tensor:
    where = sample.metainfo.get('img_path') or 'no img_path'
    if 'gt_instance_map' not in sample:
        raise ValueError(
            'the coloring loss expects gt_instance_map in every data sample, but got one without '
            f'({where}); add dict(type="genseg_mm.LoadInstanceMap") to the pipeline '
            'before the packing'
        )
    ids = sample.gt_instance_map.data[0]
    if ids.shape[0] > size[0] or ids.shape[1] > size[1]:
        raise ValueError(
            f'gt_instance_map expects the size of the network input {tuple(size)} or less, '
            f'but got {tuple(ids.shape)} ({where}); load it before Resize in the training pipeline'
        )
    return ids
