"""Ablation of the timestep law: a = 0.5 (paper: mIoU / oIoU 66.0 / 66.0 on RefCOCO, against 82.2 / 81.3).

Paper: arXiv 2603.23906, ablations.
Command: ``tools/dist_train.sh configs/genmask/refcoco_a0.5.py 8``
Hardware: 8 GPUs of 80 GB; hours not measured. Expected number: not reproduced yet.
"""

_base_ = ['./refcoco.py']

model = dict(mask_head=dict(timesteps=dict(mask=dict(a=0.5))))
