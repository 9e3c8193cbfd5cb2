"""Curves, times and tables from MMEngine's logs of scalars.

    python tools/analysis_tools/analyze_logs.py plot_curve LOG ... --keys loss_mask oIoU [--out curves.png]
    python tools/analysis_tools/analyze_logs.py cal_train_time LOG ...
    python tools/analysis_tools/analyze_logs.py table LOG ... [--keys oIoU mIoU]

A LOG is a vis_data/<time>.json, the folder of a run, or a work dir. The runs of a work dir are one training, resumed:
where a run goes back to an iteration, its values replace those logged before, and it is said so.
"""

import argparse
import difflib
import json
import statistics
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import matplotlib
from matplotlib import pyplot as plt

from genseg_mm.launch import ToolParser, run_tool

matplotlib.use('Agg')

META = ('iter', 'step', 'epoch')  # keys of a line that are no values
LINE_STYLES = ('-', '--', ':', '-.')
NO_METRICS = ('time', 'data_time', 'memory')


def parse_args() -> argparse.Namespace:
    parser = ToolParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    tasks = parser.add_subparsers(dest='task', required=True)
    plot = tasks.add_parser('plot_curve', help='curves of keys over the iterations')
    plot.add_argument('--keys', nargs='+', default=['loss'], help='default: loss')
    plot.add_argument('--legend', nargs='+', help='one name per curve: all keys of the first log, ...')
    plot.add_argument('--title', help='of the figure')
    plot.add_argument(
        '--out',
        writes=('.png', '.svg', '.pdf', '.jpg', '.webp', '.eps'),
        metavar='PNG',
        help='default: curves.png in the first work dir',
    )
    plot.add_argument(
        '--smooth', type=float, default=0.0, metavar='WEIGHT',
        help='exponential moving average over training lines, such as 0.9; the values stay, pale (default: 0, none)',
    )  # fmt: skip
    plot.add_argument('--log-scale', action='store_true', help='logarithmic values of training keys')
    plot.add_argument('--start-iter', type=int, default=0, help='leave out what is before')
    times = tasks.add_parser('cal_train_time', help='seconds per iteration')
    times.add_argument(
        '--include-outliers',
        action='store_true',
        help='also the first line of each run, which has the start of the loaders in it',
    )
    table = tasks.add_parser('table', help='last and best values, as Markdown')
    table.add_argument('--keys', nargs='+', help='default: all that validation measures')
    table.add_argument(
        '--lower', nargs='+', default=[], metavar='KEY',
        help='keys of which less is better (those with loss in their name are)',
    )  # fmt: skip
    for own in (plot, times, table):
        own.add_argument('logs', nargs='+', help='vis_data/<time>.json, folder of a run, or work dir')
    args = parser.parse_args()
    if args.task == 'plot_curve':
        if not 0 <= args.smooth < 1:
            parser.error(f'--smooth must be in [0, 1): {args.smooth}')
        expected = len(args.logs) * len(args.keys)
        if args.legend and len(args.legend) != expected:
            parser.error(f'--legend must have one name per log and key, {expected}, but got {len(args.legend)}')
    return args


@dataclass
class TrainingLog:
    """The scalars of one training, resumed or not.

    Attributes:
        name: Of the work dir, or of the file's folder.
        work_dir: Folder of the runs.
        train: Iteration -> values of a training line.
        val: Iteration -> values of a validation line.
        starts: First logged iteration of each run.
        notes: What was left out, and why.
    """

    name: str
    work_dir: Path
    train: dict[int, dict[str, float]] = field(default_factory=dict)
    val: dict[int, dict[str, float]] = field(default_factory=dict)
    starts: list[int] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def find(self, key: str) -> tuple[str, dict[int, dict[str, float]]]:
        """Full name of a key and the lines that have it ('train' or 'val').

        A key may lack its prefix, as in mmdet: 'bbox_mAP' for 'coco/bbox_mAP'. Training lines come first; 'val/time'
        is the time of validation.

        Raises:
            ValueError: If the log has no such key; with those that it has.
        """
        wanted, _, rest = key.partition('/')
        for kind, lines in (('train', self.train), ('val', self.val)):
            names = _names(lines)
            if wanted == kind and rest in names:
                return rest, lines
            if wanted != kind and key in names:
                return key, lines
        for lines in (self.train, self.val):
            short = [name for name in _names(lines) if name.rpartition('/')[2] == key]
            if len(short) == 1:
                return short[0], lines
        names = [*_names(self.train), *_names(self.val)]
        close = difflib.get_close_matches(key, names, 1)
        hint = f' (did you mean {close[0]!r}?)' if close else ''
        raise ValueError(f'{self.name} has no {key!r}{hint}, but {", ".join(dict.fromkeys(names))}')

    def series(self, key: str) -> tuple[list[int], list[float]]:
        """Iterations and values of a key, in order."""
        name, lines = self.find(key)
        steps = [step for step in sorted(lines) if name in lines[step]]
        return steps, [lines[step][name] for step in steps]


def _names(lines: dict[int, dict]) -> list[str]:
    return list(dict.fromkeys(name for values in lines.values() for name in values))


def log_files(path: Path) -> list[Path]:
    """The logs of a file, of the folder of one run or of a work dir, oldest first.

    Raises:
        FileNotFoundError: If there are none.
    """
    if path.is_file():
        return [path]
    for pattern in ('vis_data/2*.json', '*/vis_data/2*.json', '2*.json', '**/scalars.json'):
        found = sorted(path.glob(pattern), key=lambda own: own.name)
        if found:
            return found
    raise FileNotFoundError(
        f'{path}: expected a log of MMEngine (vis_data/<time>.json) or a work dir with such logs, but found none'
    )


def read_log(path: str | Path) -> TrainingLog:
    """One training from its file, the folder of a run, or a work dir whose runs are taken as resumed from each other.

    Where a run goes back to an iteration, what was logged from there on before is left out: later values win.

    Raises:
        FileNotFoundError: If there is no log.
        ValueError: If none of its lines can be read.
    """
    path = Path(path)
    files = log_files(path)
    work_dir = path
    if path.is_file():
        in_run = path.parent.name == 'vis_data'
        work_dir = path.parents[2] if in_run and len(path.parents) > 2 else path.parent
    log = TrainingLog(work_dir.resolve().name, work_dir)
    for file in files:
        last = None
        for values in _lines(file, log):
            last = _add(log, values, last, file)
    if not log.train and not log.val:
        raise ValueError(
            f'{path}: expected lines of MMEngine such as {{"loss": 0.5, "iter": 50, "step": 50}}, but got none'
        )
    return log


def _lines(file: Path, log: TrainingLog) -> list[dict]:
    found, num_bad = [], 0
    for text in file.read_text(encoding='utf-8', errors='replace').splitlines():
        try:
            values = json.loads(text)
        except (ValueError, RecursionError):
            num_bad += bool(text.strip())
            continue
        if isinstance(values, dict) and isinstance(values.get('step'), int):
            found.append(values)
        else:
            num_bad += 1
    if num_bad:
        log.notes.append(f'{file.name}: {num_bad} lines cannot be read (a run that was stopped?)')
    return found


def _add(log: TrainingLog, values: dict, last: int | None, file: Path) -> int | None:
    """Adds a line; returns the last training iteration of the file."""
    own = {key: float(value) for key, value in values.items() if key not in META and isinstance(value, (int, float))}
    if 'iter' not in values:
        # Validation by epochs counts epochs in `step`.
        step = last if last is not None and _by_epoch(log) else values['step']
        log.val[step] = own
        return last
    step = values['step']
    if last is None or step <= last:
        log.starts.append(step)
        _drop_from(log, step, file)
    own.update({'epoch': float(values['epoch'])} if 'epoch' in values else {})
    log.train[step] = own
    return step


def _by_epoch(log: TrainingLog) -> bool:
    return bool(log.train) and 'epoch' in next(reversed(log.train.values()))


def _drop_from(log: TrainingLog, step: int, file: Path) -> None:
    train = [own for own in log.train if own >= step]
    val = [own for own in log.val if own >= step]
    for own in train:
        del log.train[own]
    for own in val:
        del log.val[own]
    if train or val:
        log.notes.append(
            f'{file.name} goes on from iteration {step}: {len(train)} training and {len(val)} validation lines logged '
            f'before, from there to {max(train + val)}, are replaced'
        )


def names_of(logs: Sequence[TrainingLog], paths: Sequence[str]) -> list[str]:
    """Short names that tell the logs apart."""
    names = [log.name for log in logs]
    return list(paths) if len(set(names)) < len(names) else names


def smoothed(values: Sequence[float], weight: float) -> list[float]:
    """Exponential moving average without the bias to zero at the start.

    y_i = sum_j weight^(i - j) x_j / sum_j weight^(i - j), j <= i.
    """
    result, total, norm = [], 0.0, 0.0
    for value in values:
        total, norm = weight * total + value, weight * norm + 1
        result.append(total / norm)
    return result


def plot_curve(logs: list[TrainingLog], args: argparse.Namespace) -> Path:
    """Draws training keys in one panel and validation keys in another below it."""
    # Shown side by side, a loss near 0.5 and a metric near 60 would be two flat lines.
    kinds = {key: logs[0].find(key)[1] is logs[0].val for key in args.keys}
    panels = sorted(set(kinds.values()))
    figure, axes = plt.subplots(
        len(panels), 1, figsize=(8, 1 + 3.5 * len(panels)), squeeze=False, sharex=True,
        layout='constrained',
    )  # fmt: skip
    names = names_of(logs, args.logs)
    for place, log in enumerate(logs):
        for number, key in enumerate(args.keys):
            steps, values = log.series(key)
            shown = [(s, v) for s, v in zip(steps, values, strict=True) if s >= args.start_iter]
            if not shown:
                raise ValueError(f'{log.name}: {key} has no value from {args.start_iter} on')
            steps, values = zip(*shown, strict=True)
            label = key if len(logs) == 1 else f'{names[place]} {key}'
            if args.legend:
                label = args.legend[place * len(args.keys) + number]
            color = f'C{(place if len(logs) > 1 else number) % 10}'
            style = LINE_STYLES[number % len(LINE_STYLES)] if len(logs) > 1 else '-'
            axis = axes[panels.index(kinds[key]), 0]
            marker = dict(marker='o', markersize=4) if kinds[key] else {}
            if args.smooth and not kinds[key]:
                axis.plot(steps, values, color=color, alpha=0.25, linewidth=0.8)
                values = smoothed(values, args.smooth)
            axis.plot(steps, values, style, color=color, linewidth=1.3, label=label, **marker)
    for validation, axis in zip(panels, axes[:, 0], strict=True):
        axis.set_ylabel('validation' if validation else 'training')
        # Losses fall by orders of magnitude, metrics in percent do not.
        axis.set_yscale('log' if args.log_scale and validation == panels[0] else 'linear')
        axis.grid(alpha=0.3)
        axis.legend(fontsize=8)
    axes[-1, 0].set_xlabel('iteration')
    figure.suptitle(args.title or ', '.join(args.keys))
    out = Path(args.out or logs[0].work_dir / 'curves.png')
    out.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(out, dpi=120)
    plt.close(figure)
    return out


def cal_train_time(log: TrainingLog, include_outliers: bool = False) -> list[str]:
    """Lines on the seconds per iteration: each logged value is the mean over the iterations since the one before.

    Raises:
        ValueError: If nothing is left to measure.
    """
    left_out = set() if include_outliers else set(log.starts)
    steps = [step for step in sorted(log.train) if 'time' in log.train[step]]  # not of validations
    found = {step: log.train[step]['time'] for step in steps if step not in left_out}
    if not found:
        raise ValueError(
            f'{log.name} has {len(steps)} training lines, of which the first of each run is left out: expected more, '
            'or --include-outliers'
        )
    slowest, fastest = max(found, key=found.get), min(found, key=found.get)
    lines = [
        f'{log.name}: {len(found)} lines, iterations {min(found)} to {max(found)}',
        f'average iter time: {statistics.fmean(found.values()):.4f} s/iter, median '
        f'{statistics.median(found.values()):.4f}, std {statistics.pstdev(found.values()):.4f}',
        f'slowest: {found[slowest]:.4f} s/iter at iteration {slowest}, fastest: {found[fastest]:.4f} at {fastest}',
    ]
    data = [log.train[step]['data_time'] for step in found if 'data_time' in log.train[step]]
    if data:
        share = statistics.fmean(data) / statistics.fmean(found.values())
        lines.append(f'of it waiting for data: {statistics.fmean(data):.4f} s/iter ({share:.1%})')
    return lines


def table(logs: Sequence[TrainingLog], names: Sequence[str], keys: Sequence[str] | None, lower: Sequence[str]) -> str:
    """Last and best value of each key, one row per log, as Markdown; the iteration of the best in brackets."""
    if not keys:
        found = (key for log in logs for values in log.val.values() for key in values)
        keys = [key for key in dict.fromkeys(found) if key not in NO_METRICS]
        if not keys:
            raise ValueError('no log has a validation: expected --keys, such as loss')
    header = ['log', 'iterations']
    for key in keys:
        header += [f'{key}, last', 'best']
    lines = [f'| {" | ".join(header)} |', '|---|' + '---:|' * (len(header) - 1)]
    for name, log in zip(names, logs, strict=True):
        cells = [name, str(max([*log.train, *log.val]))]
        for key in keys:
            steps, values = _series_or_nothing(log, key)
            least = 'loss' in key or key in lower
            pairs = [(v, s) for s, v in zip(steps, values, strict=True) if v == v]
            if not pairs:
                cells += ['-', '-']
                continue
            best = min(pairs) if least else max(pairs, key=lambda own: (own[0], -own[1]))
            cells += [f'{values[-1]:.4g}', f'{best[0]:.4g} ({best[1]})']
        lines.append(f'| {" | ".join(cells)} |')
    return '\n'.join(lines)


def _series_or_nothing(log: TrainingLog, key: str) -> tuple[list[int], list[float]]:
    try:
        return log.series(key)
    except ValueError:  # another log has it; the cell shows that this one has not
        return [], []


def main() -> None:
    args = parse_args()
    logs = [read_log(path) for path in args.logs]
    for log in logs:
        for note in log.notes:
            print(f'note: {log.name}: {note}', file=sys.stderr)
    if args.task == 'plot_curve':
        print(f'written: {plot_curve(logs, args)}')
    elif args.task == 'cal_train_time':
        print('\n\n'.join('\n'.join(cal_train_time(log, args.include_outliers)) for log in logs))
    else:
        for key in args.keys or []:
            if all(not _series_or_nothing(log, key)[0] for log in logs):
                logs[0].find(key)  # raises, with the names that there are
        print(table(logs, names_of(logs, args.logs), args.keys, args.lower))


if __name__ == '__main__':
    run_tool(main)
