"""GenMask on RefCOCO and captions with the tiny Sana model: the data path of ``refcoco.py`` on a CPU.

Command: ``tools/dist_train.sh configs/genmask/refcoco_tiny.py 2`` (GENSEG_DATA names the folder that holds coco/)
Hardware: 2 CPU cores, 5 minutes. Expected: oIoU above 80 on the pictures it was trained on, when these are a handful (a
check of the whole path); it is not a model to report numbers of.
"""

_base_ = [
    '../_base_/default_runtime.py',
    '../_base_/models/genmask_sana_tiny.py',
    '../_base_/datasets/refcoco.py',
    '../_base_/schedules/adamw_cosine_tiny.py',
]

image_size = (96, 96)
resize = dict(type='genseg_mm.AntialiasedResize', scale=image_size, backend='pillow')
train_pipeline, test_pipeline = [
    [resize if step['type'] == resize['type'] else step for step in pipeline]
    for pipeline in (_base_.train_pipeline, _base_.test_pipeline)
]
caption_pipeline = [
    dict(type='genseg_mm.LoadImage'),
    dict(
        type='genseg_mm.AntialiasedResize', scale=(96, 10**6), keep_ratio=True, backend='pillow'
    ),
    dict(type='mmcv.CenterCrop', crop_size=96),
    dict(type='genseg_mm.TextPrompt'),
    dict(type='genseg_mm.PackGenSegInputs'),
]
captions = dict(
    ann_file='annotations/captions_val2017.json',
    data_prefix=dict(img_path='val2017/'),
    pipeline=caption_pipeline,
)

max_iters = 600
train_cfg = dict(max_iters=max_iters, val_interval=200)
default_hooks = dict(checkpoint=dict(save_best='oIoU'))
param_scheduler = [
    dict(type='LinearLR', start_factor=0.01, by_epoch=False, begin=0, end=100),
    dict(type='CosineAnnealingLR', by_epoch=False, begin=100, end=max_iters),
]
train_dataloader = dict(
    batch_size=8,
    num_workers=1,
    sampler=dict(exact=False, group=8),  # drawn for each update, a single batch
    dataset=dict(
        datasets=[
            dict(_base_.refcoco, split='train', pipeline=train_pipeline),
            {**_base_.captions, **captions},
        ]
    ),
)
val_dataloader = dict(
    num_workers=0, persistent_workers=False, dataset=dict(pipeline=test_pipeline)
)
test_dataloader = val_dataloader
auto_scale_lr = dict(enable=False, base_batch_size=8)
