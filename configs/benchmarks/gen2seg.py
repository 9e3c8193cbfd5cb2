"""Every benchmark of gen2seg (arXiv 2505.15263): one point per object on six sets, boundaries, instances.

Command: ``GENSEG_DATA=/data python tools/benchmark.py configs/benchmarks/gen2seg.py reachomk/gen2seg-sd``
Hardware: one GPU; not run by us.
Expected: the reported rows of the leaderboard (COCO-L 57.6, ..., BSDS500 93.4); not reproduced yet.
"""

_base_ = [
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
    name='gen2seg',
    title='gen2seg: instance colorers',
    description='Zero-shot segmentation from one point per object, boundaries and class-agnostic instances.',
    make_data=None,
    data_root='{{$GENSEG_DATA:data}}',
)
models = dict(
    gen2seg_sd=dict(title='gen2seg SD (released)', config='reachomk/gen2seg-sd'),
    gen2seg_mae_h=dict(title='gen2seg MAE-H (released)', config='reachomk/gen2seg-mae-h'),
    **_base_.controls,
)
benchmarks = dict(
    coco=_base_.coco,
    dram=_base_.dram,
    egohos=_base_.egohos,
    ishape=_base_.ishape,
    pidray=_base_.pidray,
    bsds500=_base_.bsds500,
    coco_instances=_base_.coco_instances,
)
tables = [
    dict(
        name='points',
        title='One point per object, mIoU (%)',
        note='Classes never trained on (COCO: our list of novel classes). The paper publishes neither its points nor '
        'its class list, so its rows stand apart. The radius of the controls is the best on the very set.',
        reported='points',
        protocol='one random interior pixel of each object, reference rule',
        columns=[
            *_base_.point_columns[:2],
            dict(name='COCO-S', benchmark='coco', metric='small_mIoU'),
            *_base_.point_columns[2:],
        ],
        rank_by=None,
    ),
    dict(
        name='edges',
        title='Boundaries of BSDS500 (%)',
        note='Matched one to one within 0.0075 of the diagonal. Where a colour map has an edge is our rule; the paper '
        'does not say its own.',
        reported='edges',
        protocol='gradient of the colour map, thinned; 99 thresholds',
        columns=_base_.edge_columns,
        rank_by='BSDS500 AP',
    ),
    dict(
        name='instances',
        title='COCO, instances found without prompts (%)',
        note='One class; objects of classes that are not novel are ignored. The paper has no such table.',
        reported=None,
        protocol="COCO's AP and AR, masks without prompts, one class",
        columns=_base_.instance_columns,
        rank_by='AP',
    ),
]
