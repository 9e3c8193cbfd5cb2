"""gen2seg with ViT-MAE huge on COCO: an ablation of the training domain.

Paper: arXiv 2505.15263, the training-domain table.
Command: ``GENSEG_DATA=/data tools/dist_train.sh configs/gen2seg/gen2seg_mae-h_coco.py 4``
Hardware: 4 GPUs (the paper: RTX 6000 Ada); hours not stated, not run by us.
Expected: Not reproduced yet. The paper, one point per object: DRAM 48.1, iShape 33.4, PIDRay 25.7.
"""

_base_ = [
    '../_base_/default_runtime.py',
    '../_base_/models/gen2seg_mae-h.py',
    '../_base_/datasets/coco_instance_224.py',
    '../_base_/datasets/coco_points_224.py',
    '../_base_/schedules/gen2seg_30k.py',
]

train_dataloader = dict(batch_size=2)  # the schedule's

# Of 30,000 updates: full state is 10 GB with Stable Diffusion 2 (theirs: 10,000).
default_hooks = dict(checkpoint=dict(interval=1000))
