"""gen2seg with ViT-MAE base on Hypersim and Virtual KITTI 2.

Paper: arXiv 2505.15263, the MAE-B row of the main table.
Command: ``GENSEG_DATA=/data tools/dist_train.sh configs/gen2seg/gen2seg_mae-b_hypersim-vkitti2.py 4``
Hardware: 4 GPUs (the paper: RTX 6000 Ada); hours not stated, not run by us.
Expected: Not reproduced yet. The paper, one point per object: COCO-L 44.6, COCO-M 17.8, DRAM 34.3,
EgoHOS 28.9, iShape 31.1, PIDRay 21.6.
"""

_base_ = ['./gen2seg_mae-h_hypersim-vkitti2.py']

model = dict(colorer=dict(pretrained='facebook/vit-mae-base'))
