"""Two models on one benchmark, item by item: differences with intervals, per group, and the items that stand out."""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from genseg_mm.comparing.pairing import Pairs, pair_rows
from genseg_mm.evaluation.paired_bootstrap import Difference, paired_bootstrap
from genseg_mm.evaluation.sample_results import SampleResults

UNITS = ('image', 'item')
EXTREMES = dict(gains='Largest gains of B', losses='Largest losses of B', both='Worst of both')
_MOST_GROUPS = 30
_HEADLINES = 2


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
        resamples: As for :func:`genseg_mm.evaluation.paired_bootstrap.paired_bootstrap`, and so on.
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
