# One point per COCO object of a novel class, zero-shot; for MAE colorers, at their square.
# Layout: <root>/coco/{val2017/, annotations/instances_val2017.json}; the root is the environment variable GENSEG_DATA
# (default: data).
coco_root = '{{$GENSEG_DATA:data}}/coco/'

test_pipeline = [
    dict(type='genseg_mm.LoadImage'),
    dict(type='genseg_mm.NetworkResize'),  # the size that the model asks for; tools and inferencer fill it in
    dict(type='genseg_mm.LoadInstanceMap', invalid='skip'),  # after that: ground truth and points at their size
    dict(type='genseg_mm.PointPrompt', mode='random', seed=0),
    dict(type='genseg_mm.PackGenSegInputs'),
]

val_dataloader = dict(
    batch_size=16,
    num_workers=4,
    persistent_workers=True,
    sampler=dict(type='mmengine.DefaultSampler', shuffle=False),
    dataset=dict(
        type='genseg_mm.CocoInstanceDataset',
        data_root=coco_root,
        ann_file='annotations/instances_val2017.json',
        data_prefix=dict(img='val2017/'),
        classes='coco_novel',
        filter_cfg=dict(filter_empty_gt=True),
        test_mode=True,
        indices=500,
        pipeline=test_pipeline,
    ),
)
# The paper reports COCO-L and COCO-M, by area of the annotation: large_mIoU and medium_mIoU, of one pass. Objects of
# all sizes are in one map, so that a small one takes its pixels from the large one under it.
test_dataloader = dict(
    batch_size=16,
    num_workers=4,
    persistent_workers=True,
    sampler=dict(type='mmengine.DefaultSampler', shuffle=False),
    dataset=dict(
        type='genseg_mm.CocoInstanceDataset',
        data_root=coco_root,
        ann_file='annotations/instances_val2017.json',
        data_prefix=dict(img='val2017/'),
        classes='coco_novel',
        filter_cfg=dict(filter_empty_gt=True),
        test_mode=True,
        pipeline=test_pipeline,
    ),
)
# The controls do not change from one validation to the next.
val_evaluator = dict(
    type='genseg_mm.PointPromptMetric', threshold='reference', size_bands=True, controls=False
)
test_evaluator = dict(type='genseg_mm.PointPromptMetric', threshold='reference', size_bands=True)
