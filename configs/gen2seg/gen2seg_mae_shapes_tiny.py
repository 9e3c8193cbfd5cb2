"""gen2seg with a tiny ViT-MAE from scratch, instance-coloring loss only, on procedural scenes.

Paper: arXiv 2505.15263; the mechanism of its MAE rows, without their pretraining and not their numbers.
Command: ``python tools/train.py configs/gen2seg/gen2seg_mae_shapes_tiny.py``
Hardware: 2 CPU cores; 390 CPU seconds on one thread, six validations included.
Expected (seed 0, one random pixel of each instance): mIoU 50.1 on seen and 44.2 on unseen shapes, collapse share 0.11.
That is above the raw image (16) and position (32 / 29) but below the oracle foreground (54 / 52): without pretraining
and in this time it finds objects, but hardly tells touching ones apart.
"""

_base_ = [
    '../_base_/default_runtime.py',
    '../_base_/models/gen2seg_mae_tiny.py',
    '../_base_/datasets/shapes_instance.py',
]

max_iters = 3600
train_dataloader = dict(batch_size=4)
train_cfg = dict(max_iters=max_iters, val_interval=max_iters)
val_cfg = dict(type='ValLoop')
test_cfg = dict(type='TestLoop')
optim_wrapper = dict(
    type='OptimWrapper',
    optimizer=dict(type='AdamW', lr=2e-3, betas=(0.9, 0.98), weight_decay=0.01, fused=True),
    clip_grad=dict(max_norm=1.0),
)
param_scheduler = [
    dict(type='LinearLR', start_factor=0.01, by_epoch=False, begin=0, end=100),
    dict(type='CosineAnnealingLR', by_epoch=False, begin=100, end=max_iters),
]
auto_scale_lr = dict(enable=False, base_batch_size=4)
