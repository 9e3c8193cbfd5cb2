"""Generative pretraining of the tiny UNet: denoising of procedural scenes (v-prediction), no labels.

Paper: arXiv 2505.15263, its thesis that generative pretraining helps.
Gen2seg configs take the checkpoint by ``load_from``.
Command: ``python tools/train.py configs/gen2seg/gen2seg_unet_pretrain_shapes_tiny.py``
Hardware: 2 CPU cores.
Expected (seed 0): loss 0.23 after 2,000 iterations; what it brings: configs/gen2seg/README.md.
"""

_base_ = [
    '../_base_/default_runtime.py',
    '../_base_/models/gen2seg_unet_tiny.py',
    '../_base_/datasets/shapes_unlabelled.py',
]

max_iters = 3000
colorer = _base_.model.colorer
model = dict(_delete_=True, type='genseg_mm.GenerativePretraining', colorer=colorer)
train_cfg = dict(max_iters=max_iters)
optim_wrapper = dict(
    type='OptimWrapper',
    optimizer=dict(type='AdamW', lr=2e-3, betas=(0.9, 0.98), weight_decay=0.01, fused=True),
    clip_grad=dict(max_norm=1.0),
)
param_scheduler = [
    dict(type='LinearLR', start_factor=0.01, by_epoch=False, begin=0, end=100),
    dict(type='CosineAnnealingLR', by_epoch=False, begin=100, end=max_iters),
]
auto_scale_lr = dict(enable=False, base_batch_size=16)
