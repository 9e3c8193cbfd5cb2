"""The shipped tiny UNet for scenes of recognisable objects: longer, from the weights of that for shapes.

Paper: arXiv 2505.15263; its split: masks of household things and ground transport, tests on kinds never labelled.
Command: ``python tools/dataset_tools/prepare_objects.py`` once for the objects, then
``python tools/train.py configs/gen2seg/gen2seg_unet_objects_long_tiny.py --cfg-options
load_from=genseg_mm/weights/gen2seg_unet_shapes.safetensors``, the weights shipped for squares, circles and stars.
Hardware: one CPU core, 2,950 CPU seconds while others used it.
Expected (seed 0, one random pixel of each object, tools/test.py): mIoU 66.4 on labelled and 68.2 on never labelled
kinds, collapse share 0.10; raw image 19.3 / 20.1, position 26.8 / 27.8, oracle foreground 68.1 / 67.6.
With model.tiles=True 69.4 / 69.5.
Shipped as genseg_mm/weights/gen2seg_unet_objects.safetensors.
"""

_base_ = [
    '../_base_/default_runtime.py',
    '../_base_/models/gen2seg_unet_tiny.py',
    '../_base_/datasets/objects_instance.py',
]

# Patches of 2 pixels, as in the weights it begins with, 48 x 48 of them.
model = dict(
    colorer=dict(config=dict(sample_size=48)),
    prompting=dict(radius=34.0),  # chosen on 'val', as in the metric
)
train_dataloader = dict(batch_size=4)

# A constant rate, so that the training can go on from any checkpoint before the last iterations, in which it falls.
max_iters = 10000
anneal_iters = 1500
train_cfg = dict(max_iters=max_iters, val_interval=max_iters)
val_cfg = dict(type='ValLoop')
test_cfg = dict(type='TestLoop')
optim_wrapper = dict(
    type='OptimWrapper',
    optimizer=dict(type='AdamW', lr=2e-3, betas=(0.9, 0.98), weight_decay=0.01, fused=True),
    clip_grad=dict(max_norm=1.0),
)
param_scheduler = [
    dict(type='LinearLR', start_factor=0.01, by_epoch=False, begin=0, end=60),
    dict(
        type='LinearLR',
        start_factor=1.0,
        end_factor=0.01,
        by_epoch=False,
        begin=max_iters - anneal_iters,
        end=max_iters,
    ),
]
custom_hooks = [dict(type='genseg_mm.ParameterEMAHook', decay=0.998)]
default_hooks = dict(checkpoint=dict(interval=500, max_keep_ckpts=3))
auto_scale_lr = dict(enable=False, base_batch_size=4)
