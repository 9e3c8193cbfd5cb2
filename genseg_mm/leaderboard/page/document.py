"""The whole page: head with style, script and content security policy, tables, runs."""

import base64
import hashlib
from collections.abc import Mapping, Sequence
from datetime import datetime
from importlib import resources
from typing import Any

from genseg_mm.leaderboard.markdown_report import with_measured_rows
from genseg_mm.leaderboard.page.run_details import anchors_of, runs_section, times_section
from genseg_mm.leaderboard.page.score_tables import MARKS, mark, table_section
from genseg_mm.leaderboard.page.tags import Markup, tag
from genseg_mm.leaderboard.record import Record
from genseg_mm.leaderboard.tables import Table


def html_text(
    title: str, suite: Mapping[str, Any], tables: Sequence[Table], records: Sequence[Record], created: datetime
) -> str:
    """One HTML file with everything in it.

    Args:
        title: Of the page.
        suite: name and description.
        tables: To show.
        records: Of the runs section.
        created: UTC.
    """
    tables, left_out = with_measured_rows(tables)
    style, script = _packaged('style.css'), _packaged('sort.js')
    anchors = anchors_of(records)
    sections = [table_section(table, number, anchors) for number, table in enumerate(tables, 1)]
    if left_out:
        sections.append(tag('p', f'Nothing is measured yet for: {", ".join(left_out)}.', class_='note'))
    if records:
        sections += [times_section(records, anchors), runs_section(records, anchors, _shown_metrics(tables))]
    body = tag(
        'body', _header(title, suite, tables, records, created), tag('main', *sections), tag('script', Markup(script))
    )
    head = tag(
        'head',
        tag('meta', charset='utf-8'),
        tag('meta', name='viewport', content='width=device-width, initial-scale=1'),
        tag('meta', name='color-scheme', content='light dark'),
        tag('meta', http_equiv='Content-Security-Policy', content=_policy(style, script)),
        tag('title', title),
        tag('style', Markup(style)),
    )
    return f'<!DOCTYPE html>\n{tag("html", head, body, lang="en")}\n'


def _shown_metrics(tables: Sequence[Table]) -> dict[str, list[str]]:
    shown: dict[str, list[str]] = {}
    for table in tables:
        for column in table.spec.columns:
            own = shown.setdefault(column.benchmark, [])
            if column.metric not in own:
                own.append(column.metric)
    return shown


def _packaged(name: str) -> str:
    file = resources.files('genseg_mm.leaderboard.page') / name
    return file.read_text(encoding='utf-8')


def _policy(style: str, script: str) -> str:
    """Nothing is loaded, and no other style or script runs, whatever a text of a record contains."""
    hashes = [base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() for text in (style, script)]
    return (
        f"default-src 'none'; img-src data:; style-src 'sha256-{hashes[0]}'; script-src 'sha256-{hashes[1]}'; "
        "base-uri 'none'; form-action 'none'"
    )


def _header(
    title: str, suite: Mapping[str, Any], tables: Sequence[Table], records: Sequence[Record], created: datetime
) -> Markup:
    models = len({record.model['name'] for record in records if not record.is_control})
    benchmarks = len({record.benchmark['name'] for record in records})
    published = len({row.method for table in tables for row in table.rows if not row.measured})
    counts = [
        _count(models, 'model', 'measured'),
        _count(benchmarks, 'benchmark', ''),
        _count(published, 'published method', ''),
        f'made {created:%Y-%m-%d %H:%M} UTC',
    ]
    links = [tag('a', table.spec.title, href=f'#table-{n}') for n, table in enumerate(tables, 1)]
    if records:
        links += [tag('a', 'Time per item', href='#times'), tag('a', 'Runs', href='#runs')]
    return tag(
        'header',
        tag('h1', title),
        tag('p', suite['description'], class_='note') if suite.get('description') else None,
        tag('p', ' · '.join(counts), class_='counts'),
        tag('nav', *links, aria_label='Tables'),
        _legend(tables),
    )


def _count(number: int, noun: str, more: str) -> str:
    return f'{number} {noun}{"" if number == 1 else "s"} {more}'.rstrip()


def _legend(tables: Sequence[Table]) -> Markup:
    shown = {
        'measured' if row.measured and row.status == 'model' else row.status for table in tables for row in table.rows
    }
    lines = [tag('div', tag('dt', mark(kind)), tag('dd', meaning)) for kind, meaning in MARKS.items() if kind in shown]
    lines.append(
        tag('div', tag('dt', tag('strong', '88.3')), tag('dd', 'the best of its column among comparable numbers'))
    )
    if any(cell.problem for table in tables for row in table.rows for cell in row.cells):
        sign = tag('span', '⚠', class_='warning')
        lines.append(tag('div', tag('dt', sign), tag('dd', 'incomplete or other data: not ranked')))
    return tag('dl', *lines, class_='legend')
