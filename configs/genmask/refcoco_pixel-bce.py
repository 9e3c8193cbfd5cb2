"""Ablation of the loss: binary cross entropy in pixel space, through the decoder (paper: 78.1 mIoU, not 82.2).

Paper: arXiv 2603.23906, ablations.
Command: ``tools/dist_train.sh configs/genmask/refcoco_pixel-bce.py 8``
Hardware: 8 GPUs of 80 GB; hours not measured. Expected number: not reproduced yet.
"""

_base_ = ['./refcoco.py']

model = dict(
    mask_head=dict(type='genseg_mm.BCEMaskHead', through='decoder', scale=5.0)
)
