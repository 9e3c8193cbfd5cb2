"""Did a number move? Compares the records of two runs of a suite."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from genseg_mm.leaderboard.record import Record

# Kind -> heading, in the order in which they are told.
_HEADINGS = {
    'moved': 'Moved by more than the tolerance',
    'other data': 'Not comparable, because the data differ (fingerprint)',
    'other protocol': 'Not comparable, because the protocol differs',
    'missing': 'Missing, was there before',
    'new': 'New, not there before (does not fail)',
}


@dataclass(frozen=True)
class Regression:
    """A number that is not as it was.

    Args:
        kind: 'moved' beyond its tolerance, up or down; 'other data' or 'other protocol': the numbers cannot be
            compared; 'missing': was there, is not any more; 'new': was not there.
        model: Name.
        benchmark: Name.
        metric: Key, '' where the whole record is concerned.
        old: Number before, None if there was none.
        new: Number now, None if there is none.
        tolerance: That was allowed, None if nothing was compared.
        differs: What else of the runs differs ('checkpoint', 'torch 2.13.0, was 2.12.1').
    """

    kind: str
    model: str
    benchmark: str
    metric: str = ''
    old: float | None = None
    new: float | None = None
    tolerance: float | None = None
    differs: tuple[str, ...] = ()

    @property
    def fails(self) -> bool:
        """Whether the gate closes: for everything but a new number."""
        return self.kind != 'new'


def regressions(new: Sequence[Record], old: Sequence[Record], default_tolerance: float) -> list[Regression]:
    """Compares records by model and benchmark.

    Args:
        new: Of this run.
        old: Of the run to compare with.
        default_tolerance: In the units of the metrics, for benchmarks without a tolerance of their own (that of the
            new record counts).

    Returns:
        In the order of the old records, new ones last; empty if all is as it was. Both undefined (NaN) counts as equal,
        one of them as moved.

    Raises:
        ValueError: If the tolerance is negative.
    """
    if not default_tolerance >= 0:
        raise ValueError(f'expected a tolerance >= 0, but got {default_tolerance}')
    now = {record.name: record for record in new}
    before = {record.name: record for record in old}
    found = []
    for name, record in before.items():
        if name in now:
            found += _compare(now[name], record, default_tolerance)
        else:
            found += [Regression('missing', *name, metric, value) for metric, value in record.metrics.items()]
    for name, record in now.items():
        if name not in before:
            found += [Regression('new', *name, metric, None, value) for metric, value in record.metrics.items()]
    return found


def format_regressions(found: Sequence[Regression], compared: int) -> str:
    """Text for the command line: what closes the gate first, then what is new, then one line that sums it up.

    Args:
        found: Of `regressions`.
        compared: How many numbers the old records have, for the last line.
    """
    lines = []
    for kind, heading in _HEADINGS.items():
        own = [entry for entry in found if entry.kind == kind]
        if own:
            lines += [f'{heading}:', *(f'  {_line(entry)}' for entry in own)]
    failures = sum(entry.fails for entry in found)
    if failures:
        lines.append(f'FAILED: {failures} of {compared} numbers are not as they were')
    else:
        lines.append(f'passed: all {compared} numbers are as they were')
    return '\n'.join(lines)


def count_numbers(records: Iterable[Record]) -> int:
    """How many numbers records have together."""
    return sum(len(record.metrics) for record in records)


def _compare(new: Record, old: Record, default_tolerance: float) -> list[Regression]:
    tolerance = new.benchmark['tolerance']
    tolerance = default_tolerance if tolerance is None else tolerance
    kind, differs = 'moved', _differences(new, old)
    if new.benchmark['protocol'] != old.benchmark['protocol']:
        kind = 'other protocol'
    elif new.dataset['fingerprint'] != old.dataset['fingerprint']:
        kind = 'other data'
    found = []
    for metric, before in old.metrics.items():
        if metric not in new.metrics:
            found.append(Regression('missing', *old.name, metric, before))
        elif kind != 'moved':
            found.append(Regression(kind, *old.name, metric, before, new.metrics[metric], None, differs))
        elif _moved(new.metrics[metric], before, tolerance):
            numbers = before, new.metrics[metric], tolerance
            found.append(Regression('moved', *old.name, metric, *numbers, differs))
    for metric, value in new.metrics.items():
        if metric not in old.metrics:
            found.append(Regression('new', *new.name, metric, None, value))
    return found


def _moved(new: float, old: float, tolerance: float) -> bool:
    if new != new or old != old:  # NaN
        return (new != new) != (old != old)
    return abs(new - old) > tolerance + 1e-9  # 50.05 - 50 is a little more than 0.05


def _differences(new: Record, old: Record) -> tuple[str, ...]:
    found = []
    if new.benchmark['protocol'] != old.benchmark['protocol']:
        found.append(f'protocol {new.benchmark["protocol"]!r}, was {old.benchmark["protocol"]!r}')
    if new.dataset['fingerprint'] != old.dataset['fingerprint']:
        found.append(f'data: {new.dataset["items"]} items, were {old.dataset["items"]}')
    if new.model['config_sha256'] != old.model['config_sha256']:
        found.append('config')
    if new.model['checkpoint_sha256'] != old.model['checkpoint_sha256']:
        found.append('checkpoint')
    now, before = new.run['packages'], old.run['packages']
    found += [
        f'{name} {now.get(name, "none")}, was {before.get(name, "none")}'
        for name in sorted(now.keys() | before.keys())
        if now.get(name) != before.get(name)
    ]
    found += [
        f'{key} {new.run[key]}, was {old.run[key]}'
        for key in ('seed', 'threads', 'device')
        if new.run[key] != old.run[key]
    ]
    return tuple(found)


def _line(entry: Regression) -> str:
    where = f'{entry.model} / {entry.benchmark} / {entry.metric}'
    if entry.kind == 'missing':
        return f'{where}: was {_number(entry.old)}'
    if entry.kind == 'new':
        return f'{where}: {_number(entry.new)}'
    text = f'{where}: {_number(entry.old)} -> {_number(entry.new)}'
    if entry.kind == 'moved':
        if entry.new == entry.new and entry.old == entry.old:
            text += f' ({entry.new - entry.old:+.6g}'
        else:
            text += ' (undefined on one side'
        text += f', tolerance {entry.tolerance:g})'
    return text + (f' [differs: {"; ".join(entry.differs)}]' if entry.differs else '')


def _number(value: float) -> str:
    return 'undefined' if value != value else f'{value:.6g}'
