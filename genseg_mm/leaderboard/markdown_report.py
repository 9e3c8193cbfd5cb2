"""The tables as Markdown, for a repository or a pull request."""

import re
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from genseg_mm.leaderboard.record import Record
from genseg_mm.leaderboard.tables import GROUPS, Cell, Row, Table

DASH = '–'


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
    parts = [f'# {escape(title)}', '']
    if suite.get('description'):
        parts += [escape(suite['description']), '']
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
        parts += [f'Nothing is measured yet for: {escape(", ".join(left_out))}.', '']
    if records:
        parts += _run_lines(records)
    return '\n'.join(parts)


def with_measured_rows(tables: Sequence[Table]) -> tuple[list[Table], list[str]]:
    """The tables to show, and the titles of those left out because nothing is measured in them.

    Where nothing is measured at all, all published numbers are shown.
    """
    shown = [table for table in tables if any(row.measured for row in table.rows)] or list(tables)
    return shown, [table.spec.title for table in tables if table not in shown]


def escape(text: object) -> str:
    """Text that can be no markup and no end of a table's cell."""
    line = ' '.join(str(text).split())
    return re.sub(r'([\\`*_{}\[\]<>#|~&])', _escaped, line)


def _escaped(match: re.Match) -> str:
    names = {'<': '&lt;', '>': '&gt;', '&': '&amp;'}
    return names.get(match[1], f'\\{match[1]}')


def _table_lines(table: Table) -> list[str]:
    spec = table.spec
    columns = [column.name for column in spec.columns]
    lines = [f'## {escape(spec.title)}', '']
    if spec.note:
        lines += [escape(spec.note), '']
    unranked = table.why_unranked()
    if unranked:
        lines += [unranked, '']
    main = [row for row in table.rows if row.group != 'apart']
    if main:
        lines += _header(['#', 'Method', '', *columns, 'Source'], len(columns), 3)
        lines += [_main_line(row) for row in main]
    else:
        lines.append('Nothing is measured yet.')
    lines.append('')
    notes = [
        f'⚠{number} {escape(", ".join(where))}: {escape(problem)}'
        for number, (problem, where) in enumerate(table.problems().items(), 1)
    ]
    if notes:
        lines += [f'{"; ".join(notes)}.', '']
    apart = table.group('apart')
    if apart:
        lines += [f'{GROUPS["apart"]}:', '']
        lines += _header(['Method', '', *columns, 'Protocol', 'Source'], len(columns), 2)
        for row in apart:
            cells = [escape(row.method), f'*{row.status}*', *map(_cell, row.cells)]
            lines.append(_line([*cells, escape(row.protocol), _source(row)]))
        lines.append('')
    if table.not_run:
        lines += [f'Not run yet: {escape(", ".join(table.not_run))}.', '']
    return lines


def _header(names: Sequence[str], numbers: int, first: int) -> list[str]:
    rules = ['---:' if first <= place < first + numbers else '---' for place in range(len(names))]
    return [_line([escape(name) for name in names]), _line(rules)]


def _line(cells: Sequence[str]) -> str:
    return f'| {" | ".join(cells)} |'


def _main_line(row: Row) -> str:
    kind = 'measured' if row.measured and row.status == 'model' else row.status
    place = str(row.place) if row.place else DASH
    return _line([place, escape(row.method), f'*{kind}*', *map(_cell, row.cells), _source(row)])


def _cell(cell: Cell) -> str:
    if cell.missing is not None:
        return DASH
    text = f'**{cell.text}**' if cell.best else cell.text
    return f'{text} ⚠{cell.footnote}' if cell.footnote else text


def _source(row: Row) -> str:
    if not row.measured:
        return escape('; '.join([*row.sources, *row.notes]))
    newest = max(cell.record.started for cell in row.cells if cell.record)
    return f'measured {newest:%Y-%m-%d}'


def _run_lines(records: Sequence[Record]) -> list[str]:
    lines = ['## Runs', '']
    lines += _header(
        ['Model', 'Benchmark', 'Items', 'Config', 'Checkpoint', 'Data', 'Seed', 's per item (model, data, metric)',
         'Hardware'],
        1, 2,
    )  # fmt: skip
    for record in records:
        model, data, run = record.model, record.dataset, record.run
        times = ', '.join(f'{run["seconds_per_item"][key]:.4g}' for key in ('model', 'data', 'metric'))
        items = f'{data["items"]}' + (f' (⚠ {record.incomplete})' if record.incomplete else '')
        hashes = [
            (text or DASH)[:12] for text in (model['config_sha256'], model['checkpoint_sha256'], data['fingerprint'])
        ]
        seed = DASH if run['seed'] is None else run['seed']
        cells = [model['title'], record.benchmark['title'], items, *hashes, seed, times]
        lines.append(_line([escape(cell) for cell in [*cells, f'{run["device"]}, {run["hardware"]}']]))
    return [*lines, '']
