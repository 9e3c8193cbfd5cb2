# iShape: thin, hollow and branching objects, val of all six sub-datasets, one point per instance of the id map. The
# split of the paper (gen2seg, arXiv 2505.15263) is not published.
# Layout: <root>/ishape_dataset/{antenna,branch,fence,hanger,log,wire}/val/{image/, instance_map/*.png}; the root is
# $GENSEG_DATA (default: data).
ishape = dict(
    task='points',
    title='iShape',
    protocol='val of the six sub-datasets, all instances together; ids of instance_map; point: one random pixel of '
    'each, seed 0; reference rule (controls: the radius that is best on this set)',
    dataset=dict(
        type='mmengine.ConcatDataset',
        datasets=[
            dict(
                type='genseg_mm.IShapeDataset',
                data_root='{{$GENSEG_DATA:data}}/ishape_dataset',
                subset=subset,
                split='val',
                source='instance_map',
                test_mode=True,
                pipeline=[
                    dict(type='genseg_mm.LoadImage'),
                    dict(type='model_resize'),
                    dict(type='genseg_mm.LoadInstanceMap'),
                    dict(type='genseg_mm.PointPrompt', mode='random', seed=0),
                    dict(type='genseg_mm.PackGenSegInputs'),
                ],
            )
            for subset in ('antenna', 'branch', 'fence', 'hanger', 'log', 'wire')
        ],
    ),
    evaluator=dict(type='genseg_mm.PointPromptMetric', threshold='reference', controls=False),
    control_evaluator=dict(threshold='best'),  # that rule makes specks of a smooth map
    tolerance=0.05,
)
