"""Reads every file of the datasets of a config and says what is wrong with them.

    python tools/dataset_tools/verify_dataset.py CONFIG [--split val] [--workers 4] [--json report.json]

Pictures are decoded, masks and instance maps too, and their sizes compared. It goes on after a file that cannot be
read and names them all. The exit code is 1 if a file is missing or cannot be read, 2 for a wrong command line or
config. CONFIG may be a suite of configs/benchmarks or a file of configs/_base_/{datasets,benchmarks} as well.
"""

import argparse
import json
import sys
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
from torch.utils.data import DataLoader, Dataset

from genseg_mm.benchmarking.suite import read_dataset_config
from genseg_mm.datasets.instance_maps import read_instance_map
from genseg_mm.datasets.published_counts import differences, expected_items
from genseg_mm.files import write_text
from genseg_mm.files.arrays import read_boundaries
from genseg_mm.launch import ToolParser, run_tool, user_message
from genseg_mm.launch.config import CfgOptions
from genseg_mm.launch.dataset_parts import SPLITS, DatasetPart, RawLoader, dataset_parts

# Files that are read after the picture, with what reads them
LATER_FILES = dict(instance_map_path=read_instance_map, mask_path=read_instance_map, boundaries_path=read_boundaries)
COLUMNS = (
    'dataset', 'items', 'expected', 'missing', 'unreadable', 'no instance', 'instances', 'hidden', 'max id',
)  # fmt: skip


class CheckedItems(Dataset):
    """A dataset whose items are what reading them brought."""

    def __init__(self, dataset: Any, indices: np.ndarray) -> None:
        self.load, self.indices = RawLoader(dataset), indices

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, index: int) -> dict:
        """Error and file of item ``index``, or the numbers of its instances."""
        index = int(self.indices[index])
        try:
            return self._count(self.load(index))
        except Exception as error:  # every reader has exceptions of its own; all are reported
            return self._bad_files(index, error)

    def _bad_files(self, index: int, error: Exception) -> dict:
        """By kind: file -> message, for the file that the error is of and those that were not reached."""
        item = self.load.dataset.get_data_info(index)
        kind, text = _told(error)
        files = [own for key, own in item.items() if key.endswith('path') and own]
        named = [own for own in files if isinstance(own, str) and own in text]
        path = min(named, key=text.index, default=item.get('img_path')) or f'item {index}'
        found: dict[str, dict] = {kind: {path: text}}
        for key, read in LATER_FILES.items():
            if path != item.get('img_path') or key not in item:
                continue
            try:
                read(item[key])
            except (ValueError, OSError) as later:
                kind, text = _told(later)
                found.setdefault(kind, {})[item[key]] = text
        return found

    @staticmethod
    def _count(results: dict) -> dict:
        if 'gt_instance_map' in results:
            ids = np.unique(results['gt_instance_map'])
            ids = ids[ids > 0]
            counts = results.get('instance_counts', {})
            return dict(
                instances=len(ids),
                max_id=int(ids.max(initial=0)),
                **{key: counts.get(key, 0) for key in ('crowd', 'invalid', 'hidden')},
            )
        if 'gt_masks' in results:
            ignored = results.get('gt_ignore_flags', np.zeros(len(results['gt_masks']), bool))
            return dict(instances=int((~ignored).sum()), crowd=int(ignored.sum()))
        if 'gt_boundaries' in results:
            return dict(instances=len(results['gt_boundaries']))
        if 'gt_seg_map' in results and 'text' in results:
            return dict(instances=int((results['gt_seg_map'] == 1).any()))
        return {}


def _told(error: Exception) -> tuple[str, str]:
    """Kind and text of an error of a reader."""
    kind = 'missing' if isinstance(error, FileNotFoundError) else 'unreadable'
    text = str(error) if isinstance(error, (ValueError, OSError)) else repr(error)
    return kind, ' '.join(text.split())[:400]


def verify(part: DatasetPart, workers: int = 0, max_items: int | None = None) -> dict:
    """Reads all items of a dataset.

    Args:
        part: Which.
        workers: Processes that read.
        max_items: At most so many, spread evenly.

    Returns:
        The report, plain data: what :func:`row` shows, ``files`` (path or item -> message) and ``notes``.
    """
    report = dict(dataset=part.name, type=str(part.cfg.get('type')), same=part.same, notes=[])
    try:
        dataset = part.build(missing='skip')
    except Exception as error:  # of whatever package: the other datasets are to be read
        message = user_message(error) or f'{type(error).__name__}: {error}'
        return dict(report, failed=message, items=0)
    skipped = {reason: list(paths) for reason, paths in getattr(dataset, 'skipped', {}).items()}
    missing = {p: reason for reason, paths in skipped.items() if reason.startswith('no ') for p in paths}
    report['notes'] += [
        f'{len(paths)} left out: {reason}' for reason, paths in skipped.items() if not reason.startswith('no ')
    ]
    report['notes'] += [
        f'{count} annotations dropped: {reason}' for reason, count in getattr(dataset, 'dropped', {}).items()
    ]
    report['notes'] += [
        f'{len(names)} left out: {reason}' for reason, names in getattr(dataset, 'left_out', {}).items()
    ]
    report['notes'] += differences(dataset)
    indices = np.arange(len(dataset))
    if max_items and max_items < len(dataset):
        indices = np.linspace(0, len(dataset) - 1, max_items).round().astype(int)
        report['notes'].append(f'only {max_items} of {len(dataset)} items read (--max-items)')
    items = CheckedItems(dataset, indices)
    loader = DataLoader(items, batch_size=None, num_workers=workers)
    results = list(_progress(loader, len(items), part.name))
    unreadable: dict[str, str] = {}
    for result in results:
        for kind, found in (('missing', missing), ('unreadable', unreadable)):
            for path, text in result.get(kind, {}).items():
                found.setdefault(path, text)
    report.update(
        items=len(dataset),
        expected=expected_items(dataset),
        missing=missing,
        unreadable=unreadable,
        **_statistics(results),
    )
    return report


def _statistics(results: list[dict]) -> dict:
    counts = [result['instances'] for result in results if 'instances' in result]
    totals = {key: sum(result.get(key, 0) for result in results) for key in ('crowd', 'invalid', 'hidden')}
    if not counts:
        return dict(totals, no_instance=None, instances=None, max_id=None, frames_over_255=None)
    ids = [result['max_id'] for result in results if 'max_id' in result]
    return dict(
        totals,
        no_instance=counts.count(0),
        instances=[min(counts), float(np.median(counts)), max(counts)],
        max_id=max(ids, default=None),
        frames_over_255=sum(own > 255 for own in ids) if ids else None,
    )


def row(report: dict) -> tuple[str, ...]:
    """The cells of a report in the order of ``COLUMNS``."""
    if 'failed' in report:
        return (report['dataset'], 'FAILED', *('-' for _ in COLUMNS[2:]))
    few = '-' if report['instances'] is None else '{:g} / {:g} / {:g}'.format(*report['instances'])
    over = report['frames_over_255']
    ids = _cell(report['max_id']) + (f' ({over} frames over 255)' if over else '')
    return (
        report['dataset'],
        str(report['items']),
        _cell(report['expected']),
        str(len(report['missing'])),
        str(len(report['unreadable'])),
        _cell(report['no_instance']),
        few,
        str(report['hidden']),
        ids,
    )


def _cell(value: object) -> str:
    return '-' if value is None else str(value)


def table(reports: list[dict]) -> str:
    """The summary."""
    rows = [COLUMNS, *map(row, reports)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ['  '.join(cell.ljust(width) for cell, width in zip(cells, widths, strict=True)).rstrip() for cells in rows]
    lines.insert(1, '  '.join('-' * width for width in widths))
    lines.append(
        'instances: fewest / median / most of a frame (of boundaries: annotators); hidden: annotated, but no pixel in '
        'the id map'
    )
    return '\n'.join(lines)


def details(report: dict, first: int) -> list[str]:
    """Lines on what is wrong with a dataset, at most ``first`` files of each kind."""
    if 'failed' in report:
        return [f'{report["dataset"]}: cannot be built: {report["failed"]}']
    lines = []
    for kind in ('missing', 'unreadable'):
        found = report[kind]
        lines += [f'{report["dataset"]}: {kind}: {path}: {text}' for path, text in list(found.items())[:first]]
        if len(found) > first:
            lines.append(f'{report["dataset"]}: {kind}: {len(found) - first} more (--first, --json)')
    notes = list(report['notes'])
    notes += [f'{report[key]} {what}' for key, what in (
        ('crowd', 'crowd regions, no instances'),
        ('invalid', 'invalid segmentations left out'),
    ) if report[key]]  # fmt: skip
    if report['same']:
        notes.append(f'the same as {", ".join(report["same"])}')
    return lines + [f'{report["dataset"]}: {note}' for note in notes]


def is_bad(report: dict) -> bool:
    """Whether files are missing or unreadable."""
    return 'failed' in report or bool(report['missing'] or report['unreadable'])


def _progress(items: Any, total: int, title: str) -> Iterator:
    """Passes items on with a bar on a terminal, a line at each tenth elsewhere."""
    start, width, shown = time.monotonic(), 30, -1
    for done, item in enumerate(items, start=1):
        yield item
        steps = 200 if sys.stderr.isatty() else 10
        if done * steps // total == shown:
            continue
        shown = done * steps // total
        speed = done / max(time.monotonic() - start, 1e-9)
        bar = '#' * (width * done // total)
        line = f'{title} [{bar:<{width}}] {done}/{total}, {speed:.0f}/s'
        print(f'\r{line}' if steps > 10 else line, end='' if steps > 10 and done < total else '\n', file=sys.stderr)


def parse_args() -> argparse.Namespace:
    parser = ToolParser(description=__doc__.split('\n', maxsplit=1)[0])
    parser.add_argument(
        'config', help='config, suite of configs/benchmarks, or one of configs/_base_/{datasets,benchmarks}'
    )
    parser.add_argument('--benchmark', nargs='+', help='only these benchmarks of a suite')
    parser.add_argument('--split', nargs='+', choices=SPLITS, default=SPLITS, help='default: all')
    parser.add_argument('--workers', type=int, default=0, help='processes that read (default: 0)')
    parser.add_argument('--max-items', type=int, help='read at most so many per dataset, spread evenly')
    parser.add_argument('--first', type=int, default=10, help='bad files to name of each kind (default: 10)')
    parser.add_argument('--json', writes='text', metavar='OUT', help='write the whole report to this file')
    parser.add_argument('--cfg-options', nargs='+', action=CfgOptions, metavar='KEY=VALUE', help='override settings')
    args = parser.parse_args()
    for name in ('workers', 'first', 'max_items'):
        value = getattr(args, name)
        if value is not None and value < (name == 'max_items'):
            parser.error(f'--{name.replace("_", "-")} is too small: {value}')
    return args


def main() -> None:
    args = parse_args()
    cfg = read_dataset_config(args.config, args.cfg_options)
    parts = dataset_parts(cfg, tuple(args.split), args.benchmark)
    reports = [verify(part, args.workers, args.max_items) for part in parts]
    print(table(reports))
    for report in reports:
        print(*details(report, args.first), sep='\n', end='\n' if details(report, args.first) else '')
    if args.json:
        write_text(args.json, json.dumps(dict(config=args.config, datasets=reports), indent=1))
        print(f'report written to {args.json}')
    bad = [report['dataset'] for report in reports if is_bad(report)]
    print(f'not in order: {", ".join(bad)}' if bad else 'all files read')
    sys.exit(1 if bad else 0)


if __name__ == '__main__':
    run_tool(main)
