"""Metrics: boundaries, AP without classes, referring masks."""

import contextlib
import io
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from importlib.util import find_spec
from typing import Any

import numpy as np
import torch
from analysis_tools.benchmark_coloring_loss import voronoi_cells
from scipy.ndimage import gaussian_filter
from speed.measuring import Row, discard

from genseg_mm.evaluation import ClassAgnosticCocoMetric, ReferringMetric
from genseg_mm.evaluation.edge_matching import count_edges, edge_thresholds


def edge_scene(height: int, width: int, cells: int = 40, annotators: int = 5) -> tuple[np.ndarray, np.ndarray]:
    """Strength of edges, (H, W) in [0, 1], and what annotators drew, (N, H, W) bool: cells, moved a little."""
    generator = torch.Generator().manual_seed(0)
    ids = voronoi_cells(height, width, cells, generator)[0].numpy()
    border = np.zeros((height, width), bool)
    border[:, 1:] |= ids[:, 1:] != ids[:, :-1]
    border[1:] |= ids[1:] != ids[:-1]
    rng = np.random.default_rng(0)
    shifts = rng.integers(-2, 3, (annotators, 2))
    truth = np.stack([np.roll(border, tuple(own), (0, 1)) for own in shifts])
    strength = gaussian_filter(border.astype(np.float64), 1.5)
    strength = strength / strength.max() + 0.15 * gaussian_filter(rng.random((height, width)), 2)
    return (strength / strength.max()), truth


def boundaries(_options: Any, height: int, width: int, thresholds: int) -> Mapping[str, Callable]:
    """Matching at all thresholds against five annotators; at few of them py-edge-eval, where it is installed."""
    strength, truth = edge_scene(height, width)
    steps = edge_thresholds(thresholds)
    variants = dict(ours=partial(discard, count_edges, strength, truth, steps))
    if thresholds < 10 and find_spec('pyEdgeEval') is not None:
        from pyEdgeEval.common.binary_label import evaluate_boundaries_threshold_multiple_gts as published

        variants['py-edge-eval'] = partial(discard, published, steps, strength, list(truth.astype(np.float64)))
    return variants


def coco_samples(pictures: int, objects: int = 20) -> Iterator[dict]:
    """Pictures of 96 x 128 with as many found masks as true ones, moved by some pixels, as a model gives them."""
    from pycocotools import mask as mask_utils

    rng = np.random.default_rng(0)
    for number in range(pictures):
        truth = np.zeros((objects, 96, 128), np.uint8)
        found = np.zeros_like(truth)
        places = rng.integers(0, (70, 100), (objects, 2))
        for one, (y, x) in enumerate(places):
            truth[one, y : y + 20, x : x + 24] = 1
            dy, dx = rng.integers(0, 5, 2)
            found[one, y + dy : y + dy + 20, x + dx : x + dx + 24] = 1
        codes = mask_utils.encode(np.asfortranarray(truth.transpose(1, 2, 0)))
        instances = [
            dict(mask=code, bbox=[x, y, x + 24, y + 20], area=480.0, ignore_flag=0)
            for code, (y, x) in zip(codes, places, strict=True)
        ]
        prediction = dict(masks=torch.from_numpy(found).bool(), scores=torch.from_numpy(rng.random(objects)))
        yield dict(instances=instances, pred_instances=prediction, ori_shape=(96, 128), sample_idx=number)


def coco_results(pictures: int, objects: int = 20) -> ClassAgnosticCocoMetric:
    """A metric that has processed :func:`coco_samples`."""
    metric = ClassAgnosticCocoMetric()
    for sample in coco_samples(pictures, objects):
        metric.process({}, [sample])
    return metric


def coco(_options: Any, pictures: int) -> Mapping[str, Callable]:
    """AP and AR of 20 instances a picture, and pycocotools on the same annotations."""
    from pycocotools import mask as mask_utils
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    metric, samples = coco_results(pictures), list(coco_samples(pictures))

    def index(annotations: list[dict]) -> Any:
        api = COCO()
        images = [dict(id=number, height=96, width=128) for number in range(pictures)]
        for number, own in enumerate(annotations, 1):
            own.update(id=number, category_id=1, iscrowd=0, area=480.0)
        api.dataset = dict(images=images, categories=[dict(id=1, name='object')], annotations=annotations)
        api.createIndex()
        return api

    masks = [
        mask_utils.encode(np.asfortranarray(own['pred_instances']['masks'].byte().permute(1, 2, 0))) for own in samples
    ]

    def peer() -> None:
        with contextlib.redirect_stdout(io.StringIO()):
            truth = [
                dict(segmentation=own['mask'], image_id=number)
                for number, sample in enumerate(samples)
                for own in sample['instances']
            ]
            found = [
                dict(segmentation=code, score=float(score), image_id=number)
                for number, sample in enumerate(samples)
                for code, score in zip(masks[number], sample['pred_instances']['scores'], strict=True)
            ]
            evaluation = COCOeval(index(truth), index(found), 'segm')
            evaluation.params.maxDets = [1, 10, 100]
            evaluation.evaluate()
            evaluation.accumulate()

    return dict(ours=lambda: discard(metric.compute_metrics, metric.results), pycocotools=peer)


def referring_samples(num: int, height: int = 480, width: int = 640) -> list[dict]:
    """Predicted and true masks, as a model gives them."""
    generator = torch.Generator().manual_seed(0)
    samples = []
    for number in range(num):
        x, y = (int(own) for own in torch.randint(0, min(height, width) // 2, (2,), generator=generator))
        masks = torch.zeros(2, 1, height, width, dtype=torch.long)
        masks[0, :, y : y + height // 3, x : x + width // 3] = 1
        masks[1, :, y + 5 : y + height // 3, x : x + width // 3] = 1
        samples.append(
            dict(
                pred_sem_seg=dict(data=masks[0]), gt_sem_seg=dict(data=masks[1]),
                img_path=f'{number}.jpg', text='it', sent_id=number,
            )
        )  # fmt: skip
    return samples


def referring(_options: Any, num: int) -> Mapping[str, Callable]:
    """oIoU, mIoU and precisions; and a loop that counts by histograms, as LISA's evaluation does."""
    samples = referring_samples(num)

    def ours() -> None:
        metric = ReferringMetric(protocol='lavt')
        for sample in samples:
            metric.process({}, [sample])
        metric.evaluate(num)

    def histograms() -> None:
        sums, ious = torch.zeros(2, 2), []
        for sample in samples:
            found, truth = (sample[key]['data'].float() for key in ('pred_sem_seg', 'gt_sem_seg'))
            both = torch.histc(found[found == truth], bins=2, min=0, max=1)
            union = sum(torch.histc(own, bins=2, min=0, max=1) for own in (found, truth)) - both
            sums += torch.stack([both, union])
            ious.append((both / (union + 1e-5))[1].item())
        discard(np.mean, ious)

    return dict(ours=ours, histograms=histograms)


EVALUATION = (
    Row('edges_9', 'boundaries, 321x481, 9 thresholds', partial(boundaries, height=321, width=481, thresholds=9), 1),
    Row('edges_99', 'boundaries, 321x481, 99 thresholds', partial(boundaries, height=321, width=481, thresholds=99), 1),
    Row('coco_ap', 'AP without classes, 500 pictures x 20', partial(coco, pictures=500), 1),
    Row('referring_metric', '200 sentences, masks of 480x640', partial(referring, num=200)),
)
