"""From counts of boundary pixels to ODS, OIS and AP (Arbelaez et al., PAMI 2011); scores of a folder of edge maps."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from genseg_mm.evaluation.edge_matching import MAX_DISTANCE, EdgeCounts, count_edges, edge_thresholds
from genseg_mm.files.arrays import read_boundaries
from genseg_mm.files.images import read_stored

STEPS_BETWEEN_THRESHOLDS = 100
RECALLS = np.arange(101) / 100


class Curve(NamedTuple):
    """Recall, precision and F at ascending thresholds, (T,) each, in [0, 1]; 0 where nothing is there to count."""

    recall: np.ndarray
    precision: np.ndarray
    f: np.ndarray


class BestF(NamedTuple):
    """The best point of a curve; all in [0, 1]."""

    f: float
    threshold: float
    recall: float
    precision: float


class EdgeScores(NamedTuple):
    """Scores of a set of images; fractions, not percent.

    Attributes:
        ods: Of one threshold for all images.
        ois_f: F of each image's own best threshold, counts pooled.
        ois_recall: Its recall.
        ois_precision: Its precision.
        ap: Area under the precision-recall curve.
        curve: Of all images together.
        images: The best point of each image.
    """

    ods: BestF
    ois_f: float
    ois_recall: float
    ois_precision: float
    ap: float
    curve: Curve
    images: list[BestF]

    def metrics(self) -> dict[str, float]:
        """``ODS_F``, ``OIS_F`` and ``AP`` in percent, and ``ODS_threshold`` in [0, 1]."""
        return dict(ODS_F=100 * self.ods.f, ODS_threshold=self.ods.threshold, OIS_F=100 * self.ois_f, AP=100 * self.ap)


def edge_scores(counts: Iterable[EdgeCounts], thresholds: np.ndarray) -> EdgeScores:
    """Scores of images as the public benchmark computes them.

    ODS: the best F of the pooled counts, also between thresholds, where recall and precision are interpolated in 100
    steps. OIS: each image at its best threshold (the lowest of equals, none in between), counts pooled. AP: see
    :func:`area_under_curve`.

    Args:
        counts: One for each image, at least one.
        thresholds: Ascending, (T,).

    Raises:
        ValueError: If there is no image.
    """
    thresholds = np.asarray(thresholds, np.float64)
    pooled, chosen, images = np.zeros((3, len(thresholds)), np.int64), np.zeros((3, 1), np.int64), []
    truth = 0
    for own in counts:  # one at a time: there may be many
        curve = curve_of(own)
        place = int(curve.f.argmax())
        truth += own.truth
        pooled += own[1:]
        chosen += [[part[place]] for part in own[1:]]
        images.append(best_point(curve, thresholds))
    if not images:
        raise ValueError('edge_scores needs the counts of at least one image, but got none')
    curve, own_best = curve_of(EdgeCounts(truth, *pooled)), curve_of(EdgeCounts(truth, *chosen))
    return EdgeScores(
        ods=best_point(curve, thresholds),
        ois_f=float(own_best.f[0]),
        ois_recall=float(own_best.recall[0]),
        ois_precision=float(own_best.precision[0]),
        ap=area_under_curve(curve.recall, curve.precision),
        curve=curve,
        images=images,
    )


def curve_of(counts: EdgeCounts) -> Curve:
    """Recall, precision and their harmonic mean F."""
    recall = counts.matched_truth / max(counts.truth, 1)
    precision = counts.matched_predicted / np.maximum(counts.predicted, 1)
    return Curve(recall, precision, f_measure(recall, precision))


def f_measure(recall: np.ndarray, precision: np.ndarray) -> np.ndarray:
    """Harmonic mean; 0 where both are 0."""
    total = recall + precision
    return 2 * recall * precision / (total + (total == 0))


def best_point(curve: Curve, thresholds: np.ndarray) -> BestF:
    """The best F on the curve, with straight lines for recall and precision between thresholds; the first of equals."""
    share = np.linspace(0, 1, STEPS_BETWEEN_THRESHOLDS)

    def filled(values: np.ndarray) -> np.ndarray:
        between = values[1:, None] * share + values[:-1, None] * (1 - share)
        return np.concatenate([values[:1], between.ravel()])

    recall, precision = filled(curve.recall), filled(curve.precision)
    f = f_measure(recall, precision)
    place = int(f.argmax())
    return BestF(*(float(values[place]) for values in (f, filled(thresholds), recall, precision)))


def area_under_curve(recall: np.ndarray, precision: np.ndarray) -> float:
    """AP: precision at recalls 0, 0.01 ... 1, linear between the measured points and 0 beyond them, times 0.01, summed.

    A recall that comes several times counts with the precision of its lowest threshold, as MATLAB's ``unique`` has it
    since 2013. A curve of a single recall has area 0, and a perfect one cannot have more than its range of recalls.

    Args:
        recall: (T,), in the order of ascending thresholds.
        precision: (T,).
    """
    distinct, first = np.unique(recall, return_index=True)
    if len(distinct) < 2:
        return 0.0
    return float(np.interp(RECALLS, distinct, precision[first], left=0, right=0).sum() * 0.01)


def evaluate_edge_folder(
    png_dir: str | Path,
    gt_dir: str | Path,
    num_thresholds: int = 99,
    max_distance: float = MAX_DISTANCE,
    thin: bool = True,
) -> dict[str, Any]:
    """Scores a folder of edge maps, as the public benchmark does.

    Args:
        png_dir: ``<name>.png`` for every ground truth: one channel, 8 bits, strength = value / 255, after
            non-maximum suppression.
        gt_dir: ``<name>.mat`` of BSDS500.
        num_thresholds: Number of thresholds.
        max_distance: See :func:`genseg_mm.evaluation.edge_matching.count_edges`.
        thin: See there.

    Returns:
        What :meth:`EdgeScores.metrics` gives, and ``images`` (name -> threshold, recall, precision, F) and
        ``thresholds`` (a row of threshold, recall, precision, F for each), which are fractions.

    Raises:
        FileNotFoundError: If a folder or an edge map is missing.
        ValueError: If there is no ground truth, or a file is damaged or of another size or kind.
    """
    truths = _files(gt_dir, '.mat', 'ground truth')
    maps = _files(png_dir, '.png', 'edge maps')
    absent = sorted(set(truths) - set(maps))
    if absent:
        raise FileNotFoundError(
            f'{len(absent)} of {len(truths)} edge maps are missing in {png_dir}, the first is {absent[0]}.png'
        )
    thresholds, counts = edge_thresholds(num_thresholds), []
    for name in truths:
        strength, boundaries = _read_edge_map(maps[name]), read_boundaries(truths[name])
        if strength.shape != boundaries.shape[1:]:
            raise ValueError(
                f'{maps[name]}: expected the size {boundaries.shape[1:]} of {truths[name]}, but got {strength.shape}'
            )
        counts.append(count_edges(strength, boundaries, thresholds, max_distance, thin))
    scores = edge_scores(counts, thresholds)
    rows = np.column_stack([thresholds, *scores.curve])
    return dict(
        **scores.metrics(),
        images={
            name: [own.threshold, own.recall, own.precision, own.f]
            for name, own in zip(truths, scores.images, strict=True)
        },
        thresholds=rows.tolist(),
    )


def _files(folder: str | Path, suffix: str, what: str) -> dict[str, Path]:
    folder = Path(folder)
    if not folder.is_dir():
        raise FileNotFoundError(f'no folder {folder}: expected {what}, <name>{suffix}')
    paths = sorted(folder.glob(f'*{suffix}'))
    found = {path.stem: path for path in paths if not path.name.startswith('.')}
    if not found:
        raise ValueError(f'{folder} holds no {what}: expected <name>{suffix}, but got none')
    return found


def _read_edge_map(path: Path) -> np.ndarray:
    strength, mode = read_stored(path, str(path), 'a PNG of edges')
    if mode not in ('L', '1'):
        raise ValueError(f'{path}: expected a PNG of one channel with 8 bits (mode L), but got mode {mode}')
    return (strength if mode == 'L' else strength.astype(np.uint8) * 255) / 255
