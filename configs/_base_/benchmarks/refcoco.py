# RefCOCO, RefCOCO+ and RefCOCOg, every published evaluation split, as LAVT measures: each sentence of each object is
# one item (RefCOCO val: 10,834); mmdet's configs take one sentence per object, which gives other numbers. oIoU = sum
# of intersections / sum of unions, mIoU = mean IoU, Pr@t = share of IoU >= t; IoU 0 where nothing is predicted and
# nothing is there. Counted at the size of the picture (LAVT: 480 x 480), with the model's own threshold.
# Layout: <root>/coco/{train2014/, refcoco/, refcoco+/, refcocog/}; the root is $GENSEG_DATA (default: data).
_refcoco_data = dict(
    type='genseg_mm.RefCOCODataset',
    data_root='{{$GENSEG_DATA:data}}/coco/',
    data_prefix=dict(img_path='train2014/'),
    text_field='sent',
    sentence='all',
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
_refcoco = dict(
    task='referring',
    evaluator=dict(type='genseg_mm.ReferringMetric', protocol='lavt', breakdown='words'),
    tolerance=0.05,
)
_protocol = (
    "{}; every sentence of every object (field 'sent'), original size, the model's own threshold (0.5); "
    'oIoU over all sentences; an empty mask of an empty target counts 0'
)
_sets = dict(
    refcoco=('RefCOCO', 'UNC split', 'refcoco/refs(unc).p'),
    refcoco_google=('RefCOCO (google)', 'google split, by objects', 'refcoco/refs(google).p'),
    refcoco_plus=('RefCOCO+', 'UNC split', 'refcoco+/refs(unc).p'),
    refcocog=('RefCOCOg', 'UMD split', 'refcocog/refs(umd).p'),
    refcocog_google=('RefCOCOg (google)', 'google split, by objects', 'refcocog/refs(google).p'),
)
_refcoco_splits = {
    f'{name}_{split}': dict(
        _refcoco,
        title=f'{title} {split}',
        protocol=_protocol.format(by),
        dataset=dict(
            _refcoco_data,
            ann_file=f'{refs.split("/")[0]}/instances.json',
            split_file=refs,
            split=split,
        ),
    )
    for name, (title, by, refs) in _sets.items()
    for split in ('val', 'testA', 'testB', 'test')
}

refcoco_val = _refcoco_splits['refcoco_val']
refcoco_testA = _refcoco_splits['refcoco_testA']
refcoco_testB = _refcoco_splits['refcoco_testB']
refcoco_plus_val = _refcoco_splits['refcoco_plus_val']
refcoco_plus_testA = _refcoco_splits['refcoco_plus_testA']
refcoco_plus_testB = _refcoco_splits['refcoco_plus_testB']
refcocog_val = _refcoco_splits['refcocog_val']
refcocog_test = _refcoco_splits['refcocog_test']
refcoco_google_val = _refcoco_splits['refcoco_google_val']
refcoco_google_test = _refcoco_splits['refcoco_google_test']
refcocog_google_val = _refcoco_splits['refcocog_google_val']
del _refcoco_splits
