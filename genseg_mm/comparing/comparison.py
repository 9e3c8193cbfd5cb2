"""Two models on one benchmark, item by item: paired rows, differences with intervals, and the items that stand out."""

import math
import warnings
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import partial
from types import SimpleNamespace
from typing import Any, NamedTuple

import numpy as np

from genseg_mm.evaluation.sample_results import SampleResults

UNITS = ('image', 'item')
INTERVALS = ('percentile', 'bca')
EXTREMES = dict(gains='Largest gains of B', losses='Largest losses of B', both='Worst of both')
_MOST_GROUPS = 30
_HEADLINES = 2
_CELLS = 1_000_000  # draws at a time; bounds the memory


class Pairs(NamedTuple):
    """Rows of two models, the same items in the same order (by name), and what was left out."""

    a: SampleResults
    b: SampleResults
    notes: list[str]


def pair_rows(a: SampleResults, b: SampleResults, common: bool = False, names: Sequence[str] = ('A', 'B')) -> Pairs:
    """Pairs rows by their items.

    Args:
        a: Rows of the first model.
        b: Rows of the second.
        common: Leaves out items that only one has, and says so in the notes.
        names: What messages call the two.

    Returns:
        The pairs; groups and aggregates are those that both have alike, the notes say which are not.

    Raises:
        ValueError: If the items differ (without ``common``), none is common, or the ground truth of a common item
            differs in its number of pixels.
    """
    row_of_a = {item: row for row, item in enumerate(a.items)}
    row_of_b = {item: row for row, item in enumerate(b.items)}
    shared = sorted(row_of_a.keys() & row_of_b.keys())
    notes = _unshared(a, b, shared, common, names)
    a = a.take([row_of_a[item] for item in shared])
    b = b.take([row_of_b[item] for item in shared])
    _check_truth(a, b, names)
    groups = [key for key, texts in a.groups.items() if b.groups.get(key) == texts]
    aggregates = shared_aggregates(a, b)
    for what, kept, ours, theirs in (
        ('groups', groups, a.groups, b.groups),
        ('metrics', aggregates, a.aggregates, b.aggregates),
    ):
        lost = sorted((ours.keys() | theirs.keys()) - set(kept))
        if lost:
            notes.append(f'{what} that are not the same in both are left out: {", ".join(lost)}')
    if not aggregates:
        raise ValueError(
            f'no metric to compare: {names[0]} has {sorted(a.aggregates)}, {names[1]} has {sorted(b.aggregates)}; '
            'were both evaluated with the same protocol?'
        )
    return Pairs(_narrowed(a, groups, aggregates), _narrowed(b, groups, aggregates), notes)


def shared_aggregates(a: SampleResults, b: SampleResults) -> list[str]:
    """Metrics that both compute in the same way, in A's order."""
    return [name for name, how in a.aggregates.items() if b.aggregates.get(name) == how]


def _unshared(a: SampleResults, b: SampleResults, shared: list[str], common: bool, names: Sequence[str]) -> list[str]:
    known, parts = set(shared), []
    for own, name, other in ((a, names[0], names[1]), (b, names[1], names[0])):
        alone = [item for item in own.items if item not in known]
        if alone:
            examples = ', '.join(repr(item) for item in alone[:3]) + ', ...' * (len(alone) > 3)
            parts.append(f'{len(alone)} of {len(own)} items of {name} are not in {other}: {examples}')
    if not shared:
        raise ValueError(f'no common item: {"; ".join(parts) or "both are empty"}. Are both of the same benchmark?')
    if parts and not common:
        raise ValueError(
            f'the items differ: {"; ".join(parts)}. Compare two models on the same benchmark, or only the '
            f'{len(shared)} common items (--common)'
        )
    return [f'{part}; left out' for part in parts]


def _check_truth(a: SampleResults, b: SampleResults, names: Sequence[str]) -> None:
    if 'target' not in a.values or 'target' not in b.values:
        return
    other = np.flatnonzero(a.values['target'] != b.values['target'])
    if len(other):
        row = other[0]
        raise ValueError(
            f'the ground truth of {len(other)} of {len(a)} items differs: that of {a.items[row]!r} has '
            f'{a.values["target"][row]} pixels for {names[0]} and {b.values["target"][row]} for {names[1]}. Were both '
            'evaluated on the same files and at the same size?'
        )


def _narrowed(own: SampleResults, groups: list[str], aggregates: list[str]) -> SampleResults:
    return SampleResults(
        items=own.items,
        index=own.index,
        values=own.values,
        groups={key: own.groups[key] for key in groups},
        aggregates={name: own.aggregates[name] for name in aggregates},
    )


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
        b: Rows of the second, the same items in the same order (:func:`pair_rows`).
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
    sums = np.stack([_unit_sums(a, b, name, rows, unit_of) for name in names], axis=1)
    draws = np.empty((len(names), 0))
    if num_units > 1:
        draws = _scipy_bootstrap(
            sums, n_resamples=resamples, rng=np.random.default_rng(seed), method='percentile'
        ).bootstrap_distribution
    found = []
    for place, (name, values) in enumerate(zip(names, draws, strict=True)):
        defined = values[~np.isnan(values)]
        value_a, value_b = a.metric(name, rows), b.metric(name, rows)
        low, high = _bounds(sums[:, place], defined, confidence, interval)
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


def _check(a: SampleResults, b: SampleResults, resamples: int, confidence: float, interval: str) -> None:
    if a.items != b.items:
        raise ValueError('A and B must have the same items in the same order: use pair_rows first')
    if resamples < 1:
        raise ValueError(f'resamples must be at least 1, but got {resamples}')
    if not 0 < confidence < 1:
        raise ValueError(f'confidence must lie in (0, 1), e.g. 0.95, but got {confidence}')
    if interval not in INTERVALS:
        raise ValueError(f'interval must be one of {INTERVALS}, but got {interval!r}')


def _unit_sums(a: SampleResults, b: SampleResults, name: str, rows: np.ndarray, unit_of: np.ndarray) -> np.ndarray:
    """Sums over each unit's rows: numerator and denominator of A, then of B, (4, units); a mean's is how many rows."""
    how, *columns = a.aggregates[name]
    parts = [own.values[column][rows] for own in (a, b) for column in columns]
    if how == 'mean':
        parts = [parts[0], np.ones(len(rows)), parts[1], np.ones(len(rows))]
    return np.stack([np.bincount(unit_of, part) for part in parts])


def _scipy_bootstrap(sums: np.ndarray, **settings: Any) -> Any:
    """Draws units, the same ones for A and B; see :func:`_percent_points`."""
    from scipy.stats import bootstrap  # takes most of a second, which only who compares has to pay

    units = sums.shape[-1]
    settings |= dict(batch=max(1, _CELLS // units), vectorized=True)
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')  # of degenerate data: one resample, or all of them equal
        return bootstrap((np.arange(units),), partial(_percent_points, sums), **settings)


def _percent_points(sums: np.ndarray, drawn: np.ndarray, axis: int = -1) -> np.ndarray:
    """B - A of each resample, (..., resamples); nan where a denominator is 0.

    ``sums`` are (4, ..., units) as of :func:`_unit_sums`, ``drawn`` the units of each resample, (resamples, units).
    Rounded, so that ties are ties: sums of the same numbers in another order differ in their last bits.
    """
    shape, units = drawn.shape[:-1], sums.shape[-1]
    resample = np.arange(math.prod(shape)).reshape(*shape, 1)
    times = np.bincount((units * resample + drawn).ravel(), minlength=units * resample.size).reshape(*shape, units)
    above_a, below_a, above_b, below_b = sums @ times.T.astype(np.float64)
    with np.errstate(divide='ignore', invalid='ignore'):
        values = 100.0 * (above_b / below_b) - 100.0 * (above_a / below_a)
    return np.where(np.isfinite(values), values, math.nan).round(9) + 0.0  # -0.0 becomes 0.0


def _bounds(sums: np.ndarray, values: np.ndarray, confidence: float, interval: str) -> tuple[float, float]:
    """Of the interval of one metric over the resamples in which it is defined."""
    if not len(values):
        return math.nan, math.nan
    low, high = np.quantile(values, [(1 - confidence) / 2, (1 + confidence) / 2])
    if interval == 'bca':
        drawn = SimpleNamespace(bootstrap_distribution=values)
        found = _scipy_bootstrap(sums, n_resamples=0, bootstrap_result=drawn, confidence_level=confidence, method='BCa')
        # nan where nothing varies, or where a model has no number without one of the units: the percentiles stay
        if not np.isnan(found.confidence_interval).any():
            low, high = found.confidence_interval
    return float(low), float(high)


@dataclass(frozen=True)
class GroupRow:
    """Differences on a group of items, and on how many of them B is better, worse and equal (None without a score)."""

    group: str
    wins: int | None
    losses: int | None
    ties: int | None
    differences: list[Difference]


@dataclass(frozen=True)
class Comparison:
    """What :func:`compare` found.

    Attributes:
        names: What A and B are called.
        pairs: Their rows.
        score: Value of an item that decides who is better on it, None if there is none.
        overall: All items, all metrics.
        groups: Group's key -> a row for each value; the first two metrics.
        settings: Of the bootstrap.
        notes: What was left out, and why.
    """

    names: tuple[str, str]
    pairs: Pairs
    score: str | None
    overall: GroupRow
    groups: dict[str, list[GroupRow]]
    settings: dict[str, Any]
    notes: list[str]

    def extremes(self, number: int) -> dict[str, list[int]]:
        """Rows of the items that stand out, at most one per picture: gains, losses, and bad in both.

        Args:
            number: At most that many of each.
        """
        found: dict[str, list[int]] = {key: [] for key in EXTREMES}
        if self.score is None:
            return found
        a, b = (own.values[self.score].astype(np.float64) for own in self.pairs[:2])
        best = np.maximum(a, b)
        orders = dict(
            gains=np.lexsort((a, a - b))[: int((b > a).sum())],
            losses=np.lexsort((b, b - a))[: int((b < a).sum())],
            both=np.lexsort((a + b, best)),
        )
        pictures = self.pairs.a.pictures
        for key, order in orders.items():
            seen: set[str] = set()
            for row in order.tolist():
                if len(found[key]) < number and pictures[row] not in seen:
                    seen.add(pictures[row])
                    found[key].append(row)
        return found

    def to_dict(self) -> dict[str, Any]:
        """For JSON, which has no nan: None in its place."""
        return _without_nan(
            dict(
                a=self.names[0],
                b=self.names[1],
                items=len(self.pairs.a),
                images=len(set(self.pairs.a.pictures)),
                settings=self.settings,
                score=self.score,
                overall=asdict(self.overall),
                groups={key: [asdict(row) for row in rows] for key, rows in self.groups.items()},
                notes=self.notes,
            )
        )


def compare(
    a: SampleResults,
    b: SampleResults,
    names: tuple[str, str] = ('A', 'B'),
    by: str = 'image',
    common: bool = False,
    resamples: int = 10_000,
    seed: int = 0,
    confidence: float = 0.95,
    interval: str = 'percentile',
) -> Comparison:
    """Compares two models on the same items.

    Args:
        a: Rows of the first model.
        b: Rows of the second.
        names: What they are called.
        by: What the bootstrap draws: ``'image'``, all items of a picture together, which are not independent, or
            ``'item'``, which takes them as if they were.
        common: Compares the common items where the two have not the same.
        resamples: As for :func:`paired_bootstrap`, and so on.
        seed: See there.
        confidence: See there.
        interval: See there.

    Raises:
        ValueError: If the items differ, nothing is comparable, or an argument is wrong.
    """
    if by not in UNITS:
        raise ValueError(f'by must be one of {UNITS}, but got {by!r}')
    settings = dict(resamples=resamples, seed=seed, confidence=confidence, interval=interval)
    pairs = pair_rows(a, b, common, names)
    units = pairs.a.pictures if by == 'image' else None
    score = _score(pairs.a)
    notes = list(pairs.notes)
    if by == 'item' and len(set(pairs.a.pictures)) < len(pairs.a):
        notes.append('items of one picture are taken as independent, which makes intervals narrow')
    groups = _groups(pairs, score, units, settings, notes)
    if groups:
        notes.append('the intervals of groups are not corrected for the number of groups')
    everything = np.arange(len(pairs.a))
    overall = _row(pairs, score, 'all', everything, list(unique_metrics(pairs.a)), units, settings)
    return Comparison(names, pairs, score, overall, groups, dict(by=by, **settings), notes)


def _groups(
    pairs: Pairs, score: str | None, units: Sequence[str] | None, settings: dict[str, Any], notes: list[str]
) -> dict[str, list[GroupRow]]:
    """A row for each value of each group's key; keys of too many values are told in `notes`."""
    groups: dict[str, list[GroupRow]] = {}
    for key, texts in pairs.a.groups.items():
        values = sorted(set(texts))
        if len(values) > _MOST_GROUPS:
            notes.append(f'no table by {key}: it has {len(values)} values')
        elif len(values) > 1:
            column = np.array(texts)
            headlines = list(unique_metrics(pairs.a))[:_HEADLINES]
            groups[key] = [
                _row(pairs, score, value, np.flatnonzero(column == value), headlines, units, settings)
                for value in values
            ]
    return groups


def unique_metrics(samples: SampleResults) -> dict[str, str]:
    """Metrics without those that are computed as an earlier one: name -> all names, e.g. 'mIoU = gIoU'."""
    by_rule: dict[tuple, list[str]] = {}
    for name, how in samples.aggregates.items():
        by_rule.setdefault(how, []).append(name)
    return {names[0]: ' = '.join(names) for names in by_rule.values()}


def _score(samples: SampleResults) -> str | None:
    means = [how[1] for how in samples.aggregates.values() if how[0] == 'mean']
    return 'iou' if 'iou' in samples.values else next(iter(means), None)


def _row(
    pairs: Pairs,
    score: str | None,
    group: str,
    rows: np.ndarray,
    metrics: Sequence[str],
    units: Sequence[str] | None,
    settings: dict[str, Any],
) -> GroupRow:
    counts: tuple[int | None, ...] = (None, None, None)
    if score is not None:
        gain = pairs.b.values[score][rows] - pairs.a.values[score][rows]
        counts = int((gain > 0).sum()), int((gain < 0).sum()), int((gain == 0).sum())
    found = paired_bootstrap(pairs.a, pairs.b, metrics, units, rows, **settings)
    return GroupRow(group, *counts, found)


def _without_nan(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_nan(own) for key, own in value.items()}
    if isinstance(value, (list, tuple)):
        return [_without_nan(own) for own in value]
    return None if isinstance(value, float) and math.isnan(value) else value
