"""Semantic maps that mmseg and mmdet both read: their data samples call the pixels by different names."""

import torch
from mmengine.structures import BaseDataElement, PixelData
from torch import Tensor

IGNORED = 255  # label that metrics and visualisers of both leave out


def semantic_map(labels: Tensor, stuff: Tensor | None = None) -> PixelData:
    """A map as mmseg reads it (``data``) and mmdet (``sem_seg``).

    Args:
        labels: (1, H, W) uint8.
        stuff: What mmdet's visualiser paints, (1, H, W) uint8; default: the labels but 0.
    """
    labels = labels.to(torch.uint8)
    if stuff is None:
        stuff = labels.masked_fill(labels == 0, IGNORED)
    return PixelData(data=labels, sem_seg=stuff)


def add_semantic_maps(sample: BaseDataElement) -> None:
    """Adds background (0) and object (1) to a sample with instances: ``pred_sem_seg``, ``gt_sem_seg``.

    mmdet's visualiser paints instances and then the semantic map, which would hide them: for it that one is empty.

    Args:
        sample: With ``pred_instances``, or nothing is added; the ground truth comes from ``gt_instance_map`` where
            that has the size of the masks, with 255 where the metainfo ``ignore_background`` says that the background
            is unlabelled.
    """
    if 'pred_instances' not in sample:
        return
    found = sample.pred_instances.masks.any(0, keepdim=True)  # (1, H, W)
    nothing = torch.full_like(found, IGNORED, dtype=torch.uint8)
    sample.pred_sem_seg = semantic_map(found, nothing)
    if 'gt_instance_map' in sample and 'gt_sem_seg' not in sample:
        ids = sample.gt_instance_map.data
        if ids.shape == found.shape:
            rest = IGNORED if sample.metainfo.get('ignore_background') else 0
            sample.gt_sem_seg = semantic_map(torch.where(ids > 0, 1, rest))
