"""Ablation of the mask task's timestep law at equal steps, with and without joint generation, as a table and a plot.

    python tools/analysis_tools/ablate_timesteps.py
    python tools/analysis_tools/ablate_timesteps.py --jobs 2 --seeds 0 1 2 --equal iterations

Each of laws x (no generation, generation 1:1) x seeds is a training by tools/train.py in a process of one
thread and a folder of its own; the score is the validation oIoU of a single step from pure noise at the end. Runs that
are finished are read, not run again, so an interrupted ablation goes on where it was.

Equal steps: every batch is of one task, so that a step is either a mask step or an image step.
--equal mask-steps (default): every run has exactly --iters mask steps; the joint runs have about as many image steps
besides, hence twice the iterations. --equal iterations: every run has --iters iterations, in the joint ones
about half of them mask steps. Learning-rate schedules are stretched to the iterations of each run.
"""

import argparse
import hashlib
import itertools
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from types import SimpleNamespace

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from ablation_report import JOINT, read_scalars, write_report  # noqa: E402
from mmengine.config import Config  # noqa: E402

from genseg_mm import launch  # noqa: E402
from genseg_mm.files import read_json  # noqa: E402

LAWS = {
    **{f'long-tail a={a}': dict(type='genseg_mm.LongTailTimesteps', a=a) for a in (0.0005, 0.002, 0.005, 0.02)},
    'long-tail a=0.05': dict(type='genseg_mm.LongTailTimesteps', a=0.05),
    'long-tail a=0.1': dict(type='genseg_mm.LongTailTimesteps', a=0.1),
    'long-tail a=0.5': dict(type='genseg_mm.LongTailTimesteps', a=0.5),
    'always 1': dict(type='genseg_mm.UniformTimesteps', low=1.0, high=1.0),
    'uniform': dict(type='genseg_mm.UniformTimesteps'),
    'logit-normal': dict(type='genseg_mm.LogitNormalTimesteps'),
}
LAW = 'model.mask_head.timesteps.mask'


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
    parser.add_argument('--laws', nargs='+', choices=LAWS, default=list(LAWS), metavar='LAW')
    parser.add_argument(
        '--generation',
        choices=['both', 'without', 'with'],
        default='both',
        help='joint text-to-image generation (default: %(default)s)',
    )
    parser.add_argument('--seeds', nargs='+', type=int, default=[0, 1], help='default: 0 1')
    parser.add_argument('--jobs', type=int, default=1, help='runs side by side, one thread each')
    parser.add_argument('--work-dir', default='work_dirs/ablate_timesteps')
    parser.add_argument(
        '--cfg-options',
        nargs='+',
        default=[],
        metavar='KEY=VALUE',
        help='further settings of every run, as for tools/train.py',
    )
    args = parser.parse_args()
    if min(args.iters, args.batch_size, args.jobs) < 1 or min(args.seeds) < 0:
        parser.error('--iters, --batch-size and --jobs must be at least 1, --seeds at least 0')
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


def schedule_options(schedulers: Sequence[dict], old: int, new: int) -> dict:
    """Stretches learning-rate schedules made for ``old`` iterations to ``new``.

    A warm-up (LinearLR from 0) keeps its length, up to a quarter of the run, and nothing else begins before its end.
    """
    options, warm_up = {}, 0
    for index, scheduler in enumerate(schedulers):
        if scheduler['type'] == 'LinearLR' and not scheduler.get('begin', 0):
            warm_up = max(1, min(scheduler['end'], new // 4))
            options[f'param_scheduler.{index}.end'] = warm_up
    for index, scheduler in enumerate(schedulers):
        if f'param_scheduler.{index}.end' in options:
            continue
        begin = max(warm_up, round(scheduler.get('begin', 0) * new / old))
        options[f'param_scheduler.{index}.begin'] = begin
        if 'end' in scheduler:
            end = round(scheduler['end'] * new / old)
            options[f'param_scheduler.{index}.end'] = max(begin + 1, end)
    return options


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
    return {
        f'{LAW}._delete_': True,
        **{f'{LAW}.{key}': value for key, value in LAWS[law].items()},
        'model.mask_head.num_steps': 1,
        'randomness.seed': seed,
        'train_dataloader.batch_size': args.batch_size,
        'train_dataloader.sampler.ratio': [1, 1] if joint else [1, 0],
        'train_dataloader.sampler.group': args.batch_size,
        'train_dataloader.sampler.seed': seed,
        'train_cfg.max_iters': iters,
        'train_cfg.val_interval': iters,
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
    settings = dict(options=given, config=hashlib.sha256(cfg.pretty_text.encode()).hexdigest())
    result_file = folder / 'result.json'
    if result_file.is_file():
        result = read_json(result_file)
        if result['settings'] != settings:
            raise ValueError(
                f'{result_file} is of a run with other settings ({_difference(result["settings"], settings)}): give '
                'another --work-dir, or remove it'
            )
        return result
    if folder.exists():
        shutil.rmtree(folder)  # an interrupted run
    folder.mkdir(parents=True)
    command = [sys.executable, str(ROOT / 'tools/train.py'), args.config]
    command += ['--work-dir', str(folder), '--cfg-options', *given]
    start = time.monotonic()
    with (folder / 'train.txt').open('w') as log:
        environment = {**os.environ, 'OMP_NUM_THREADS': '1'}
        status = subprocess.run(command, env=environment, stdout=log, stderr=subprocess.STDOUT)
    if status.returncode:
        tail = ' / '.join((folder / 'train.txt').read_text().splitlines()[-3:])
        raise ValueError(f'{name} failed, its output is in {folder}/train.txt: {tail}')
    result = dict(
        law=law, joint=joint, seed=seed, **read_scalars(folder),
        seconds=round(time.monotonic() - start, 1), settings=settings,
    )  # fmt: skip
    result_file.write_text(json.dumps(result, indent=2) + '\n')
    return result


def _difference(old: dict, new: dict) -> str:
    changed = sorted(set(old['options']) ^ set(new['options']))
    return ', '.join(changed) or 'the config has changed'


def run_all(args: argparse.Namespace, cfg: Config) -> list[dict]:
    """All runs, in the order of the grid."""
    mixes = {'both': (False, True), 'without': (False,), 'with': (True,)}[args.generation]
    grid = list(itertools.product(args.laws, mixes, args.seeds))
    with ThreadPoolExecutor(args.jobs) as pool:
        futures = {pool.submit(run, args, cfg, *point): point for point in grid}
        try:
            for done, future in enumerate(as_completed(futures), 1):
                (law, joint, seed), result = futures[future], future.result()
                print(
                    f'[{done}/{len(grid)}] {law}, {JOINT[joint]}, seed {seed}: oIoU {result["oIoU"]:.1f}, final loss '
                    f'{result["mask_loss"]:.3f}, {result["mask_steps"]} mask and {result["image_steps"]} image steps, '
                    f'{result["seconds"]:.0f} s',
                    flush=True,
                )
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
    return [future.result() for future in futures]


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
    print(f'written: {args.work_dir}/ablation.md, .csv, .json, .png')


if __name__ == '__main__':
    launch.run_tool(main)
