"""Ablation of the timestep law: a = 0.5 (paper: mIoU / oIoU 66.0 / 66.0 on RefCOCO, against 82.2 / 81.3).

Paper: arXiv 2603.23906, ablations.
Command: ``python tools/train.py configs/genmask/genmask_sana_shapes_tiny_a0.5.py``
Hardware: 2 CPU cores, 5 minutes. Expected: see configs/genmask/README.md, timestep ablation.
"""

_base_ = ['./genmask_sana_shapes_tiny.py']

model = dict(mask_head=dict(timesteps=dict(mask=dict(a=0.5))))
