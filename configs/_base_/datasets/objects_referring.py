# Scenes of recognisable objects: referring segmentation jointly with text-to-image generation. The bank of objects
# comes from `python tools/dataset_tools/prepare_objects.py`.
train_pipeline = [
    dict(type='genseg_mm.TextPrompt'),
    dict(type='genseg_mm.PackGenSegInputs'),
]
test_pipeline = train_pipeline

# People are left out: many differ by a gesture or by colours that a small picture does not show.
objects = dict(
    type='genseg_mm.ObjectScenesDataset',
    image_size=96,
    exclude_groups=['People & Body'],
    num_names=200,
)
train_dataloader = dict(
    batch_size=16,
    num_workers=0,
    persistent_workers=False,
    # One batch in eight is text-to-image. Whole batches of one task (group = batch_size) cost less than mixed ones.
    sampler=dict(type='genseg_mm.RatioInfiniteSampler', ratio=[7, 1], group=16),
    dataset=dict(
        type='genseg_mm.MixedDataset',
        datasets=[
            dict(
                objects,
                num_scenes=8000,
                task='referring',
                split='train',
                # What all other kinds rest on. The sentence is drawn again at each visit of a scene.
                kind_weights={'name': 4},
                cache=True,
                pipeline=train_pipeline,
            ),
            dict(
                objects,
                num_scenes=8000,
                task='text_to_image',
                split='train',
                pipeline=train_pipeline,
            ),
        ],
    ),
)
# New scenes, and new scenes in words and phrases that training never has: one sentence of each kind and scene.
val_dataloader = dict(
    batch_size=100,
    num_workers=0,
    persistent_workers=False,
    sampler=dict(type='mmengine.DefaultSampler', shuffle=False),
    dataset=dict(
        type='mmengine.ConcatDataset',
        datasets=[
            dict(
                objects,
                num_scenes=100,
                task='referring',
                split='val',
                wordings=wordings,
                subset=subset,
                test_mode=True,
                max_items=300,
                pipeline=test_pipeline,
            )
            for subset, wordings in (('scenes', 'train'), ('wordings', 'held_out'))
        ],
    ),
)
test_dataloader = dict(
    val_dataloader,
    dataset=dict(
        type='mmengine.ConcatDataset',
        datasets=[
            dict(part, split='test', num_scenes=300, max_items=None)
            for part in val_dataloader['dataset']['datasets']
        ],
    ),
)
# A mask smaller than the smallest object says that nothing is meant: N-acc is the accuracy of sentences about objects
# that are not there.
val_evaluator = dict(
    type='genseg_mm.ReferringMetric',
    protocol='grefcoco',
    min_pixels=20,
    breakdown=('subset', 'kind'),
)
test_evaluator = val_evaluator
