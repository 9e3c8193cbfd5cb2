"""The instance-coloring loss as a module, and its reading of data samples."""

from collections.abc import Sequence

import torch
from mmengine.structures import BaseDataElement
from torch import Tensor, nn

from genseg_mm.functional.instance_coloring import instance_coloring_loss
from genseg_mm.registry import MODELS


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
