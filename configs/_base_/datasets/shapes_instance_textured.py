# Procedural scenes of look-alike textured objects, half of them on plain grounds and half on grounds textured with the
# objects' own palette. One stream of samples for all processes: a run may be resumed with another number of them.
train_pipeline = [
    dict(type='genseg_mm.RandomScenePermute'),
    dict(type='mmseg.RandomFlip', prob=0.5, direction='horizontal'),
    dict(type='mmseg.RandomFlip', prob=0.5, direction='vertical'),
    dict(type='genseg_mm.PackGenSegInputs'),
]
test_pipeline = [dict(type='genseg_mm.PackGenSegInputs')]
image_size = (64, 64)
grounds = ('plain', 'textured')

train_dataloader = dict(
    batch_size=8,
    num_workers=0,
    persistent_workers=False,
    sampler=dict(type='genseg_mm.RatioInfiniteSampler', ratio=[1, 1], seed=0),
    dataset=dict(
        type='genseg_mm.MixedDataset',
        seed=0,
        datasets=[
            dict(
                type='genseg_mm.ShapesDataset',
                num_scenes=20000,
                image_size=image_size,
                task='instance',
                split='train',
                grounds=ground,
                pipeline=train_pipeline,
            )
            for ground in grounds
        ],
    ),
)
# One radius is chosen on 'val' (both grounds) and used on all other parts.
val_dataloader = dict(
    batch_size=50,
    num_workers=0,
    persistent_workers=False,
    sampler=dict(type='mmengine.DefaultSampler', shuffle=False),
    dataset=dict(
        type='mmengine.ConcatDataset',
        datasets=[
            dict(
                type='genseg_mm.ShapesDataset',
                num_scenes=num_scenes,
                image_size=image_size,
                task='instance',
                split=split,
                shapes=shapes,
                grounds=ground,
                subset='val' if split == 'val' else prefix + shapes,
                test_mode=True,
                pipeline=test_pipeline,
            )
            for ground, prefix in (('plain', ''), ('textured', 'textured_'))
            for num_scenes, split, shapes in (
                (100, 'val', 'seen'),
                (200, 'test', 'seen'),
                (200, 'test', 'unseen'),
            )
        ],
    ),
)
test_dataloader = val_dataloader
val_evaluator = dict(type='genseg_mm.PointPromptMetric', sigma=0.005)
test_evaluator = val_evaluator
