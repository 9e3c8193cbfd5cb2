"""GenMask on scenes of recognisable objects: 200 kinds, twelve kinds of sentences, some about what is not there.

Paper: arXiv 2603.23906, joint timestep sampling with the long-tail law, joint with text-to-image generation, one step.
Masks are trained on nearly pure noise (a = 0.0005, from the base): further away from it the mask shows through its own
noise, and the text is not read.
Command: ``python tools/dataset_tools/prepare_objects.py``, once, then
``python tools/train.py configs/genmask/genmask_sana_objects_tiny.py``
Hardware: one CPU core, about 6 minutes where nothing else runs.
Expected: see configs/genmask/README.md, on scenes of objects.
"""

_base_ = [
    '../_base_/default_runtime.py',
    '../_base_/models/genmask_sana_tiny.py',
    '../_base_/datasets/objects_referring.py',
    '../_base_/schedules/adamw_cosine_tiny.py',
]

max_iters = 1600
train_cfg = dict(max_iters=max_iters, val_interval=max_iters // 4)
# The training loss does not rank models: the single-step mask does.
default_hooks = dict(checkpoint=dict(save_best='oIoU/scenes', rule='greater'))
optim_wrapper = dict(
    _delete_=True,
    type='OptimWrapper',
    constructor='genseg_mm.MuonOptimWrapperConstructor',
    paramwise_cfg=dict(muon_keys=(r'transformer_blocks\.\d+\.', r'encoder\.block\.\d+\.')),
    optimizer=dict(type='genseg_mm.MuonAdamW', lr=2e-3, betas=(0.9, 0.98), weight_decay=0.01),
    clip_grad=dict(max_norm=1.0),
)
param_scheduler = [
    dict(type='LinearLR', start_factor=0.01, by_epoch=False, begin=0, end=100),
    dict(
        type='CosineAnnealingLR', by_epoch=False, begin=max_iters * 2 // 5, end=max_iters
    ),
]
# Patches of 12 x 12 pixels: 8 x 8 tokens for a picture of 96 x 96.
model = dict(
    codec=dict(autoencoder=dict(weights='patch_codec_objects.safetensors')),
    backbone=dict(transformer=dict(in_channels=64, out_channels=32)),
    mask_head=dict(threshold=0.4),
    processing_size=96,
)
