"""Metric of referring expression segmentation."""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from mmengine.evaluator import BaseMetric
from mmengine.logging import print_log
from mmengine.structures import BaseDataElement
from torch import Tensor

from genseg_mm.registry import METRICS

_PROTOCOLS = ('lavt', 'lisa', 'reasonseg', 'grefcoco')


class _Counts(NamedTuple):
    """Exact pixel counts of one sentence."""

    intersection: int
    union: int
    predicted: int
    target: int
    groups: tuple[str, ...]  # one value for each key of the breakdown


@METRICS.register_module()
class ReferringMetric(BaseMetric):
    """oIoU, mIoU and precision of referring masks, in percent; every data item is one sentence.

    oIoU is the sum of all intersections over the sum of all unions, mIoU the mean IoU of the
    sentences, and Pr@t the share of sentences whose IoU is at least t. Other papers call them cIoU
    and gIoU. Pixels labelled ``ignore_index`` leave intersection, union and all other counts.

    The protocols differ in sentences for which nothing is there to be found:

    - ``'lavt'`` (LAVT, ``test.py``): IoU 0 where prediction and target are both empty.
    - ``'lisa'`` (LISA, ``train_ds.py``): IoU 1 there. Their small constants in the denominators
      (1e-5, 1e-10) are not added.
    - ``'reasonseg'``: LISA's on ReasonSeg: the numbers of ``'lisa'``, also under LISA's names ``gIoU``
      (mIoU) and ``cIoU`` (oIoU), and all four for the ``'long'`` and ``'short'`` texts.
    - ``'grefcoco'`` (ReLA, ``refer_evaluation.py``): a mask of fewer than ``min_pixels`` pixels
      means 'nothing is referred to'. It scores 1 on an empty target and adds nothing to the sums;
      on a target it scores 0 and adds the union only. A larger mask on an empty target scores 0 and
      adds its area to the union. Pr@t is over sentences with a target. Further keys: ``gIoU`` (the
      same as mIoU), ``cIoU`` (as oIoU), ``N-acc`` and ``T-acc``, the share of sentences without
      and with a target that are recognised as such; nan where there are no such sentences. They are the
      GRES paper's shares, ``TP / (TP + FN)`` and ``TN / (TN + FP)``. Some copies of ReLA's
      ``refer_evaluation.py`` add 1 to these denominators (it saves a division by zero), so that even a
      perfect model has less than 100 (6 of 6 would be 85.7); on real splits, of thousands of
      sentences, the difference is below 0.1.

    oIoU is 0 if no sentence has any target or predicted pixel.

    The predictions count at the size of the ground truth: LISA evaluates at the original size,
    LAVT and ReLA at 480x480, and that lies in the pipeline and the model, not here.

    Args:
        protocol: ``'lavt'``, ``'lisa'``, ``'reasonseg'`` or ``'grefcoco'``.
        ignore_index: Label of pixels that do not count.
        thresholds: The t of Pr@t, in (0, 1].
        per_kind: The same as ``breakdown=('kind',)``.
        breakdown: Keys of the data samples' metainfo, e.g. ``('kind', 'subset')``. Adds the IoUs of each
            of their values, e.g. ``oIoU/<kind>``. All samples must carry them, and two keys must not
            share a value. ``('length',)`` by default for ``'reasonseg'``.
        min_pixels: Only for ``'grefcoco'``; 1 by default (an empty mask). Report it with the
            numbers.
        prefix: Put before the keys, if given.
        collect_device: See ``BaseMetric``.
        collect_dir: See ``BaseMetric``.

    Raises:
        ValueError: If an argument, or a prediction or ground truth, is not as it should be.
    """

    default_prefix = ''  # the keys are the papers' own; '' rather than None avoids a warning

    def __init__(
        self,
        protocol: str = 'lavt',
        ignore_index: int = 255,
        thresholds: Sequence[float] = (0.5, 0.6, 0.7, 0.8, 0.9),
        per_kind: bool = False,
        breakdown: str | Sequence[str] | None = None,
        min_pixels: int | None = None,
        prefix: str | None = None,
        collect_device: str = 'cpu',
        collect_dir: str | None = None,
    ) -> None:
        super().__init__(collect_device=collect_device, prefix=prefix, collect_dir=collect_dir)
        if protocol not in _PROTOCOLS:
            raise ValueError(f'protocol must be one of {_PROTOCOLS}, but got {protocol!r}')
        if min_pixels is not None and protocol != 'grefcoco':
            raise ValueError(f"min_pixels needs protocol='grefcoco', but got {protocol!r}")
        if min_pixels is not None and min_pixels < 1:
            raise ValueError(f'min_pixels must be at least 1, but got {min_pixels}')
        if not all(0 < threshold <= 1 for threshold in thresholds):
            raise ValueError(f'thresholds must lie in (0, 1], but got {tuple(thresholds)}')
        if ignore_index in (0, 1):
            raise ValueError(f'ignore_index must not be 0 or 1, but got {ignore_index}')
        self.protocol, self.ignore_index = protocol, ignore_index
        self.thresholds = tuple(thresholds)
        if breakdown is None:
            breakdown = ('length',) if protocol == 'reasonseg' else ()
        breakdown = (breakdown,) if isinstance(breakdown, str) else tuple(breakdown)
        self.breakdown = breakdown + ('kind',) * (per_kind and 'kind' not in breakdown)
        self.min_pixels = min_pixels or 1

    def process(self, data_batch: Any, data_samples: Sequence[dict | BaseDataElement]) -> None:
        """Counts the pixels of a batch.

        Args:
            data_batch: Not used.
            data_samples: Each with ``['pred_sem_seg']['data']``, 0 or 1, and
                ``['gt_sem_seg']['data']``, 0, 1 or ``ignore_index``, both (1, H, W); and the keys of
                ``breakdown``.
        """
        # One entry per data item: MMEngine cuts the gathered list at the length of the data set.
        self.results.extend(self._count(_as_dict(sample)) for sample in data_samples)

    def compute_metrics(self, results: list[_Counts | tuple]) -> dict[str, float]:
        """Turns the counts of all sentences into percentages."""
        if not results:
            raise ValueError('ReferringMetric was given no prediction: the data set is empty')
        results = [_Counts(*result) for result in results]  # gathering makes them plain tuples
        metrics = self._ious(results)
        scored = results
        if self.protocol == 'grefcoco':
            scored = [counts for counts in results if counts.target]
            found = [not self._says_nothing(counts) for counts in scored]
            refused = [self._says_nothing(counts) for counts in results if not counts.target]
            metrics.update({'N-acc': _percent(refused), 'T-acc': _percent(found)})
        ious = [self._score(counts)[0] for counts in scored]
        for threshold in self.thresholds:
            metrics[f'Pr@{threshold:g}'] = _percent([iou >= threshold for iou in ious])
        metrics.update(self._broken_down(results))
        num_empty = sum(not counts.target for counts in results)
        limit = f', min_pixels {self.min_pixels}' if self.protocol == 'grefcoco' else ''
        print_log(
            f'ReferringMetric: protocol {self.protocol}{limit}, {len(results)} sentences, '
            f'{num_empty} of them with an empty target',
            logger='current',
        )
        return metrics

    def _broken_down(self, results: list[_Counts]) -> dict[str, float]:
        """The IoUs of each group; the names of the groups must tell the keys apart."""
        metrics, owner = {}, {}
        for position, key in enumerate(self.breakdown):
            for group in sorted({counts.groups[position] for counts in results}):
                if owner.setdefault(group, key) != key:
                    raise ValueError(
                        f'breakdown: {owner[group]!r} and {key!r} both have the value {group!r}: use two metrics'
                    )
                own = self._ious([own for own in results if own.groups[position] == group])
                metrics.update({f'{name}/{group}': value for name, value in own.items()})
        return metrics

    def _ious(self, results: list[_Counts]) -> dict[str, float]:
        scores = [self._score(counts) for counts in results]
        intersection = sum(score[1] for score in scores)
        union = sum(score[2] for score in scores)
        overall = 100.0 * intersection / union if union else 0.0
        mean = _percent([score[0] for score in scores])
        if self.protocol in ('lavt', 'lisa'):
            return dict(oIoU=overall, mIoU=mean)
        return dict(oIoU=overall, mIoU=mean, gIoU=mean, cIoU=overall)

    def _score(self, counts: _Counts) -> tuple[float, int, int]:
        """IoU of a sentence, and what it adds to the sums of intersections and unions."""
        intersection, union = counts.intersection, counts.union
        if self.protocol == 'grefcoco' and self._says_nothing(counts):
            return (0.0, 0, union) if counts.target else (1.0, 0, 0)
        if union == 0:
            return (1.0 if self.protocol in ('lisa', 'reasonseg') else 0.0), 0, 0
        return intersection / union, intersection, union

    def _says_nothing(self, counts: _Counts) -> bool:
        return counts.predicted < self.min_pixels

    def _count(self, sample: dict) -> _Counts:
        name = f'(img_path {sample.get("img_path")!r}, text {sample.get("text")!r})'
        prediction = _pixel_map(sample, 'pred_sem_seg', name)
        target = _pixel_map(sample, 'gt_sem_seg', name).to(prediction.device)
        if prediction.shape != target.shape:
            raise ValueError(
                f'pred_sem_seg must have the size of gt_sem_seg, {tuple(target.shape)}, but got '
                f'{tuple(prediction.shape)} {name}: predictions are resized to the original size, '
                'and in test the ground truth is loaded after Resize, so that it keeps that size'
            )
        valid = target != self.ignore_index
        for key, values, allowed in (
            ('pred_sem_seg', prediction, '0 or 1'),
            ('gt_sem_seg', target[valid], f'0, 1 or {self.ignore_index} (ignored)'),
        ):
            wrong = values[(values != 0) & (values != 1)]
            if wrong.numel():
                raise ValueError(f'{key} must be {allowed}, but got {wrong[0].item()} {name}')
        for key in self.breakdown:
            if not isinstance(sample.get(key), str):
                raise ValueError(
                    f"breakdown={self.breakdown} needs a '{key}' in every data sample, but got "
                    f'{sample.get(key)!r} {name}: '
                    f"add '{key}' to the packing transform's meta_keys, if the data set has it"
                )
        predicted, wanted = prediction.bool() & valid, (target == 1) & valid
        return _Counts(
            intersection=int((predicted & wanted).sum()),
            union=int((predicted | wanted).sum()),
            predicted=int(predicted.sum()),
            target=int(wanted.sum()),
            groups=tuple(sample[key] for key in self.breakdown),
        )


def _as_dict(sample: dict | BaseDataElement) -> dict:
    return sample.to_dict() if isinstance(sample, BaseDataElement) else sample


def _pixel_map(sample: dict, key: str, name: str) -> Tensor:
    """``sample[key]['data']`` as a (1, H, W) tensor."""
    if key not in sample:
        raise ValueError(f'data sample lacks {key!r}, it has {sorted(sample)} {name}')
    field = _as_dict(sample[key])
    if 'data' not in field:
        raise ValueError(f"{key} of the data sample lacks 'data', it has {sorted(field)} {name}")
    data = field['data']
    data = torch.from_numpy(data) if isinstance(data, np.ndarray) else data
    if not isinstance(data, Tensor) or data.ndim != 3 or data.shape[0] != 1:
        got = tuple(data.shape) if isinstance(data, Tensor) else type(data).__name__
        raise ValueError(f'{key} must be of shape (1, H, W), but got {got} {name}')
    return data


def _percent(values: list[float]) -> float:
    """Mean in percent, exactly rounded, so that the order of the sentences does not matter."""
    return 100.0 * math.fsum(values) / len(values) if values else math.nan
