# gen2seg's 30,000 updates. MMEngine counts iterations (4 per update), also in warm-up, decay and intervals. float32
# throughout, as in the reference.
# The public code gives all its 4 GPUs the same pictures (its loader is no DataLoader, so accelerate leaves it alone,
# and all ranks have one seed): 8 different ones per update = 2 x 4 accumulated iterations. That run is this config on
# ONE GPU. On four GPUs it sees 32 per update, which is what the paper states.
accumulate = 4
max_iters = 30000 * accumulate
optim_wrapper = dict(
    type='OptimWrapper',
    optimizer=dict(type='AdamW', lr=6e-5, betas=(0.9, 0.999), weight_decay=1e-2),
    clip_grad=dict(max_norm=1.0),
    accumulative_counts=accumulate,
)
# Update k has k / 100 of the peak, the first one 0; from update 100 on exponentially to 0.05 of it at update 40,000
# (the training ends before). An update is made in the last of its iterations, so the ramp begins there.
param_scheduler = [
    dict(
        type='LinearLR',
        start_factor=1e-8,
        by_epoch=False,
        begin=accumulate - 1,
        end=101 * accumulate,
    ),
    dict(
        type='ExponentialLR',
        gamma=0.05 ** (1 / ((40000 - 100) * accumulate)),
        by_epoch=False,
        begin=101 * accumulate - 1,
        end=max_iters,
    ),
]
train_cfg = dict(type='IterBasedTrainLoop', max_iters=max_iters, val_interval=5000 * accumulate)
val_cfg = dict(type='ValLoop')
test_cfg = dict(type='TestLoop')
auto_scale_lr = dict(enable=False, base_batch_size=32)  # images of an update, accumulation and GPUs included
