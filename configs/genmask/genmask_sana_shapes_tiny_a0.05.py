"""Ablation of the timestep law: the paper's a = 0.05, of Wan's codec and resolution (57.9 oIoU in equal time).

Paper: arXiv 2603.23906, ablations.
Command: ``python tools/train.py configs/genmask/genmask_sana_shapes_tiny_a0.05.py``
Hardware: 2 CPU cores, 5 minutes. Expected: see configs/genmask/README.md, timestep ablation.
"""

_base_ = ['./genmask_sana_shapes_tiny.py']

model = dict(mask_head=dict(timesteps=dict(mask=dict(a=0.05))))
