"""Measures what costs time, side by side in one process, and says whether something became slower.

    python tools/benchmark_speed.py                                      # all rows, minutes on one core
    python tools/benchmark_speed.py loss_10 prompt_480x640 --out speed   # some, to speed.json and speed.md
    python tools/benchmark_speed.py --check speed.json                   # exit code 1, and a line for each slower row
    python tools/benchmark_speed.py --curves docs/speed_curves.png       # how times grow, with fitted exponents
    python tools/benchmark_speed.py --memory                             # what metrics keep of 10,000 items

CPU seconds of one thread, which other users of a machine change little; on a card seconds of the clock, of rows that
run there. A yardstick (fixed products of matrices, passes over memory, a sort) runs beside every measurement: ratios
to it, and to peers, are what --check compares. Peers that are installed take part (OpenCV's contrib filter,
py-edge-eval, pycocotools); other code is named by its folder: --peer gen2seg=FOLDER (github.com/UCDvision/gen2seg).
"""

import argparse
import os
import signal
from pathlib import Path

if __name__ == '__main__':
    signal.signal(signal.SIGINT, lambda *_: os._exit(130))  # while the imports run

from genseg_mm import launch

PEERS = ('gen2seg',)


def _json_of(name: str) -> Path:
    return Path(name.removesuffix('.json').removesuffix('.md') + '.json')


def parse_args() -> argparse.Namespace:
    """Command line."""
    parser = launch.ToolParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('rows', nargs='*', metavar='ROW', help='rows to measure (default: all; --list shows them)')
    parser.add_argument('--list', action='store_true', help='show the rows, and measure nothing')
    parser.add_argument('--out', writes='file', type=_json_of, metavar='FILE', help='write FILE.json and FILE.md')
    parser.add_argument('--check', metavar='OLD', help='a .json of an earlier run to compare with')
    parser.add_argument(
        '--tolerance', type=float, default=0.3, help='how much a ratio may rise, 0.3 is 30 %% (default: %(default)s)'
    )
    parser.add_argument('--repeat', type=int, default=3, help='rounds (default: %(default)s)')
    parser.add_argument('--peer', nargs='+', default=[], metavar='NAME=FOLDER', help=f'code of {", ".join(PEERS)}')
    parser.add_argument('--no-compile', action='store_true', help='leave out what is compiled first')
    parser.add_argument(
        '--only', choices=['cpu', 'cuda'], help='only on this one (default: the CPU, and a card if any)'
    )
    parser.add_argument('--threads', type=int, default=1, help='CPU threads of torch (default: %(default)s)')
    parser.add_argument(
        '--curves',
        writes=('.png', '.svg', '.pdf'),
        metavar='PNG',
        help='measure curves in place of rows, and draw them',
    )
    parser.add_argument('--memory', action='store_true', help='measure what metrics keep, in place of rows')
    parser.add_argument(
        '--largest', type=float, default=1.0, help='share of the curves or items to measure, by size (default: 1)'
    )
    args = parser.parse_args()
    if not args.tolerance > 0 or not 0 < args.largest <= 1:
        parser.error(f'expected --tolerance above 0 and --largest in (0, 1], but got {args.tolerance}, {args.largest}')
    args.peers = {}
    for text in args.peer:
        name, equals, folder = text.partition('=')
        if name not in PEERS or not equals:
            parser.error(f'--peer: expected NAME=FOLDER with a name of {", ".join(PEERS)}, but got {text!r}')
        if not Path(folder).is_dir():
            parser.error(f'--peer {name}: {folder} is no folder')
        args.peers[name] = Path(folder)
    return args


def run_rows(args: argparse.Namespace) -> int:
    """Measures rows; the exit code."""
    import torch
    from speed.measuring import Yardstick, as_json, markdown, measure, read_old, regressions
    from speed.rows import ROWS

    from genseg_mm.files import write_text

    known = {row.name: row for row in ROWS}
    unknown = [name for name in args.rows if name not in known]
    if unknown:
        raise ValueError(f'unknown row {unknown[0]!r}; there are {", ".join(known)}')
    chosen = [known[name] for name in args.rows] or list(ROWS)
    devices = [args.only] if args.only else ['cpu', 'cuda'][: 1 + torch.cuda.is_available()]
    if args.list:
        for row in chosen:
            print(f'{row.name:20} {row.title}{" (also on a card)" if row.on_gpu else ""}')
        return 0
    pairs = [(row, device) for device in devices for row in chosen if device == 'cpu' or row.on_gpu]
    labels = [row.name + f'@{device}' * (device != 'cpu') for row, device in pairs]
    old = read_old(args.check, labels) if args.check else {}
    torch.set_num_threads(args.threads)
    yardstick, found, failed = Yardstick(), {}, {}
    for label, (row, device) in zip(labels, pairs, strict=True):
        args.on = device
        try:
            found[label] = own = measure(row, args, yardstick, device)
        except (ImportError, OSError, RuntimeError, ValueError) as error:
            failed[label] = f'{type(error).__name__}: {" ".join(str(error).split())[:200]}'
            print(f'{label}: FAILED, {failed[label]}', flush=True)
            continue
        over = ''.join(f', {ratio:.3g} x {peer}' for peer, ratio in own.over.items())
        print(f'{label}: {own.seconds["ours"]:.3g} s, {own.yards["ours"]:.3g} yardsticks{over}', flush=True)
    print(f'\n{markdown(found)}')
    if args.out:
        table = args.out.with_suffix('.md')
        write_text(args.out, as_json(found, failed))
        write_text(table, markdown(found) + '\n')
        print(f'\nwritten: {args.out}, {table}')
    slower = regressions(old, found, args.tolerance)
    slower += [f'{label}: could not be measured ({why})' for label, why in failed.items() if label in old]
    if args.check:
        print('\n' + '\n'.join(slower or [f'no row of {args.check} became slower']))
    return int(bool(slower or failed))


def main() -> None:
    """Measures."""
    args = parse_args()
    if args.curves:
        from speed.curves import measure_curves

        measure_curves(args)
        return
    if args.memory:
        from speed.kept_memory import measure_memory

        measure_memory(args)
        return
    if code := run_rows(args):
        raise SystemExit(code)


if __name__ == '__main__':
    launch.run_tool(main)
