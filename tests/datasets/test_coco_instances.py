"""CocoInstanceDataset on a tiny folder in the published layout, beside mmdet's own reader and metric."""

import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.structures import InstanceData
from tiny_datasets import maker

from genseg_mm.datasets import CocoInstanceDataset, LoadImage, LoadInstanceMap, PackGenSegInputs, PointPrompt
from genseg_mm.datasets.segmentations import decode_segmentation

make_tiny_coco = maker('coco')
LOADING = [LoadImage(), LoadInstanceMap()]


@pytest.fixture(scope='module')
def tiny(tmp_path_factory):
    return make_tiny_coco(tmp_path_factory.mktemp('tiny') / 'coco')


@pytest.fixture
def own(tmp_path):
    """A folder that the test may damage."""
    return make_tiny_coco(tmp_path / 'coco')


def build(root, split='val', **kwargs):
    return CocoInstanceDataset(
        str(root), f'annotations/instances_{split}2017.json', dict(img=f'{split}2017/'), **kwargs
    )


def edit(root, change, split='val'):
    path = root / 'annotations' / f'instances_{split}2017.json'
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def sizes_of(item):
    return np.bincount(item['gt_instance_map'].ravel())[1:].tolist()


def test_all_categories_become_objects_and_drops_are_counted(tiny, log_lines):
    dataset = build(tiny, 'train')
    assert len(dataset) == 6 and dataset.dropped == Counter()
    assert [len(item['instances']) for item in dataset] == [3, 3, 3, 0, 1, 1]
    flags = [own['ignore_flag'] for item in dataset for own in item['instances']]
    assert flags == [0, 0, 0, 0, 0, 1, 0, 0, 0, 1, 0]
    first = dataset[0]['instances'][0]
    assert first['bbox'] == [70, 52, 84, 68] and first['area'] == 224  # 14 x 16 pixels
    assert (first['cat_id'], first['bbox_label'], first['ann_id']) == (47, 0, 1000)
    lantern = dataset[2]['instances'][2]
    assert lantern['cat_id'] == 200 and lantern['bbox_label'] == 0
    assert dataset.metainfo['classes'] == ('background', 'object')
    assert build(tiny).dropped == {'area 0 or a side below 1 pixel': 1}
    assert log_lines[0][1] == '9 instances of 8 classes in 6 pictures, 2 regions to ignore (crowds)'
    assert log_lines[1][1].endswith('dropped 1 of 10 annotations: 1 area 0 or a side below 1 pixel')


def test_id_maps_of_polygons_rle_overlaps_and_crowds(tiny):
    dataset = build(tiny, 'train', pipeline=LOADING)
    # Cup, table without the cup, chair; two parts of a car beside a person, no crowd.
    assert sizes_of(dataset[0]) == [14 * 16, 100 * 68 - 14 * 16, 20 * 72]
    assert sizes_of(dataset[1]) == [(40 + 32) * 30, 8 * 64]
    assert dataset[1]['instance_counts']['crowd'] == 1
    cat, dog = dataset[2]['instances'][:2]
    assert isinstance(cat['mask']['counts'], str)
    whole = decode_segmentation(cat['mask'], 160, 120, 'cat')
    front = decode_segmentation(dog['mask'], 160, 120, 'dog')
    assert dog['area'] < cat['area']
    ids = dataset[2]['gt_instance_map']
    assert ((ids == 1) == (whole & ~front)).all() and ((ids == 2) == front).all()
    assert not dataset[3]['gt_instance_map'].any()


def test_classes_are_chosen_by_name_or_list(tiny):
    dataset = build(tiny, classes=['cat', 'dog'])
    assert [len(item['instances']) for item in dataset] == [0, 2, 0, 0]
    assert dataset.dropped['other class'] == 7
    novel = build(tiny, 'train', classes='coco_novel')
    kept = [own['cat_id'] for item in novel for own in item['instances']]
    assert kept == [1, 1, 17, 18, 1, 18]  # persons and their crowds, cat, dogs
    with pytest.raises(ValueError, match=r"no class 'dogs' \(1 of the 2 .*near are \['dog'"):
        build(tiny, classes=['cat', 'dogs'])
    with pytest.raises(ValueError, match="one of .*but got 'cat'"):
        build(tiny, classes='cat')


def test_other_classes_may_be_ignored_in_place_of_dropped(tiny):
    dataset = build(tiny, classes=['cat'], other_classes='ignore', pipeline=LOADING)
    assert [own['ignore_flag'] for own in dataset[1]['instances']] == [0, 1, 1]
    assert np.unique(dataset[1]['gt_instance_map']).tolist() == [0, 1]
    assert 'other class' not in dataset.dropped


def test_part_and_background_are_told_to_the_items(tiny):
    dataset = build(tiny, subset='own', ignore_background=True)
    assert (dataset[0]['subset'], dataset[0]['ignore_background']) == ('own', True)
    assert 'subset' not in build(tiny)[0] and not build(tiny)[0]['ignore_background']


def test_pictures_without_an_instance_that_is_no_crowd_can_be_left_out(tiny):
    dataset = build(tiny, 'train', filter_cfg=dict(filter_empty_gt=True))
    assert [item['img_id'] for item in dataset] == [139, 285, 431, 869]
    assert [Path(p).stem[-3:] for p in dataset.skipped['without an instance']] == ['577', '723']
    dataset = build(tiny, test_mode=True, classes=['cat'], filter_cfg=dict(filter_empty_gt=True))
    assert [item['img_id'] for item in dataset] == [1161]
    with pytest.raises(ValueError, match='leaves no picture'):
        build(tiny, filter_cfg=dict(min_size=121))


def test_items_are_those_of_mmdet(tiny):
    from mmdet.datasets.coco import CocoDataset

    for split in ('train', 'val'):
        theirs = CocoDataset(
            data_root=str(tiny),
            ann_file=f'annotations/instances_{split}2017.json',
            data_prefix=dict(img=f'{split}2017/'),
            metainfo=dict(classes=(*CocoDataset.METAINFO['classes'], 'lantern')),
            pipeline=[],
        )
        ours = build(tiny, split)
        assert len(ours) == len(theirs)
        for mine, other in zip(ours, theirs, strict=True):
            for key in ('img_id', 'img_path', 'height', 'width'):
                assert mine[key] == other[key]
            for a, b in zip(mine['instances'], other['instances'], strict=True):
                assert {**b, 'bbox_label': 0} == {key: a[key] for key in b}
    # The trap: without metainfo mmdet drops the lantern in silence. Its items load here as well.
    theirs = CocoDataset(
        data_root=str(tiny),
        ann_file='annotations/instances_train2017.json',
        data_prefix=dict(img='train2017/'),
        pipeline=LOADING,
    )
    assert np.unique(theirs[2]['gt_instance_map']).tolist() == [0, 1, 2]
    assert np.unique(build(tiny, 'train', pipeline=LOADING)[2]['gt_instance_map']).tolist() == [
        0, 1, 2, 3,
    ]  # fmt: skip


@pytest.mark.parametrize('source', ['annotations', 'id map'])
def test_class_agnostic_ap_of_a_perfect_prediction(tiny, source):
    from mmdet.evaluation import CocoMetric

    keys = (*PackGenSegInputs.META_KEYS, 'instances')
    dataset = build(tiny, pipeline=[*LOADING, PackGenSegInputs(meta_keys=keys)], test_mode=True)
    metric = CocoMetric(metric='segm', metric_items=['mAP', 'mAP_50', 'AR@100'])
    metric.dataset_meta = dataset.metainfo
    for packed in dataset:
        sample = packed['data_samples']
        ids = sample.gt_instance_map.data[0]
        masks = [ids == own for own in torch.unique(ids[ids > 0])]
        if source == 'annotations':
            masks = [
                torch.from_numpy(decode_segmentation(own['mask'], *ids.shape, 'x'))
                for own in sample.instances
                if not own['ignore_flag']
            ]
        masks = torch.stack(masks) if masks else torch.zeros(0, *ids.shape, dtype=torch.bool)
        sample.pred_instances = InstanceData(
            masks=masks,
            scores=torch.ones(len(masks)),
            labels=torch.zeros(len(masks), dtype=torch.long),
            bboxes=torch.zeros(len(masks), 4),
        )
        metric.process({}, [sample.to_dict()])
    metrics = metric.evaluate(size=len(dataset))
    assert metrics['coco/segm_mAP_50'] == 1.0
    if source == 'annotations':
        assert metrics['coco/segm_mAP'] == metrics['coco/segm_AR@100'] == 1.0
    else:
        # Pixels that two annotations claim go to one: of 8 instances one has IoU 0.71 and one 0.82.
        expected = (5 * 8 + 2 * 7 + 3 * 6) / (10 * 8)
        assert metrics['coco/segm_AR@100'] == pytest.approx(expected, abs=1e-3)


def test_prompts_lie_in_their_instances_at_the_original_size(tiny):
    from mmengine.registry import TRANSFORMS

    resize = TRANSFORMS.build(dict(type='mmseg.Resize', scale=(64, 48), keep_ratio=False))
    pipeline = [LoadImage(), resize, LoadInstanceMap(), PointPrompt(seed=3)]
    item = build(tiny, pipeline=pipeline, classes='coco_novel', test_mode=True)[1]
    assert item['img'].shape == (48, 64, 3) and item['gt_instance_map'].shape == (120, 160)
    found = [item['gt_instance_map'][int(y), int(x)] for x, y in item['points'].reshape(-1, 2)]
    assert found == item['point_ids'].tolist() == [1, 2, 3]
    again = build(tiny, pipeline=pipeline, classes='coco_novel', test_mode=True)[1]
    assert again['points'].tolist() == item['points'].tolist()


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        (lambda c: c.pop('annotations'), "lists .'images', 'annotations', 'categories'"),
        (lambda c: c['images'][0].pop('height'), r"images\[0\] lacks the key 'height'.* \(id 1015\)"),
        (lambda c: c['annotations'][0].pop('area'), r"annotations\[0\] lacks the key 'area'.* \(id 7000\)"),
        (lambda c: c['annotations'][0].update(image_id=5), 'annotation 7000 is of image 5'),
        (lambda c: c['annotations'][0].update(category_id=12), '7000 has the category 12'),
        (lambda c: c['annotations'][0].update(id=7001), 'two annotations have the same id'),
        (
            lambda c: c['annotations'][0].update(bbox=[1, 2, 3]),
            r'annotations\[0\]: bbox must be .*, but got \[1, 2, 3\] \(id 7000\)',
        ),
        (lambda c: c['images'].append(c['images'][0]), 'two images have the same id'),
        (lambda c: c['annotations'].clear(), 'nothing is left to learn from'),
    ],
)
def test_damaged_annotations_name_the_entry(own, change, message):
    edit(own, change)
    with pytest.raises(ValueError, match=f'instances_val2017.json.*{message}'):
        build(own)


def test_missing_files_and_bad_arguments(own, tmp_path):
    with pytest.raises(FileNotFoundError, match=r'instances_test2017.json.*GENSEG_DATA'):
        build(own, 'test')
    (own / 'annotations' / 'instances_val2017.json').write_text('{')
    with pytest.raises(ValueError, match='is not a whole JSON file'):
        build(own)
    for kwargs, message in (
        (dict(other_classes='keep'), "but got 'keep'"),
        (dict(filter_cfg=dict(filter_empty=True)), r"but got \['filter_empty'\]"),
        (dict(classes=[]), 'must not be empty'),
    ):
        with pytest.raises(ValueError, match=message):
            build(own, 'train', **kwargs)
    with pytest.raises(ValueError, match='data_prefix must be dict'):
        CocoInstanceDataset(str(own), data_prefix=dict(img_path='train2017'))


def test_a_picture_of_another_size_than_annotated_is_refused(own):
    edit(own, lambda content: content['images'][0].update(height=121))
    with pytest.raises(ValueError, match='000000001015.jpg: expected height x width 121x160'):
        build(own, pipeline=LOADING)[0]
