"""COCO's average precision and recall of masks without classes."""

import contextlib
import gc
import io
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
from mmengine.evaluator import BaseMetric
from torch import Tensor

from genseg_mm.finite import check_finite
from genseg_mm.registry import METRICS

AREAS = ('small', 'medium', 'large')  # COCOeval's ranges 1 to 3; 0 is all


@METRICS.register_module()
class ClassAgnosticCocoMetric(BaseMetric):
    """COCO's AP and AR with all objects of one class, in percent.

    Where faster-coco-eval is installed (``pip install 'genseg_mm[coco]'``) it computes them, four times as fast,
    otherwise pycocotools does; the numbers are the same to the last bit.

    The numbers are those of ``mmdet.CocoMetric(metric='segm')``, which takes our predictions as well, but for what it
    does not say: it gives no number at all where nothing is found in any picture, -1 as mAP where 100 is not among its
    ``proposal_nums``, its AR the names AR@100, AR@300 and AR@1000 whatever those are, areas of boxes in place of those
    of the objects (without ``ann_file``), and three decimals of a fraction. Its ids of pictures must be unique, too;
    here the pictures of several sets may share them.

    Data samples need ``pred_instances`` (``masks`` (K, H, W) bool, ``scores``), as ``Gen2Seg(automatic=True)`` gives
    them, and the metainfo ``instances`` of :class:`genseg_mm.datasets.CocoInstanceDataset`, which is among the
    ``meta_keys`` of ``PackGenSegInputs``. Instances with ``ignore_flag`` (crowds, other classes) are neither to be
    found nor is it a mistake to find them, as COCO treats crowds.

    Metrics: ``AP`` (mean over IoU 0.50 to 0.95), ``AP50``, ``AP75``, ``AP_small``, ``AP_medium``, ``AP_large`` by area
    of the annotation, and ``AR@k`` of the k masks of a picture with the highest scores. AP takes the largest k. A size
    that no object has is left out.

    Args:
        max_instances: The numbers k, ascending.
        collect_device: MMEngine's.
        prefix: MMEngine's.
        collect_dir: MMEngine's.

    Raises:
        ValueError: If ``max_instances`` does not ascend from at least 1.
    """

    def __init__(
        self,
        max_instances: Sequence[int] = (1, 10, 100),
        collect_device: str = 'cpu',
        prefix: str | None = None,
        collect_dir: str | None = None,
    ) -> None:
        super().__init__(collect_device=collect_device, prefix=prefix, collect_dir=collect_dir)
        numbers = list(max_instances)
        if not numbers or numbers[0] < 1 or numbers != sorted(set(numbers)):
            raise ValueError(f'max_instances must be ascending numbers of at least 1, but got {max_instances!r}')
        self.max_instances = numbers

    def process(self, data_batch: Any, data_samples: Sequence[dict]) -> None:
        """Adds one entry per sample: its annotations, and its masks in COCO's run lengths.

        Args:
            data_batch: Not used.
            data_samples: The model's output.

        Raises:
            ValueError: If something that the metric needs is missing or has the wrong size.
        """
        for sample in data_samples:
            where = sample.get('img_path') or f'sample {sample.get("sample_idx", "?")}'
            if sample.get('instances') is None:
                raise ValueError(
                    f'ClassAgnosticCocoMetric expects the metainfo instances, but got a sample without ({where}); '
                    "add 'instances' to the meta_keys of PackGenSegInputs"
                )
            found = sample.get('pred_instances')
            if found is None or 'masks' not in found or 'scores' not in found:
                raise ValueError(
                    'ClassAgnosticCocoMetric expects pred_instances with masks and scores, but got none '
                    f'({where}); set automatic=True in the Gen2Seg model'
                )
            size = tuple(sample['ori_shape'][:2])
            for key in ('masks', 'scores'):
                check_finite(_array(found[key]), key, f'ClassAgnosticCocoMetric ({where})')
            masks = _array(found['masks']).astype(bool)
            if masks.shape[1:] != size:
                raise ValueError(
                    f'ClassAgnosticCocoMetric expects masks of the original size {size}, but got {masks.shape[1:]} '
                    f'({where})'
                )
            truth = [_truth(own, size, where) for own in sample['instances']]
            self.results.append(
                dict(
                    size=size,
                    truth=_joined([rle for rle, _, _ in truth]),
                    iscrowd=np.array([crowd for _, crowd, _ in truth], bool),
                    areas=np.array([area for *_, area in truth], np.float64),
                    masks=_joined(_encode(masks)),
                    scores=_array(found['scores']).astype(np.float64),
                )
            )

    def compute_metrics(self, results: list[dict[str, Any]]) -> dict[str, float]:
        """Averages over the pictures.

        Args:
            results: The entries of :meth:`process`, one per sample.

        Returns:
            Metrics by name.

        Raises:
            ValueError: If there is no object to find.
        """
        if all(entry['iscrowd'].all() for entry in results):
            raise ValueError(
                f'ClassAgnosticCocoMetric got no object to find in {len(results)} pictures: all are to be ignored'
            )
        with _without_collector():
            truth, found = _index(results, _true), _index(results, _found)
            precision, recall = self._evaluate(truth, found)
        metrics = {}
        for name, area, taken in (
            ('AP', 0, slice(None)),
            ('AP50', 0, slice(0, 1)),
            ('AP75', 0, slice(5, 6)),
            *((f'AP_{band}', number, slice(None)) for number, band in enumerate(AREAS, 1)),
        ):
            metrics[name] = _percent(precision[taken, :, 0, area, -1])
        for column, number in enumerate(self.max_instances):
            metrics[f'AR@{number}'] = _percent(recall[:, 0, 0, column])
        return {name: value for name, value in metrics.items() if value is not None}

    def _evaluate(self, truth: Any, found: Any) -> tuple[np.ndarray, np.ndarray]:
        _, COCOeval = _coco_classes()
        with contextlib.redirect_stdout(io.StringIO()):  # it tells what it does
            evaluation = COCOeval(truth, found, 'segm')
            evaluation.params.maxDets = self.max_instances
            evaluation.evaluate()
            evaluation.accumulate()
        precision = evaluation.eval['precision']
        # pycocotools has 1 / (1 + 2e-16) where the first mask alone is right, faster-coco-eval 1.
        return np.where(precision > 1 - 1e-12, 1, precision), evaluation.eval['recall']


@contextlib.contextmanager
def _without_collector() -> Iterator[None]:
    """Without searches for cycles, which take as long as the evaluation: it makes many objects, and no cycles."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


def _truth(instance: dict, size: tuple[int, int], where: str) -> tuple[dict, bool, float]:
    """Run lengths of an annotation, whether it is a crowd, and its area."""
    from pycocotools import mask as mask_utils

    name = f'({where}, annotation {instance.get("ann_id", "?")})'
    if not instance.get('mask'):
        raise ValueError(f'ClassAgnosticCocoMetric expects a mask of every instance, but got one without {name}')
    rle = instance['mask']
    # As pycocotools does it for annotations, which would take four numbers for a box.
    if isinstance(rle, list):
        polygons = [own for own in rle if len(own) >= 6] or [[0] * 6]  # those of two points have no area
        rle = mask_utils.merge(mask_utils.frPyObjects(polygons, *size))
    elif isinstance(rle['counts'], list):
        rle = mask_utils.frPyObjects(rle, *size)
    if tuple(rle['size']) != size:
        raise ValueError(
            f'ClassAgnosticCocoMetric expects masks of the original size {size}, but got {rle["size"]} {name}'
        )
    x1, y1, x2, y2 = instance['bbox']
    return rle, bool(instance.get('ignore_flag', 0)), float(instance.get('area', (x2 - x1) * (y2 - y1)))


def _joined(masks: Sequence[dict]) -> bytes:
    """The run lengths of masks of a size, a line each: a tenth of what a list of dictionaries takes."""
    counts = (own['counts'] for own in masks)
    return b'\n'.join(own.encode() if isinstance(own, str) else own for own in counts)


def _parted(joined: bytes, size: tuple[int, int], num: int) -> list[dict]:
    """The masks that :func:`_joined` has joined."""
    size = list(size)
    return [dict(size=size, counts=counts) for counts in (joined.split(b'\n') if num else [])]


def _true(entry: dict[str, Any]) -> list[dict[str, Any]]:
    masks = _parted(entry['truth'], entry['size'], len(entry['areas']))
    rows = zip(masks, entry['iscrowd'].tolist(), entry['areas'].tolist(), strict=True)
    return [dict(segmentation=rle, iscrowd=int(crowd), area=area) for rle, crowd, area in rows]


def _found(entry: dict[str, Any]) -> list[dict[str, Any]]:
    from pycocotools import mask as mask_utils

    masks = _parted(entry['masks'], entry['size'], len(entry['scores']))
    return [
        dict(segmentation=rle, score=score, area=float(mask_utils.area(rle)), iscrowd=0)
        for rle, score in zip(masks, entry['scores'].tolist(), strict=True)
    ]


def _index(results: list[dict], annotations_of: Callable[[dict], list[dict]]) -> Any:
    """COCO's index of one category; the n-th entry is the picture n."""
    COCO, _ = _coco_classes()
    coco = COCO()
    images, annotations = [], []
    for number, entry in enumerate(results):
        images.append(dict(id=number, height=entry['size'][0], width=entry['size'][1]))
        for own in annotations_of(entry):
            own.update(id=len(annotations) + 1, image_id=number, category_id=1)  # the id 0 means no match
            annotations.append(own)
    coco.dataset = dict(images=images, categories=[dict(id=1, name='object')], annotations=annotations)
    with contextlib.redirect_stdout(io.StringIO()):
        coco.createIndex()
    return coco


def _coco_classes() -> tuple[type, type]:
    """COCO and COCOeval, of faster-coco-eval where it is installed, otherwise of pycocotools."""
    try:
        from faster_coco_eval import COCO, COCOeval_faster
    except ImportError:
        from pycocotools.coco import COCO
        from pycocotools.cocoeval import COCOeval

        return COCO, COCOeval
    return COCO, COCOeval_faster


def _encode(masks: np.ndarray) -> list[dict]:
    from pycocotools import mask as mask_utils

    if not len(masks):
        return []
    return mask_utils.encode(np.asfortranarray(masks.transpose(1, 2, 0).astype(np.uint8)))


def _array(values: Any) -> np.ndarray:
    return values.detach().cpu().numpy() if isinstance(values, Tensor) else np.asarray(values)


def _percent(values: np.ndarray) -> float | None:
    """100 times the mean; None where COCOeval says, by -1, that there is no object."""
    values = values[values > -1]
    return 100 * float(values.mean()) if values.size else None
