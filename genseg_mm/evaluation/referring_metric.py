"""Metric of referring expression segmentation."""

import math
import os
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from mmengine.evaluator import BaseMetric
from mmengine.logging import print_log
from mmengine.structures import BaseDataElement
from torch import Tensor

from genseg_mm.evaluation.sample_results import SampleResults, told_apart
from genseg_mm.finite import check_finite
from genseg_mm.registry import METRICS

_PROTOCOLS = ('lavt', 'lisa', 'reasonseg', 'grefcoco')


class _Counts(NamedTuple):
    """Exact pixel counts of one sentence."""

    intersection: int
    union: int
    predicted: int
    target: int
    groups: dict[str, str]
    item: str | None  # its name in the sample results


@METRICS.register_module()
class ReferringMetric(BaseMetric):
    """oIoU, mIoU and precision of referring masks, in percent; every data item is one sentence.

    oIoU is the sum of all intersections over the sum of all unions, mIoU the mean IoU of the
    sentences, and Pr@t the share of sentences whose IoU is at least t. Other papers call them cIoU
    and gIoU. Pixels labelled ``ignore_index`` leave intersection, union and all other counts.

    The protocols differ in sentences for which nothing is there to be found:

    - ``'lavt'`` (LAVT, ``test.py``): IoU 0 where prediction and target are both empty.
    - ``'lisa'`` (LISA, ``train_ds.py``): IoU 1 there. Their small constants in the denominators
      (1e-5, 1e-10) are not added. They average the masks of each picture and weigh the pictures by their
      number of masks, which is the mean over the sentences.
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
        breakdown: Keys of the data samples' metainfo, e.g. ``('kind', 'subset')``, or ``'words'``, which groups
            the texts by their length (1-2, 3-5, 6-8, 9+ words). Adds the IoUs of each of their values, e.g.
            ``oIoU/<kind>``. All samples must carry them, and two keys must not share a value. ``('length',)``
            by default for ``'reasonseg'``, whose datasets say which texts are long questions.
        min_pixels: Only for ``'grefcoco'``; 1 by default (an empty mask). Report it with the
            numbers.
        sample_file: Where to write the :class:`SampleResults`, one row per sentence in the dataset's order, if
            anywhere. ``intersection`` and ``union`` are what the sentence adds to the sums; ``predicted`` and
            ``target`` count pixels; ``Pr@t``, ``has_target`` etc. are 0 or 1. Sentences are told apart by their
            picture and ``sent_id`` (else their words), which the data samples must carry.
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
        sample_file: str | None = None,
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
        self.sample_file = sample_file

    def process(self, data_batch: Any, data_samples: Sequence[dict | BaseDataElement]) -> None:
        """Counts the pixels of a batch.

        Args:
            data_batch: Not used.
            data_samples: Each with ``['pred_sem_seg']['data']``, 0 or 1, and
                ``['gt_sem_seg']['data']``, 0, 1 or ``ignore_index``, both (1, H, W); and the keys of
                ``breakdown``.
        """
        # One entry per data item: MMEngine cuts the gathered list at the length of the dataset.
        self.results.extend(self._count(_as_dict(sample)) for sample in data_samples)

    def compute_metrics(self, results: list[_Counts | tuple]) -> dict[str, float]:
        """Turns the counts of all sentences into percentages."""
        if not results:
            raise ValueError('ReferringMetric was given no prediction: the dataset is empty')
        results = [_Counts(*result) for result in results]  # gathering makes them plain tuples
        samples = self._samples(results)
        metrics = {name: samples.metric(name) for name in samples.aggregates}
        metrics.update(self._broken_down(samples))
        for name, value in metrics.items():
            if name.startswith(('oIoU', 'cIoU')) and math.isnan(value):
                metrics[name] = 0.0
        num_empty = sum(not counts.target for counts in results)
        limit = f', min_pixels {self.min_pixels}' if self.protocol == 'grefcoco' else ''
        print_log(
            f'ReferringMetric: protocol {self.protocol}{limit}, {len(results)} sentences, '
            f'{num_empty} of them with an empty target',
            logger='current',
        )
        if self.sample_file is not None:
            samples.save(self.sample_file)
        return metrics

    def _broken_down(self, samples: SampleResults) -> dict[str, float]:
        """The IoUs of each group; the names of the groups must tell the keys apart."""
        metrics, owner = {}, {}
        ious = [name for name in samples.aggregates if name.endswith('IoU')]
        for key in self.breakdown:
            texts = np.array(samples.groups[key])
            for group in sorted(set(samples.groups[key])):
                if owner.setdefault(group, key) != key:
                    raise ValueError(
                        f'breakdown: {owner[group]!r} and {key!r} both have the value {group!r}: use two metrics'
                    )
                rows = np.flatnonzero(texts == group)
                metrics.update({f'{name}/{group}': samples.metric(name, rows) for name in ious})
        return metrics

    def _samples(self, results: list[_Counts]) -> SampleResults:
        """One row per sentence, of which all metrics are aggregates."""
        scores = np.array([self._score(counts)[0] for counts in results])
        adds = np.array([self._score(counts)[1:] for counts in results], np.int64)
        target = np.array([counts.target for counts in results])
        predicted = np.array([counts.predicted for counts in results])
        values = dict(iou=scores, intersection=adds[:, 0], union=adds[:, 1])
        values.update(predicted=predicted, target=target)
        mean, overall = ('mean', 'iou'), ('ratio', 'intersection', 'union')
        aggregates = dict(oIoU=overall, mIoU=mean)
        if self.protocol not in ('lavt', 'lisa'):
            aggregates.update(gIoU=mean, cIoU=overall)
        hits = {f'Pr@{threshold:g}': scores >= threshold for threshold in self.thresholds}
        if self.protocol == 'grefcoco':
            there, nothing = target > 0, np.array([self._says_nothing(own) for own in results])
            values.update(has_target=there, no_target=~there)
            values.update(refused=~there & nothing, found=there & ~nothing)
            aggregates['N-acc'] = ('ratio', 'refused', 'no_target')
            aggregates['T-acc'] = ('ratio', 'found', 'has_target')
            values.update({name: hit & there for name, hit in hits.items()})
            aggregates.update({name: ('ratio', name, 'has_target') for name in hits})
        else:
            values.update(hits)
            aggregates.update({name: ('mean', name) for name in hits})
        keys = dict.fromkeys((*GROUPS, *self.breakdown))
        names = [counts.item or f'{index}' for index, counts in enumerate(results)]
        return SampleResults(
            items=told_apart(names),
            index=np.arange(len(results)),  # one entry per data item, gathered in their order
            values=values,
            groups={
                key: [counts.groups.get(key, '') for counts in results]
                for key in keys
                if any(key in counts.groups for counts in results)
            },
            aggregates=aggregates,
        )

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
        if 'seg_logits' in sample:  # a mask of NaN is empty, and looks sound
            check_finite(_as_dict(sample['seg_logits'])['data'], 'seg_logits', f'ReferringMetric {name}')
        target = _pixel_map(sample, 'gt_sem_seg', name).to(prediction.device)
        if prediction.shape != target.shape:
            raise ValueError(
                f'pred_sem_seg must have the size of gt_sem_seg, {tuple(target.shape)}, but got '
                f'{tuple(prediction.shape)} {name}: predictions are resized to the original size, '
                'and in test the ground truth is loaded after Resize, so that it keeps that size'
            )
        if prediction.dtype == torch.bool:
            prediction = prediction.view(torch.uint8)  # compares at twice the speed
        predicted, wanted = prediction == 1, target == 1
        ignored = target == self.ignore_index
        for key, values, known, allowed in (
            ('pred_sem_seg', prediction, (predicted,), '0 or 1'),
            ('gt_sem_seg', target, (wanted, ignored), f'0, 1 or {self.ignore_index} (ignored)'),
        ):
            counted = _num(values == 0) + sum(map(_num, known))
            if counted < values.numel():
                wrong = values[(values != 0) & ~torch.stack(known).any(0)][0].item()
                raise ValueError(f'{key} must be {allowed}, but got {wrong} {name}')
        predicted &= ~ignored
        own = {key: sample[key] for key in self.breakdown if isinstance(sample.get(key), str)}
        groups = {**own, **groups_of(sample)}
        for key in self.breakdown:
            if key not in groups:
                raise ValueError(
                    f"breakdown={self.breakdown} needs a '{key}' in every data sample, but got "
                    f'{sample.get(key)!r} {name}: '
                    f"add '{'text' if key == 'words' else key}' to the packing transform's "
                    'meta_keys, if the dataset has it'
                )
        item = item_name(sample)
        if item is None and self.sample_file is not None:
            raise ValueError(
                "sample_file needs 'img_path' or 'img_id' in every data sample, but got "
                f"{sorted(sample)}: add them to the packing transform's meta_keys"
            )
        num_predicted, num_wanted = _num(predicted), _num(wanted)
        intersection = _num(predicted & wanted)
        return _Counts(
            intersection=intersection,
            union=num_predicted + num_wanted - intersection,
            predicted=num_predicted,
            target=num_wanted,
            groups=groups,
            item=item,
        )


def _num(pixels: Tensor) -> int:
    return int(torch.count_nonzero(pixels))


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


# ---- what a sentence is called in sample results, and the groups that it belongs to

GROUPS = ('kind', 'length', 'subset', 'words')
_BANDS = ((2, '1-2 words'), (5, '3-5 words'), (8, '6-8 words'))


def item_name(sample: Mapping[str, Any]) -> str | None:
    """``'<subset>/<picture>#<sentence>'``, e.g. ``'val/COCO_train2014_000000000009.jpg#sent 12'``.

    It depends on the dataset alone, not on the model, the machine or the place of the files. The subset is left out
    where there is none; a picture without a file is called by its ``img_id``, a sentence without a ``sent_id`` by its
    words.

    Args:
        sample: A data sample's metainfo.

    Returns:
        The name; None if neither ``img_path`` nor ``img_id`` is there.
    """
    picture = os.path.basename(sample.get('img_path') or '') or sample.get('img_id')
    if picture is None:
        return None
    subset = sample.get('subset')
    place = f'{subset}/{picture}' if subset else f'{picture}'
    place = place.replace('#', '%23')  # the first '#' ends the picture
    number, words = sample.get('sent_id'), _expression(sample)
    if number is not None:
        return f'{place}#sent {number}'
    return f'{place}#text {words}' if words else place


def groups_of(sample: Mapping[str, Any]) -> dict[str, str]:
    """The sample's values of ``kind``, ``length``, ``subset`` and ``words``, as far as it has them."""
    found = {key: sample[key] for key in GROUPS[:3] if isinstance(sample.get(key), str)}
    words = _expression(sample)
    return dict(found, words=word_band(words)) if words else found


def word_band(text: str) -> str:
    """'1-2 words', '3-5 words', '6-8 words' or '9+ words', by the blanks in a text."""
    number = len(text.split())
    return next((band for most, band in _BANDS if number <= most), '9+ words')


def _expression(sample: Mapping[str, Any]) -> str:
    """The dataset's own words, without what ``UseDescriptions`` and ``TextPrompt`` make of them."""
    texts = (sample.get(key) for key in ('question', 'expression', 'text'))
    return next((text for text in texts if isinstance(text, str) and text), '')
