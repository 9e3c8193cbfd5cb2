"""gen2seg with ViT-MAE huge on 10 classes of Hypersim (and vehicles): an ablation of the training classes.

Paper: arXiv 2505.15263, the training-domain table, "only 10 classes".
Its lists are not public; ours: genseg_mm/datasets/class_subsets.py.
Command: ``GENSEG_DATA=/data tools/dist_train.sh configs/gen2seg/gen2seg_mae-h_10classes.py 4``
Hardware: 4 GPUs (the paper: RTX 6000 Ada); hours not stated, not run by us.
Expected: Not reproduced yet. The paper, one point per object: DRAM 40.1, iShape 33.0, PIDRay 17.6.
"""

_base_ = ['./gen2seg_mae-h_hypersim-vkitti2.py']

parts = _base_.train_dataloader.dataset.datasets
parts[0].pipeline.insert(2, dict(type='genseg_mm.KeepClasses', classes='hypersim_10'))
parts[0].ignore_background = True  # objects of the other classes are there, but without an id
train_dataloader = dict(dataset=dict(datasets=parts))
