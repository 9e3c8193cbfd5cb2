"""gen2seg with a tiny UNet from scratch, instance-coloring loss only, on procedural scenes.

Paper: arXiv 2505.15263; the mechanism of its SD rows (instances told apart, unseen types too), not their numbers.
Command: ``python tools/train.py configs/gen2seg/gen2seg_unet_shapes_tiny.py``
Hardware: 2 CPU cores; 395 CPU seconds on one thread, four validations included.
Expected (seed 0, one random pixel of each instance): mIoU 76.5 on seen and 61.8 on unseen shapes, collapse share 0.09;
raw image 16.4 / 15.9, position 31.6 / 28.7, oracle foreground 54.2 / 52.5. After 1600 iterations 69.7 / 55.8.
"""

_base_ = [
    '../_base_/default_runtime.py',
    '../_base_/models/gen2seg_unet_tiny.py',
    '../_base_/datasets/shapes_instance.py',
]

max_iters = 3200
train_cfg = dict(max_iters=max_iters, val_interval=max_iters)
val_cfg = dict(type='ValLoop')
test_cfg = dict(type='TestLoop')
optim_wrapper = dict(
    type='OptimWrapper',
    optimizer=dict(type='AdamW', lr=3e-3, betas=(0.9, 0.98), weight_decay=0.01, fused=True),
    clip_grad=dict(max_norm=1.0),
)
param_scheduler = [
    dict(type='LinearLR', start_factor=0.01, by_epoch=False, begin=0, end=60),
    dict(type='CosineAnnealingLR', by_epoch=False, begin=60, end=max_iters),
]
auto_scale_lr = dict(enable=False, base_batch_size=8)
