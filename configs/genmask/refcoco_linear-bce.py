"""Ablation of the loss: binary cross entropy of a linear layer on the latents (paper: 81.3 mIoU, not 82.2).

Paper: arXiv 2603.23906, ablations.
Command: ``tools/dist_train.sh configs/genmask/refcoco_linear-bce.py 8``
Hardware: 8 GPUs of 80 GB; hours not measured. Expected number: not reproduced yet.
"""

_base_ = ['./refcoco.py']

model = dict(mask_head=dict(type='genseg_mm.BCEMaskHead', through='linear'))
