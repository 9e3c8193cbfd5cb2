"""Class-agnostic AP and AR of Gen2Seg(automatic=True) on a tiny COCO folder, by hand and by mmdet's CocoMetric."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.dataset import pseudo_collate
from mmengine.registry import METRICS
from PIL import Image
from torch import nn

from genseg_mm.datasets import CocoInstanceDataset
from genseg_mm.evaluation import ClassAgnosticCocoMetric
from genseg_mm.evaluation.class_agnostic_coco_metric import _coco_classes, _encode
from genseg_mm.models import Gen2Seg

KEYS = ('img_path', 'img_id', 'ori_shape', 'img_shape', 'sample_idx', 'instances')
COLORS = [(255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 0)]
# picture -> boxes (x, y, side) of its objects; 4 objects, the first picture in order has none
OBJECTS = {7: [(4, 4, 20), (40, 20, 24)], 9: [(10, 10, 30), (50, 30, 20)], 5: []}


class AsItIs(nn.Module):
    """A colorer whose raw map is the image: a picture of flat colours is a perfect colour map."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return images


def write(root: Path, painted: dict, extra: tuple = ()) -> Path:
    """A COCO folder whose pictures show only the objects in ``painted``."""
    (root / 'val2017').mkdir(parents=True)
    annotations = list(extra)
    for image_id, boxes in OBJECTS.items():
        picture = np.zeros((60, 80, 3), np.uint8)
        for number, (x, y, side) in enumerate(painted[image_id]):
            picture[y : y + side, x : x + side] = COLORS[number]
        Image.fromarray(picture).save(root / 'val2017' / f'{image_id}.png')
        for box in boxes:
            annotations.append(annotation(image_id, *box, number=len(annotations)))
    content = dict(
        images=[dict(id=i, file_name=f'{i}.png', height=60, width=80) for i in OBJECTS],
        annotations=annotations,
        categories=[dict(id=1, name='bird'), dict(id=5, name='car')],
    )
    (root / 'instances.json').write_text(json.dumps(content))
    return root


def annotation(image_id: int, x: int, y: int, side: int, number: int, **other: int) -> dict:
    right, bottom = x + side, y + side
    return (
        dict(
            id=100 + number,
            image_id=image_id,
            category_id=1,
            iscrowd=0,
            bbox=[x, y, side, side],
            area=side * side,
            segmentation=[[x, y, right, y, right, bottom, x, bottom]],
        )
        | other
    )


def outputs(root: Path, **dataset: object) -> list[dict]:
    """What Gen2Seg finds in the folder without prompts."""
    pipeline = [dict(type='genseg_mm.LoadImage'), dict(type='genseg_mm.PackGenSegInputs', meta_keys=KEYS)]
    data = CocoInstanceDataset(
        data_root=str(root),
        ann_file='instances.json',
        data_prefix=dict(img='val2017/'),
        test_mode=True,
        pipeline=pipeline,
        **dataset,
    )
    model = Gen2Seg(dict(type=AsItIs), normalize='none', automatic=True)
    return [model.test_step(pseudo_collate([item]))[0].to_dict() for item in data]


def evaluate(samples: list[dict], **settings: object) -> dict[str, float]:
    metric = ClassAgnosticCocoMetric(**settings)
    for one in samples:
        metric.process(None, [one])
    return metric.evaluate(len(samples))


def evaluate_theirs(samples: list[dict], **settings: object) -> dict[str, float]:
    items = ['mAP', 'mAP_50', 'mAP_75', 'AR@100']
    metric = METRICS.build(dict(type='mmdet.CocoMetric', metric='segm', metric_items=items, **settings))
    metric.dataset_meta = CocoInstanceDataset.METAINFO
    metric.process(None, samples)
    return metric.evaluate(len(samples))


def agrees(samples: list[dict]) -> dict[str, float]:
    """Our metrics, which must be mmdet's to its three decimals."""
    ours, theirs = evaluate(samples), evaluate_theirs(samples)
    for own, name in (('AP', 'mAP'), ('AP50', 'mAP_50'), ('AP75', 'mAP_75'), ('AR@100', 'AR@100')):
        assert ours[own] / 100 == pytest.approx(theirs[f'coco/segm_{name}'], abs=5.1e-4), own
    return ours


def test_perfect_pictures(tmp_path):
    """All four objects and nothing else are found; an empty picture costs nothing.

    The areas are 400, 400, 576 and 900, all below 1024. A picture's first mask is one of its two.
    """
    result = agrees(outputs(write(tmp_path, OBJECTS)))
    expected = dict.fromkeys(('AP', 'AP50', 'AP75', 'AP_small', 'AR@10', 'AR@100'), 100.0)
    assert result == pytest.approx(expected | {'AR@1': 50.0})


def test_missed_and_half_found_objects(tmp_path):
    """One of four is black: recall 3 / 4, precision 1 up to it, 76 of COCO's 101 steps of recall.

    Of another only the upper 24 of 30 rows are painted, IoU 0.8: found at 7 of the 10 thresholds
    (0.5 to 0.8). At the other three, recall is 2 / 4, and its mask is a mistake. It is as flat as
    the rest; of equal scores, the pictures' order decides: 7 finds its two objects first.
    """
    painted = dict(OBJECTS) | {9: [(10, 10, 30)]}
    result = agrees(outputs(write(tmp_path / 'missed', painted)))
    assert result['AR@100'] == pytest.approx(75.0)
    assert result['AP'] == pytest.approx(100 * 76 / 101)
    root = write(tmp_path / 'half', painted)
    picture = np.array(Image.open(root / 'val2017' / '9.png'))
    picture[34:] = 0
    Image.fromarray(picture).save(root / 'val2017' / '9.png')
    result = agrees(outputs(root))
    assert result['AR@100'] == pytest.approx(100 * (7 * 3 / 4 + 3 * 2 / 4) / 10)
    assert result['AP50'] == pytest.approx(100 * 76 / 101)
    assert result['AP'] == pytest.approx(100 * (7 * 76 + 3 * 51) / 10 / 101)


def test_thresholds_of_iou(tmp_path):
    """Of a square of 25 only 18 columns are found, IoU 0.72: right at 0.5, 0.55, 0.6, 0.65 and 0.7, not at 0.75."""
    mask = np.zeros((1, 60, 80), bool)
    mask[0, 10:35, 10:28] = True
    one = annotation(5, 10, 10, 25, number=0)
    truth = dict(bbox=[10, 10, 35, 35], mask=one['segmentation'], area=625.0, ignore_flag=0)
    found = dict(masks=mask, scores=np.ones(1))
    result = evaluate([dict(ori_shape=(60, 80), instances=[truth], pred_instances=found)])
    expected = dict(AP=50.0, AP50=100.0, AP75=0.0, AP_small=50.0)
    assert {key: result[key] for key in expected} == pytest.approx(expected)
    assert result['AR@1'] == pytest.approx(50.0)


def test_crowds_and_other_classes(tmp_path):
    """A mask within a crowd, or on an object of an ignored class, is no mistake; a dropped one's is."""
    painted = dict(OBJECTS) | {5: [(5, 5, 20)]}
    mistake = agrees(outputs(write(tmp_path / 'none', painted)))
    assert mistake['AR@100'] == pytest.approx(100.0)
    assert mistake['AP'] == pytest.approx(80.0)  # it comes first: 4 of 5 are right
    crowd = annotation(5, 0, 0, 50, number=50, iscrowd=1)
    crowd['segmentation'] = dict(size=[60, 80], counts=[0, *[50, 10] * 50, 60 * 30])
    result = agrees(outputs(write(tmp_path / 'crowd', painted, (crowd,))))
    assert (result['AP'], result['AR@100']) == pytest.approx((100.0, 100.0))
    car = annotation(5, 5, 5, 20, number=50, category_id=5)
    root = write(tmp_path / 'car', painted, (car,))
    ignored = agrees(outputs(root, classes=['bird'], other_classes='ignore'))
    assert (ignored['AP'], ignored['AR@100']) == pytest.approx((100.0, 100.0))
    dropped = agrees(outputs(root, classes=['bird']))
    assert dropped == mistake


def test_sizes_go_by_the_area_of_the_annotation(tmp_path):
    """The object that is missed is large by its annotation, though not by its box."""
    root = write(tmp_path, dict(OBJECTS) | {9: [(10, 10, 30)]})
    content = json.loads((root / 'instances.json').read_text())
    content['annotations'][-1]['area'] = 9217.0
    (root / 'instances.json').write_text(json.dumps(content))
    result = evaluate(outputs(root))
    assert result['AP_small'] == pytest.approx(100.0) and result['AP_large'] == 0.0
    assert 'AP_medium' not in result


def test_what_mmdets_metric_does_not_say(tmp_path):
    """The traps in the docstring, and that ours does not have them."""
    nothing = outputs(write(tmp_path / 'black', {key: [] for key in OBJECTS}))
    assert evaluate_theirs(nothing) == {}
    assert evaluate(nothing)['AP'] == evaluate(nothing)['AR@100'] == 0.0
    perfect = outputs(write(tmp_path / 'perfect', OBJECTS))
    few = evaluate_theirs(perfect, proposal_nums=(1, 10, 1000))
    assert few['coco/segm_mAP'] == -1.0 and few['coco/segm_AR@100'] == 0.5  # it is AR@1
    result = evaluate(perfect, max_instances=(1, 2))
    assert (result['AP'], result['AR@1'], result['AR@2']) == pytest.approx((100.0, 50.0, 100.0))
    for one in perfect:  # two sets whose ids are the same
        one['img_id'] = 1
    assert evaluate(perfect)['AP'] == pytest.approx(100.0)


def test_same_numbers_for_any_batch_and_for_two_processes(tmp_path):
    samples = outputs(write(tmp_path, dict(OBJECTS) | {9: [(10, 10, 28)]}))
    whole = evaluate(samples)
    metric = ClassAgnosticCocoMetric()
    metric.process(None, samples)
    assert metric.evaluate(len(samples)) == whole
    ranks = [ClassAgnosticCocoMetric() for _ in range(2)]
    for rank, metric in enumerate(ranks):
        for number in [0, 1, 2, 0][rank::2]:  # the loader of the second one repeats a picture
            metric.process(None, [samples[number]])
    merged = [ranks[0].results[0], ranks[1].results[0], ranks[0].results[1], ranks[1].results[1]]
    assert ClassAgnosticCocoMetric().compute_metrics(merged[:3]) == whole


def test_both_packages_give_the_same_bits(monkeypatch):
    """Crowds, equal scores, several masks of an object, objects of all sizes; also where only a first mask is right."""
    faster = pytest.importorskip('faster_coco_eval', reason="needs pip install 'genseg_mm[coco]'")
    generator = np.random.default_rng(4)
    metric = ClassAgnosticCocoMetric()
    for size in [(60, 80), (240, 320)] * 10:
        truth, masks = [], []
        for _ in range(generator.integers(0, 6)):
            y, x = (generator.integers(0, side - 8) for side in size)
            height, width = generator.integers(4, 150, 2)
            for place in (y, y + generator.integers(0, 9), y + generator.integers(0, 3)):
                mask = np.zeros(size, bool)
                mask[place : place + height, x : x + width] = True
                masks.append(mask)
            one, area = _encode(masks[-3][None])[0], float(generator.integers(1, 20_000))
            truth.append(dict(mask=one, ignore_flag=int(generator.random() < 0.2), area=area, bbox=[0, 0, 1, 1]))
        found = dict(masks=np.array(masks).reshape(-1, *size), scores=generator.integers(0, 5, len(masks)) / 5)
        metric.process(None, [dict(instances=truth, pred_instances=found, ori_shape=size)])
    entries = list(metric.results)
    settings = [(entries, (1, 10, 100)), (entries, (2,)), *(([entry], (1, 3)) for entry in entries if entry['truth'])]

    def measured() -> list[dict[str, float]]:
        results = []
        for own, numbers in settings:
            if not all(entry['iscrowd'].all() for entry in own):
                results.append(ClassAgnosticCocoMetric(numbers).compute_metrics(own))
        return results

    assert _coco_classes() == (faster.COCO, faster.COCOeval_faster)
    fast = measured()
    monkeypatch.setitem(sys.modules, 'faster_coco_eval', None)
    assert [own.__module__ for own in _coco_classes()] == ['pycocotools.coco', 'pycocotools.cocoeval']
    assert measured() == fast and len(fast) > 10
    assert 10 < fast[0]['AP'] < 90 and {'AP_small', 'AP_medium', 'AP_large'} < set(fast[0])


def test_bad_input_is_named(tmp_path):
    for numbers in ((), (0, 10), (10, 1), (5, 5)):
        with pytest.raises(ValueError, match='max_instances must be ascending numbers'):
            ClassAgnosticCocoMetric(max_instances=numbers)
    samples = outputs(write(tmp_path, OBJECTS))
    metric = ClassAgnosticCocoMetric()

    def changed(**change: object) -> list[dict]:
        return [{**samples[0], **change}]

    with pytest.raises(ValueError, match=r"without \(.*5.png\); add 'instances' to the meta_keys"):
        metric.process(None, changed(instances=None))
    with pytest.raises(ValueError, match=r'but got none \(.*5.png\); set automatic=True'):
        metric.process(None, changed(pred_instances=None))
    with pytest.raises(ValueError, match=r'original size \(60, 80\), but got \(2, 3\) \(.*5.png\)'):
        found = dict(masks=np.zeros((0, 2, 3), bool), scores=np.zeros(0))
        metric.process(None, changed(pred_instances=found))
    with pytest.raises(ValueError, match=r'mask of every instance.*5.png, annotation 3'):
        metric.process(None, changed(instances=[dict(bbox=[0, 0, 1, 1], ann_id=3)]))
    metric.process(None, changed(instances=[]))
    with pytest.raises(ValueError, match='no object to find in 1 pictures'):
        metric.evaluate(1)


def test_polygons_of_one_or_two_points_have_no_area(tmp_path):
    """As annotators leave them by a click too many: the object is what its other parts are, and never found without."""
    sample = outputs(write(tmp_path, OBJECTS))[0]
    square = [10, 10, 30, 10, 30, 30, 10, 30]
    found = np.zeros((1, 60, 80), bool)
    found[0, 10:30, 10:30] = True
    for parts, expected in (([[1, 2], square], 100), ([[1, 2, 3, 4], square], 100), ([square, [5, 6, 7, 8]], 100),
                            ([[1, 2, 3, 4]], 0), ([[]], 0)):  # fmt: skip
        metric = ClassAgnosticCocoMetric()
        instances = [dict(mask=parts, bbox=[10, 10, 30, 30], area=400)]
        sample.update(instances=instances, pred_instances=dict(masks=found, scores=np.ones(1)))
        metric.process(None, [sample])
        assert metric.evaluate(1)['AP'] == expected, parts
