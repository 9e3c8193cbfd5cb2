# GenMask's 8,000 updates of 1,024 samples. Everything counts updates, which are 16 micro-batches on 8 GPUs with 8
# samples each, two on 64. Learning rate, optimiser and warm-up are ours: the paper does not say.
global_batch_size = 1024
optim_wrapper = dict(
    type='genseg_mm.AutocastOptimWrapper',  # bfloat16
    optimizer=dict(type='AdamW', lr=5e-5, betas=(0.9, 0.95), weight_decay=0.01),
    clip_grad=dict(max_norm=1.0),
)
param_scheduler = [dict(type='LinearLR', start_factor=1e-3, by_epoch=False, begin=0, end=500)]
train_cfg = dict(type='genseg_mm.UpdateBasedTrainLoop', max_iters=8000, val_interval=1000)
val_cfg = dict(type='ValLoop')
test_cfg = dict(type='TestLoop')
auto_scale_lr = dict(enable=False, base_batch_size=1024)  # samples of an update
