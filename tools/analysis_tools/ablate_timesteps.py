"""Ablation of the mask task's timestep law at equal steps, with and without joint generation, as a table and plots.

    python tools/analysis_tools/ablate_timesteps.py
    python tools/analysis_tools/ablate_timesteps.py --jobs 2 --seeds 0 1 2 --equal iterations
    python tools/analysis_tools/ablate_timesteps.py configs/genmask/genmask_sana_objects_tiny.py --seeds 0 1 2 \\
        --variants 'pixel BCE' 'linear BCE' 'no image condition' --work-dir work_dirs/ablate_objects

Each of (laws and --variants of the config's own law) x (no generation, generation 1:1) x seeds is a training by
tools/train.py in a process of one thread and a folder of its own; the score is the validation oIoU of a single step
from pure noise, at the end and at --validations points on the way, beside the loss since the one before: a falling
accuracy under a falling loss is named. Runs that are finished are read, not run again, so an interrupted ablation goes
on where it was, and a larger grid takes what a smaller one had.

Equal steps: every batch is of one task, so that a step is either a mask step or an image step.
--equal mask-steps (default): every run has exactly --iters mask steps; the joint runs have about as many image steps
besides, hence twice the iterations. --equal iterations: every run has --iters iterations, in the joint ones
about half of them mask steps. Learning-rate schedules are stretched to the iterations of each run.
"""

import argparse
import csv
import hashlib
import itertools
import json
import statistics
import sys
import textwrap
from collections.abc import Iterable, Sequence
from pathlib import Path
from types import SimpleNamespace

import numpy as np
from mmengine.config import Config

from genseg_mm import launch
from genseg_mm.files import csv_cell
from genseg_mm.launch.training_cells import logged_lines, run_cell, run_grid, schedule_options

ROOT = Path(__file__).resolve().parents[2]
LAWS = {
    **{
        f'long-tail a={a}': dict(type='genseg_mm.LongTailTimesteps', a=a)
        for a in (0.0005, 0.002, 0.005, 0.02, 0.05, 0.1, 0.5, 'auto')
    },
    'always 1': dict(type='genseg_mm.UniformTimesteps', low=1.0, high=1.0),
    'uniform': dict(type='genseg_mm.UniformTimesteps'),
    'logit-normal': dict(type='genseg_mm.LogitNormalTimesteps'),
}
VARIANTS = {
    'pixel BCE': {
        'model.mask_head.type': 'genseg_mm.BCEMaskHead',
        'model.mask_head.through': 'decoder',
        'model.mask_head.scale': 5.0,
        'model.mask_head.threshold': 0.45,
    },
    'linear BCE': {'model.mask_head.type': 'genseg_mm.BCEMaskHead', 'model.mask_head.through': 'linear'},
    'no image condition': {'model.image_condition': False},
}
LAW = 'model.mask_head.timesteps.mask'
TAIL = 0.2  # the final training loss is the mean over the last fifth of the mask steps
JOINT = {False: 'without generation', True: 'with generation'}


def parse_args() -> argparse.Namespace:
    parser = launch.ToolParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        'config',
        nargs='?',
        default=str(ROOT / 'configs/genmask/genmask_sana_shapes_tiny.py'),
        help='config with a MixedDataset of two parts, masks first (default: %(default)s)',
    )
    parser.add_argument('--iters', type=int, default=400, help='steps (default: %(default)s)')
    parser.add_argument(
        '--equal',
        choices=['mask-steps', 'iterations'],
        default='mask-steps',
        help='what --iters counts, in every run (default: %(default)s)',
    )
    parser.add_argument('--batch-size', type=int, default=16, help='default: %(default)s')
    known = [law for law in LAWS if not law.endswith('auto')]
    parser.add_argument(
        '--laws', nargs='*', choices=LAWS, default=known, metavar='LAW', help='default: all but long-tail a=auto'
    )
    parser.add_argument('--variants', nargs='*', choices=VARIANTS, default=[], metavar='VARIANT', help='default: none')
    parser.add_argument('--validations', type=int, default=4, help='in each run (default: %(default)s)')
    parser.add_argument(
        '--generation',
        choices=['both', 'without', 'with'],
        default='both',
        help='joint text-to-image generation (default: %(default)s)',
    )
    parser.add_argument('--seeds', nargs='+', type=int, default=[0, 1], help='default: 0 1')
    parser.add_argument('--jobs', type=int, default=1, help='runs side by side, one thread each')
    parser.add_argument('--work-dir', writes='folder', default='work_dirs/ablate_timesteps')
    parser.add_argument(
        '--cfg-options',
        nargs='+',
        default=[],
        metavar='KEY=VALUE',
        help='further settings of every run, as for tools/train.py',
    )
    args = parser.parse_args()
    if min(args.iters, args.batch_size, args.jobs, args.validations) < 1 or min(args.seeds) < 0:
        parser.error('--iters, --batch-size, --jobs and --validations must be at least 1, --seeds at least 0')
    return args


def joint_iterations(mask_steps: int, batch_size: int, seed: int) -> int:
    """Iterations until a 1:1 sampler with this seed has given so many mask batches."""
    from genseg_mm.datasets import RatioInfiniteSampler

    class Parts(SimpleNamespace):
        def __len__(self) -> int:
            return 2

    parts = Parts(datasets=[range(1), range(1)])  # which source comes does not depend on the sizes
    sampler = RatioInfiniteSampler(parts, ratio=[1, 1], group=batch_size, seed=seed)
    given = 0
    for iteration, index in enumerate(itertools.islice(sampler, 0, None, batch_size), 1):
        given += index == 0
        if given == mask_steps:
            return iteration
    raise AssertionError('the sampler is endless')


def run_options(cfg: Config, args: argparse.Namespace, law: str, joint: bool, seed: int) -> dict:
    """The --cfg-options of one run.

    Raises:
        ValueError: If the config's training set is not a mixture of two parts.
    """
    if len(cfg.train_dataloader.dataset.get('datasets', ())) != 2:
        raise ValueError(
            f'{args.config}: expected train_dataloader.dataset to be a MixedDataset of two parts, masks first and '
            f'text-to-image second, but got a {cfg.train_dataloader.dataset.type}'
        )
    iters = args.iters
    if joint and args.equal == 'mask-steps':
        iters = joint_iterations(args.iters, args.batch_size, seed)
    old = cfg.train_cfg.max_iters
    own = VARIANTS.get(law)
    if own is None:
        own = {f'{LAW}._delete_': True, **{f'{LAW}.{key}': value for key, value in LAWS[law].items()}}
    return {
        **own,
        'model.mask_head.num_steps': 1,
        'randomness.seed': seed,
        'train_dataloader.batch_size': args.batch_size,
        'train_dataloader.sampler.ratio': [1, 1] if joint else [1, 0],
        'train_dataloader.sampler.group': args.batch_size,
        'train_dataloader.sampler.seed': seed,
        'train_cfg.max_iters': iters,
        'train_cfg.val_interval': -(-iters // args.validations),
        **schedule_options(cfg.get('param_scheduler', ()), old, iters),
        'default_hooks.logger.interval': 1,
        'log_processor.window_size': 1,
        'default_hooks.checkpoint.interval': iters,
        'default_hooks.checkpoint.save_optimizer': False,
    }


def run(args: argparse.Namespace, cfg: Config, law: str, joint: bool, seed: int) -> dict:
    """One run of the grid, or what it said when it was run before."""
    name = f'{law}{"+generation" if joint else ""}_seed{seed}'.replace(' ', '_').replace('=', '')
    folder = Path(args.work_dir, name)
    options = run_options(cfg, args, law, joint, seed)
    given = [f'{key}={value}'.replace(' ', '') for key, value in options.items()] + args.cfg_options
    command = [sys.executable, str(ROOT / 'tools/train.py'), args.config]
    command += ['--work-dir', str(folder), '--cfg-options', *given]
    settings = dict(options=given, config=hashlib.sha256(cfg.pretty_text.encode()).hexdigest())
    return run_cell(folder, command, settings, lambda own: dict(law=law, joint=joint, seed=seed, **read_scalars(own)))


def run_all(args: argparse.Namespace, cfg: Config) -> list[dict]:
    """All runs, in the order of the grid."""
    mixes = {'both': (False, True), 'without': (False,), 'with': (True,)}[args.generation]
    grid = list(itertools.product([*args.laws, *args.variants], mixes, args.seeds))
    found = {}
    for point, result in run_grid(lambda *own: run(args, cfg, *own), grid, args.jobs):
        found[point] = result
        law, joint, seed = point
        print(
            f'[{len(found)}/{len(grid)}] {law}, {JOINT[joint]}, seed {seed}: oIoU {result["oIoU"]:.1f}, final loss '
            f'{result["mask_loss"]:.3f}, {result["mask_steps"]} mask and {result["image_steps"]} image steps, '
            f'{result["cpu_seconds"]:.0f} CPU s',
            flush=True,
        )
    return [found[point] for point in grid]


def read_scalars(run_dir: Path) -> dict:
    """What a finished training logged: val oIoU and mIoU in percent, final loss of the mask task, steps of each task.

    ``curve`` has a dict per validation: step, mean mask_loss since the one before, and all overall IoUs by name.

    The training must have logged every iteration by itself (``default_hooks.logger.interval=1``,
    ``log_processor.window_size=1``) and have batches of one task, so that a mask step is one that has a mask loss.

    Raises:
        FileNotFoundError: If there is no log.
        ValueError: If the log ends before a validation.
    """
    lines = logged_lines(run_dir)
    train = [line for line in lines if 'loss' in line]
    val = [line for line in lines if 'oIoU' in line]
    if not train or not val:
        raise ValueError(
            f'{run_dir}: expected training losses and a validation in its log, but got {len(train)} and {len(val)} '
            'lines of them: remove the folder and run it again'
        )
    mask_losses = [line['loss_mask'] for line in train if line.get('loss_mask')]
    tail = mask_losses[-max(1, round(TAIL * len(mask_losses))) :]
    curve, since = [], []
    for line in lines:
        if line.get('loss_mask'):
            since.append(line['loss_mask'])
        elif 'oIoU' in line:
            scores = {key: value for key, value in line.items() if key.split('/')[0] == 'oIoU'}
            curve.append(dict(step=line['step'], mask_loss=statistics.fmean(since) if since else None, **scores))
            since = []
    return dict(
        oIoU=val[-1]['oIoU'],
        mIoU=val[-1]['mIoU'],
        mask_loss=statistics.fmean(tail),
        mask_steps=len(mask_losses),
        image_steps=sum(bool(line.get('loss_image')) for line in train),
        curve=curve,
    )


def summarise(runs: Iterable[dict]) -> list[dict]:
    """One row per law and task mix, in the order of the runs; lists hold one value per seed."""
    rows: dict[tuple, dict] = {}
    for run in runs:
        row = rows.setdefault(
            (run['law'], run['joint']),
            dict(law=run['law'], joint=run['joint'], seeds=[], oIoU=[], mIoU=[], mask_loss=[],
                 mask_steps=[], image_steps=[], cpu_seconds=[]),
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
    """For each task mix: does the training loss rank the laws? Variants have losses of other kinds."""
    remarks = []
    rows = [row for row in rows if row['law'] not in VARIANTS]
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


def falls_under_a_falling_loss(curve: Sequence[dict]) -> bool:
    """Whether the score ends below its best on the way although the loss ends below what it was there."""
    if len(curve) < 2:
        return False
    best = max(curve, key=lambda own: own['oIoU'])
    last = curve[-1]
    return last['oIoU'] < best['oIoU'] and last['mask_loss'] is not None and last['mask_loss'] < best['mask_loss']


def curve_remarks(runs: Iterable[dict]) -> list[str]:
    """The runs whose accuracy fell while their loss fell."""
    remarks = []
    for run in runs:
        curve = run['curve']
        if falls_under_a_falling_loss(curve):
            best = max(curve, key=lambda own: own['oIoU'])
            remarks.append(
                f'{run["law"]}, {JOINT[run["joint"]]}, seed {run["seed"]}: oIoU falls from {best["oIoU"]:.1f} at step '
                f'{best["step"]} to {curve[-1]["oIoU"]:.1f}, while the loss falls from {best["mask_loss"]:.3f} to '
                f'{curve[-1]["mask_loss"]:.3f}'
            )
    return remarks


def markdown(rows: list[dict], heading: str) -> str:
    """A table with mean and range over the seeds, and what the loss says."""
    header = [
        'law of the mask task', 'text-to-image', 'oIoU', 'mIoU', 'final mask loss', 'mask steps', 'image steps',
        'CPU s per run',
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
            f'{statistics.fmean(row["cpu_seconds"]):.0f}',
        ]
        lines.append(f'| {" | ".join(cells)} |')
    return '\n'.join([*lines, '', *(f'- {remark}' for remark in loss_remarks(rows)), ''])


def curve_table(runs: Sequence[dict]) -> str:
    """oIoU / mask loss of every run at every validation."""
    steps = sorted({own['step'] for run in runs for own in run['curve']})
    lines = ['oIoU / mask loss since the validation before, by step:', '']
    lines += [f'| run | {" | ".join(map(str, steps))} |', '|' + '---|' * (len(steps) + 1)]
    for run in runs:
        at = {own['step']: own for own in run['curve']}
        cells = [
            f'{at[step]["oIoU"]:.1f} / {at[step]["mask_loss"]:.3f}' if at.get(step, {}).get('mask_loss') else ''
            for step in steps
        ]
        lines.append(f'| {run["law"]}, {JOINT[run["joint"]]}, seed {run["seed"]} | {" | ".join(cells)} |')
    return '\n'.join([*lines, '', *(f'- {remark}' for remark in curve_remarks(runs)), ''])


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
        writer = csv.DictWriter(file, [*keys, 'cpu_seconds'], extrasaction='ignore', lineterminator='\n')
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
    figure.suptitle(textwrap.fill(title, 120), fontsize=11)
    figure.tight_layout()
    figure.savefig(path, dpi=120)
    pyplot.close(figure)


def plot_curves(runs: Sequence[dict], path: Path) -> None:
    """Loss and single-step oIoU over training, a line per run, a colour per law."""
    import matplotlib

    matplotlib.use('Agg')
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(1, 2, figsize=(12, 4.5), layout='constrained')
    laws = list(dict.fromkeys(run['law'] for run in runs))
    labelled: set[str] = set()
    for run in runs:
        steps = [own['step'] for own in run['curve']]
        for own, key in zip(axes, ('oIoU', 'mask_loss'), strict=True):
            own.plot(
                steps, [point[key] for point in run['curve']], '-s' if run['joint'] else '-o', markersize=3,
                color=f'C{laws.index(run["law"])}', label=None if run['law'] in labelled else run['law'],
            )  # fmt: skip
        labelled.add(run['law'])
    axes[0].set(xlabel='iteration', ylabel='single-step oIoU, val (%)', ylim=(0, None))
    axes[1].set(xlabel='iteration', ylabel='mask loss since the validation before')
    axes[0].legend(fontsize=8)
    figure.savefig(path, dpi=120)
    pyplot.close(figure)


def write_report(runs: list[dict], heading: str, folder: Path) -> str:
    """Writes ablation.md, .csv, .json, .png and curves.png into a folder; returns the Markdown."""
    rows = summarise(runs)
    text = f'{markdown(rows, heading)}\n{curve_table(runs)}'
    (folder / 'ablation.md').write_text(text)
    (folder / 'ablation.json').write_text(json.dumps(dict(runs=runs, summary=rows), indent=2) + '\n')
    write_csv(runs, folder / 'ablation.csv')
    plot_curves(runs, folder / 'curves.png')
    plot(rows, heading.partition('\n')[0], folder / 'ablation.png')
    return text


def heading(args: argparse.Namespace) -> str:
    """What the table shows, in two lines."""
    counted = 'mask steps in every run' if args.equal == 'mask-steps' else 'iterations in every run'
    extra = f', {" ".join(args.cfg_options)}' if args.cfg_options else ''
    return (
        f'Timestep laws of the mask task, {Path(args.config).stem}{extra}: {args.iters} {counted}\n'
        f'Single step from pure noise, validation set; batch {args.batch_size}, seeds '
        f'{" ".join(map(str, args.seeds))}: mean (smallest to largest). The final loss is the mean over the last fifth '
        'of the mask steps.'
    )


def main() -> None:
    args = parse_args()
    if not Path(args.config).is_file():
        raise FileNotFoundError(f'config {args.config} does not exist')
    runs = run_all(args, Config.fromfile(args.config))
    print('\n' + write_report(runs, heading(args), Path(args.work_dir)))
    print(f'written: {args.work_dir}/ablation.md, .csv, .json, .png, curves.png')


if __name__ == '__main__':
    launch.run_tool(main)
