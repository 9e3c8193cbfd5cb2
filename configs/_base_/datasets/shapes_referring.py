# Procedural scenes: referring segmentation jointly with text-to-image generation; nothing is downloaded.
train_pipeline = [
    dict(type='genseg_mm.TextPrompt'),
    dict(type='genseg_mm.PackGenSegInputs'),
]
test_pipeline = train_pipeline

train_dataloader = dict(
    batch_size=32,
    num_workers=0,
    persistent_workers=False,
    # Of 8 samples, 4 have any kind of expression, 3 one that colour alone does not answer (else the tiny
    # model takes its time to learn shapes), and 1 is text-to-image.
    sampler=dict(type='genseg_mm.RatioInfiniteSampler', ratio=[4, 3, 1]),
    dataset=dict(
        type='genseg_mm.MixedDataset',
        datasets=[
            dict(
                type='genseg_mm.ShapesDataset',
                num_scenes=4000,
                split='train',
                pipeline=train_pipeline,
                **settings,
            )
            for settings in (
                dict(task='referring'),
                dict(task='referring', kinds=['shape', 'size-shape', 'spatial']),
                dict(task='text_to_image'),
            )
        ],
    ),
)
val_dataloader = dict(
    batch_size=100,
    num_workers=0,
    persistent_workers=False,
    sampler=dict(type='mmengine.DefaultSampler', shuffle=False),
    dataset=dict(
        type='genseg_mm.ShapesDataset',
        num_scenes=100,
        task='referring',
        split='val',
        test_mode=True,
        max_items=300,
        pipeline=test_pipeline,
    ),
)
test_dataloader = dict(
    batch_size=100,
    num_workers=0,
    persistent_workers=False,
    sampler=dict(type='mmengine.DefaultSampler', shuffle=False),
    dataset=dict(
        type='genseg_mm.ShapesDataset',
        num_scenes=200,
        task='referring',
        split='test',
        test_mode=True,
        pipeline=test_pipeline,
    ),
)
val_evaluator = dict(type='genseg_mm.ReferringMetric', per_kind=True)
test_evaluator = val_evaluator
