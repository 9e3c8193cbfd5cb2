# RefCOCO, RefCOCO+, RefCOCOg (UMD), gRefCOCO and ReasonSeg in one training, jointly with text-to-image generation. No
# picture that any of the sets tests on is trained on in another one (exclude_images='unc+umd').
# Layout: refcoco.py's, <root>/coco/grefcoco/{instances.json, grefs(unc).json} and <root>/ReasonSeg/{train, val, test}/.
_base_ = ['./refcoco.py']

_train = dict(split='train', exclude_images=['unc+umd'], pipeline=_base_.train_pipeline)
reason_seg = dict(
    type='genseg_mm.ReasonSegDataset',
    data_root='{{$GENSEG_DATA:data}}',
    split='train',
    pipeline=_base_.train_pipeline,
)
train_dataloader = dict(
    # Exactly half of every update for the captions; among the others about the number of expressions. Shares are ours.
    sampler=dict(ratio=[[12, 12, 8, 16, 2], 50]),
    dataset=dict(
        datasets=[
            {**_base_.refcoco, **_train},
            {
                **_base_.refcoco,
                'ann_file': 'refcoco+/instances.json',
                'split_file': 'refcoco+/refs(unc).p',
                **_train,
            },
            {
                **_base_.refcoco,
                'ann_file': 'refcocog/instances.json',
                'split_file': 'refcocog/refs(umd).p',
                **_train,
            },
            dict(type='genseg_mm.GRefCOCODataset', data_root=_base_.data_root, **_train),
            reason_seg,
            {**_base_.captions, 'exclude_images': ['unc+umd']},
        ]
    ),
)
