"""gen2seg with Stable Diffusion 2 on 5 classes of Hypersim (and vehicles): an ablation of the training classes.

Paper: arXiv 2505.15263, the training-domain table, "only 5 classes".
Its lists are not public; ours: genseg_mm/datasets/class_subsets.py.
Command: ``GENSEG_DATA=/data tools/dist_train.sh configs/gen2seg/gen2seg_sd2_5classes.py 4``
Hardware: 4 GPUs of 48 GB (the paper: RTX 6000 Ada); not run by us.
Expected: Not reproduced yet. The paper, one point per object: DRAM 38.2, iShape 48.5, PIDRay 19.4.
"""

_base_ = ['./gen2seg_sd2_hypersim-vkitti2.py']

hypersim_pipeline = [
    dict(type='genseg_mm.LoadImage'),
    dict(type='genseg_mm.LoadInstanceMap'),
    dict(type='genseg_mm.KeepClasses', classes='hypersim_5'),
    dict(type='mmseg.Resize', scale=(640, 480), keep_ratio=False),
    dict(type='mmseg.RandomFlip', prob=0.5, direction='horizontal'),
    dict(type='genseg_mm.PackGenSegInputs'),
]
# ignore_background: objects of the other classes are there, but without an id.
hypersim = dict(_base_.train_dataloader.dataset.datasets[0], pipeline=hypersim_pipeline, ignore_background=True)
train_dataloader = dict(
    dataset=dict(datasets=[hypersim, _base_.train_dataloader.dataset.datasets[1]])
)
