"""gen2seg with Stable Diffusion 2 on ClevrTex: an ablation of the training domain.

Paper: arXiv 2505.15263, the training-domain table.
Command: ``GENSEG_DATA=/data tools/dist_train.sh configs/gen2seg/gen2seg_sd2_clevrtex.py 4``
Hardware: 4 GPUs of 48 GB (the paper: RTX 6000 Ada); not run by us.
Expected: Not reproduced yet. The paper, one point per object: DRAM 28.0, iShape 32.1, PIDRay 23.7.
"""

_base_ = [
    '../_base_/default_runtime.py',
    '../_base_/models/gen2seg_sd2.py',
    '../_base_/datasets/clevrtex_sd.py',
    '../_base_/datasets/coco_points_sd.py',
    '../_base_/schedules/gen2seg_30k.py',
]

train_dataloader = dict(batch_size=2)  # the schedule's

# Of 30,000 updates: full state is 10 GB with Stable Diffusion 2 (theirs: 10,000).
default_hooks = dict(checkpoint=dict(interval=1000))
