# RefCOCO (UNC split) jointly with text-to-image generation on COCO captions, 1 : 1 (the paper's ratio; its caption data
# are unknown, these are ours). Layout: <root>/coco/{train2014/, refcoco/{instances.json, refs(unc).p},
# annotations/captions_train2014.json}; the root is the environment variable GENSEG_DATA (default: data).
data_root = '{{$GENSEG_DATA:data}}/coco/'
image_size = (512, 512)  # (width, height), as AntialiasedResize takes it

train_pipeline = [
    dict(type='genseg_mm.LoadImage'),
    dict(type='genseg_mm.LoadReferringMask'),
    dict(type='genseg_mm.AntialiasedResize', scale=image_size, backend='pillow'),
    dict(type='genseg_mm.TextPrompt'),  # no flip: expressions say left and right (RandomReferringFlip swaps the words)
    dict(type='genseg_mm.PackGenSegInputs'),
]
caption_pipeline = [  # the middle square: a picture to be generated keeps its proportions
    dict(type='genseg_mm.LoadImage'),
    dict(
        type='genseg_mm.AntialiasedResize', scale=(512, 10**6), keep_ratio=True, backend='pillow'
    ),
    dict(type='mmcv.CenterCrop', crop_size=512),
    dict(type='genseg_mm.TextPrompt'),
    dict(type='genseg_mm.PackGenSegInputs'),
]
test_pipeline = [
    dict(type='genseg_mm.LoadImage'),
    dict(type='genseg_mm.AntialiasedResize', scale=image_size, backend='pillow'),
    dict(type='genseg_mm.LoadReferringMask'),  # after Resize: ground truth stays at its size
    dict(type='genseg_mm.TextPrompt'),
    dict(type='genseg_mm.PackGenSegInputs'),
]
refcoco = dict(
    type='genseg_mm.RefCOCODataset',
    data_root=data_root,
    ann_file='refcoco/instances.json',
    split_file='refcoco/refs(unc).p',
    data_prefix=dict(img_path='train2014/'),
)
captions = dict(
    type='genseg_mm.CocoCaptionsDataset',
    data_root=data_root,
    ann_file='annotations/captions_train2014.json',
    data_prefix=dict(img_path='train2014/'),
    exclude_images=['refcoco/refs(unc).p'],  # no picture that is tested on
    pipeline=caption_pipeline,
)

train_dataloader = dict(
    batch_size=8,
    num_workers=4,
    persistent_workers=True,
    # Exactly half of every update. A batch has one task, the same on all ranks: mixed ones take two forwards of Wan.
    sampler=dict(type='genseg_mm.RatioInfiniteSampler', ratio=[1, 1], exact=True),
    dataset=dict(
        type='genseg_mm.MixedDataset',
        datasets=[dict(refcoco, split='train', pipeline=train_pipeline), captions],
    ),
)
val_dataloader = dict(
    batch_size=8,
    num_workers=4,
    persistent_workers=True,
    sampler=dict(type='genseg_mm.PictureSampler'),  # a picture is encoded once for its sentences
    dataset=dict(refcoco, split='val', test_mode=True, pipeline=test_pipeline),
)
test_dataloader = val_dataloader  # other splits: --cfg-options test_dataloader.dataset.split=testA
val_evaluator = dict(type='genseg_mm.ReferringMetric', protocol='lavt')
test_evaluator = val_evaluator
