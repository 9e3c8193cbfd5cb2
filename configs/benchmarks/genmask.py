"""Every benchmark of GenMask (arXiv 2603.23906): RefCOCO, RefCOCO+, RefCOCOg, gRefCOCO, ReasonSeg, all splits.

Command: ``GENSEG_DATA=/data python tools/benchmark.py configs/benchmarks/genmask.py NAME=CONFIG:CHECKPOINT``, or
``tools/dist_benchmark.sh configs/benchmarks/genmask.py 8 NAME=CONFIG:CHECKPOINT``
Hardware: one GPU or more; not run by us.
Expected: the reported rows of the leaderboard (RefCOCO testA 83.3, ..., ReasonSeg val 51.1); not reproduced yet.
"""

_base_ = [
    '../_base_/benchmarks/refcoco.py',
    '../_base_/benchmarks/grefcoco.py',
    '../_base_/benchmarks/reasonseg.py',
]

default_scope = 'genseg_mm'
suite = dict(
    name='genmask',
    title='GenMask: referring and reasoning segmentation',
    description='Masks from a picture and an expression or a question, in one forward pass.',
    make_data=None,
    data_root='{{$GENSEG_DATA:data}}',
)
models = dict()  # no released weights; name yours on the command line
benchmarks = dict(
    refcoco_val=_base_.refcoco_val,
    refcoco_testA=_base_.refcoco_testA,
    refcoco_testB=_base_.refcoco_testB,
    refcoco_plus_val=_base_.refcoco_plus_val,
    refcoco_plus_testA=_base_.refcoco_plus_testA,
    refcoco_plus_testB=_base_.refcoco_plus_testB,
    refcocog_val=_base_.refcocog_val,
    refcocog_test=_base_.refcocog_test,
    grefcoco_val=_base_.grefcoco_val,
    grefcoco_testA=_base_.grefcoco_testA,
    grefcoco_testB=_base_.grefcoco_testB,
    reasonseg_val=_base_.reasonseg_val,
    reasonseg_test=_base_.reasonseg_test,
)
splits = (
    ('RefCOCO val', 'refcoco_val'),
    ('RefCOCO testA', 'refcoco_testA'),
    ('RefCOCO testB', 'refcoco_testB'),
    ('RefCOCO+ val', 'refcoco_plus_val'),
    ('RefCOCO+ testA', 'refcoco_plus_testA'),
    ('RefCOCO+ testB', 'refcoco_plus_testB'),
    ('RefCOCOg val', 'refcocog_val'),
    ('RefCOCOg test', 'refcocog_test'),
)
tables = [
    dict(
        name='refcoco',
        title='Referring expressions, oIoU = cIoU (%)',
        note='RefCOCOg: UMD split. Every sentence of every object counts. Ours at the original size of the picture.',
        reported='refcoco',
        protocol='oIoU over every sentence',
        columns=[dict(name=name, benchmark=own, metric='oIoU') for name, own in splits],
        rank_by='RefCOCO testA',
    ),
    dict(
        name='refcoco_miou',
        title='Referring expressions, mIoU (%)',
        note='Mean IoU of the sentences, which LISA calls gIoU.',
        reported='refcoco',
        protocol='mIoU over every sentence',
        columns=[dict(name=name, benchmark=own, metric='mIoU') for name, own in splits],
        rank_by='RefCOCO testA',
    ),
    dict(
        name='grefcoco',
        title='No, one or several targets: gRefCOCO (%)',
        note='A mask without pixels says that nothing is referred to.',
        reported=None,
        protocol='ReLA',
        columns=[
            dict(name=f'{split} {metric}', benchmark=f'grefcoco_{split}', metric=metric)
            for split in ('val', 'testA', 'testB')
            for metric in ('gIoU', 'cIoU', 'N-acc', 'T-acc')
        ],
        rank_by='val gIoU',
    ),
    dict(
        name='reasonseg',
        title='Questions that need reasoning: ReasonSeg (%)',
        note="LISA's metric: ignored pixels leave both sums; the first text of each picture.",
        reported='reasonseg',
        protocol='LISA: gIoU and cIoU, first text of each picture',
        columns=[
            dict(name=f'{split} {metric}', benchmark=f'reasonseg_{split}', metric=metric)
            for split in ('val', 'test')
            for metric in ('gIoU', 'cIoU')
        ],
        rank_by='val gIoU',
    ),
]
