"""The shipped tiny models and the controls on procedural scenes and on tiny copies of every benchmark's format.

Command: ``python tools/benchmark.py configs/benchmarks/tiny.py`` (all models), or with more of them:
``... configs/benchmarks/tiny.py shipped_unet mine=configs/gen2seg/gen2seg_unet_shapes_tiny.py:CHECKPOINT``
Hardware: one CPU core.
Expected: oIoU 88.6 of the shipped GenMask; mIoU 82.1 / 67.9 of the shipped UNet, 81.7 / 67.6 of the shipped MAE on
seen and unseen shapes. Numbers on the tiny copies (a handful of painted pictures) mean nothing but that all runs.
"""

_base_ = [
    '../_base_/benchmarks/shapes.py',
    '../_base_/benchmarks/refcoco.py',
    '../_base_/benchmarks/grefcoco.py',
    '../_base_/benchmarks/reasonseg.py',
    '../_base_/benchmarks/coco.py',
    '../_base_/benchmarks/dram.py',
    '../_base_/benchmarks/egohos.py',
    '../_base_/benchmarks/ishape.py',
    '../_base_/benchmarks/pidray.py',
    '../_base_/benchmarks/bsds500.py',
    '../_base_/benchmarks/tables.py',
]

default_scope = 'genseg_mm'
suite = dict(
    name='tiny',
    title='Shipped tiny models',
    description='Models of about a million parameters, trained on procedural scenes on one CPU core. They show that '
    'the code learns and that every benchmark runs; they say nothing about how good the methods are.',
    make_data='tools/dataset_tools/make_tiny_benchmarks.py',
    data_root='work_dirs/tiny_data',
)
models = dict(
    shipped_genmask=dict(
        title='GenMask, shipped (1.3 M)',
        config='configs/genmask/genmask_sana_shapes_long_tiny.py',
        checkpoint='genseg_mm/weights/genmask_sana_shapes.safetensors',
    ),
    shipped_unet=dict(
        title='gen2seg UNet, shipped (1.2 M)',
        config='configs/gen2seg/gen2seg_unet_shapes_long_tiny.py',
        checkpoint='genseg_mm/weights/gen2seg_unet_shapes.safetensors',
    ),
    shipped_mae=dict(
        title='gen2seg MAE, shipped (0.7 M)',
        config='configs/gen2seg/gen2seg_mae_shapes_long_tiny.py',
        checkpoint='genseg_mm/weights/gen2seg_mae_shapes.safetensors',
    ),
    **_base_.controls,
)
benchmarks = dict(
    shapes_referring=_base_.shapes_referring,
    shapes_points=_base_.shapes_points,
    refcoco_val=_base_.refcoco_val,
    grefcoco_val=_base_.grefcoco_val,
    reasonseg_val=_base_.reasonseg_val,
    coco=_base_.coco,
    dram=_base_.dram,
    egohos=_base_.egohos,
    ishape=_base_.ishape,
    pidray=_base_.pidray,
    coco_instances=_base_.coco_instances,
    bsds500=dict(_base_.bsds500, evaluator=dict(_base_.bsds500.evaluator, num_workers=0)),  # 4 pictures
)
tables = [
    dict(
        name='shapes_referring',
        title='Procedural scenes: one expression, one mask (%)',
        note='3,642 expressions about 200 held-out scenes.',
        reported=None,
        protocol='LAVT: every sentence',
        columns=[
            dict(name='oIoU', benchmark='shapes_referring', metric='oIoU'),
            dict(name='mIoU', benchmark='shapes_referring', metric='mIoU'),
            dict(name='Pr@0.5', benchmark='shapes_referring', metric='Pr@0.5'),
            dict(name='Pr@0.9', benchmark='shapes_referring', metric='Pr@0.9'),
        ],
        rank_by='oIoU',
    ),
    dict(
        name='shapes_points',
        title='Procedural scenes: one point per object, mIoU (%)',
        note='Types of shapes seen in training, and others; on plain and on textured grounds. A score below the '
        'control with the true foreground has not shown that instances are told apart.',
        reported=None,
        protocol='one random interior pixel, radius chosen on val',
        columns=[
            dict(name=name, benchmark='shapes_points', metric=f'{subset}_mIoU')
            for name, subset in (
                ('seen', 'seen'),
                ('unseen', 'unseen'),
                ('textured, seen', 'textured_seen'),
                ('textured, unseen', 'textured_unseen'),
            )
        ],
        rank_by='unseen',
    ),
    dict(
        name='points',
        title='Tiny copies: one point per object, mIoU (%)',
        note='A handful of painted pictures in the format of each set: these numbers only show that all runs. The '
        'published rows are of the real sets. The radius of the controls is the best on the very set, in their favour.',
        reported='points',
        protocol='tiny copies; one random interior pixel of each object, reference rule',
        columns=_base_.point_columns,
        rank_by=None,
    ),
    dict(
        name='edges',
        title='Tiny copies: boundaries (%)',
        note='As above.',
        reported='edges',
        protocol='tiny copies; gradient of the colour map, thinned; 99 thresholds',
        columns=_base_.edge_columns,
        rank_by='BSDS500 AP',
    ),
    dict(
        name='instances',
        title='Tiny copies: instances found without prompts (%)',
        note='As above.',
        reported=None,
        protocol="tiny copies; COCO's AP and AR, masks without prompts, one class",
        columns=_base_.instance_columns,
        rank_by='AP',
    ),
    dict(
        name='refcoco',
        title='Tiny copies: referring expressions, oIoU (%)',
        note='As above.',
        reported='refcoco',
        protocol='tiny copies; oIoU over every sentence',
        columns=[dict(name='RefCOCO val', benchmark='refcoco_val', metric='oIoU')],
        rank_by='RefCOCO val',
    ),
    dict(
        name='reasonseg',
        title='Tiny copies: ReasonSeg (%)',
        note='As above.',
        reported='reasonseg',
        protocol="tiny copies; LISA's gIoU and cIoU",
        columns=[
            dict(name='val gIoU', benchmark='reasonseg_val', metric='gIoU'),
            dict(name='val cIoU', benchmark='reasonseg_val', metric='cIoU'),
        ],
        rank_by='val gIoU',
    ),
]
