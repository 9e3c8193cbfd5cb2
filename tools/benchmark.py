"""Measures models on all benchmarks of a suite and makes a leaderboard.

    python tools/benchmark.py configs/benchmarks/tiny.py                                  # all models of the suite
    python tools/benchmark.py configs/benchmarks/tiny.py shipped_unet mine=CONFIG.py:iter_3200.pth
    python tools/benchmark.py configs/benchmarks/gen2seg.py reachomk/gen2seg-sd --only dram pidray
    tools/dist_benchmark.sh configs/benchmarks/genmask.py 8 mine=CONFIG.py:iter_8000.pth  # 8 processes
    python tools/benchmark.py configs/benchmarks/tiny.py --check old/leaderboard.json     # has a number moved?

Results: OUT/MODEL/BENCHMARK/{result.json, samples.npz, config.py, log.txt, examples/} and OUT/leaderboard.{md,csv,
html,json}. What is finished is not computed again unless config, weights, data, benchmark, version, mode or seed
changed (for --check: or the code); a killed run continues where it was. The exit code is 1 if a job failed or, with
--check, a number moved; 2 for a wrong command line; 130 if stopped.
"""

import argparse
import os
import signal

if __name__ == '__main__':
    signal.signal(signal.SIGINT, lambda *_: os._exit(130))  # while the imports run

from genseg_mm import launch
from genseg_mm.benchmarking.suite import TASKS, make_data, read_suite
from genseg_mm.launch.config import add_launch_arguments


def parse_args() -> argparse.Namespace:
    parser = launch.ToolParser(description='Measure models on the benchmarks of a suite')
    parser.add_argument('suite', help='suite config, such as configs/benchmarks/tiny.py')
    parser.add_argument(
        'models',
        nargs='*',
        metavar='MODEL',
        help='name of a model of the suite, NAME=CONFIG:CHECKPOINT, CONFIG:CHECKPOINT, CONFIG (no weights), or a '
        'released gen2seg folder or hub id (default: all models of the suite)',
    )
    parser.add_argument('--out', writes='folder', help='folder of results (default: work_dirs/benchmarks/<suite>)')
    parser.add_argument('--only', nargs='+', metavar='BENCHMARK', help='these benchmarks only')
    parser.add_argument(
        '--tasks', nargs='+', choices=TASKS, help='what the named models can do (default: what their type can)'
    )
    parser.add_argument('--check', metavar='OLD', help='leaderboard.json or result.json to compare with')
    parser.add_argument('--fast', action='store_true', help='whole batches instead of one by one')
    parser.add_argument(
        '--threads', type=int, default=1, help='CPU threads of torch (default 1); 0: as many as it likes'
    )
    parser.add_argument('--seed', type=int, default=0)
    parser.add_argument('--list', action='store_true', help='show what there is to do, and do nothing')
    parser.add_argument('--rerun', action='store_true', help='compute finished results again')
    parser.add_argument('--no-examples', action='store_true', help='draw no example pictures')
    launch.add_speed_arguments(parser)
    add_launch_arguments(parser, 'override settings of the suite, e.g. benchmarks.dram.dataset.indices=20')
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    suite = read_suite(args.suite, args.cfg_options)
    # Imports the models: not before the suite is known to be right.
    from genseg_mm.benchmarking import run_suite
    from genseg_mm.launch import processes

    try:
        run_suite.refuse_wrong_words(suite, args)
        run_suite.connect(args.launcher)
        processes.on_main_process(lambda: run_suite.lock_out(suite, args))
        processes.on_main_process(lambda: make_data(suite, args.only))
        code = run_suite.run(suite, args)
    except KeyboardInterrupt:
        print('stopped; the same command continues with what is not finished', flush=True)
        code = 130
    if code:
        run_suite.leave(code)


if __name__ == '__main__':
    launch.run_tool(main)
