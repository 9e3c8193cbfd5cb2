# Scenes of recognisable objects, held out: sentences, and one point per object. Their bank of objects comes from
# `python tools/dataset_tools/prepare_objects.py`; nothing else is downloaded.
objects_referring = dict(
    task='referring',
    title='Scenes of objects: sentences',
    protocol='300 held-out scenes of 200 kinds of objects, one sentence of each kind that is true of a scene, some '
    'about nothing there; oIoU = sum of intersections / sum of unions; N-acc: no target, and fewer than 20 pixels',
    dataset=dict(
        type='mmengine.ConcatDataset',
        datasets=[
            dict(
                type='genseg_mm.ObjectScenesDataset',
                num_scenes=300,
                image_size=96,
                exclude_groups=['People & Body'],
                num_names=200,
                task='referring',
                split='test',
                wordings=wordings,
                subset=subset,
                test_mode=True,
                pipeline=[
                    dict(type='model_resize'),
                    dict(type='genseg_mm.TextPrompt'),
                    dict(type='genseg_mm.PackGenSegInputs'),
                ],
            )
            for subset, wordings in (('scenes', 'train'), ('wordings', 'held_out'))
        ],
    ),
    evaluator=dict(
        type='genseg_mm.ReferringMetric',
        protocol='grefcoco',
        min_pixels=20,
        breakdown=('subset', 'kind'),
    ),
    tolerance=0.05,
)
# One radius is chosen on 'val', labelled kinds, and used on all other parts, which show the same compositions of other
# objects. On 96 x 96 maps the paper's sigma of 0.01 would mix the neighbours into the colour of the prompt.
objects_points = dict(
    task='points',
    title='Scenes of objects: points',
    protocol='one random pixel of each object, seed 0; nearest colours within one radius, chosen on 100 scenes of '
    'their own; mean IoU over the objects of 200 scenes per set',
    dataset=dict(
        type='mmengine.ConcatDataset',
        datasets=[
            dict(
                type='genseg_mm.ObjectScenesDataset',
                num_scenes=num_scenes,
                image_size=(96, 96),
                task='instance',
                split=split,
                groups=groups,
                subset=subset,
                test_mode=True,
                pipeline=[dict(type='model_resize'), dict(type='genseg_mm.PackGenSegInputs')],
            )
            for num_scenes, split, groups, subset in (
                (100, 'val', ('household', 'transport-ground'), 'val'),
                (200, 'test', ('household', 'transport-ground'), 'seen'),
                (200, 'test', ('animal', 'food', 'person', 'face'), 'unseen'),
                (200, 'test', ('animal',), 'animals'),
                (200, 'test', ('food',), 'food'),
                (200, 'test', ('person',), 'people'),
                (200, 'test', ('face',), 'faces'),
            )
        ],
    ),
    evaluator=dict(
        type='genseg_mm.PointPromptMetric',
        threshold='calibrate',
        sigma=0.005,
        controls=False,
        size_bands=(12, 24),
    ),
    tolerance=0.05,
)
# Without prompts, and of one class. Mean over both sets is of no use: a benchmark each.
objects_labelled, objects_unlabelled = (
    dict(
        task='instances',
        title=f'Scenes of objects: instances, {words}',
        protocol="masks without prompts, one class, 200 scenes; COCO's AP (IoU 0.50 to 0.95) and AR@100",
        model=dict(automatic=True),
        dataset=dict(
            type='genseg_mm.ObjectScenesDataset',
            num_scenes=200,
            image_size=(96, 96),
            task='instance',
            split='test',
            groups=groups,
            test_mode=True,
            pipeline=[
                dict(type='model_resize'),
                dict(
                    type='genseg_mm.PackGenSegInputs',
                    meta_keys=(
                        'img_path',
                        'img_id',
                        'ori_shape',
                        'img_shape',
                        'sample_idx',
                        'instances',
                    ),
                ),
            ],
        ),
        evaluator=dict(type='genseg_mm.ClassAgnosticCocoMetric'),
        tolerance=0.05,
    )
    for words, groups in (
        ('labelled kinds', ('household', 'transport-ground')),
        ('kinds never labelled', ('animal', 'food', 'person', 'face')),
    )
)
