"""The shipped tiny UNet: from scratch, instance-coloring loss only, plain and textured grounds, longer.

Paper: arXiv 2505.15263; the mechanism of its SD rows (instances told apart, unseen types too), not their numbers.
Command: ``python tools/train.py configs/gen2seg/gen2seg_unet_shapes_long_tiny.py``
Hardware: one CPU core, 42 minutes while others used it, four validations included.
Expected (seed 0, one random pixel of each instance): mIoU 82.2 on seen and 67.9 on unseen shapes,
78.1 and 61.9 on textured grounds, collapse share 0.12; oracle foreground 54.2 / 52.5 on either ground.
Shipped as genseg_mm/weights/gen2seg_unet_shapes.safetensors.
"""

_base_ = [
    '../_base_/default_runtime.py',
    '../_base_/models/gen2seg_unet_tiny.py',
    '../_base_/datasets/shapes_instance_textured.py',
]

max_iters = 16000
train_cfg = dict(max_iters=max_iters, val_interval=4000)
val_cfg = dict(type='ValLoop')
test_cfg = dict(type='TestLoop')
optim_wrapper = dict(
    type='OptimWrapper',
    optimizer=dict(type='AdamW', lr=3e-3, betas=(0.9, 0.98), weight_decay=0.01, fused=True),
    clip_grad=dict(max_norm=1.0),
)
param_scheduler = [
    dict(type='LinearLR', start_factor=0.01, by_epoch=False, begin=0, end=100),
    dict(type='CosineAnnealingLR', by_epoch=False, begin=100, end=max_iters),
]
auto_scale_lr = dict(enable=False, base_batch_size=8)
