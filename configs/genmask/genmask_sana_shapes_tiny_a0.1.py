"""Ablation of the timestep law: wider tail, a = 0.1 (paper: mIoU / oIoU 78.1 / 77.6 on RefCOCO, against 82.2 / 81.3).

Paper: arXiv 2603.23906, ablations.
Command: ``python tools/train.py configs/genmask/genmask_sana_shapes_tiny_a0.1.py``
Hardware: 2 CPU cores, 5 minutes. Expected: see configs/genmask/README.md, timestep ablation.
"""

_base_ = ['./genmask_sana_shapes_tiny.py']

model = dict(mask_head=dict(timesteps=dict(mask=dict(a=0.1))))
