# BSDS500's benchmark of boundaries, test split, 200 pictures. Layout: <root>/BSDS500/data/{images,groundTruth}/test/;
# the root is the environment variable GENSEG_DATA (default: data). gen2seg reports an Edge AP (Stable Diffusion 93.4)
# without its protocol: how the edges of a colour map are found is our own (genseg_mm/functional/color_maps.py).
bsds500 = dict(
    task='edges',
    title='BSDS500',
    protocol='colour gradient (Di Zenzo, Gaussian sigma 1) at the original size, non-maximum suppression, 8 bits; '
    'the BSDS500 benchmark: 99 thresholds, thinning, one-to-one matching within 0.0075 of the diagonal',
    dataset=dict(
        type='genseg_mm.BSDS500Dataset',
        data_root='{{$GENSEG_DATA:data}}/BSDS500',
        split='test',
        test_mode=True,
        pipeline=[
            dict(type='genseg_mm.LoadImage'),
            dict(type='model_resize'),
            dict(type='genseg_mm.LoadBoundaries'),
            dict(type='genseg_mm.PackGenSegInputs'),
        ],
    ),
    evaluator=dict(
        type='genseg_mm.EdgeMetric',
        num_thresholds=99,
        max_distance=0.0075,
        thin=True,
        sigma=1.0,
        num_workers=4,
    ),
    tolerance=0.1,
)
