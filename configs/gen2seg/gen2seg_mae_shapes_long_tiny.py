"""The shipped tiny ViT-MAE: from scratch, instance-coloring loss only, plain and textured grounds, Muon, longer.

Paper: arXiv 2505.15263; the mechanism of its MAE rows, without their pretraining and not their numbers.
Command: ``python tools/train.py configs/gen2seg/gen2seg_mae_shapes_long_tiny.py``
Hardware: one CPU core, 80 minutes, eight validations included.
Expected (seed 0, one random pixel of each instance): mIoU 81.7 on seen and 67.6 on unseen shapes,
76.4 and 57.5 on textured grounds, collapse share 0.09; oracle foreground 54.2 / 52.5 on either ground.
Shipped as genseg_mm/weights/gen2seg_mae_shapes.safetensors.
"""

_base_ = [
    '../_base_/default_runtime.py',
    '../_base_/models/gen2seg_mae_tiny.py',
    '../_base_/datasets/shapes_instance_textured.py',
]

max_iters = 32000
model = dict(
    colorer=dict(config=dict(num_hidden_layers=6)),
    prompting=dict(radius=20.0),  # chosen on 'val', as in the metric
)
train_dataloader = dict(batch_size=4)
train_cfg = dict(max_iters=max_iters, val_interval=4000)
val_cfg = dict(type='ValLoop')
test_cfg = dict(type='TestLoop')
optim_wrapper = dict(
    type='OptimWrapper',
    constructor='genseg_mm.MuonOptimWrapperConstructor',
    optimizer=dict(type='genseg_mm.MuonAdamW', lr=3e-3, betas=(0.9, 0.98), weight_decay=0.01),
    clip_grad=dict(max_norm=1.0),
)
param_scheduler = [
    dict(type='LinearLR', start_factor=0.01, by_epoch=False, begin=0, end=100),
    dict(type='CosineAnnealingLR', by_epoch=False, begin=100, end=max_iters),
]
auto_scale_lr = dict(enable=False, base_batch_size=4)
