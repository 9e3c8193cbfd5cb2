# ReasonSeg (239 training pictures), jointly with text-to-image generation, evaluated as LISA does.
# Layout: <root>/ReasonSeg/{train, val, test}/*.{jpg, json}, and the captions of refcoco.py.
_base_ = ['./refcoco.py']

train_dataloader = dict(
    dataset=dict(
        datasets=[
            dict(
                type='genseg_mm.ReasonSegDataset',
                data_root='{{$GENSEG_DATA:data}}',
                split='train',
                pipeline=_base_.train_pipeline,
            ),
            {**_base_.captions, 'exclude_images': None},  # ReasonSeg's pictures are not COCO's
        ]
    )
)
val_dataloader = dict(
    dataset=dict(
        _delete_=True,
        type='genseg_mm.ReasonSegDataset',
        data_root='{{$GENSEG_DATA:data}}',
        split='val',
        test_mode=True,
        pipeline=_base_.test_pipeline,
    )
)
test_dataloader = val_dataloader  # --cfg-options test_dataloader.dataset.split=test
val_evaluator = dict(type='genseg_mm.ReferringMetric', protocol='reasonseg')
test_evaluator = val_evaluator
