"""Masks of real COCO photographs; the environment variable GENSEG_REAL_TINY names their folder.

The folder holds four pictures of COCO val2017 in the layouts of RefCOCO and ReasonSeg.
"""

import os
from pathlib import Path

import numpy as np
import pytest
from mmengine.evaluator import Evaluator
from pycocotools import mask as mask_utils

from genseg_mm.datasets import LoadImage, LoadReferringMask, PackGenSegInputs, ReasonSegDataset, RefCOCODataset
from genseg_mm.evaluation import ReferringMetric

ROOT = Path(os.environ.get('GENSEG_REAL_TINY', ''))
pytestmark = pytest.mark.skipif('GENSEG_REAL_TINY' not in os.environ, reason='GENSEG_REAL_TINY is not set')

# Annotation: pixels by `mask_utils.area(mask_utils.merge(mask_utils.frPyObjects(segmentation, height, width)))`, which
# lie within 1.5 % of COCO's own `area` (of the polygon), here beside them.
REFCOCO_AREAS = {
    442619: (27760, 27789.11055),
    198196: (11022, 11025.219),
    230195: (10165, 10171.9544),
    1202706: (498, 491.2669),
    460541: (17081, 17123.92955),
    488308: (2788, 2789.0208),
    508900: (285, 285.7906),
    1717641: (21592, 21608.94075),
    1724673: (1868, 1870.14015),
    437295: (14237, 14250.29385),
    467657: (3402, 3404.869),
    531914: (8919, 8913.98475),
    533949: (14263, 14267.20475),
    543117: (8262, 8260.75085),
}
# Picture: its size, pixels of the target and of what is to be ignored, drawn with cv2.polylines and cv2.fillPoly on the
# points cut to integers. By hand: a polygon with its outline has about A + L / 2 + 1 pixels, A its area by the
# shoelace formula and L the pixels of its outline (the sum of max(|dx|, |dy|) over its sides), which gives
# 28422.5; 22101 and 2949; 14758; 11311.5 + 10418 and 554.5. Of the second picture's target 12 pixels are covered
# by the smaller region to ignore.
REASONSEG_PIXELS = {
    '000000000785': ((425, 640), 28411, 0),
    '000000196141': ((429, 640), 22095 - 12, 2950),
    '000000197388': ((392, 640), 14753, 0),
    '000000040083': ((333, 500), 11306 + 10420, 554),
}
BY_HAND = {
    '000000000785': (28422.5, 0),
    '000000196141': (22101 - 12, 2949),
    '000000197388': (14758, 0),
    '000000040083': (11311.5 + 10418, 554.5),
}


@pytest.mark.parametrize(
    ('split', 'num_refs', 'num_sentences'), [('train', 6, 11), ('val', 5, 7), ('testA', 3, 5), ('test', 3, 5)]
)
def test_refcoco_masks_are_those_of_pycocotools(split, num_refs, num_sentences):
    dataset = RefCOCODataset(str(ROOT / 'coco'), split=split, test_mode=True)
    assert len(dataset) == num_sentences
    assert len({dataset.get_data_info(index)['ref_id'] for index in range(num_sentences)}) == num_refs
    for index in range(num_sentences):
        results = LoadReferringMask()(LoadImage()(dataset.get_data_info(index)))
        mask = results['gt_seg_map']
        assert mask.shape == results['img'].shape[:2]
        pixels, area = REFCOCO_AREAS[results['ann_ids'][0]]
        assert mask.sum() == pixels == pytest.approx(area, rel=0.015)
        parts = mask_utils.frPyObjects(results['segmentations'][0], *mask.shape)
        assert (mask == mask_utils.decode(mask_utils.merge(parts))).all()


@pytest.mark.parametrize('split', ['train', 'val', 'test'])
def test_reasonseg_masks_are_those_of_lisa(split):
    dataset = ReasonSegDataset(str(ROOT), split=split, test_mode=True)
    assert len(dataset) == (2 if split == 'train' else 1)
    assert dataset.without_target == []
    for index in range(len(dataset)):
        results = LoadReferringMask()(LoadImage()(dataset.get_data_info(index)))
        mask, name = results['gt_seg_map'], results['img_id']
        found = mask.shape, int((mask == 1).sum()), int((mask == 255).sum())
        assert found == REASONSEG_PIXELS[name]
        assert found[1:] == pytest.approx(BY_HAND[name], rel=1e-3)


def test_the_two_rasterisers_differ():
    """The player of ReasonSeg train and RefCOCO's annotation 1717641 are the same polygon."""
    assert REASONSEG_PIXELS['000000196141'][1] / REFCOCO_AREAS[1717641][0] == pytest.approx(1.0227, abs=1e-4)


def test_train_and_test_pictures_are_kept_apart():
    coco = str(ROOT / 'coco')
    held = ['refcoco/refs(unc).p']
    ids = {own['img_id'] for own in RefCOCODataset(coco, exclude_images=held).load_data_list()}
    assert ids == {785, 196141}
    names = ReasonSegDataset(str(ROOT), exclude_images=['ReasonSeg/val', 785]).load_data_list()
    assert [own['img_id'] for own in names] == ['000000196141']


def test_a_shifted_mask_is_scored_without_the_ignored_pixels():
    """Both halves of the metric, by numpy: the region to ignore does not count, and length divides."""
    pipeline = [LoadImage(), LoadReferringMask(), PackGenSegInputs()]
    samples, expected = [], {}
    for split in ('test', 'val'):
        dataset = ReasonSegDataset(str(ROOT), split=split, test_mode=True, pipeline=pipeline)
        sample = dataset[0]['data_samples']
        truth = sample.gt_sem_seg.data[0].numpy()
        predicted = np.roll(truth != 0, 5, axis=1)  # covers parts of the region to ignore
        sample.set_data(dict(pred_sem_seg=type(sample.gt_sem_seg)(data=predicted[None])))
        counted = truth != 255
        inter = int((predicted & (truth == 1) & counted).sum())
        union = int(((predicted | (truth == 1)) & counted).sum())
        expected[sample.length] = inter, union
        samples.append(sample)
    evaluator = Evaluator([ReferringMetric(protocol='reasonseg')])
    evaluator.process(samples, {})
    metrics = evaluator.evaluate(2)
    (long, short) = (100 * expected[key][0] / expected[key][1] for key in ('long', 'short'))
    sums = np.sum(list(expected.values()), axis=0)
    assert metrics['gIoU/long'] == pytest.approx(long) and metrics['cIoU/short'] == pytest.approx(short)
    assert metrics['gIoU'] == pytest.approx((long + short) / 2)
    assert metrics['cIoU'] == pytest.approx(100 * sums[0] / sums[1])
    assert 60 < short < 95 and 60 < long < 98
