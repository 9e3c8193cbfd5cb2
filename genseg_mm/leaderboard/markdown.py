"""Markdown: texts that can be no markup, tables, and the report of a leaderboard for a repository or pull request."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any

from genseg_mm.leaderboard.record import Record
from genseg_mm.leaderboard.tables import GROUPS, Cell, Row, Table, with_measured_rows

DASH = '–'
_ESCAPES = str.maketrans({sign: f'\\{sign}' for sign in '\\`*_{}[]#|~'} | {'<': '&lt;', '>': '&gt;', '&': '&amp;'})


def escaped(text: object) -> str:
    """A text that can be no markup, no line of its own and no end of a table's cell: the one rule of all reports."""
    return ' '.join(str(text).split()).translate(_ESCAPES)


def table_lines(head: Sequence[str], rows: Iterable[Sequence[str]], numbers: Collection[int] = ()) -> list[str]:
    """A table whose cells are Markdown already.

    Args:
        head: Titles of the columns.
        rows: One cell per column.
        numbers: Places of the columns to align right, from 0.
    """
    rule = ['---:' if place in numbers else '---' for place in range(len(head))]
    return [f'| {" | ".join(cells)} |' for cells in (head, rule, *rows)]


def markdown_text(
    title: str, suite: Mapping[str, Any], tables: Sequence[Table], records: Sequence[Record], created: datetime
) -> str:
    """All tables, and a list of the runs.

    Args:
        title: First heading.
        suite: name and description.
        tables: To show.
        records: Of the list of runs.
        created: UTC.
    """
    parts = [f'# {escaped(title)}', '']
    if suite.get('description'):
        parts += [escaped(suite['description']), '']
    parts += [
        f'Made {created:%Y-%m-%d %H:%M} UTC. *measured*: by this package; *reported*: published, with its source; '
        '*secondary*: published, read in the table or note of somebody else; **bold**: the best of its column among '
        'comparable numbers; ⚠: of incomplete or other data, see below its table.',
        '',
    ]
    shown, left_out = with_measured_rows(tables)
    for table in shown:
        parts += _table_lines(table)
    if left_out:
        parts += [f'Nothing is measured yet for: {escaped(", ".join(left_out))}.', '']
    if records:
        parts += _run_lines(records)
    return '\n'.join(parts)


def _table_lines(table: Table) -> list[str]:
    spec = table.spec
    lines = [f'## {escaped(spec.title)}', '']
    if spec.note:
        lines += [escaped(spec.note), '']
    unranked = table.why_unranked()
    if unranked:
        lines += [unranked, '']
    heads = [escaped(column.name) for column in spec.columns]
    main = [row for row in table.rows if row.group != 'apart']
    if main:
        lines += table_lines(['\\#', 'Method', '', *heads, 'Source'], map(_main_cells, main), range(3, 3 + len(heads)))
    else:
        lines.append('Nothing is measured yet.')
    lines.append('')
    notes = [
        f'⚠{number} {escaped(", ".join(where))}: {escaped(problem)}'
        for number, (problem, where) in enumerate(table.problems().items(), 1)
    ]
    if notes:
        lines += [f'{"; ".join(notes)}.', '']
    apart = table.group('apart')
    if apart:
        lines += [f'{GROUPS["apart"]}:', '']
        cells = [
            [escaped(row.method), f'*{row.kind}*', *map(_cell, row.cells), escaped(row.protocol), _source(row)]
            for row in apart
        ]
        lines += table_lines(['Method', '', *heads, 'Protocol', 'Source'], cells, range(2, 2 + len(heads)))
        lines.append('')
    if table.not_run:
        lines += [f'Not run yet: {escaped(", ".join(table.not_run))}.', '']
    return lines


def _main_cells(row: Row) -> list[str]:
    place = str(row.place) if row.place else DASH
    return [place, escaped(row.method), f'*{row.kind}*', *map(_cell, row.cells), _source(row)]


def _cell(cell: Cell) -> str:
    if cell.missing is not None:
        return DASH
    text = f'**{cell.text}**' if cell.best else cell.text
    return f'{text} ⚠{cell.footnote}' if cell.footnote else text


def _source(row: Row) -> str:
    if not row.measured:
        return escaped('; '.join([*row.sources, *row.notes]))
    newest = max(cell.record.started for cell in row.cells if cell.record)
    return f'measured {newest:%Y-%m-%d}'


def _run_lines(records: Sequence[Record]) -> list[str]:
    head = [
        'Model', 'Benchmark', 'Items', 'Config', 'Checkpoint', 'Data', 'Seed', 's per item (model, data, metric)',
        'Hardware',
    ]  # fmt: skip
    rows = []
    for record in records:
        model, data, run = record.model, record.dataset, record.run
        times = ', '.join(f'{run["seconds_per_item"][key]:.4g}' for key in ('model', 'data', 'metric'))
        items = f'{data["items"]}' + (f' (⚠ {record.incomplete})' if record.incomplete else '')
        hashes = [
            (text or DASH)[:12] for text in (model['config_sha256'], model['checkpoint_sha256'], data['fingerprint'])
        ]
        seed = DASH if run['seed'] is None else run['seed']
        cells = [model['title'], record.benchmark['title'], items, *hashes, seed, times]
        rows.append([escaped(cell) for cell in [*cells, f'{run["device"]}, {run["hardware"]}']])
    return ['## Runs', '', *table_lines(head, rows, numbers=(2,)), '']
