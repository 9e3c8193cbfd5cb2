"""The shipped GenMask: goes on from genmask_sana_shapes_long_tiny_a0.05.py on nearly pure noise, with more pictures.

Paper: arXiv 2603.23906, joint timestep sampling, joint with text-to-image generation, one step.
Command: ``python tools/train.py configs/genmask/genmask_sana_shapes_long_tiny.py --cfg-options load_from=CHECKPOINT``,
CHECKPOINT being the last one of the other config (here its published weights, rounded to float16)
Hardware: one CPU core, 26 minutes, seven validations included.
Expected (seed 0): oIoU 88.6 on held-out scenes, every kind of expression.
Shipped as genseg_mm/weights/genmask_sana_shapes.safetensors.
"""

_base_ = ['./genmask_sana_shapes_long_tiny_a0.05.py']

max_iters = 3500
# Near pure noise the mask cannot be read off its own noisy latents: the text has to say which object is meant.
model = dict(mask_head=dict(timesteps=dict(mask=dict(a=0.0005))))
train_dataloader = dict(sampler=dict(ratio=[5, 5, 6]))
optim_wrapper = dict(optimizer=dict(lr=1e-3))
param_scheduler = [
    dict(type='LinearLR', start_factor=0.01, by_epoch=False, begin=0, end=100),
    dict(type='CosineAnnealingLR', by_epoch=False, begin=100, end=max_iters),
]
train_cfg = dict(max_iters=max_iters, val_interval=500)
