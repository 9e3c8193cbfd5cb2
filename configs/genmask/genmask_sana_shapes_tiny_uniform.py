"""Ablation of the timestep law: mask noise levels uniform instead of long-tailed, all else and the steps equal.

Paper: arXiv 2603.23906, timestep ablation (a = 0.05: 82.2 / 81.3 mIoU / oIoU, a = 0.5: 66.0 / 66.0 on RefCOCO).
Command: ``python tools/train.py configs/genmask/genmask_sana_shapes_tiny_uniform.py``
Hardware: 2 CPU cores, 5 minutes. Expected: see configs/genmask/README.md, timestep ablation.
"""

_base_ = ['./genmask_sana_shapes_tiny.py']

model = dict(
    mask_head=dict(
        timesteps=dict(mask=dict(_delete_=True, type='genseg_mm.UniformTimesteps'))
    )
)
