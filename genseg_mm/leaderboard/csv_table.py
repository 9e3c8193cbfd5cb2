"""The tables as tidy CSV: one number per line, with everything that tells it from another."""

import csv
import io
from collections.abc import Iterable, Iterator

from genseg_mm.files import csv_cell
from genseg_mm.leaderboard.tables import Cell, Row, Table

FIELDS = (
    'table', 'column', 'method', 'value', 'unit', 'origin', 'status', 'protocol', 'source', 'ranked', 'items',
    'expected', 'config_sha256', 'checkpoint_sha256', 'date',
)  # fmt: skip


def csv_text(tables: Iterable[Table]) -> str:
    """Lines of all tables, with the header `FIELDS`.

    Texts that a spreadsheet would run as a formula get an apostrophe (:func:`genseg_mm.files.csv_cell`). `value` is not
    rounded; `origin` is measured or reported; `ranked` is yes if the number takes part in the ranking of
    its column; `items` and what follows are of measured numbers.
    """
    text = io.StringIO()
    writer = csv.DictWriter(text, FIELDS, lineterminator='\n')
    writer.writeheader()
    for table in tables:
        for row in table.rows:
            for line in _lines(table, row):
                writer.writerow({name: csv_cell(cell) for name, cell in line.items()})
    return text.getvalue()


def _lines(table: Table, row: Row) -> Iterator[dict[str, object]]:
    for column, cell in zip(table.spec.columns, row.cells, strict=True):
        if cell.value is None:
            continue
        ranked = row.group == 'ranked' and cell.problem is None and column.better is not None
        line = dict(
            table=table.spec.name,
            column=column.name,
            method=row.method,
            value=repr(cell.value) if row.measured else cell.text,
            unit=column.unit,
            origin='measured' if row.measured else 'reported',
            status=row.status,
            ranked='yes' if ranked else 'no',
        )
        yield {**line, **(_measured(cell) if row.measured else _published(cell))}


def _measured(cell: Cell) -> dict[str, object]:
    record = cell.record
    return dict(
        protocol=record.benchmark['protocol'],
        source=f'{record.model["name"]}/{record.benchmark["name"]}/result.json',
        items=record.dataset['items'],
        expected=_text(record.dataset['expected']),
        config_sha256=_text(record.model['config_sha256']),
        checkpoint_sha256=_text(record.model['checkpoint_sha256']),
        date=record.started.isoformat(timespec='seconds'),
    )


def _published(cell: Cell) -> dict[str, object]:
    return dict(protocol=cell.published.protocol, source=cell.published.source)


def _text(value: object) -> object:
    return '' if value is None else value
