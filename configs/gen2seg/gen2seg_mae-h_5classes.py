"""gen2seg with ViT-MAE huge on 5 classes of Hypersim (and vehicles): an ablation of the training classes.

Paper: arXiv 2505.15263, the training-domain table, "only 5 classes".
Its lists are not public; ours: genseg_mm/datasets/class_subsets.py.
Command: ``GENSEG_DATA=/data tools/dist_train.sh configs/gen2seg/gen2seg_mae-h_5classes.py 4``
Hardware: 4 GPUs (the paper: RTX 6000 Ada); hours not stated, not run by us.
Expected: Not reproduced yet. The paper, one point per object: DRAM 34.2, iShape 28.5, PIDRay 15.2.
"""

_base_ = ['./gen2seg_mae-h_10classes.py']

parts = _base_.train_dataloader.dataset.datasets
parts[0].pipeline[2].classes = 'hypersim_5'
train_dataloader = dict(dataset=dict(datasets=parts))
