# RefCOCO (UNC split). Layout: <root>/coco/{train2014/, refcoco/{instances.json, refs(unc).p}}; the root is
# the environment variable GENSEG_DATA (default: data).
data_root = '{{$GENSEG_DATA:data}}/coco/'
image_size = (512, 512)  # (width, height), as mmcv's Resize takes it

train_pipeline = [
    dict(type='genseg_mm.LoadImage'),
    dict(type='genseg_mm.LoadReferringMask'),
    dict(type='mmcv.Resize', scale=image_size, keep_ratio=False),
    dict(type='genseg_mm.TextPrompt'),  # no flip: expressions say left and right
    dict(type='genseg_mm.PackGenSegInputs'),
]
test_pipeline = [
    dict(type='genseg_mm.LoadImage'),
    dict(type='mmcv.Resize', scale=image_size, keep_ratio=False),
    dict(type='genseg_mm.LoadReferringMask'),  # after Resize: ground truth stays at its size
    dict(type='genseg_mm.TextPrompt'),
    dict(type='genseg_mm.PackGenSegInputs'),
]

train_dataloader = dict(
    batch_size=8,
    num_workers=4,
    persistent_workers=True,
    sampler=dict(type='genseg_mm.RatioInfiniteSampler'),
    dataset=dict(
        type='genseg_mm.RefCOCODataset',
        data_root=data_root,
        ann_file='refcoco/instances.json',
        split_file='refcoco/refs(unc).p',
        data_prefix=dict(img_path='train2014/'),
        split='train',
        pipeline=train_pipeline,
    ),
)
val_dataloader = dict(
    batch_size=8,
    num_workers=4,
    persistent_workers=True,
    sampler=dict(type='mmengine.DefaultSampler', shuffle=False),
    dataset=dict(
        type='genseg_mm.RefCOCODataset',
        data_root=data_root,
        ann_file='refcoco/instances.json',
        split_file='refcoco/refs(unc).p',
        data_prefix=dict(img_path='train2014/'),
        split='val',
        test_mode=True,
        pipeline=test_pipeline,
    ),
)
test_dataloader = val_dataloader  # other splits: --cfg-options test_dataloader.dataset.split=testA
val_evaluator = dict(type='genseg_mm.ReferringMetric', protocol='lavt')
test_evaluator = val_evaluator
