# GenMask's 8,000 updates at global batch 1024 = 8 GPUs x 8 images x 16 accumulated iterations. MMEngine
# counts iterations (16 per update), also in warm-up and intervals. Learning rate, optimiser and warm-up are
# ours: the paper does not say.
accumulate = 16
max_iters = 8000 * accumulate
optim_wrapper = dict(
    type='genseg_mm.AutocastOptimWrapper',  # bfloat16
    optimizer=dict(type='AdamW', lr=5e-5, betas=(0.9, 0.95), weight_decay=0.01),
    clip_grad=dict(max_norm=1.0),
    accumulative_counts=accumulate,
)
param_scheduler = [
    dict(type='LinearLR', start_factor=1e-3, by_epoch=False, begin=0, end=500 * accumulate),
]
train_cfg = dict(
    type='IterBasedTrainLoop', max_iters=max_iters, val_interval=1000 * accumulate
)
val_cfg = dict(type='ValLoop')
test_cfg = dict(type='TestLoop')
auto_scale_lr = dict(enable=False, base_batch_size=1024)  # images of an update, accumulation and GPUs included
