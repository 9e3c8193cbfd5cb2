# EgoHOS: hands and what they touch, seen by who does it; both test splits, one point per role. Ids are roles (left
# hand, object of the right hand, ...), not objects, and that a role is one object is our rule (instances='components'
# takes connected regions). Splits and rule of the paper (gen2seg, arXiv 2505.15263) are not published.
# Layout: <root>/egohos/{test_indomain,test_outdomain}/{image/*.jpg, label/*.png}; the root is $GENSEG_DATA (default:
# data).
egohos = dict(
    task='points',
    title='EgoHOS',
    protocol='test_indomain and test_outdomain; an object is all pixels of one of the 8 roles; point: one random pixel '
    'of it, seed 0; reference rule (controls: the radius that is best on this set)',
    dataset=dict(
        type='mmengine.ConcatDataset',
        datasets=[
            dict(
                type='genseg_mm.EgoHOSDataset',
                data_root='{{$GENSEG_DATA:data}}/egohos',
                split=f'test_{subset}',
                ids='all',
                instances='roles',
                subset=subset,
                test_mode=True,
                pipeline=[
                    dict(type='genseg_mm.LoadImage'),
                    dict(type='model_resize'),
                    dict(type='genseg_mm.LoadInstanceMap'),
                    dict(type='genseg_mm.PointPrompt', mode='random', seed=0),
                    dict(type='genseg_mm.PackGenSegInputs'),
                ],
            )
            for subset in ('indomain', 'outdomain')
        ],
    ),
    evaluator=dict(type='genseg_mm.PointPromptMetric', threshold='reference', controls=False),
    control_evaluator=dict(threshold='best'),  # that rule makes specks of a smooth map
    tolerance=0.05,
)
