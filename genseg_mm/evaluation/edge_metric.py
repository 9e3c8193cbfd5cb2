"""Metric of boundaries: BSDS500's ODS, OIS and AP."""

import multiprocessing
import os
import threading
import weakref
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from typing import Any

import numpy as np
import torch
from mmengine.evaluator import BaseMetric
from mmengine.logging import print_log
from mmengine.structures import BaseDataElement
from torch import Tensor

from genseg_mm.evaluation.edge_matching import MAX_DISTANCE, EdgeCounts, count_edges, edge_thresholds
from genseg_mm.evaluation.edge_scores import EdgeScores, edge_scores
from genseg_mm.evaluation.sample_results import SampleResults, picture_names
from genseg_mm.finite import check_finite
from genseg_mm.functional.color_maps import color_edges, thin_edges
from genseg_mm.registry import METRICS

WAITING_PER_WORKER = 8  # bounds the memory of images that no worker has taken yet


@METRICS.register_module()
class EdgeMetric(BaseMetric):
    """Boundary scores of the BSDS500 benchmark (Arbelaez et al., PAMI 2011).

    ``ODS_F`` (best F of one threshold for all images), ``OIS_F`` (each image at its own best) and ``AP`` (area under
    the precision-recall curve) in percent, ``ODS_threshold`` in [0, 1]. Predicted and true pixels are matched one to
    one within ``max_distance``, see :func:`genseg_mm.evaluation.edge_matching.count_edges`.

    Data samples need ``gt_boundaries`` (N annotators, H, W), and ``pred_edges`` (1, H, W) in [0, 1] after non-maximum
    suppression, or ``pred_color_map`` (or ``seg_logits`` of 3 channels) (3, H, W) in [0, 255], whose edges are then
    found by :func:`genseg_mm.functional.color_maps.color_edges` and ``thin_edges``. Strengths are rounded to 8 bits, in
    which the public benchmark reads them from PNG files, so that saved maps have the same scores
    (:func:`genseg_mm.evaluation.edge_scores.evaluate_edge_folder`).

    gen2seg reports an Edge AP on BSDS500 without its protocol: edges of colour maps are found in our own way here.

    Args:
        num_thresholds: Number of thresholds; the benchmark's is 99.
        max_distance: As a share of the image's diagonal.
        thin: Thin the map at every threshold, as the benchmark does.
        sigma: Smoothing of colour maps in pixels, 0 for none.
        num_workers: Processes that match pixels while the model goes on; 0: in this one. The matching of an image
            takes 0.1 to 0.2 s of CPU time (99 thresholds, 5 annotators), and a process half a second once for the
            compiled code. Numbers are the same for any number of them.
        sample_file: File for the best F of every image, with its recall, precision and threshold, see
            :class:`genseg_mm.evaluation.sample_results.SampleResults`.
        collect_device: MMEngine's.
        prefix: MMEngine's.
        collect_dir: MMEngine's.

    Raises:
        ValueError: If an argument, a prediction or a ground truth is not as it should be.
    """

    default_prefix = ''  # the keys are the benchmark's own; '' rather than None avoids a warning

    def __init__(
        self,
        num_thresholds: int = 99,
        max_distance: float = MAX_DISTANCE,
        thin: bool = True,
        sigma: float = 1.0,
        num_workers: int = 0,
        sample_file: str | None = None,
        collect_device: str = 'cpu',
        prefix: str | None = None,
        collect_dir: str | None = None,
    ) -> None:
        super().__init__(collect_device=collect_device, prefix=prefix, collect_dir=collect_dir)
        if not 0 < max_distance < 1:
            raise ValueError(f'max_distance is a share of the diagonal in (0, 1), but got {max_distance}')
        if sigma < 0:
            raise ValueError(f'sigma must not be negative, but got {sigma}')
        if num_workers < 0:
            raise ValueError(f'num_workers must not be negative, but got {num_workers}')
        self.thresholds = edge_thresholds(num_thresholds)
        self.max_distance, self.thin, self.sigma = max_distance, thin, sigma
        self.num_workers, self.sample_file = num_workers, sample_file
        self._pool: ProcessPoolExecutor | None = None

    def process(self, data_batch: Any, data_samples: Sequence[dict | BaseDataElement]) -> None:
        """Counts the pixels of a batch; one entry per sample.

        Args:
            data_batch: Not used.
            data_samples: The model's output.
        """
        for sample in data_samples:
            self.results.append(self._measure(_as_dict(sample)))

    def _measure(self, sample: dict) -> dict[str, Any]:
        where = f'({sample.get("img_path") or sample.get("img_id", "?")})'
        boundaries = _field(sample, 'gt_boundaries', where)
        if boundaries is None:
            raise ValueError(
                f'EdgeMetric expects gt_boundaries, but got a sample without {where}; add '
                'dict(type="genseg_mm.LoadBoundaries") to the test pipeline, after Resize'
            )
        edges = self._edges(sample, where)
        if boundaries.ndim != 3 or boundaries.shape[1:] != edges.shape:
            raise ValueError(
                f'gt_boundaries must be (annotators, {edges.shape[0]}, {edges.shape[1]}) as the prediction at the '
                f'original size, but got {tuple(boundaries.shape)} {where}; load them after Resize'
            )
        strength = np.rint(255 * edges.double().cpu().numpy()) / 255
        counts = self._count(strength, boundaries.cpu().numpy())
        return dict(
            counts=counts,
            picture=os.path.basename(sample.get('img_path') or '') or str(sample.get('img_id')),
            img_id=sample.get('img_id'),
            subset=sample.get('subset') or '',
        )

    def _count(self, strength: np.ndarray, boundaries: np.ndarray) -> tuple[int, np.ndarray] | Future:
        arguments = strength, boundaries, self.thresholds, self.max_distance, self.thin
        if not self.num_workers:
            return _small_counts(*arguments)
        if self._pool is None:
            self._pool = _worker_pool(self.num_workers)
            # Without this, workers go on with what waits when the model raises and nobody asks for numbers.
            self._closing = weakref.finalize(self, self._pool.shutdown, wait=False, cancel_futures=True)
        waiting = len(self.results) - WAITING_PER_WORKER * self.num_workers
        if waiting >= 0:
            self.results[waiting]['counts'] = self.results[waiting]['counts'].result()
        return self._pool.submit(_small_counts, *arguments)

    def evaluate(self, size: int) -> dict[str, float]:
        """Waits for the workers, then gathers and computes as MMEngine's ``BaseMetric`` does.

        An error of a worker is raised by :meth:`compute_metrics`: raised here, it would be known to one process, and
        the others would wait for its results.
        """
        for entry in self.results:
            entry['counts'] = _counted(entry['counts'])
        if self._pool is not None:
            self._closing()
            self._pool = None
        return super().evaluate(size)

    def _edges(self, sample: dict, where: str) -> Tensor:
        """Thinned edges, (H, W) in [0, 1]."""
        edges = _field(sample, 'pred_edges', where)
        if edges is None:
            key = 'pred_color_map' if sample.get('pred_color_map') is not None else 'seg_logits'
            colors = _field(sample, key, where)
            if colors is None or colors.ndim != 3 or len(colors) != 3:
                came = 'neither' if colors is None else f'a colour map of {tuple(colors.shape)}'
                raise ValueError(
                    f'EdgeMetric expects pred_edges (1, H, W) or pred_color_map (3, H, W), but got {came} {where}'
                )
            check_finite(colors, 'colours', f'EdgeMetric {where}')
            edges = thin_edges(*color_edges(colors.float(), self.sigma))[None]
        if edges.ndim != 3 or len(edges) != 1:
            raise ValueError(f'pred_edges must be (1, H, W), but got {tuple(edges.shape)} {where}')
        edges = edges.float()
        if not ((edges >= 0) & (edges <= 1)).all():  # nan fails, too
            raise ValueError(
                f'edges must lie in [0, 1], but got values from {edges.min():g} to {edges.max():g} {where}'
            )
        return edges[0]

    def compute_metrics(self, results: list[dict[str, Any]]) -> dict[str, float]:
        """Adds the counts up.

        Args:
            results: The entries of :meth:`process`, in the order of the dataset.

        Raises:
            ValueError: If there is none.
            RuntimeError: If a worker failed.
        """
        if not results:
            raise ValueError('EdgeMetric was given no prediction: the dataset is empty')
        for entry in results:
            if isinstance(entry['counts'], str):
                raise RuntimeError(f'EdgeMetric could not match the edges of {entry["picture"]}: {entry["counts"]}')
        counts = (EdgeCounts(entry['counts'][0], *entry['counts'][1].astype(np.int64)) for entry in results)
        scores = edge_scores(counts, self.thresholds)
        if self.sample_file:
            _write_images(self.sample_file, results, scores)
        print_log(
            f'EdgeMetric: {len(results)} images, {len(self.thresholds)} thresholds, max_distance {self.max_distance:g}'
            f', recall {scores.ods.recall:.4f} and precision {scores.ods.precision:.4f} at ODS',
            logger='current',
        )
        return scores.metrics()


def _worker_pool(num_workers: int) -> ProcessPoolExecutor:
    # A forked child could hang on a lock of torch's threads.
    context = multiprocessing.get_context('spawn')
    return ProcessPoolExecutor(num_workers, mp_context=context, initializer=_end_with_parent)


def _end_with_parent() -> None:
    """Has a worker end when its parent is killed: it would wait for work for ever."""
    parent = multiprocessing.parent_process()

    def end() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=end, daemon=True).start()


def _small_counts(*arguments: Any) -> tuple[int, np.ndarray]:
    """:func:`count_edges` as the pixels of the truth and the other counts, (3, T), in as few bits as hold them."""
    truth, *others = count_edges(*arguments)
    counts = np.stack(others)
    return truth, counts.astype(np.min_scalar_type(counts.max(initial=0)))


def _counted(counts: tuple[int, np.ndarray] | Future) -> tuple[int, np.ndarray] | str:
    """Counts, or what went wrong in the worker."""
    try:
        return counts.result() if isinstance(counts, Future) else counts
    except Exception as error:
        return f'{type(error).__name__}: {error}'


def _write_images(path: str, entries: Sequence[Mapping], scores: EdgeScores) -> None:
    """One row per image. The mean of the images' best F is not OIS, which pools their counts."""
    SampleResults(
        items=picture_names(entries),
        index=np.arange(len(entries)),
        values={
            name: np.array([getattr(own, name) for own in scores.images])
            for name in ('f', 'recall', 'precision', 'threshold')
        },
        groups=dict(subset=[entry['subset'] for entry in entries]),
        aggregates=dict(mean_of_best_F=('mean', 'f')),
    ).save(path)


def _as_dict(sample: dict | BaseDataElement) -> dict:
    return sample.to_dict() if isinstance(sample, BaseDataElement) else sample


def _field(sample: dict, key: str, where: str) -> Tensor | None:
    """``sample[key]['data']`` as a tensor, None if there is no such key."""
    if sample.get(key) is None:
        return None
    data = _as_dict(sample[key]).get('data')
    data = torch.from_numpy(data) if isinstance(data, np.ndarray) else data
    if not isinstance(data, Tensor):
        raise ValueError(f'{key} must hold a tensor as data, but got {type(data).__name__} {where}')
    return data
