# PIDray: prohibited items in X-ray pictures of luggage; the three test splits, one point per annotated item. X-ray
# shows what lies behind: where two masks overlap, the smaller one has the pixel. Version and split of the paper
# (gen2seg, arXiv 2505.15263) are not published; the version is that of the copy (its number of pictures is in the
# results).
# Layout: <root>/pidray/{easy,hard,hidden}/*.png, annotations/xray_test_{easy,hard,hidden}.json (version 1), or
# test/*.png, annotations/test*.json (version 2); the root is $GENSEG_DATA (default: data).
pidray = dict(
    task='points',
    title='PIDRay',
    protocol='easy, hard and hidden test pictures, all items together; where masks overlap, the smaller one has the '
    'pixel; point: one random pixel of each, seed 0; reference rule (controls: the radius that is best on this set)',
    dataset=dict(
        type='mmengine.ConcatDataset',
        datasets=[
            dict(
                type='genseg_mm.PIDRayDataset',
                data_root='{{$GENSEG_DATA:data}}/pidray',
                split=split,
                test_mode=True,
                pipeline=[
                    dict(type='genseg_mm.LoadImage'),
                    dict(type='model_resize'),
                    dict(type='genseg_mm.LoadInstanceMap', invalid='skip'),
                    dict(type='genseg_mm.PointPrompt', mode='random', seed=0),
                    dict(type='genseg_mm.PackGenSegInputs'),
                ],
            )
            for split in ('easy', 'hard', 'hidden')
        ],
    ),
    evaluator=dict(type='genseg_mm.PointPromptMetric', threshold='reference', controls=False),
    control_evaluator=dict(threshold='best'),  # that rule makes specks of a smooth map
    tolerance=0.05,
)
