"""gen2seg with ViT-MAE large on Hypersim and Virtual KITTI 2.

Paper: arXiv 2505.15263, between its MAE-B and MAE-H rows.
Command: ``GENSEG_DATA=/data tools/dist_train.sh configs/gen2seg/gen2seg_mae-l_hypersim-vkitti2.py 4``
Hardware: 4 GPUs (the paper: RTX 6000 Ada); hours not stated, not run by us.
Expected: Not reproduced yet; the paper gives no number for this size.
"""

_base_ = ['./gen2seg_mae-h_hypersim-vkitti2.py']

model = dict(colorer=dict(pretrained='facebook/vit-mae-large'))
