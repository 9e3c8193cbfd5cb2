"""Ablation of the timestep law: masks get the law of images, logit-normal.

Paper: arXiv 2603.23906, ablations.
Command: ``python tools/train.py configs/genmask/genmask_sana_shapes_tiny_logit-normal.py``
Hardware: 2 CPU cores, 5 minutes. Expected: see configs/genmask/README.md, timestep ablation.
"""

_base_ = ['./genmask_sana_shapes_tiny.py']

model = dict(mask_head=dict(timesteps=dict(mask=dict(_delete_=True, type='genseg_mm.LogitNormalTimesteps'))))
