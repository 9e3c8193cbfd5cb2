"""How sure the difference between two models is: the paired bootstrap over a benchmark's items or pictures."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np

from genseg_mm.evaluation.sample_results import SampleResults

INTERVALS = ('percentile', 'bca')
_CELLS = 1_000_000  # draws at a time; bounds the memory (about 25 MB)


@dataclass(frozen=True)
class Difference:
    """One metric of two models on the same items, in percent, and their difference in percent points.

    ``low`` and ``high`` bound the interval of ``difference``; ``share_above`` and ``share_below`` are the shares of the
    resamples in which B is strictly better, or worse, than A. They and the interval are nan where there are fewer
    than two units to draw from. ``num_undefined`` resamples had no value (a ratio's denominator was 0) and do not
    count.
    """

    metric: str
    a: float
    b: float
    difference: float
    low: float
    high: float
    share_above: float
    share_below: float
    num_items: int
    num_units: int
    num_undefined: int


def paired_bootstrap(
    a: SampleResults,
    b: SampleResults,
    metrics: Sequence[str] | None = None,
    units: Sequence[str] | None = None,
    rows: np.ndarray | None = None,
    resamples: int = 10_000,
    seed: int = 0,
    confidence: float = 0.95,
    interval: str = 'percentile',
) -> list[Difference]:
    """Bootstraps B - A of every aggregate (Efron & Tibshirani, An Introduction to the Bootstrap, 1993, ch. 13-14).

    A resample draws as many units as there are, with replacement, the same ones for A and B and for all metrics; a
    unit's items come together. The resamples depend on the seed, the number of units and their order alone, so that
    swapping A and B turns every difference round and nothing else.

    Args:
        a: Rows of the first model.
        b: Rows of the second, the same items in the same order (:func:`genseg_mm.comparing.pairing.pair_rows`).
        metrics: Aggregates to compare; all that both define in the same way by default.
        units: What is drawn, for each row: ``a.pictures`` keeps items of one picture together, which are not
            independent; the default draws single rows.
        rows: Indices of the rows to take (a group); all by default.
        resamples: How many.
        seed: Of the draws.
        confidence: Of the interval, in (0, 1).
        interval: ``'percentile'``, or ``'bca'`` (corrected for bias and skewness).

    Returns:
        One difference per metric.

    Raises:
        ValueError: If the items differ or an argument is wrong.
    """
    _check(a, b, resamples, confidence, interval)
    rows = np.arange(len(a)) if rows is None else np.asarray(rows)
    labels = a.items if units is None else units
    names = shared_aggregates(a, b) if metrics is None else list(metrics)
    _, unit_of = np.unique([labels[row] for row in rows], return_inverse=True)
    num_units = int(unit_of.max()) + 1 if len(rows) else 0
    sums = [_unit_sums(a, b, name, rows, unit_of, num_units) for name in names]
    draws = _resampled(sums, num_units, resamples, seed) if num_units > 1 else None
    found = []
    for place, name in enumerate(names):
        values = np.full(0, math.nan) if draws is None else draws[place]
        defined = values[~np.isnan(values)]
        value_a, value_b = a.metric(name, rows), b.metric(name, rows)
        low, high = _bounds(defined, sums[place], value_b - value_a, confidence, interval)
        found.append(
            Difference(
                metric=name,
                a=value_a,
                b=value_b,
                difference=value_b - value_a,
                low=low,
                high=high,
                share_above=float((defined > 0).mean()) if len(defined) else math.nan,
                share_below=float((defined < 0).mean()) if len(defined) else math.nan,
                num_items=len(rows),
                num_units=num_units,
                num_undefined=len(values) - len(defined),
            )
        )
    return found


def shared_aggregates(a: SampleResults, b: SampleResults) -> list[str]:
    """Metrics that both compute in the same way, in A's order."""
    return [name for name, how in a.aggregates.items() if b.aggregates.get(name) == how]


def _check(a: SampleResults, b: SampleResults, resamples: int, confidence: float, interval: str) -> None:
    if a.items != b.items:
        raise ValueError('A and B must have the same items in the same order: use pair_rows first')
    if resamples < 1:
        raise ValueError(f'resamples must be at least 1, but got {resamples}')
    if not 0 < confidence < 1:
        raise ValueError(f'confidence must lie in (0, 1), e.g. 0.95, but got {confidence}')
    if interval not in INTERVALS:
        raise ValueError(f'interval must be one of {INTERVALS}, but got {interval!r}')


def _unit_sums(
    a: SampleResults, b: SampleResults, name: str, rows: np.ndarray, unit_of: np.ndarray, num_units: int
) -> np.ndarray:
    """Sums over each unit's rows, of which resampled metrics are computed, (num_units, 2 or 4).

    A mean: of b - a, and the number of rows; equal models have zeros to the last bit. A ratio: numerator and
    denominator of A, then of B, whole numbers, whose sums are exact.
    """
    how, *columns = a.aggregates[name]
    if how == 'mean':
        column = columns[0]
        parts = [b.values[column][rows] - a.values[column][rows], np.ones(len(rows))]
    else:
        parts = [own.values[column][rows] for own in (a, b) for column in columns]
    return np.stack([np.bincount(unit_of, part, minlength=num_units) for part in parts], axis=1)


def _percent_points(sums: np.ndarray) -> np.ndarray:
    """B - A of sums as :func:`_unit_sums` makes them, (N, 2 or 4) -> (N,); nan where undefined."""
    with np.errstate(divide='ignore', invalid='ignore'):
        if sums.shape[1] == 2:
            return 100.0 * (sums[:, 0] / sums[:, 1])
        values = 100.0 * (sums[:, 2] / sums[:, 3]) - 100.0 * (sums[:, 0] / sums[:, 1])
    return np.where((sums[:, 1] == 0) | (sums[:, 3] == 0), math.nan, values)


def _resampled(sums: Sequence[np.ndarray], num_units: int, resamples: int, seed: int) -> list[np.ndarray]:
    """Differences of all metrics in all resamples: a list of (resamples,)."""
    rng = np.random.default_rng(seed)
    columns = np.concatenate(sums, axis=1)
    ends = np.cumsum([own.shape[1] for own in sums])[:-1]
    parts: list[list[np.ndarray]] = [[] for _ in sums]
    for size in _chunks(resamples, max(1, _CELLS // num_units)):
        drawn = rng.integers(0, num_units, (size, num_units))
        drawn += num_units * np.arange(size)[:, None]
        times = np.bincount(drawn.ravel(), minlength=size * num_units)
        totals = times.reshape(size, num_units).astype(np.float64) @ columns
        for part, own in zip(parts, np.split(totals, ends, axis=1), strict=True):
            part.append(_percent_points(own))
    return [np.concatenate(part) for part in parts]


def _chunks(total: int, size: int) -> Iterable[int]:
    for start in range(0, total, size):
        yield min(size, total - start)


def _bounds(
    values: np.ndarray, sums: np.ndarray, estimate: float, confidence: float, interval: str
) -> tuple[float, float]:
    if not len(values) or math.isnan(estimate):
        return math.nan, math.nan
    tail = (1 - confidence) / 2
    below, above = tail, tail
    if interval == 'bca':
        below, above = _corrected_tails(values, sums, estimate, tail)
    # The upper bound as the lower one of A - B: turned round, the interval is the same to the last bit.
    return float(np.quantile(values, below)), 0.0 - float(np.quantile(-values, above))


def _corrected_tails(values: np.ndarray, sums: np.ndarray, estimate: float, tail: float) -> tuple[float, float]:
    """Shares of the resamples to cut below and above (BCa, Efron & Tibshirani, eq. 14.10, 14.14, 14.15)."""
    normal = NormalDist()
    near = np.isclose(values, estimate, rtol=0, atol=1e-9)
    share = ((values < estimate) & ~near).mean() + near.mean() / 2
    floor = 0.5 / len(values)  # a share of 0 or 1 has no quantile
    bias = normal.inv_cdf(min(max(float(share), floor), 1 - floor))
    left_out = _percent_points(sums.sum(0) - sums)
    apart = np.nanmean(left_out) - left_out[~np.isnan(left_out)]
    spread = float((apart**2).sum()) ** 1.5
    skewness = float((apart**3).sum()) / (6 * spread) if spread > 0 else 0.0

    def moved(quantile: float) -> float:
        z = bias + normal.inv_cdf(quantile)
        return normal.cdf(bias + z / (1 - skewness * z))

    return moved(tail), 1 - moved(1 - tail)
