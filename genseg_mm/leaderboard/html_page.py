"""The leaderboard as one page of HTML that needs nothing else: no server, no request, no framework."""

import base64
import hashlib
import io
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment, FileSystemLoader, StrictUndefined, Template
from markupsafe import Markup
from PIL import Image, features

from genseg_mm.files.image_headers import read_header
from genseg_mm.files.images import decode_picture
from genseg_mm.leaderboard.record import KEYS, PICTURES, Record
from genseg_mm.leaderboard.reported_rows import STATUSES
from genseg_mm.leaderboard.tables import (
    GROUPS,
    NOT_RUN,
    UNPUBLISHED,
    Cell,
    Row,
    Table,
    TableSpec,
    with_measured_rows,
)

# What the small label of a row says about where it comes from.
MARKS = {
    'measured': 'by this package: the number links to its run',
    'control': 'measured, knows nothing about objects: what a number is worth beside it',
    **{status: f'published, {meaning}' for status, meaning in STATUSES.items()},
}

_MAX_SIDE = 720  # pixels; beyond that a phone and a desktop alike only see a smaller copy
_WANTED_BYTES = 10_000  # a page has hundreds of pictures
_QUALITIES = (70, 55, 40)
_KINDS = {'JPEG': 'image/jpeg', 'PNG': 'image/png', 'WEBP': 'image/webp'}
# WebP looks like a JPEG of twice its size, but some builds of Pillow lack it.
_FORMAT = 'WEBP' if features.check('webp') else 'JPEG'

_LOADER = FileSystemLoader(Path(__file__).parent)


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
    template = _template()
    tables, left_out = with_measured_rows(tables)
    style, script = (_LOADER.get_source(template.environment, f'page.{ending}')[0] for ending in ('css', 'js'))
    page = template.render(
        title=title,
        description=suite.get('description'),
        counts=_counts(tables, records, created),
        tables=tables,
        left_out=left_out,
        records=records,
        anchors={record.name: f'run-{number}' for number, record in enumerate(records, 1)},
        headline=partial(_headline, shown=_shown_metrics(tables)),
        warned=any(table.problems() for table in tables),
        style=style,
        script=script,
        policy=_policy(style, script),
    )
    return f'{page}\n'


@lru_cache
def _template() -> Template:
    """page.html. Its line breaks become comments, for else they would show as spaces, and errors keep their lines."""
    env = Environment(loader=_LOADER, autoescape=True, undefined=StrictUndefined)
    env.globals.update(
        marks=MARKS,
        groups=GROUPS,
        rule=_rule,
        why_no_place=_why_no_place,
        num_decimals=_num_decimals,
        most_decimals=_most_decimals,
        story=_story,
        newest=_newest,
        what_is_missing=_what_is_missing,
        percent_outside=_percent_outside,
        facts=_facts,
        pictures=_pictures,
        in_digits=_in_digits,
    )
    source = _LOADER.get_source(env, 'page.html')[0]
    return env.from_string(re.sub(r'(\n\s*)', r'{#\1#}', source))


def _policy(style: str, script: str) -> str:
    """Nothing is loaded, and no other style or script runs, whatever a text of a record contains."""
    hashes = [base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() for text in (style, script)]
    return (
        f"default-src 'none'; img-src data:; style-src 'sha256-{hashes[0]}'; script-src 'sha256-{hashes[1]}'; "
        "base-uri 'none'; form-action 'none'"
    )


def _counts(tables: Sequence[Table], records: Sequence[Record], created: datetime) -> list[str]:
    def count(number: int, noun: str, more: str = '') -> str:
        return f'{number} {noun}{"" if number == 1 else "s"}{more}'

    return [
        count(len({record.model['name'] for record in records if not record.is_control}), 'model', ' measured'),
        count(len({record.benchmark['name'] for record in records}), 'benchmark'),
        count(len({row.method for table in tables for row in table.rows if not row.measured}), 'published method'),
        f'made {created:%Y-%m-%d %H:%M} UTC',
    ]


def _shown_metrics(tables: Sequence[Table]) -> dict[str, list[str]]:
    """Benchmark -> metrics that a table shows, which stand in the line of a run that is not opened."""
    shown: dict[str, list[str]] = {}
    for table in tables:
        for column in table.spec.columns:
            own = shown.setdefault(column.benchmark, [])
            if column.metric not in own:
                own.append(column.metric)
    return shown


def _rule(table: Table) -> str:
    spec = table.spec
    by = f'by {spec.rank_by}' if spec.rank_by else 'by the mean of the ranks over all columns'
    if len(spec.columns) == 1:
        by = f'by {spec.columns[0].name}'
    rule = '' if table.why_unranked() else f'Ranked {by}, numbers as shown; a row that lacks one of them has no place.'
    if spec.protocol:
        rule = f'Protocol: {spec.protocol}. {rule}'
    published = [row for row in table.rows if not row.measured]
    if published and all(row.group == 'apart' for row in published):
        rule += ' No published row is of this protocol, so all of them stand apart.'
    return rule


def _why_no_place(spec: TableSpec, row: Row) -> str:
    if row.group != 'ranked':
        return 'not ranked'
    lacking = [
        column.name
        for column, cell in zip(spec.columns, row.cells, strict=True)
        if column.better and spec.rank_by in (None, column.name) and cell.ranked_value() is None
    ]
    return f'no place: lacks {", ".join(lacking)}'


def _num_decimals(cell: Cell) -> int:
    return len(cell.text.partition('.')[2])


def _most_decimals(rows: Sequence[Row]) -> list[int]:
    """Of each column."""
    return [max(map(_num_decimals, column)) for column in zip(*(row.cells for row in rows), strict=True)]


def _story(cell: Cell) -> str:
    """What is wrong with a number, as long as it is known."""
    story = cell.record.dataset['difference'] if cell.record else None
    return f'{cell.problem}: {story}' if story else cell.problem


def _newest(row: Row) -> Record:
    return max((cell.record for cell in row.cells if cell.record), key=lambda record: record.started)


def _what_is_missing(table: Table) -> list[str]:
    reasons: dict[str, list[str]] = {}
    for row in table.rows:
        for column, cell in zip(table.spec.columns, row.cells, strict=True):
            if cell.missing is not None:
                reasons.setdefault(cell.missing, []).append(f'{row.method} ({column.name})')
    lines = []
    unpublished = reasons.pop(UNPUBLISHED, [])
    if unpublished:
        lines.append(f'– of a published row: {UNPUBLISHED} ({len(unpublished)} numbers).')
    if table.not_run:
        reasons.setdefault(NOT_RUN, []).extend(f'{title} (all columns)' for title in table.not_run)
    lines += [f'{reason[:1].upper()}{reason[1:]}: {", ".join(where)}.' for reason, where in reasons.items()]
    if table.elsewhere:
        lines.append(f'{table.elsewhere} published numbers belong to columns that this table does not have.')
    return lines


def _percent_outside(times: Mapping[str, float]) -> float | None:
    """Share of the time per item that is spent outside the model."""
    total = sum(times[key] for key in ('model', 'data', 'metric'))
    return 100 * (times['data'] + times['metric']) / total if total > 0 else None


def _in_digits(value: float, digits: str) -> str:
    return 'undefined' if value != value else format(value, digits)


def _headline(record: Record, shown: Mapping[str, Sequence[str]]) -> str:
    names = [name for name in shown.get(record.benchmark['name'], ()) if name in record.metrics]
    names = names or list(record.metrics)[:3]
    numbers = ', '.join(f'{name} {_in_digits(record.metrics[name], ".2f")}' for name in names)
    more = len(record.metrics) - len(names)
    return f'{numbers} and {more} more' if more > 0 else numbers


def _facts(record: Record) -> dict[str, Any]:
    """What it takes to measure a record again, and what the runner said beyond the keys that every record has."""
    model, data, run = record.model, record.dataset, record.run
    times = run['seconds_per_item']
    split = ', '.join(f'{key} {1000 * times[key]:.4g} ms' for key in ('model', 'data', 'metric'))
    share = _percent_outside(times)
    if share is not None:
        split += f' ({share:.1f} % outside the model)'
    expected = '' if data['expected'] is None else f' of {data["expected"]:,} expected'
    how = 'one by one' if run['one_by_one'] else 'whole batches'
    facts = {
        'Protocol': record.benchmark['protocol'],
        'Task': record.benchmark['task'],
        'Benchmark SHA-256': _code(record.benchmark['sha256']),
        'Config': _code(model['config']),
        'Config SHA-256': _code(model['config_sha256']),
        'Checkpoint': _code(model['checkpoint']),
        'Checkpoint SHA-256': _code(model['checkpoint_sha256']),
        'Parameters': None if model['num_parameters'] is None else f'{model["num_parameters"]:,}',
        'Data': f'{data["type"]}, {data["items"]:,} items{expected}',
        'Difference': data['difference'],
        'Data fingerprint': _code(data['fingerprint']),
        'Seed': run['seed'],
        'Started': f'{record.started:%Y-%m-%d %H:%M:%S} UTC',
        'Duration': f'{run["seconds"]:,.1f} s',
        'Time per item': split,
        'Processes': f'{run["processes"]}, batch size {run["batch_size"]}, {how}, threads {run["threads"]}',
        'Hardware': f'{run["device"]}, {run["hardware"]}',
        'Packages': ', '.join(f'{name} {version}' for name, version in run['packages'].items()),
        'Commit': _code(run['commit']),
        'Command': _code(run['command']),
        'Run key': _code(run['key']),
    }
    for section, known in KEYS.items():
        more = {key: value for key, value in getattr(record, section).items() if key not in known}
        facts |= {f'{section}: {key}': value for key, value in more.items()}
    return {name: value for name, value in facts.items() if value not in (None, '')}


def _code(text: str | None) -> Markup | None:
    return None if text is None else Markup('<code>{}</code>').format(text)


def _pictures(record: Record) -> tuple[dict[str, list[tuple]], list[str]]:
    """Kind -> (picture, score or '', caption) of each example, and why the others are not shown."""
    shown: dict[str, list[tuple]] = {}
    missing = []
    for kind in PICTURES:
        for example in record.examples:
            if example['kind'] != kind:
                continue
            picture, caption, score = _embed(record, example['file']), example['caption'], example.get('score')
            if isinstance(picture, str):
                missing.append(picture)
            else:
                score = '' if score is None else f'{score:.2f}'  # most captions say it themselves
                shown.setdefault(kind, []).append((picture, '' if score in caption else score, caption))
    return shown, missing


@dataclass(frozen=True)
class _Embedded:
    """A picture as a data URI, with its size in pixels."""

    uri: str
    width: int
    height: int


def _embed(record: Record, file: str) -> _Embedded | str:
    """Reads a picture of a record.

    Args:
        record: The record.
        file: Relative to its folder.

    Returns:
        The picture, encoded anew where that makes it smaller, or a text on why there is none.
    """
    if record.folder is None:
        return f'{file}: the record does not say where it is'
    path = record.file(file)
    if path is None:
        return f'{file}: not in the folder of its record'
    if not path.is_file():
        return f'{file}: missing'
    try:
        return _embedded(path.read_bytes())
    except (OSError, ValueError) as error:
        return f'{file}: not a picture that can be read ({type(error).__name__})'


@lru_cache(maxsize=2048)  # a run writes the page anew after every result
def _embedded(data: bytes) -> _Embedded:
    kind = _KINDS.get(read_header(data, 'picture').format)
    copy = Image.fromarray(np.ascontiguousarray(decode_picture(data, 'picture')[..., ::-1]))
    size = copy.size
    copy.thumbnail((_MAX_SIDE, _MAX_SIDE))
    small = _encoded(copy)
    if kind is None or copy.size != size or len(small) < len(data):
        data, kind, size = small, _KINDS[_FORMAT], copy.size
    return _Embedded(f'data:{kind};base64,{base64.b64encode(data).decode()}', *size)


def _encoded(image: Image.Image) -> bytes:
    """At the best of a few qualities that makes it as small as wanted, else at the last."""
    for quality in _QUALITIES:
        out = io.BytesIO()
        image.save(out, _FORMAT, quality=quality)
        if out.tell() <= _WANTED_BYTES:
            break
    return out.getvalue()
