"""gen2seg with a tiny UNet from scratch, instance-coloring loss only, on scenes of recognisable objects.

Paper: arXiv 2505.15263; its split: masks of household things and ground transport, tests on kinds never labelled.
Command: ``python tools/dataset_tools/prepare_objects.py`` once for the objects, then
``python tools/train.py configs/gen2seg/gen2seg_unet_objects_tiny.py``
Hardware: one CPU core, 392 CPU seconds while others used it, without validation (the first 1,200 iterations about 305).
Expected (seed 0, one random pixel of each object, tools/test.py): mIoU 46.6 on labelled and 45.6 on never labelled
kinds, collapse share 0.17; raw image 19.3 / 20.1, position 26.8 / 27.8, oracle foreground 68.1 / 67.6. After 1,200
iterations 44.8 / 44.0.
"""

_base_ = [
    '../_base_/default_runtime.py',
    '../_base_/models/gen2seg_unet_tiny.py',
    '../_base_/datasets/objects_instance.py',
]

# Patches of 3 pixels: 32 x 32 of them, as many as the base has at 64 pixels.
model = dict(colorer=dict(patch_size=3))
# Small batches and many updates, as for the other tiny colorers.
train_dataloader = dict(batch_size=4)

max_iters = 1600
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
auto_scale_lr = dict(enable=False, base_batch_size=4)
