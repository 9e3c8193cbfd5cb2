"""Ablation of joint training: masks only (paper: 81.0 mIoU on RefCOCO, against 82.2).

Paper: arXiv 2603.23906, ablations.
Command: ``tools/dist_train.sh configs/genmask/refcoco_no-generation.py 8``
Hardware: 8 GPUs of 80 GB; hours not measured. Expected number: not reproduced yet.
"""

_base_ = ['./refcoco.py']

train_dataloader = dict(sampler=dict(ratio=[1, 0]))
