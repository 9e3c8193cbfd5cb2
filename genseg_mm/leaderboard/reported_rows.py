"""Published numbers, transcribed with their protocol and source. None of them was measured with this package."""

import csv
import math
from collections.abc import Iterable
from dataclasses import dataclass
from importlib import resources
from importlib.resources.abc import Traversable

FIELDS = ('method', 'column', 'value', 'protocol', 'status', 'source', 'note')
# What a status says about where a number was read.
STATUSES = {
    'reported': 'on a page of those who measured it',
    'secondary': 'in the table or note of somebody else',
    'derived': 'computed here from published numbers',
    'unconfirmed': 'its metric, split or training is not certain',
}
RANKED_STATUSES = ('reported', 'secondary')


@dataclass(frozen=True)
class ReportedRow:
    """One published number.

    Args:
        method: Name as in the field, (ft) = fine-tuned on the benchmark's training split.
        column: Of the leaderboard's table, e.g. 'RefCOCO val'.
        value: Percent, in [0, 100].
        text: The value as printed, with its decimals.
        protocol: What was computed; numbers of two protocols are never ranked together.
        status: Key of `STATUSES`.
        source: Page or table that it was read from.
        note: What else a reader has to know, may be empty.
    """

    method: str
    column: str
    value: float
    text: str
    protocol: str
    status: str
    source: str
    note: str = ''


def names() -> list[str]:
    """Names of the packaged tables: edges, genmask_ablation, points, reasonseg, refcoco."""
    return sorted(file.name[:-4] for file in _folder().iterdir() if file.name.endswith('.csv'))


def reported(name: str) -> list[ReportedRow]:
    """Published numbers of a packaged table, in the order of its file.

    Raises:
        ValueError: If there is no such table, or a line of it is wrong.
    """
    file = _folder() / f'{name}.csv'
    if name not in names():
        raise ValueError(f'expected reported rows as one of {names()}, but got {name!r}')
    with file.open(encoding='utf-8', newline='') as lines:
        return parse_rows(lines, file.name)


def parse_rows(lines: Iterable[str], where: str) -> list[ReportedRow]:
    """Checks and reads the lines of a CSV file with the header `FIELDS`.

    Raises:
        ValueError: If the header, a field, a number or a status is wrong, or a number is there twice; names the line.
    """
    reader = csv.reader(lines)
    header = next(reader, [])
    if tuple(header) != FIELDS:
        raise ValueError(f'{where}: expected the header {",".join(FIELDS)}, but got {header}')
    rows, seen = [], set()
    for fields in reader:
        row = _parse_row(fields, f'{where}, line {reader.line_num}')
        key = row.method, row.column, row.protocol
        if key in seen:
            raise ValueError(f'{where}, line {reader.line_num}: {key} is there twice')
        seen.add(key)
        rows.append(row)
    return rows


def _parse_row(fields: list[str], where: str) -> ReportedRow:
    if len(fields) != len(FIELDS):
        raise ValueError(f'{where}: expected {len(FIELDS)} fields, but got {fields}')
    values = dict(zip(FIELDS, fields, strict=True))
    empty = [key for key, text in values.items() if not text.strip() and key != 'note']
    if empty:
        raise ValueError(f'{where}: {", ".join(empty)} is empty')
    try:
        number = float(values['value'])
    except ValueError:
        number = math.nan
    if not 0 <= number <= 100:
        raise ValueError(f'{where}: expected percent in [0, 100], but got {values["value"]!r}')
    if values['status'] not in STATUSES:
        raise ValueError(f'{where}: expected a status of {list(STATUSES)}, but got {values["status"]!r}')
    return ReportedRow(**{**values, 'value': number}, text=values['value'])


def _folder() -> Traversable:
    return resources.files('genseg_mm.leaderboard') / 'reported'
