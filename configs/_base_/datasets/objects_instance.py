# Scenes of recognisable objects (tools/dataset_tools/prepare_objects.py makes their bank). As in the paper, masks are
# of household things and ground transport alone; animals, food, people and faces have none in training.
train_pipeline = [
    dict(type='genseg_mm.RandomScenePermute'),
    dict(type='genseg_mm.RandomInstanceFlip', prob=0.5, direction='horizontal'),
    dict(type='genseg_mm.PackGenSegInputs'),
]
# ObjectScenesDataset gives the ground truth and one random point of each instance itself.
test_pipeline = [dict(type='genseg_mm.PackGenSegInputs')]
image_size = (96, 96)
labelled = ('household', 'transport-ground')
never_labelled = ('animal', 'food', 'person', 'face')

train_dataloader = dict(
    batch_size=8,
    num_workers=0,
    persistent_workers=False,
    sampler=dict(type='genseg_mm.RatioInfiniteSampler'),
    dataset=dict(
        type='genseg_mm.ObjectScenesDataset',
        num_scenes=100000,
        image_size=image_size,
        task='instance',
        split='train',
        groups=labelled,
        pipeline=train_pipeline,
    ),
)
# The threshold is chosen on 'val', labelled kinds. All parts of the test split have the same compositions of other
# objects. 'unseen' mixes the never labelled kinds in a scene.
held_out = [
    dict(
        type='genseg_mm.ObjectScenesDataset',
        num_scenes=num_scenes,
        image_size=image_size,
        task='instance',
        split=split,
        groups=groups,
        subset=subset,
        test_mode=True,
        pipeline=test_pipeline,
    )
    for num_scenes, split, groups, subset in (
        (100, 'val', labelled, 'val'),
        (200, 'test', labelled, 'seen'),
        (200, 'test', never_labelled, 'unseen'),
        (100, 'test', ('animal',), 'animals'),
        (100, 'test', ('food',), 'food'),
        (100, 'test', ('person',), 'people'),
        (100, 'test', ('face',), 'faces'),
    )
]
val_dataloader = dict(
    batch_size=50,
    num_workers=0,
    persistent_workers=False,
    sampler=dict(type='mmengine.DefaultSampler', shuffle=False),
    dataset=dict(type='mmengine.ConcatDataset', datasets=held_out[:3]),
)
test_dataloader = dict(val_dataloader, dataset=dict(val_dataloader['dataset'], datasets=held_out))
# On small maps the paper's 0.01 would mix the neighbours into the colour of the prompt. The bands split the objects
# of these scenes evenly.
val_evaluator = dict(
    type='genseg_mm.PointPromptMetric', threshold='calibrate', sigma=0.005, size_bands=(12, 24)
)
test_evaluator = val_evaluator
