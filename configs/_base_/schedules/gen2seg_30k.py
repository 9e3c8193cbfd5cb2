# gen2seg's 30,000 updates at global batch 32 = 4 GPUs x 2 images x 4 accumulated iterations. MMEngine counts iterations
# (4 per update), also in warm-up, decay and intervals. float32 throughout, as in the reference.
accumulate = 4
max_iters = 30000 * accumulate
optim_wrapper = dict(
    type='OptimWrapper',
    optimizer=dict(type='AdamW', lr=6e-5, betas=(0.9, 0.999), weight_decay=1e-2),
    clip_grad=dict(max_norm=1.0),
    accumulative_counts=accumulate,
)
# 100 updates of warm-up, then exponentially to 0.05 of the peak at update 40,000 (the training ends before).
param_scheduler = [
    dict(type='LinearLR', start_factor=0.01, by_epoch=False, begin=0, end=100 * accumulate),
    dict(
        type='ExponentialLR',
        gamma=0.05 ** (1 / ((40000 - 100) * accumulate)),
        by_epoch=False,
        begin=100 * accumulate,
        end=max_iters,
    ),
]
train_cfg = dict(type='IterBasedTrainLoop', max_iters=max_iters, val_interval=5000 * accumulate)
val_cfg = dict(type='ValLoop')
test_cfg = dict(type='TestLoop')
auto_scale_lr = dict(enable=False, base_batch_size=32)  # images of an update, accumulation and GPUs included
