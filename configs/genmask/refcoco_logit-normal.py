"""Ablation of the timestep law: masks get the law of images, logit-normal.

Paper: arXiv 2603.23906, ablations.
Command: ``tools/dist_train.sh configs/genmask/refcoco_logit-normal.py 8``
Hardware: 8 GPUs of 80 GB; hours not measured. Expected number: not reproduced yet.
"""

_base_ = ['./refcoco.py']

model = dict(mask_head=dict(timesteps=dict(mask=dict(_delete_=True, type='genseg_mm.LogitNormalTimesteps'))))
