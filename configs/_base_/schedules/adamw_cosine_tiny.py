# AdamW with linear warm-up and cosine decay, for the tiny models. An update is a batch of every process, or
# global_batch_size samples where that is set. A leaf sets train_cfg.max_iters and the schedulers' ends.
optim_wrapper = dict(
    type='OptimWrapper',
    optimizer=dict(type='AdamW', lr=2e-3, betas=(0.9, 0.98), weight_decay=0.01, fused=True),
    clip_grad=dict(max_norm=1.0),
)
train_cfg = dict(type='genseg_mm.UpdateBasedTrainLoop', max_iters=2000, val_interval=500)
val_cfg = dict(type='ValLoop')
test_cfg = dict(type='TestLoop')
auto_scale_lr = dict(enable=False, base_batch_size=16)  # images of an update; a leaf may have others
