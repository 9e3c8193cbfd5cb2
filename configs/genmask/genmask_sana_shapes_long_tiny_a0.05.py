"""First half of the shipped GenMask: as genmask_sana_shapes_tiny, wider and longer, with the paper's law of noise.

Paper: arXiv 2603.23906, joint timestep sampling (a = 0.05), joint with text-to-image generation, one step.
Command: ``python tools/train.py configs/genmask/genmask_sana_shapes_long_tiny_a0.05.py``
Hardware: one CPU core, 68 minutes, eleven validations included.
Expected (seed 0): oIoU 88.3 on held-out scenes; genmask_sana_shapes_long_tiny.py goes on from here.
"""

_base_ = ['./genmask_sana_shapes_tiny.py']

max_iters = 22000
model = dict(
    backbone=dict(
        transformer=dict(
            num_attention_heads=4, num_cross_attention_heads=4, cross_attention_dim=128
        )
    ),
    mask_head=dict(threshold=0.45, timesteps=dict(mask=dict(a=0.05))),  # threshold: chosen on val
)
pipeline = [dict(type='genseg_mm.TextPrompt'), dict(type='genseg_mm.PackGenSegInputs')]
scenes = dict(type='genseg_mm.ShapesDataset', num_scenes=40000, split='train', pipeline=pipeline)
# Shapes are what takes longest to learn: half of the batches ask for nothing else.
train_dataloader = dict(
    batch_size=16,
    sampler=dict(ratio=[7, 8, 1], group=16),
    dataset=dict(
        datasets=[
            dict(task='referring', **scenes),
            dict(task='referring', kinds=('shape', 'size-shape'), seed=1, **scenes),
            dict(task='text_to_image', **scenes),
        ]
    ),
)
train_cfg = dict(max_iters=max_iters, val_interval=2000)
param_scheduler = [
    dict(type='LinearLR', start_factor=0.01, by_epoch=False, begin=0, end=200),
    dict(type='CosineAnnealingLR', by_epoch=False, begin=max_iters // 4, end=max_iters),
]
