# ReasonSeg val (200 pictures) and test (779) as LISA measures: the first text of each picture, at the size of the
# picture; pixels to ignore leave intersection and union. gIoU = mean IoU, 1 where nothing is predicted and nothing is
# there (two test pictures have no target); cIoU = sum of intersections / sum of unions. Apart for long questions and
# short names. Models trained on train + val (LISA's v1 weights) have no val number. The test pictures are CC BY-NC
# 4.0.
# Layout: <root>/ReasonSeg/{val, test}/*.{jpg, json}; the root is $GENSEG_DATA (default: data).
_reasonseg = dict(
    task='referring',
    protocol=(
        "LISA; text[0] of each picture, original size, the model's own threshold (0.5); "
        'ignored pixels leave both sums; an empty mask of an empty target counts 1'
    ),
    evaluator=dict(
        type='genseg_mm.ReferringMetric', protocol='reasonseg', breakdown=('length', 'words')
    ),
    tolerance=0.05,
)
_reasonseg_data = dict(
    type='genseg_mm.ReasonSegDataset',
    data_root='{{$GENSEG_DATA:data}}',
    data_prefix=dict(img_path='ReasonSeg/'),
    sentence='first',
    test_mode=True,
    pipeline=[
        dict(type='genseg_mm.LoadImage'),
        dict(type='model_resize'),
        dict(type='genseg_mm.LoadReferringMask'),
        dict(type='model_descriptions'),  # of models that have a language model describe the target first
        dict(type='genseg_mm.TextPrompt'),
        dict(type='genseg_mm.PackGenSegInputs'),
    ],
)
reasonseg_val, reasonseg_test = [
    dict(_reasonseg, title=f'ReasonSeg {split}', dataset=dict(_reasonseg_data, split=split))
    for split in ('val', 'test')
]
