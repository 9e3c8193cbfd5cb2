"""Rows of the leaderboard's tables: measured and published numbers, what is ranked and why the rest is not."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from genseg_mm.leaderboard import ranking
from genseg_mm.leaderboard.record import Record
from genseg_mm.leaderboard.reported_rows import RANKED_STATUSES, ReportedRow, reported
from genseg_mm.leaderboard.table_spec import Column, TableSpec

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
    digits = spec.digits
    if digits is None:
        digits = max((len(row.text.partition('.')[2]) for row in own), default=2)
    rows, not_run = _measured_rows(spec, records, cfg, digits)
    rows += _published_rows(spec, own)
    _rank(spec, rows)
    table = Table(spec, _sorted(spec, rows), not_run, len(published) - len(own))
    numbers = {problem: number for number, problem in enumerate(table.problems(), 1)}
    for cell in (cell for row in rows for cell in row.cells):
        cell.footnote = numbers.get(cell.problem)
    return table


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
    ranked = [row for row in rows if row.group == 'ranked']
    for number, column in enumerate(spec.columns):
        values = [row.cells[number].ranked_value() for row in ranked]
        if column.better:
            flags = ranking.best(values, column.better == 'higher')
            for row, flag in zip(ranked, flags, strict=True):
                row.cells[number].best = flag
    deciding = [
        number for number, column in enumerate(spec.columns) if column.better and spec.rank_by in (None, column.name)
    ]
    scores = _mean_ranks(spec, ranked, deciding, complete=True)
    for row, place in zip(ranked, ranking.places(scores), strict=True):
        row.place = place


def _mean_ranks(spec: TableSpec, rows: Sequence[Row], columns: Sequence[int], complete: bool) -> list[float | None]:
    values = [[row.cells[n].ranked_value() if complete else row.cells[n].value for n in columns] for row in rows]
    higher = [spec.columns[number].better == 'higher' for number in columns]
    return ranking.mean_ranks(values, higher, complete)


def _sorted(spec: TableSpec, rows: Sequence[Row]) -> list[Row]:
    """By group, protocol and place; rows without a place by the mean rank over the columns that they have."""
    columns = [number for number, column in enumerate(spec.columns) if column.better]
    ordered = []
    for group in GROUPS:
        own = [row for row in rows if row.group == group]
        protocols = list(dict.fromkeys(row.protocol for row in own)) if group == 'apart' else ['']
        means = dict(zip(map(id, own), _mean_ranks(spec, own, columns, False), strict=True))

        def order(row: Row, means: dict = means, protocols: list[str] = protocols) -> tuple:
            protocol = protocols.index(row.protocol) if row.group == 'apart' else 0
            mean = means[id(row)]
            return protocol, row.place is None, row.place or 0, mean is None, mean or 0

        ordered += sorted(own, key=order)
    return ordered
