"""Discriminative control: DINO ViT-B/16 in MMSegmentation behind InstanceColoringHead, gen2seg's data and loss.

Paper: arXiv 2505.15263, the DINO-B row of the main table (decoder: see the model's base file).
Command: ``GENSEG_DATA=/data tools/dist_train.sh configs/gen2seg/gen2seg_vit-b_hypersim-vkitti2.py 4``
Hardware: 4 GPUs (the paper: RTX 6000 Ada); hours not stated, not run by us.
Expected: Not reproduced yet. The paper, one point per object: COCO-L 35.0, COCO-M 11.0, DRAM 29.4,
EgoHOS 14.8, iShape 27.4, PIDRay 14.9.
"""

_base_ = [
    '../_base_/default_runtime.py',
    '../_base_/models/gen2seg_vit-b.py',
    '../_base_/datasets/hypersim_vkitti2_224.py',
    '../_base_/datasets/coco_points_224.py',
    '../_base_/schedules/gen2seg_30k.py',
]

# Of 30,000 updates: full state is 10 GB with Stable Diffusion 2 (theirs: 10,000).
default_hooks = dict(checkpoint=dict(interval=1000))
