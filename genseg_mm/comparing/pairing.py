"""Brings the sample results of two models to the same rows."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from genseg_mm.evaluation.sample_results import SampleResults


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
    aggregates = [name for name, how in a.aggregates.items() if b.aggregates.get(name) == how]
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
