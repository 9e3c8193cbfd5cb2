"""Reads the runs of ablate_timesteps.py and writes them as tables (Markdown, CSV, JSON) and a figure."""

import csv
import json
import statistics
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from genseg_mm.files import csv_cell, read_json_lines

TAIL = 0.2  # the final training loss is the mean over the last fifth of the mask steps
JOINT = {False: 'without generation', True: 'with generation'}


def read_scalars(run_dir: Path) -> dict[str, float]:
    """What a finished training logged: val oIoU and mIoU in percent, final loss of the mask task, steps of each task.

    The training must have logged every iteration by itself (``default_hooks.logger.interval=1``,
    ``log_processor.window_size=1``) and have batches of one task, so that a mask step is one that has a mask loss.

    Raises:
        FileNotFoundError: If there is no log.
        ValueError: If the log ends before a validation.
    """
    logs = sorted(run_dir.glob('*/vis_data/scalars.json'))
    if not logs:
        raise FileNotFoundError(f'expected {run_dir}/*/vis_data/scalars.json, but there is none')
    lines = [line for _, line in read_json_lines(logs[-1])]
    train = [line for line in lines if 'loss' in line]
    val = [line for line in lines if 'oIoU' in line]
    if not train or not val:
        raise ValueError(
            f'{logs[-1]}: expected training losses and a validation, but got {len(train)} and {len(val)} lines of '
            'them: remove the folder and run it again'
        )
    mask_losses = [line['loss_mask'] for line in train if line.get('loss_mask')]
    tail = mask_losses[-max(1, round(TAIL * len(mask_losses))) :]
    return dict(
        oIoU=val[-1]['oIoU'],
        mIoU=val[-1]['mIoU'],
        mask_loss=statistics.fmean(tail),
        mask_steps=len(mask_losses),
        image_steps=sum(bool(line.get('loss_image')) for line in train),
    )


def summarise(runs: Iterable[dict]) -> list[dict]:
    """One row per law and task mix, in the order of the runs; lists hold one value per seed."""
    rows: dict[tuple, dict] = {}
    for run in runs:
        row = rows.setdefault(
            (run['law'], run['joint']),
            dict(law=run['law'], joint=run['joint'], seeds=[], oIoU=[], mIoU=[], mask_loss=[],
                 mask_steps=[], image_steps=[], seconds=[]),
        )  # fmt: skip
        for key, values in row.items():
            if isinstance(values, list):
                values.append(run['seed' if key == 'seeds' else key])
    return list(rows.values())


def rank_correlation(x: Sequence[float], y: Sequence[float]) -> float:
    """Spearman's: the correlation of the ranks (no ties), in [-1, 1]; nan for fewer than two values."""
    if len(x) < 2:
        return float('nan')
    ranks = [np.argsort(np.argsort(values)) for values in (x, y)]
    return float(np.corrcoef(*ranks)[0, 1])


def loss_remarks(rows: list[dict]) -> list[str]:
    """For each task mix: does the training loss rank the laws?"""
    remarks = []
    for joint in sorted({row['joint'] for row in rows}):
        own = [row for row in rows if row['joint'] == joint]
        losses = [statistics.fmean(row['mask_loss']) for row in own]
        scores = [statistics.fmean(row['oIoU']) for row in own]
        lowest, best = int(np.argmin(losses)), int(np.argmax(scores))
        remarks.append(
            f'{JOINT[joint]}: the lowest training loss, {losses[lowest]:.3f}, is that of {own[lowest]["law"]} with '
            f'oIoU {scores[lowest]:.1f}; the best oIoU, {scores[best]:.1f}, is that of {own[best]["law"]} with loss '
            f'{losses[best]:.3f}. Rank correlation of loss and oIoU over {len(own)} laws: '
            f'{rank_correlation(losses, scores):+.2f} (-1: the loss would rank them).'
        )
    return remarks


def markdown(rows: list[dict], heading: str) -> str:
    """A table with mean and range over the seeds, and what the loss says."""
    header = [
        'law of the mask task', 'text-to-image', 'oIoU', 'mIoU', 'final mask loss', 'mask steps', 'image steps',
        's per run',
    ]  # fmt: skip
    lines = [heading, '', f'| {" | ".join(header)} |', '|' + '---|' * len(header)]
    for row in rows:
        cells = [
            row['law'],
            '1:1' if row['joint'] else 'no',
            _spread(row['oIoU'], 1),
            _spread(row['mIoU'], 1),
            _spread(row['mask_loss'], 3),
            *(_whole_range(row[key]) for key in ('mask_steps', 'image_steps')),
            f'{statistics.fmean(row["seconds"]):.0f}',
        ]
        lines.append(f'| {" | ".join(cells)} |')
    return '\n'.join([*lines, '', *(f'- {remark}' for remark in loss_remarks(rows)), ''])


def _spread(values: list[float], digits: int) -> str:
    mean = f'{statistics.fmean(values):.{digits}f}'
    if len(values) == 1:
        return mean
    return f'{mean} ({min(values):.{digits}f} to {max(values):.{digits}f})'


def _whole_range(values: list[int]) -> str:
    low, high = min(values), max(values)
    return str(low) if low == high else f'{low} to {high}'


def write_csv(runs: list[dict], path: Path) -> None:
    """One line per run."""
    keys = ['law', 'joint', 'seed', 'oIoU', 'mIoU', 'mask_loss', 'mask_steps', 'image_steps']
    with path.open('w', newline='') as file:
        writer = csv.DictWriter(file, [*keys, 'seconds'], extrasaction='ignore', lineterminator='\n')
        writer.writeheader()
        writer.writerows({key: csv_cell(own) for key, own in run.items()} for run in runs)


def plot(rows: list[dict], title: str, path: Path) -> None:
    """oIoU against the law, a dot per seed; beside it oIoU against the final training loss."""
    import matplotlib

    matplotlib.use('Agg')
    from matplotlib import pyplot

    laws = list(dict.fromkeys(row['law'] for row in rows))
    figure, (left, right) = pyplot.subplots(1, 2, figsize=(12, 5), width_ratios=[3, 2])
    labelled: set[str] = set()
    styles = {False: ('tab:blue', 'o', -0.13), True: ('tab:orange', 's', 0.13)}
    for joint in sorted({row['joint'] for row in rows}):
        color, marker, shift = styles[joint]
        own = [row for row in rows if row['joint'] == joint]
        places = [laws.index(row['law']) + shift for row in own]
        means = [statistics.fmean(row['oIoU']) for row in own]
        left.bar(places, means, width=0.24, color=color, alpha=0.35, label=f'mean, {JOINT[joint]}')
        for place, row in zip(places, own, strict=True):
            left.plot([place] * len(row['oIoU']), row['oIoU'], marker, color=color, markersize=5)
        losses = [statistics.fmean(row['mask_loss']) for row in own]
        right.plot(losses, means, marker, color=color, label=JOINT[joint])
        for row, loss, mean in zip(own, losses, means, strict=True):
            if row['law'] not in labelled:
                labelled.add(row['law'])
                right.annotate(
                    row['law'], (loss, mean), xytext=(-6, 4), textcoords='offset points', ha='right', fontsize=8
                )  # fmt: skip
    left.set_xticks(range(len(laws)), laws, rotation=20, ha='right')
    left.set(xlabel='law of sigma of the mask task', ylabel='single-step oIoU, val (%)', ylim=(0, None))
    left.set_title('a dot per seed', fontsize=10)
    right.set(xlabel='final training loss of the mask task', ylabel='single-step oIoU, val (%)')
    right.margins(x=0.3, y=0.1)
    right.set_title('a loss that ranks the laws would fall to the right', fontsize=10)
    for axes in (left, right):
        axes.grid(axis='y', alpha=0.3)
        axes.legend(fontsize=8)
    figure.suptitle(title, fontsize=11)
    figure.tight_layout()
    figure.savefig(path, dpi=120)
    pyplot.close(figure)


def write_report(runs: list[dict], heading: str, folder: Path) -> str:
    """Writes ablation.md, .csv, .json and .png into a folder; returns the Markdown."""
    rows = summarise(runs)
    text = markdown(rows, heading)
    (folder / 'ablation.md').write_text(text)
    (folder / 'ablation.json').write_text(json.dumps(dict(runs=runs, summary=rows), indent=2) + '\n')
    write_csv(runs, folder / 'ablation.csv')
    plot(rows, heading.split('\n')[0], folder / 'ablation.png')
    return text
