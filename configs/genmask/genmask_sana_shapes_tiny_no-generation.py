"""Ablation of joint training: masks only (paper: 81.0 mIoU on RefCOCO, against 82.2).

Paper: arXiv 2603.23906, ablations.
Command: ``python tools/train.py configs/genmask/genmask_sana_shapes_tiny_no-generation.py``
Hardware: 2 CPU cores, 5 minutes. Expected: see configs/genmask/README.md, timestep ablation.
"""

_base_ = ['./genmask_sana_shapes_tiny.py']

train_dataloader = dict(sampler=dict(ratio=[1, 0]))
