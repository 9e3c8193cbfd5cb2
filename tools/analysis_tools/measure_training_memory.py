"""Does the memory of a training grow? Resident memory of the process at some of its iterations.

    python tools/analysis_tools/measure_training_memory.py gen2seg_mae_shapes_tiny --iters 5000

The training is that of tools/train.py, with its hooks, log and one checkpoint at the end, without validation, in a
work dir that is deleted afterwards. Drawn scenes are kept by default, so that memory grows until all of them are
there: ``--cfg-options train_dataloader.dataset.cache=False``. 'Growth' is the slope of a line through the numbers after
the first, in MiB per 1,000 iterations: first iterations fill the caches of libraries.
"""

import argparse
import gc
import resource
import tempfile
import time
from pathlib import Path

import numpy as np

from genseg_mm import launch
from genseg_mm.config_file import find_config

AT = (100, 500, 1000, 1500, 2000, 2500, 3000, 4000, 5000)


def parse_args() -> argparse.Namespace:
    """Command line."""
    parser = launch.ToolParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('config', help='config file, or name of one that comes with the package')
    parser.add_argument('--iters', type=int, default=AT[-1])
    parser.add_argument('--at', type=int, nargs='+', help=f'iterations to look at (default: {" ".join(map(str, AT))})')
    parser.add_argument('--limit', type=float, help='exit with 1 if memory grows by more MiB per 1,000 iterations')
    launch.add_common_arguments(parser)
    args = parser.parse_args()
    find_config(args.config)  # before what takes seconds is imported
    return args


def resident_mib() -> float:
    """Resident memory of this process in MiB: now on Linux, elsewhere its peak so far."""
    status = Path('/proc/self/statm')
    if not status.is_file():
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10
    return int(status.read_text().split()[1]) * resource.getpagesize() / 2**20


def growth(iterations: list[int], numbers: list[float]) -> float:
    """Slope of a line through all but the first number, in MiB per 1,000 iterations; 0 for fewer than two."""
    if len(numbers) < 3:
        return 0.0
    return 1000 * float(np.polyfit(iterations[1:], numbers[1:], 1)[0])


def train(args: argparse.Namespace) -> tuple[list[int], list[float], float]:
    """Iterations, resident MiB there, and CPU seconds of the training."""
    from mmengine.hooks import Hook

    class Resident(Hook):
        found: dict[int, float] = {}

        def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None) -> None:  # noqa: ANN001
            if runner.iter + 1 in at:
                gc.collect()
                self.found[runner.iter + 1] = resident_mib()

    at = {own for own in args.at or AT if own <= args.iters}
    with tempfile.TemporaryDirectory(prefix='training_memory') as folder:
        args.work_dir = args.work_dir or folder
        cfg = launch.load_config(args, 'train')
        cfg.train_cfg.update(max_iters=args.iters, val_interval=args.iters + 1)
        cfg.default_hooks.checkpoint.interval = args.iters
        cfg.val_dataloader = cfg.val_cfg = cfg.val_evaluator = None
        cfg.default_hooks.checkpoint.save_best = None
        runner = launch.build_runner(cfg)
        hook = Resident()
        runner.register_hook(hook)
        start = time.process_time()
        runner.train()
    return list(hook.found), list(hook.found.values()), time.process_time() - start


def main() -> None:
    """Trains, and prints a Markdown table."""
    args = parse_args()
    if args.iters < 1 or min(args.at or AT) < 1:
        raise ValueError(f'--iters and --at: expected numbers of at least 1, but got {args.iters}, {args.at}')
    iterations, numbers, seconds = train(args)
    slope = growth(iterations, numbers)
    print(f'\n{args.config}: {args.iters} iterations in {seconds:.0f} CPU seconds\n')
    print(f'| iteration | {" | ".join(map(str, iterations))} |\n|{"---|" * (1 + len(numbers))}')
    print(f'| resident, MiB | {" | ".join(f"{own:.1f}" for own in numbers)} |')
    print(f'\ngrowth: {slope:.2f} MiB per 1,000 iterations')
    if args.limit is not None and slope > args.limit:
        raise SystemExit(1)


if __name__ == '__main__':
    launch.run_tool(main)
