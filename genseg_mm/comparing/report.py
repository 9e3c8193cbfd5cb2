"""A comparison to read: tables for a terminal and for Markdown, and pictures of the items that stand out."""

import math
import os
import re
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from mmengine.structures import BaseDataElement, PixelData
from PIL import Image

from genseg_mm.comparing.compared_models import ComparedModel
from genseg_mm.comparing.comparison import EXTREMES, Comparison, Difference, GroupRow, unique_metrics
from genseg_mm.leaderboard.markdown import escaped, table_lines
from genseg_mm.leaderboard.record import Record
from genseg_mm.pictures import compose, draw_sample

_PANEL_SIZE = 224
_SHARED = ('image', 'ground truth')
_PER_POINT = ('points', 'point_labels', 'point_ids', 'point_keys', 'point_areas')
_PICTURE_ENDINGS = ('.jpg', '.jpeg', '.png', '.webp')
_INSTANCE = re.compile(r'#id (\d+)')


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
        head, *rows = [[escaped(cell) for cell in cells] for cells in (table.head, *table.rows)]
        lines += [f'## {escaped(table.title)}', '', *table_lines(head, rows), '']
    return '\n'.join(lines)


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


def write_gallery(found: Comparison, sides: Sequence[ComparedModel], out: Path, number: int = 8) -> list[str]:
    """Predicts and draws what stands out: image with prompt, ground truth, A, B.

    Where a model or its data are not at hand, the example pictures of both results are shown instead, and the
    report says so.

    Args:
        found: The comparison.
        sides: A and B.
        out: Folder of the report; there is one picture per kind.
        number: Of the largest gains, largest losses and worst of both, each.

    Returns:
        Lines of Markdown.
    """
    chosen = {kind: rows for kind, rows in found.extremes(number).items() if rows}
    if not chosen:
        return ['Nothing to show: the items have no score, or there are none.', '']
    rows = sorted({row for some in chosen.values() for row in some})
    try:
        drawn = _drawn(found, sides, rows)
    except (FileNotFoundError, ValueError) as error:
        return _example_pictures(sides, out, str(error))
    lines = []
    for kind, some in chosen.items():
        titles = list(dict.fromkeys(title for row in some for title in drawn[row][0]))
        table = compose(titles, [drawn[row][0] for row in some], [drawn[row][1] for row in some])
        Image.fromarray(table).save(out / f'{kind}.jpg', quality=90)
        lines += [f'### {EXTREMES[kind]}', '', f'![{EXTREMES[kind]}]({kind}.jpg)', '']
        cells = [[escaped(found.pairs.a.items[row]), _score(found, 0, row), _score(found, 1, row)] for row in some]
        lines += [*table_lines(['item', 'A', 'B'], cells), '']
    return lines


def _drawn(
    found: Comparison, sides: Sequence[ComparedModel], rows: Sequence[int]
) -> dict[int, tuple[dict[str, np.ndarray], str]]:
    """Row -> its panels by title, and the caption."""
    panels: dict[int, dict[str, np.ndarray]] = {row: {} for row in rows}
    captions: dict[int, str] = {}
    for label, side, own in zip('AB', sides, found.pairs[:2], strict=True):
        predicted = side.predictions([int(own.index[row]) for row in rows])
        for row, (image, sample) in zip(rows, predicted, strict=True):
            item = own.items[row]
            _check_picture(sample, item, side)
            panels[row].update(_panels(image, only_instance(sample, item), label))
            captions[row] = _caption(found, row, sample)
    return {row: (panels[row], captions[row]) for row in rows}


def _panels(image: np.ndarray, sample: BaseDataElement, label: str) -> dict[str, np.ndarray]:
    drawn = draw_sample(image, sample, _PANEL_SIZE)
    names = {'prediction': label, 'colour map': f'{label}: colour map'}
    kept = {title: drawn[title] for title in _SHARED if title in drawn}
    return {**kept, **{names[title]: drawn[title] for title in names if title in drawn}}


def only_instance(sample: BaseDataElement, item: str) -> BaseDataElement:
    """The sample with nothing but the instance that the item names, if it names one."""
    match, ids = _INSTANCE.search(item), sample.get('point_ids')
    if match is None or ids is None or 'gt_instance_map' not in sample:
        return sample
    own_ids = sample.get('point_keys')
    keep = np.flatnonzero(np.asarray(ids if own_ids is None else own_ids) == int(match[1]))
    sample = sample.clone()
    labels = sample.gt_instance_map.data
    shown = torch.isin(labels, torch.as_tensor(np.asarray(ids)[keep]).to(labels))
    sample.gt_instance_map = PixelData(data=labels * shown)
    if 'pred_instances' in sample and len(sample.pred_instances) == len(ids):
        sample.pred_instances = sample.pred_instances[keep]
    present = [key for key in _PER_POINT if sample.get(key) is not None]
    sample.set_metainfo({key: np.asarray(sample.get(key))[keep] for key in present})
    return sample


def _check_picture(sample: BaseDataElement, item: str, side: ComparedModel) -> None:
    """Raises ValueError if an item is not of the sample's picture: its name, or ``img_id`` where several share one."""
    path = sample.get('img_path')
    name = os.path.basename(path).replace('#', '%23') if path else ''
    known = [name, str(sample.get('img_id', name)).replace('#', '%23')]
    # Items that would still be called the same are numbered: 'name (2)'.
    picture = item.partition('#')[0]
    said = [picture, re.sub(r' \(\d+\)$', '', picture)]
    if name and not any(own.endswith(one) for own in said for one in known):
        raise ValueError(
            f'the data have changed since {side.name} was measured: the item {item!r} is of the picture {name} now'
        )


def _caption(found: Comparison, row: int, sample: BaseDataElement) -> str:
    text = sample.get('text')
    parts = [
        f'A {_score(found, 0, row)}, B {_score(found, 1, row)}',
        f'"{text}"' if text else '',
        found.pairs.a.items[row],
    ]
    return ' · '.join(filter(None, parts))


def _score(found: Comparison, side: int, row: int) -> str:
    return f'{found.pairs[side].values[found.score][row]:.2f}'


def _example_pictures(sides: Sequence[ComparedModel], out: Path, why: str) -> list[str]:
    lines = [f'The items that differ most cannot be drawn: {escaped(why)}', '']
    for label, side in zip('AB', sides, strict=True):
        there = pictures_of(side.record)
        if not there:
            lines += [f'{label} has no example pictures.', '']
            continue
        lines += [f'### Examples of {label} (not the items that differ)', '']
        for number, (own, path) in enumerate(there, 1):
            name = f'{label}_{own["kind"]}_{number}{path.suffix}'
            shutil.copyfile(path, out / name)
            lines += [f'{own["kind"]}: {escaped(own["caption"])}', '', f'![{own["kind"]}]({name})', '']
    return lines


def pictures_of(record: Record | None) -> list[tuple[dict[str, Any], Path]]:
    """The example pictures that are there, and nothing but pictures of the record itself."""
    found = []
    for own in [] if record is None else record.examples:
        path = record.file(own['file'])
        if path is not None and path.suffix in _PICTURE_ENDINGS and path.is_file():
            found.append((own, path))
    return found
