"""Ablation of the timestep law: masks are trained on pure noise only, sigma = 1.

Paper: arXiv 2603.23906, ablations.
Command: ``python tools/train.py configs/genmask/genmask_sana_shapes_tiny_pure-noise.py``
Hardware: 2 CPU cores, 5 minutes. Expected: see configs/genmask/README.md, timestep ablation.
"""

_base_ = ['./genmask_sana_shapes_tiny.py']

model = dict(mask_head=dict(timesteps=dict(mask=dict(_delete_=True, type='genseg_mm.UniformTimesteps', low=1.0))))
