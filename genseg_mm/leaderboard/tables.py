"""Rows of the leaderboard's tables: measured and published numbers, what is ranked and why the rest is not."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from genseg_mm.leaderboard.record import Record
from genseg_mm.leaderboard.reported_rows import RANKED_STATUSES, ReportedRow, reported

BETTER = ('higher', 'lower', None)
# Groups of rows, in the order in which a table shows them.
GROUPS = {
    'ranked': 'Ranked',
    'incomplete': 'On incomplete or other data, not ranked',
    'control': 'Controls, not ranked',
    'apart': 'Other protocols, not ranked',
}
# Why most numbers are missing.
UNPUBLISHED = 'not in the sources that were read'
NOT_RUN = 'not run yet'
NO_RESULT = 'no result'  # where it is not known whether the model could do it


@dataclass(frozen=True)
class Column:
    """A metric of a benchmark.

    Args:
        name: Heading; published numbers of the same name stand in this column.
        benchmark: Name in the suite.
        metric: Key of a record's metrics.
        unit: Of the metric, '%' unless the config says otherwise.
        better: 'higher', 'lower' or None: not ranked.
    """

    name: str
    benchmark: str
    metric: str
    unit: str = '%'
    better: str | None = 'higher'


@dataclass(frozen=True)
class TableSpec:
    """One table of the leaderboard.

    Args:
        name: Unique in the suite.
        title: Heading.
        columns: At least one, names unique.
        note: A paragraph under the heading.
        reported: Name of the published numbers beside ours (`reported_rows.names`), None for none.
        protocol: Of our numbers. Published ones are ranked with them only if theirs is exactly the same.
        rank_by: Name of the column that decides, None for the mean of ranks over all columns.
    """

    name: str
    title: str
    columns: tuple[Column, ...]
    note: str = ''
    reported: str | None = None
    protocol: str | None = None
    rank_by: str | None = None

    @classmethod
    def from_dict(cls, table: Mapping[str, Any], benchmarks: Mapping[str, Any]) -> 'TableSpec':
        """Checks an entry of the config's `tables`.

        Args:
            table: The entry.
            benchmarks: Those of the suite, by name.

        Raises:
            ValueError: If a key is unknown or missing, or names what is not there.
        """
        where = f'table {table.get("name")!r}'
        _check_keys(cls, table, ('name', 'title', 'columns'), where)
        columns = []
        for column in table['columns']:
            _check_keys(Column, column, ('name', 'benchmark', 'metric'), f'a column of {where}')
            columns.append(Column(**column))
        spec = cls(**{**table, 'columns': tuple(columns)})
        spec._check(benchmarks, where)
        return spec

    def _check(self, benchmarks: Mapping[str, Any], where: str) -> None:
        names = [column.name for column in self.columns]
        if not names or len(set(names)) < len(names):
            raise ValueError(f'{where}: expected columns with names of their own, but got {names}')
        for column in self.columns:
            if column.benchmark not in benchmarks:
                raise ValueError(
                    f'{where}: expected the benchmark of column {column.name!r} as one of {list(benchmarks)}, but got '
                    f'{column.benchmark!r}'
                )
            if column.better not in BETTER:
                raise ValueError(
                    f'{where}: expected better of column {column.name!r} as one of {BETTER}, but got {column.better!r}'
                )
        ranked = [column.name for column in self.columns if column.better]
        if self.rank_by is not None and self.rank_by not in ranked:
            raise ValueError(f'{where}: expected rank_by as one of {ranked} or None, but got {self.rank_by!r}')


def _check_keys(cls: type, entry: Mapping[str, Any], needed: tuple[str, ...], where: str) -> None:
    allowed = cls.__dataclass_fields__
    unknown = [key for key in entry if key not in allowed]
    missing = [key for key in needed if key not in entry]
    if unknown or missing:
        raise ValueError(
            f'{where}: expected the keys {", ".join(allowed)}, but '
            + ' and '.join([f'got {key!r}' for key in unknown] + [f'{key!r} is missing' for key in missing])
        )


@dataclass
class Cell:
    """One number of a row, or why there is none.

    Args:
        value: None if missing.
        text: As shown, without unit; '' if missing.
        missing: Why there is no number, None if there is one.
        problem: Why the number is not ranked ('6 of 718 items'), None if nothing is wrong with it.
        footnote: Number of the problem below the table, from 1; None without one.
        best: The best of its column among the numbers that may be compared.
        record: Where a measured number comes from.
        published: Where a published number comes from.
    """

    value: float | None = None
    text: str = ''
    missing: str | None = None
    problem: str | None = None
    footnote: int | None = None
    best: bool = False
    record: Record | None = None
    published: ReportedRow | None = None

    def ranked_value(self) -> float | None:
        """The number as it is shown, None if it may not be ranked: 83.304 and a printed 83.3 are equal."""
        return None if self.value is None or self.problem else float(self.text)


@dataclass
class Row:
    """A method and its numbers, one cell per column of the table.

    Args:
        method: Name.
        measured: By us, or published.
        group: Key of `GROUPS`.
        protocol: Of a published row.
        status: 'model' or 'control' of a measured row, else that of the published numbers.
        cells: In the order of the columns.
        sources: Of a published row.
        notes: Of a published row.
        place: 1 is the best, None if not ranked.
    """

    method: str
    measured: bool
    group: str
    status: str
    cells: list[Cell]
    protocol: str = ''
    sources: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    place: int | None = None

    @property
    def kind(self) -> str:
        """What a reader is told about where the row comes from: 'measured', 'control' or the status of its numbers."""
        return 'measured' if self.measured and self.status == 'model' else self.status


@dataclass
class Table:
    """One table, rows sorted by group and place.

    Args:
        spec: From the config.
        rows: Of all groups.
        not_run: Titles of models that could be measured for this table, but have not been.
        elsewhere: How many published numbers belong to columns that this table does not have.
    """

    spec: TableSpec
    rows: list[Row]
    not_run: list[str]
    elsewhere: int

    def group(self, name: str) -> list[Row]:
        return [row for row in self.rows if row.group == name]

    def problems(self) -> dict[str, list[str]]:
        """What is wrong with measured numbers -> columns in which it is, in the order of `Cell.footnote`."""
        found: dict[str, list[str]] = {}
        for number, column in enumerate(self.spec.columns):
            own = dict.fromkeys(row.cells[number].problem for row in self.rows)
            for problem in filter(None, own):
                found.setdefault(problem, []).append(column.name)
        return found

    def why_unranked(self) -> str | None:
        """One sentence if models were measured, but nothing in the table is ranked; else None."""
        if not self.group('incomplete') or self.group('ranked'):
            return None
        return 'Nothing is ranked here: all measured numbers are of incomplete or other data (⚠).'


def make_table(entry: Mapping[str, Any], records: Sequence[Record], cfg: Mapping[str, Any]) -> Table:
    """Builds a table of the suite.

    Args:
        entry: Of the config's `tables`.
        records: All that were measured.
        cfg: The suite's config with `models` and `benchmarks`.

    Raises:
        ValueError: If the entry is wrong.
    """
    spec = TableSpec.from_dict(entry, cfg['benchmarks'])
    published = reported(spec.reported) if spec.reported else []
    shown = {column.name for column in spec.columns}
    own = [row for row in published if row.column in shown]
    digits = max((len(row.text.partition('.')[2]) for row in own), default=2)  # ours have as many as the published ones
    rows, not_run = _measured_rows(spec, records, cfg, digits)
    rows += _published_rows(spec, own)
    _rank(spec, rows)
    table = Table(spec, _sorted(spec, rows), not_run, len(published) - len(own))
    numbers = {problem: number for number, problem in enumerate(table.problems(), 1)}
    for cell in (cell for row in rows for cell in row.cells):
        cell.footnote = numbers.get(cell.problem)
    return table


def with_measured_rows(tables: Sequence[Table]) -> tuple[list[Table], list[str]]:
    """The tables to show, and the titles of those left out because nothing is measured in them.

    Where nothing is measured at all, all published numbers are shown.
    """
    shown = [table for table in tables if any(row.measured for row in table.rows)] or list(tables)
    return shown, [table.spec.title for table in tables if table not in shown]


def _measured_rows(
    spec: TableSpec, records: Sequence[Record], cfg: Mapping[str, Any], digits: int
) -> tuple[list[Row], list[str]]:
    found = {record.name: record for record in records}
    models = dict.fromkeys([*cfg['models'], *(record.model['name'] for record in records)])
    stale = _stale(records, cfg['benchmarks'])
    rows, not_run = [], []
    for model in models:
        settings = cfg['models'].get(model, {})
        own = [found.get((model, column.benchmark)) for column in spec.columns]
        first = next((record for record in own if record), None)
        if first is None:
            tasks = {cfg['benchmarks'][column.benchmark].get('task') for column in spec.columns}
            if tasks & set(settings.get('tasks') or ()):
                not_run.append(settings.get('title', model))
            continue
        cells = [
            _measured_cell(column, record, settings, cfg, stale, digits)
            for column, record in zip(spec.columns, own, strict=True)
        ]
        usable = any(cell.ranked_value() is not None for cell in cells)
        group = 'control' if first.is_control else 'ranked' if usable else 'incomplete'
        rows.append(Row(first.model['title'], True, group, first.model['kind'], cells))
    return rows, not_run


def _measured_cell(
    column: Column,
    record: Record | None,
    settings: Mapping[str, Any],
    cfg: Mapping[str, Any],
    stale: Mapping[tuple[str, str], str],
    digits: int,
) -> Cell:
    if record is None:
        tasks = settings.get('tasks')
        task = cfg['benchmarks'][column.benchmark].get('task')
        if tasks is None:
            return Cell(missing=NO_RESULT)
        return Cell(missing=NOT_RUN if task in tasks else f'the model has no task {task!r}')
    value = record.metrics.get(column.metric)
    if value is None:
        return Cell(missing=f'the run has no metric {column.metric!r}', record=record)
    if value != value:
        return Cell(missing='undefined on these data', record=record)
    problem = record.incomplete or stale.get(record.name)
    return Cell(value, f'{value:.{digits}f}', problem=problem, record=record)


def _stale(records: Iterable[Record], benchmarks: Mapping[str, Any]) -> dict[tuple[str, str], str]:
    """Records that were measured with another protocol or other data than the newest one of their benchmark."""
    newest: dict[str, Record] = {}
    for record in records:
        name = record.benchmark['name']
        if name not in newest or record.started > newest[name].started:
            newest[name] = record
    found = {}
    for record in records:
        name = record.benchmark['name']
        protocol = benchmarks.get(name, {}).get('protocol', newest[name].benchmark['protocol'])
        if record.benchmark['protocol'] != protocol:
            found[record.name] = 'measured with another protocol'
        elif record.dataset['fingerprint'] != newest[name].dataset['fingerprint']:
            found[record.name] = 'measured on other data'
    return found


def _published_rows(spec: TableSpec, published: Sequence[ReportedRow]) -> list[Row]:
    groups: dict[tuple[str, str, str], dict[str, ReportedRow]] = {}
    for number in published:
        key = number.method, number.protocol, number.status
        groups.setdefault(key, {})[number.column] = number
    rows = []
    for (method, protocol, status), numbers in groups.items():
        ranked = protocol == spec.protocol and status in RANKED_STATUSES
        cells = []
        for column in spec.columns:
            number = numbers.get(column.name)
            if number is None:
                cells.append(Cell(missing=_why_unpublished(method, column.name, published)))
            else:
                cells.append(Cell(number.value, number.text, published=number))
        own = numbers.values()
        rows.append(
            Row(
                method,
                measured=False,
                group='ranked' if ranked else 'apart',
                status=status,
                cells=cells,
                protocol=protocol,
                sources=list(dict.fromkeys(number.source for number in own)),
                notes=list(dict.fromkeys(number.note for number in own if number.note)),
            )
        )
    return rows


def _why_unpublished(method: str, column: str, published: Sequence[ReportedRow]) -> str:
    others = [row for row in published if (row.method, row.column) == (method, column)]
    if others:
        return f'only as a {others[0].status} number ({others[0].protocol}), in a row of its own'
    return UNPUBLISHED


def _rank(spec: TableSpec, rows: Sequence[Row]) -> None:
    """Marks the best number of each column, and gives the rows that may be ranked their places."""
    ranked = [row for row in rows if row.group == 'ranked']
    for number, column in enumerate(spec.columns):
        tops = ranks([row.cells[number].ranked_value() for row in ranked], column.better == 'higher', ties='min') == 1
        for row, top in zip(ranked, tops, strict=True):
            row.cells[number].best = column.better is not None and bool(top)
    deciding = [
        number for number, column in enumerate(spec.columns) if column.better and spec.rank_by in (None, column.name)
    ]
    values = [[row.cells[number].ranked_value() for number in deciding] for row in ranked]
    scores = mean_ranks(values, [spec.columns[number].better == 'higher' for number in deciding])
    for row, place in zip(ranked, places(scores), strict=True):
        row.place = place


def ranks(values: Any, higher_is_better: bool | Sequence[bool] = True, ties: str = 'average') -> np.ndarray:
    """1 for the best of each column; nan where there is no number, which takes no part.

    Args:
        values: Numbers, None or nan where there is none, (rows,) or (rows, columns).
        higher_is_better: Of all columns, or of each.
        ties: Equal values share the mean of their places ('average') or the best of them ('min').

    >>> ranks([80.0, None, 90.0, 80.0])
    array([2.5, nan, 1. , 2.5])
    """
    from scipy.stats import rankdata  # takes most of a second, which only who makes tables has to pay

    numbers = np.array(values, float)
    signed = np.where(higher_is_better, -numbers, numbers)
    return rankdata(signed, ties, axis=0, nan_policy='omit').reshape(numbers.shape)


def mean_ranks(
    rows: Sequence[Sequence[float | None]], higher_is_better: Sequence[bool], complete: bool = True
) -> np.ndarray:
    """Mean over the columns of each row's rank, smaller is better; nan for a row without one.

    Args:
        rows: Values, one sequence per row, one value or None per column.
        higher_is_better: Per column.
        complete: Rows that lack a value get nan, and take no part in the ranks of the others. Otherwise, every row
            has the mean over the columns that it has.
    """
    values = np.array(rows, float).reshape(len(rows), len(higher_is_better))
    if complete:
        values[np.isnan(values).any(axis=1)] = math.nan
    own = np.ma.masked_invalid(ranks(values, higher_is_better))
    return own.mean(axis=1).filled(math.nan)


def places(scores: np.ndarray) -> list[int | None]:
    """Places by score, the smallest first; equal scores share the better place (1, 2, 2, 4), nan has None."""
    found = ranks(np.round(scores, 9), higher_is_better=False, ties='min')
    return [None if math.isnan(place) else int(place) for place in found]


def _sorted(spec: TableSpec, rows: Sequence[Row]) -> list[Row]:
    """By group, protocol and place; rows without a place by the mean rank over the columns that they have."""
    columns = [number for number, column in enumerate(spec.columns) if column.better]
    ordered = []
    for group in GROUPS:
        own = [row for row in rows if row.group == group]
        protocols = list(dict.fromkeys(row.protocol for row in own))
        values = [[row.cells[number].value for number in columns] for row in own]
        means = mean_ranks(values, [spec.columns[number].better == 'higher' for number in columns], complete=False)
        keys = [
            (protocols.index(row.protocol) if group == 'apart' else 0, row.place or math.inf, mean)
            for row, mean in zip(own, np.nan_to_num(means, nan=math.inf), strict=True)
        ]
        ordered += [own[number] for number in sorted(range(len(own)), key=keys.__getitem__)]
    return ordered
