"""Ablation of the timestep law: wider tail, a = 0.1 (paper: mIoU / oIoU 78.1 / 77.6 on RefCOCO, against 82.2 / 81.3).

Paper: arXiv 2603.23906, ablations.
Command: ``tools/dist_train.sh configs/genmask/refcoco_a0.1.py 8``
Hardware: 8 GPUs of 80 GB; hours not measured. Expected number: not reproduced yet.
"""

_base_ = ['./refcoco.py']

model = dict(mask_head=dict(timesteps=dict(mask=dict(a=0.1))))
