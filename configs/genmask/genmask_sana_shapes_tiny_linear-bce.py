"""Ablation of the loss: binary cross entropy of a linear layer on the latents (paper: 81.3 mIoU, not 82.2).

Paper: arXiv 2603.23906, ablations.
Command: ``python tools/train.py configs/genmask/genmask_sana_shapes_tiny_linear-bce.py``
Hardware: 2 CPU cores, 5 minutes. Expected: not measured at this length.
"""

_base_ = ['./genmask_sana_shapes_tiny.py']

model = dict(mask_head=dict(type='genseg_mm.BCEMaskHead', through='linear'))
