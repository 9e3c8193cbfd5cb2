"""Ablation of the loss: binary cross entropy in pixel space, through the decoder (paper: 78.1 mIoU, not 82.2).

Paper: arXiv 2603.23906, ablations.
Command: ``python tools/train.py configs/genmask/genmask_sana_shapes_tiny_pixel-bce.py``
Hardware: 2 CPU cores, 5 minutes. Expected: not measured at this length.
"""

_base_ = ['./genmask_sana_shapes_tiny.py']

# Probabilities are sharper than the velocity's means: a threshold nearer to the middle.
model = dict(
    mask_head=dict(type='genseg_mm.BCEMaskHead', through='decoder', scale=5.0, threshold=0.45)
)
