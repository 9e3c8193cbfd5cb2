"""Compares two models on one benchmark, item by item: is B better than A, by how much, how sure, and where?

    python tools/analysis_tools/compare.py work_dirs/benchmarks/tiny/{first,second}/refcoco_val --out work_dirs/compared

A and B are folders of results that tools/benchmark.py wrote, or files of sample results (``sample_file`` of a metric).
Every metric that is a mean or a ratio over items gets the difference B - A with a confidence interval (paired
bootstrap over pictures), also per kind, length, subset and size. ``--out`` writes report.md, comparison.json and
pictures of the largest gains, the largest losses and the worst of both, for which both models predict those items
again. Results of different items are refused, unless ``--common`` asks for the common ones.
"""

import argparse
import json
import sys
from pathlib import Path

from genseg_mm.comparing import Comparison, compare
from genseg_mm.comparing.compared_models import ComparedModel
from genseg_mm.comparing.comparison import INTERVALS, UNITS
from genseg_mm.comparing.report import as_markdown, as_text, write_gallery
from genseg_mm.files import write_text
from genseg_mm.launch import ToolParser, run_tool


def parse_args() -> argparse.Namespace:
    parser = ToolParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('a', help='folder of results of A, or its samples.npz')
    parser.add_argument('b', help='the same of B')
    parser.add_argument('--by', choices=UNITS, default='image', help='what the bootstrap draws')
    parser.add_argument('--interval', choices=INTERVALS, default='percentile')
    parser.add_argument('--confidence', type=float, default=0.95)
    parser.add_argument('--resamples', type=int, default=10_000)
    parser.add_argument('--seed', type=int, default=0)
    parser.add_argument('--common', action='store_true', help='compare the common items only')
    parser.add_argument('--json', writes='text', metavar='FILE', help="also write the numbers, '-' prints them")
    parser.add_argument('--out', writes='folder', type=Path, metavar='FOLDER', help='report and gallery')
    parser.add_argument('--number', type=int, default=8, help='pictures of each kind')
    parser.add_argument('--model-a', metavar='CONFIG:CHECKPOINT', help='predicts the gallery; its test set is used')
    parser.add_argument('--model-b', metavar='CONFIG:CHECKPOINT', help='the same for B')
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    if args.number < 1:
        raise ValueError(f'--number must be at least 1, but got {args.number}')
    sides = ComparedModel.read(args.a, args.model_a), ComparedModel.read(args.b, args.model_b)
    _check_benchmark(sides)
    found = compare(
        sides[0].samples,
        sides[1].samples,
        (sides[0].name, sides[1].name),
        args.by,
        args.common,
        args.resamples,
        args.seed,
        args.confidence,
        args.interval,
    )
    numbers = json.dumps(found.to_dict(), indent=1, allow_nan=False) + '\n'
    print(numbers if args.json == '-' else as_text(found))
    if args.json not in (None, '-'):
        write_text(args.json, numbers)
    if args.out is not None:
        _write_report(found, sides, args.out, numbers, args.number)


def _check_benchmark(sides: tuple[ComparedModel, ComparedModel]) -> None:
    protocols = [side.record and side.record.benchmark['protocol'] for side in sides]
    if None not in protocols and protocols[0] != protocols[1]:
        raise ValueError(
            f'A and B were measured by different protocols, which cannot be compared: {protocols[0]!r} and '
            f'{protocols[1]!r}'
        )
    prints = [side.record and side.record.dataset['fingerprint'] for side in sides]
    if None not in prints and prints[0] != prints[1]:
        print(
            'warning: the files of the two datasets are not the same (other fingerprint); what is compared are items '
            'of equal names',
            file=sys.stderr,
        )


def _write_report(
    found: Comparison, sides: tuple[ComparedModel, ComparedModel], out: Path, numbers: str, number: int
) -> None:
    out.mkdir(parents=True, exist_ok=True)
    gallery = write_gallery(found, sides, out, number)
    report = as_markdown(found, f'{found.names[0]} and {found.names[1]}')
    write_text(out / 'report.md', '\n'.join([report, '## Items that stand out', '', *gallery]))
    write_text(out / 'comparison.json', numbers)
    print(f'\nwrote {out / "report.md"}', file=sys.stderr)
    if gallery[0].startswith('The items that differ most cannot'):
        print(gallery[0], file=sys.stderr)


if __name__ == '__main__':
    run_tool(main)
