"""Toy training on CPU in seconds; run with tests/ on PYTHONPATH."""

_base_ = ['../../configs/_base_/default_runtime.py']
default_scope = 'mmengine'
custom_imports = dict(imports=['toy_parts'], allow_failed_imports=False)

model = dict(type='ToyModel')
_dataset = dict(type='ToyDataset')
train_dataloader = dict(
    batch_size=4,
    num_workers=0,
    dataset=dict(type='genseg_mm.MixedDataset', datasets=[_dataset]),
    sampler=dict(type='genseg_mm.RatioInfiniteSampler'),
)
val_dataloader = dict(
    batch_size=3,
    dataset=dict(type='ToyDataset', num_samples=10),
    sampler=dict(type='DefaultSampler', shuffle=False),
)
test_dataloader = val_dataloader
val_evaluator = dict(type='ToyIoU')
test_evaluator = val_evaluator

train_cfg = dict(type='IterBasedTrainLoop', max_iters=20, val_interval=10)
val_cfg = dict(type='ValLoop')
test_cfg = dict(type='TestLoop')
optim_wrapper = dict(type='OptimWrapper', optimizer=dict(type='AdamW', lr=0.01))
param_scheduler = [dict(type='LinearLR', start_factor=0.1, by_epoch=False, end=10)]
auto_scale_lr = dict(enable=False, base_batch_size=8)

default_hooks = dict(
    logger=dict(interval=1),
    checkpoint=dict(interval=5, save_best='toy/oIoU'),
    visualization=dict(num_images=3),
)
log_processor = dict(window_size=1)
