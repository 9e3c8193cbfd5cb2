# Procedural scenes as pictures alone, for generative pretraining: half on plain, half on textured grounds.
train_pipeline = [
    dict(type='genseg_mm.RandomScenePermute'),
    dict(type='mmseg.RandomFlip', prob=0.5, direction='horizontal'),
    dict(type='mmseg.RandomFlip', prob=0.5, direction='vertical'),
    dict(type='genseg_mm.PackGenSegInputs'),
]
train_dataloader = dict(
    batch_size=16,
    num_workers=0,
    persistent_workers=False,
    sampler=dict(type='genseg_mm.RatioInfiniteSampler', ratio=[1, 1], seed=0),
    dataset=dict(
        type='genseg_mm.MixedDataset',
        seed=0,
        datasets=[
            dict(
                type='genseg_mm.ShapesDataset',
                num_scenes=10000,
                image_size=(64, 64),
                task='instance',  # the instances are drawn, but nothing of the pretraining reads them
                split='train',
                grounds=ground,
                pipeline=train_pipeline,
            )
            for ground in ('plain', 'textured')
        ],
    ),
)
