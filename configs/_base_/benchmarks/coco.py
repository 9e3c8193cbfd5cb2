# COCO val2017, objects of classes that Hypersim and Virtual KITTI 2 do not show: one point per object, and
# class-agnostic instances. The paper (gen2seg, arXiv 2505.15263) publishes no list of such classes; ours, with a
# reason for each class left out, is in genseg_mm/datasets/class_subsets.py. COCO-L, -M and -S of its table
# are large_mIoU, medium_mIoU and small_mIoU, by the area of the annotation. Crowds get no point.
# Layout: <root>/coco/{val2017/, annotations/instances_val2017.json}; the root is $GENSEG_DATA (default: data).
_coco = dict(
    type='genseg_mm.CocoInstanceDataset',
    data_root='{{$GENSEG_DATA:data}}/coco/',
    ann_file='annotations/instances_val2017.json',
    data_prefix=dict(img='val2017/'),
    classes='coco_novel',
    test_mode=True,
)
coco = dict(
    task='points',
    title='COCO val2017, novel classes',
    protocol='objects of our list of novel classes, no crowds; sizes by area of the annotation (32^2, 96^2); where '
    'masks overlap, the smaller one has the pixel; point: one random pixel of each, seed 0; reference rule '
    '(controls: the radius that is best on this set)',
    dataset=dict(
        _coco,
        filter_cfg=dict(filter_empty_gt=True),
        pipeline=[
            dict(type='genseg_mm.LoadImage'),
            dict(type='model_resize'),
            dict(type='genseg_mm.LoadInstanceMap', invalid='skip'),
            dict(type='genseg_mm.PointPrompt', mode='random', seed=0),
            dict(type='genseg_mm.PackGenSegInputs'),
        ],
    ),
    evaluator=dict(
        type='genseg_mm.PointPromptMetric', threshold='reference', controls=False, size_bands=True
    ),
    control_evaluator=dict(threshold='best'),  # that rule makes specks of a smooth map
    tolerance=0.05,
)
# AR and AP of masks found without any prompt. Objects of other classes are ignored: neither to find nor to
# miss them is a mistake; pictures without a novel object count.
coco_instances = dict(
    task='instances',
    title='COCO val2017, novel classes, instances',
    protocol='masks without prompts, one class; objects of our list of novel classes, all others and crowds ignored; '
    "COCO's AP (IoU 0.50 to 0.95) and AR@100",
    model=dict(automatic=True),
    dataset=dict(
        _coco,
        other_classes='ignore',
        pipeline=[
            dict(type='genseg_mm.LoadImage'),
            dict(type='model_resize'),
            dict(
                type='genseg_mm.PackGenSegInputs',
                meta_keys=(
                    'img_path',
                    'img_id',
                    'ori_shape',
                    'img_shape',
                    'sample_idx',
                    'instances',
                ),
            ),
        ],
    ),
    evaluator=dict(type='genseg_mm.ClassAgnosticCocoMetric'),
    tolerance=0.05,
)
