"""The shipped models of scenes of recognisable objects, and the controls, on held-out scenes.

Command: ``python tools/dataset_tools/prepare_objects.py`` once for the objects, then
``python tools/benchmark.py configs/benchmarks/objects.py`` (all models), or with more of them:
``... configs/benchmarks/objects.py shipped_unet mine=configs/gen2seg/gen2seg_unet_objects_tiny.py:CHECKPOINT``
Hardware: one CPU core.
Expected: see configs/genmask/README.md and configs/gen2seg/README.md, on scenes of objects.
"""

_base_ = [
    '../_base_/benchmarks/objects.py',
    '../_base_/benchmarks/tables.py',
]

default_scope = 'genseg_mm'
suite = dict(
    name='objects',
    title='Shipped models of scenes of objects',
    description='Models of one to three million parameters, trained on drawn scenes of recognisable objects on one CPU '
    'core. As in the gen2seg paper, masks of household things and ground transport alone were seen by the colorers.',
)
models = dict(
    shipped_genmask=dict(
        title='GenMask, shipped',
        config='configs/genmask/genmask_sana_objects_long_tiny.py',
        checkpoint='genseg_mm/weights/genmask_sana_objects.safetensors',
    ),
    shipped_unet=dict(
        title='gen2seg UNet, shipped',
        config='configs/gen2seg/gen2seg_unet_objects_long_tiny.py',
        checkpoint='genseg_mm/weights/gen2seg_unet_objects.safetensors',
    ),
    shipped_unet_tiles=dict(
        title='gen2seg UNet, shipped, in tiles',
        config='configs/gen2seg/gen2seg_unet_objects_long_tiny.py',
        checkpoint='genseg_mm/weights/gen2seg_unet_objects.safetensors',
        settings=dict(tiles=True),
    ),
    **_base_.controls,
)
benchmarks = dict(
    objects_referring=_base_.objects_referring,
    objects_points=_base_.objects_points,
    objects_labelled=_base_.objects_labelled,
    objects_unlabelled=_base_.objects_unlabelled,
)
tables = [
    dict(
        name='objects_referring',
        title='Scenes of objects: one sentence, one mask, or none (%)',
        note='200 kinds of objects; twelve kinds of sentences. Held-out wordings use words and phrases that training '
        'never has.',
        reported=None,
        protocol='every sentence; oIoU of the pixels of all',
        columns=[
            dict(name='oIoU', benchmark='objects_referring', metric='oIoU/scenes'),
            dict(name='mIoU', benchmark='objects_referring', metric='mIoU/scenes'),
            dict(name='oIoU, held-out wordings', benchmark='objects_referring', metric='oIoU/wordings'),
            dict(name='no target', benchmark='objects_referring', metric='N-acc'),
        ],
        rank_by='oIoU',
    ),
    dict(
        name='objects_points',
        title='Scenes of objects: one point per object, mIoU (%)',
        note='Kinds whose masks were trained on, and kinds never labelled. A score below the control with the true '
        'foreground has not shown that instances are told apart.',
        reported=None,
        protocol='one random interior pixel, radius chosen on val',
        columns=[
            dict(name=name, benchmark='objects_points', metric=f'{subset}_mIoU')
            for name, subset in (
                ('labelled', 'seen'),
                ('never labelled', 'unseen'),
                ('animals', 'animals'),
                ('food', 'food'),
                ('people', 'people'),
                ('faces', 'faces'),
            )
        ],
        rank_by='never labelled',
    ),
    dict(
        name='objects_instances',
        title='Scenes of objects: all instances without prompts, one class (%)',
        reported=None,
        protocol="COCO's AP and AR@100",
        columns=[
            dict(name=f'{metric}, {words}', benchmark=f'objects_{kind}', metric=metric)
            for kind, words in (('labelled', 'labelled'), ('unlabelled', 'never labelled'))
            for metric in ('AP', 'AR@100')
        ],
        rank_by='AP, never labelled',
    ),
]
