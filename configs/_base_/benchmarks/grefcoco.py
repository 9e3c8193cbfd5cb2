# gRefCOCO, every evaluation split, as ReLA (GRES) measures: expressions of no, one or several objects, each sentence
# one item. gIoU = mean IoU, where saying rightly that nothing is meant counts 1; cIoU = sum of intersections / sum of
# unions; N-acc and T-acc: the shares of expressions without and with a target that are recognised as such. A mask
# without any pixel says that nothing is meant (min_pixels=1). The GRES paper clears masks below 50 pixels for models
# without a head that tells: say so in the protocol if you set min_pixels=50. Counted at the size of the picture (ReLA:
# 480 x 480).
# Layout: <root>/coco/{train2014/, grefcoco/{instances.json, grefs(unc).json}}; the root is $GENSEG_DATA (default:
# data).
_grefcoco = dict(
    task='referring',
    protocol=(
        "UNC pictures; every sentence (field 'raw'), original size, the model's own threshold (0.5); "
        'a mask of no pixel (min_pixels 1) says that there is no target: IoU 1 if right, else 0'
    ),
    evaluator=dict(
        type='genseg_mm.ReferringMetric',
        protocol='grefcoco',
        min_pixels=1,
        breakdown=('kind', 'words'),
    ),
    tolerance=0.05,
)
_grefcoco_data = dict(
    type='genseg_mm.GRefCOCODataset',
    data_root='{{$GENSEG_DATA:data}}/coco/',
    text_field='raw',
    check_images=True,  # an error at the start, not after hours
    test_mode=True,
    pipeline=[
        dict(type='genseg_mm.LoadImage'),
        dict(type='model_resize'),
        dict(type='genseg_mm.LoadReferringMask'),
        dict(type='genseg_mm.TextPrompt'),
        dict(type='genseg_mm.PackGenSegInputs'),
    ],
)
grefcoco_val, grefcoco_testA, grefcoco_testB = [
    dict(_grefcoco, title=f'gRefCOCO {split}', dataset=dict(_grefcoco_data, split=split))
    for split in ('val', 'testA', 'testB')
]
