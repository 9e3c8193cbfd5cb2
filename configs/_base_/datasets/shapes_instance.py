# Procedural scenes of look-alike textured objects: raw colours do not tell one object from another.
train_pipeline = [
    dict(type='genseg_mm.RandomScenePermute'),
    dict(type='genseg_mm.RandomInstanceFlip', prob=0.5, direction='horizontal'),
    dict(type='genseg_mm.RandomInstanceFlip', prob=0.5, direction='vertical'),
    dict(type='genseg_mm.PackGenSegInputs'),
]
# ShapesDataset gives the ground truth and one random point of each instance itself.
test_pipeline = [dict(type='genseg_mm.PackGenSegInputs')]
image_size = (64, 64)

train_dataloader = dict(
    batch_size=8,
    num_workers=0,
    persistent_workers=False,
    sampler=dict(type='genseg_mm.RatioInfiniteSampler'),
    dataset=dict(
        type='genseg_mm.ShapesDataset',
        num_scenes=10000,
        image_size=image_size,
        task='instance',
        split='train',
        pipeline=train_pipeline,
    ),
)
# The threshold is chosen on 'val' and used on seen and unseen types of shapes.
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
                subset=subset,
                test_mode=True,
                pipeline=test_pipeline,
            )
            for num_scenes, split, shapes, subset in (
                (100, 'val', 'seen', 'val'),
                (200, 'test', 'seen', 'seen'),
                (200, 'test', 'unseen', 'unseen'),
            )
        ],
    ),
)
test_dataloader = val_dataloader
# On 64 x 64 maps the paper's 0.01 would mix the neighbours into the colour of the prompt.
val_evaluator = dict(type='genseg_mm.PointPromptMetric', threshold='calibrate', sigma=0.005)
test_evaluator = val_evaluator
