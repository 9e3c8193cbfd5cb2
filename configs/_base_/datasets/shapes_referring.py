# Procedural scenes: referring segmentation jointly with text-to-image generation; nothing is downloaded.
train_pipeline = [
    dict(type='genseg_mm.TextPrompt'),
    dict(type='genseg_mm.PackGenSegInputs'),
]
test_pipeline = train_pipeline

train_dataloader = dict(
    batch_size=16,
    num_workers=0,
    persistent_workers=False,
    # One batch in sixteen is text-to-image. Whole batches of one task (group = batch_size) cost less than mixed ones:
    # captions are three times as long as expressions, and a batch is padded to its longest text.
    sampler=dict(type='genseg_mm.RatioInfiniteSampler', ratio=[15, 1], group=16),
    dataset=dict(
        type='genseg_mm.MixedDataset',
        datasets=[
            dict(
                type='genseg_mm.ShapesDataset',
                num_scenes=6000,
                task='referring',
                # Shapes are what takes longest to learn.
                kind_weights={'shape': 4, 'size-shape': 4},
                split='train',
                pipeline=train_pipeline,
            ),
            dict(
                type='genseg_mm.ShapesDataset',
                num_scenes=6000,
                task='text_to_image',
                split='train',
                pipeline=train_pipeline,
            ),
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
