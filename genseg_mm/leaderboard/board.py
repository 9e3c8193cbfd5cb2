"""The leaderboard of a suite: reads the records of its output folder and writes the four files."""

import csv
import io
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from genseg_mm.files import csv_cell, write_text
from genseg_mm.leaderboard.html_page import html_text
from genseg_mm.leaderboard.markdown import markdown_text
from genseg_mm.leaderboard.record import SCHEMA, Record, read_records
from genseg_mm.leaderboard.tables import Row, Table, make_table

# Of the CSV.
FIELDS = (
    'table', 'column', 'method', 'value', 'unit', 'origin', 'status', 'protocol', 'source', 'ranked', 'items',
    'expected', 'config_sha256', 'checkpoint_sha256', 'date',
)  # fmt: skip


@dataclass(frozen=True)
class Leaderboard:
    """Tables and the records they are made of.

    Args:
        suite: name, title, description.
        tables: In the order of the suite.
        records: Measured, in the order of the suite's models and benchmarks.
        created: UTC.
    """

    suite: Mapping[str, Any]
    tables: Sequence[Table]
    records: Sequence[Record]
    created: datetime

    @property
    def title(self) -> str:
        return self.suite.get('title') or self.suite['name']

    def json_text(self) -> str:
        """What ``--check`` compares with: the suite's name and its records."""
        data = dict(
            schema=SCHEMA,
            suite=self.suite['name'],
            created=self.created.isoformat(timespec='seconds'),
            records=[record.to_dict() for record in self.records],
        )
        return json.dumps(data, indent=1, allow_nan=False, ensure_ascii=False) + '\n'

    def write(self, out_dir: str | Path) -> list[Path]:
        """Writes leaderboard.md, .csv, .html and .json, each at once.

        Returns:
            Their paths.
        """
        texts = {
            'md': markdown_text(self.title, self.suite, self.tables, self.records, self.created),
            'csv': csv_text(self.tables),
            'html': html_text(self.title, self.suite, self.tables, self.records, self.created),
            'json': self.json_text(),
        }
        paths = []
        for ending, text in texts.items():
            paths.append(Path(out_dir) / f'leaderboard.{ending}')
            write_text(paths[-1], text)
        return paths


def build(out_dir: str | Path, suite_cfg: Mapping[str, Any], created: datetime | None = None) -> Leaderboard:
    """Leaderboard of all records of an output folder.

    Args:
        out_dir: Holds MODEL/BENCHMARK/result.json; may hold none yet.
        suite_cfg: The suite's config: `suite`, `benchmarks`, and `models` and `tables` if it has any.
        created: Time on the page, now if None.

    Raises:
        ValueError: If a record or the config is wrong.
    """
    try:
        records = read_records(out_dir)
    except FileNotFoundError:
        records = []
    created = datetime.now(UTC) if created is None else created.astimezone(UTC)
    return from_records(records, suite_cfg, created)


def from_records(records: Sequence[Record], suite_cfg: Mapping[str, Any], created: datetime) -> Leaderboard:
    """Leaderboard of these records; see `build`."""
    cfg = dict(benchmarks=suite_cfg['benchmarks'], models=suite_cfg.get('models') or {})
    models, benchmarks = list(cfg['models']), list(cfg['benchmarks'])

    def order(record: Record) -> tuple:
        model, benchmark = record.name
        return (
            models.index(model) if model in models else len(models),
            benchmarks.index(benchmark) if benchmark in benchmarks else len(benchmarks),
            record.name,
        )

    records = sorted(records, key=order)
    entries = suite_cfg.get('tables') or ()
    table_names = [entry.get('name') for entry in entries]
    if len(set(table_names)) < len(table_names):
        raise ValueError(f'expected tables with names of their own, but got {table_names}')
    tables = [make_table(entry, records, cfg) for entry in entries]
    return Leaderboard(suite_cfg['suite'], tables, records, created)


def csv_text(tables: Iterable[Table]) -> str:
    """The tables as tidy CSV with the header `FIELDS`: one number per line, with all that tells it from another.

    Texts that a spreadsheet would run as a formula get an apostrophe (:func:`genseg_mm.files.csv_cell`). `value` is not
    rounded; `origin` is measured or reported; `ranked` is yes if the number takes part in the ranking of
    its column; `items` and what follows are of measured numbers.
    """
    text = io.StringIO()
    writer = csv.DictWriter(text, FIELDS, lineterminator='\n')
    writer.writeheader()
    for table in tables:
        for row in table.rows:
            for line in _csv_lines(table, row):
                writer.writerow({name: csv_cell(cell) for name, cell in line.items()})
    return text.getvalue()


def _csv_lines(table: Table, row: Row) -> Iterator[dict[str, object]]:
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
        if row.measured:
            record = cell.record
            line |= dict(
                protocol=record.benchmark['protocol'],
                source='/'.join([*record.name, 'result.json']),
                items=record.dataset['items'],
                expected=record.dataset['expected'],
                config_sha256=record.model['config_sha256'],
                checkpoint_sha256=record.model['checkpoint_sha256'],
                date=record.started.isoformat(timespec='seconds'),
            )
        else:
            line |= dict(protocol=cell.published.protocol, source=cell.published.source)
        yield line
