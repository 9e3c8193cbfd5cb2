"""A comparison as text: tables for a terminal and for Markdown."""

import math
from collections.abc import Sequence
from typing import NamedTuple

from genseg_mm.comparing.comparison import Comparison, GroupRow, unique_metrics
from genseg_mm.evaluation.paired_bootstrap import Difference


class Table(NamedTuple):
    """A title, column heads and rows of cells."""

    title: str
    head: list[str]
    rows: list[list[str]]


def tables(found: Comparison) -> list[Table]:
    """The overall table and one for each group."""
    head = ['metric', 'A', 'B', 'B - A', _interval_title(found), 'above 0']
    names = unique_metrics(found.pairs.a)
    rows = [[names[own.metric], *_cells(own)] for own in found.overall.differences]
    made = [Table('All items', head, rows)]
    for key, group_rows in found.groups.items():
        cells = [
            [row.group or '(none)', str(own.num_items), names[own.metric], *_cells(own), _outcome(row)]
            for row in group_rows
            for own in row.differences
        ]
        made.append(Table(f'By {key}', [key, 'items', *head, 'better / worse / equal'], cells))
    return made


def summary(found: Comparison) -> list[str]:
    """What is compared, who is better, and what to know about it; one line each."""
    a, settings = found.pairs.a, found.settings
    what = 'pictures' if settings['by'] == 'image' else 'items'
    lines = [
        f'A = {found.names[0]}',
        f'B = {found.names[1]}',
        f'{len(a)} items in {len(set(a.pictures))} pictures; in percent, differences in percent points',
        f'paired bootstrap over {what}, {settings["resamples"]} resamples, seed {settings["seed"]}, '
        f'{settings["interval"]} intervals',
    ]
    lines += [_verdict(own, found) for own in found.overall.differences[:2]]
    if found.score is not None:
        row = found.overall
        counts = f'better on {row.wins}, worse on {row.losses}, equal on {row.ties}'
        lines.append(f'item by item ({found.score}): B is {counts}')
    return lines + [f'note: {note}' for note in found.notes]


def as_text(found: Comparison) -> str:
    """For a terminal."""
    parts = ['\n'.join(summary(found))]
    for table in tables(found):
        widths = [max(map(len, column)) for column in zip(table.head, *table.rows, strict=True)]
        lines = [
            '  '.join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
            for row in (table.head, ['-' * width for width in widths], *table.rows)
        ]
        parts.append('\n'.join([table.title, *lines]))
    return '\n\n'.join(parts)


def as_markdown(found: Comparison, title: str) -> str:
    """A report that ends with a line break."""
    lines = [f'# {escaped(title)}', '', *(f'- {escaped(line)}' for line in summary(found)), '']
    for table in tables(found):
        lines += [f'## {escaped(table.title)}', '', _markdown_row(table.head)]
        lines += ['|' + ' --- |' * len(table.head)]
        lines += [_markdown_row(row) for row in table.rows] + ['']
    return '\n'.join(lines)


def escaped(text: str) -> str:
    """Text of data files, which may hold anything, as it is in Markdown."""
    text = ' '.join(text.split()).replace('&', '&amp;').replace('<', '&lt;')
    return ''.join(f'\\{sign}' if sign in '|*_`[]\\' else sign for sign in text)


def _markdown_row(cells: Sequence[str]) -> str:
    return '| ' + ' | '.join(map(escaped, cells)) + ' |'


def _cells(own: Difference) -> list[str]:
    if math.isnan(own.low):
        interval, above = 'none', 'none'
    else:
        interval, above = f'{own.low:+.2f} to {own.high:+.2f}', f'{own.share_above:.1%}'
    return [_number(own.a), _number(own.b), _number(own.difference, '+'), interval, above]


def _number(value: float, sign: str = '') -> str:
    return 'none' if math.isnan(value) else f'{value:{sign}.2f}'


def _outcome(row: GroupRow) -> str:
    return 'none' if row.wins is None else f'{row.wins} / {row.losses} / {row.ties}'


def _interval_title(found: Comparison) -> str:
    return f'{100 * found.settings["confidence"]:g} % interval'


def _verdict(own: Difference, found: Comparison) -> str:
    name = unique_metrics(found.pairs.a)[own.metric]
    if math.isnan(own.difference):
        return f'{name}: undefined in A or B'
    if math.isnan(own.low):
        return f'{name}: B - A = {own.difference:+.2f}; one picture is too few for an interval'
    told = 'B is better' if own.low > 0 else 'A is better' if own.high < 0 else 'no difference can be told'
    where = 'contains' if own.low <= 0 <= own.high else 'excludes'
    return (
        f'{name}: {told}; B - A = {own.difference:+.2f}, {_interval_title(found)} {own.low:+.2f} to {own.high:+.2f} '
        f'{where} 0'
    )
