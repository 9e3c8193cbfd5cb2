# gen2seg's 30,000 updates. float32 throughout, as in the reference.
# global_batch_size=8 is what the released weights were trained with: the public code gives all its 4 GPUs the same
# pictures (its loader is no DataLoader, so accelerate leaves it alone, and all ranks have one seed), 2 in each of 4
# accumulated iterations. The paper states 32: --cfg-options global_batch_size=32. Both run on 1, 2 or 4 GPUs.
global_batch_size = 8
max_iters = 30000
optim_wrapper = dict(
    type='OptimWrapper',
    optimizer=dict(type='AdamW', lr=6e-5, betas=(0.9, 0.999), weight_decay=1e-2),
    clip_grad=dict(max_norm=1.0),
)
# Update k has k / 100 of the peak, the first one 0; from update 100 on exponentially to 0.05 of it at update 40,000
# (the training ends before).
param_scheduler = [
    dict(type='LinearLR', start_factor=1e-8, by_epoch=False, begin=0, end=101),
    dict(
        type='ExponentialLR',
        gamma=0.05 ** (1 / (40000 - 100)),
        by_epoch=False,
        begin=100,
        end=max_iters,
    ),
]
train_cfg = dict(type='genseg_mm.UpdateBasedTrainLoop', max_iters=max_iters, val_interval=5000)
val_cfg = dict(type='ValLoop')
test_cfg = dict(type='TestLoop')
auto_scale_lr = dict(enable=False, base_batch_size=8)  # samples of an update
