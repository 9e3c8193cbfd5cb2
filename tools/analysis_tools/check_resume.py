"""Trains configs for a few iterations, with and without an interruption, and compares every number of the end.

python tools/analysis_tools/check_resume.py CONFIG... [--iters 6] [--at 3] [--batch-size 2] [--cfg-options ...]
"""

import itertools
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from genseg_mm import launch
from genseg_mm.checkpoint import checkpoints_of, load_weights_only
from genseg_mm.config_file import read_config_file
from genseg_mm.launch.config import CfgOptions, override_config

_PARTS = ('state_dict', 'ema_state_dict', 'optimizer', 'param_schedulers')
_CLOCKS = ('train/time', 'train/data_time')
_numbers = itertools.count()


def train(
    path: str | Path,
    work_dir: str | Path,
    iters: int,
    interval: int,
    resume: str | Path | None = None,
    options: Mapping[str, Any] | None = None,
    batch_size: int | None = None,
) -> str:
    """Trains a config in this process, without validation.

    Args:
        path: The config.
        work_dir: Where the checkpoints go.
        iters: Iterations from the very beginning. Schedules keep the length that the config gives them.
        interval: Iterations from one checkpoint to the next.
        resume: A checkpoint to go on from.
        options: As for ``--cfg-options``.
        batch_size: In place of the config's.

    Returns:
        The last checkpoint.
    """
    cfg = read_config_file(str(path))
    override_config(cfg, dict(options or {}))
    loader = cfg.train_dataloader
    if batch_size is not None:
        loader.batch_size = batch_size
        if (loader.sampler.get('group') or 1) > 1:
            loader.sampler.group = batch_size
    cfg.train_cfg.update(max_iters=iters)
    cfg.train_cfg.pop('val_interval', None)
    cfg.update(val_dataloader=None, val_cfg=None, val_evaluator=None)
    cfg.update(test_dataloader=None, test_cfg=None, test_evaluator=None)
    cfg.default_hooks.checkpoint.update(interval=interval, max_keep_ckpts=-1)
    cfg.default_hooks.logger.interval = 1
    # Message hubs are global and found by name, which has a resolution of one second.
    cfg.update(experiment_name=f'{Path(path).stem}_{next(_numbers)}', log_level='WARNING')
    cfg.update(work_dir=str(work_dir), launcher='none')
    launch.set_resume(cfg, None if resume is None else str(resume))
    runner = launch.build_runner(cfg)
    runner.train()
    # Workers would wait for the garbage collector.
    getattr(runner.train_loop.dataloader_iterator._iterator, '_shutdown_workers', lambda: None)()
    return runner.message_hub.get_info('last_ckpt')


def differences(first: str | Path, second: str | Path) -> dict[str, float]:
    """Largest difference of each number of two checkpoints, by name.

    Infinite where one has no counterpart, or is no number and its counterpart is one. Compared are weights, their
    moving average, optimizer, schedules and every logged loss.
    """
    states = [dict(_numbers_of(_compared(load_weights_only(str(file))))) for file in (first, second)]
    return {
        name: _difference(states[0].get(name), states[1].get(name))
        for name in sorted(states[0].keys() | states[1].keys())
    }


def _compared(checkpoint: Mapping[str, Any]) -> dict[str, Any]:
    scalars = checkpoint['message_hub']['log_scalars']
    log = {
        name: np.stack(buffer.data)
        for name, buffer in scalars.items()
        if name.startswith('train/') and name not in _CLOCKS
    }
    return {part: checkpoint[part] for part in _PARTS if part in checkpoint} | dict(log=log)


def _numbers_of(value: Any, name: str = '') -> Iterator[tuple[str, Any]]:
    if isinstance(value, (list, tuple)):
        value = dict(enumerate(value))
    if not isinstance(value, Mapping):
        yield name, value
        return
    for key, part in value.items():
        yield from _numbers_of(part, f'{name}.{key}' if name else str(key))


def _difference(first: Any, second: Any) -> float:
    if isinstance(first, (torch.Tensor, np.ndarray, float, np.number)) and type(first) is type(second):
        first, second = (torch.as_tensor(value).double() for value in (first, second))
        if first.shape == second.shape:
            alike = (first == second) | (first.isnan() & second.isnan())
            apart = (first - second).abs().nan_to_num(nan=float('inf')).masked_fill(alike, 0)
            return float(apart.max()) if apart.numel() else 0.0
    return 0.0 if type(first) is type(second) and first == second else float('inf')


def largest(found: Mapping[str, float], *parts: str) -> float:
    """The largest difference of the parts of a checkpoint that have these names; of all of them by default."""
    return max((own for name, own in found.items() if not parts or name.split('.')[0] in parts), default=0.0)


def check_resume(
    path: str | Path,
    folder: str | Path,
    iters: int = 6,
    at: int = 3,
    options: Mapping[str, Any] | None = None,
    resumed_options: Mapping[str, Any] | None = None,
    batch_size: int | None = 2,
) -> dict[str, float]:
    """Differences between a training of ``iters`` iterations and one that goes on from its checkpoint at ``at``.

    Args:
        path: The config.
        folder: Where both write.
        iters: Iterations.
        at: Where the second one starts.
        options: As for ``--cfg-options``.
        resumed_options: More of them for the second, such as the number of workers, that must not matter.
        batch_size: In place of the config's.
    """
    whole, rest = Path(folder, 'whole'), Path(folder, 'rest')
    last = train(path, whole, iters, at, options=options, batch_size=batch_size)
    start = min(map(Path, checkpoints_of(whole)), key=lambda place: int(place.stem.removeprefix('iter_')))
    options = {**(options or {}), **(resumed_options or {})}
    resumed = train(path, rest, iters, at, start, options, batch_size)
    return differences(last, resumed)


def main(arguments: Sequence[str] | None = None) -> None:
    """Prints a line per config; exit code 1 if any number differs."""
    parser = launch.ToolParser(description=__doc__)
    parser.add_argument('configs', nargs='+', metavar='CONFIG')
    parser.add_argument('--iters', type=int, default=6)
    parser.add_argument('--at', type=int, default=3, help='iteration to resume from')
    parser.add_argument('--batch-size', type=int, default=2)
    parser.add_argument('--cfg-options', nargs='+', action=CfgOptions, metavar='KEY=VALUE')
    args = parser.parse_args(arguments)
    worst = 0.0
    print(f'{"config":44} {"weights":>9} {"optimizer":>9} {"all":>9} {"seconds":>8}')
    for config in args.configs:
        start = time.monotonic()
        with tempfile.TemporaryDirectory() as folder:
            found = check_resume(config, folder, args.iters, args.at, args.cfg_options, None, args.batch_size)
        weights = largest(found, 'state_dict', 'ema_state_dict')
        values = weights, largest(found, 'optimizer'), largest(found)
        worst = max(worst, *values)
        columns = ' '.join(f'{value:9.3g}' for value in values)
        print(f'{Path(config).stem:44} {columns} {time.monotonic() - start:8.1f}', flush=True)
        for name in [name for name, value in found.items() if value][:5]:
            print(f'    {name} differs by {found[name]:g}')
    sys.exit(worst != 0)


if __name__ == '__main__':
    launch.run_tool(main)
