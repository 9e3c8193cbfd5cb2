"""Scores edge maps (PNG) with the BSDS500 benchmark: ODS, OIS and AP.

    python tools/analysis_tools/evaluate_edges.py PNG_DIR GT_DIR [--num-thresholds 99] [--out scores.json]

PNG_DIR holds <name>.png for every <name>.mat of GT_DIR: one channel, 8 bits, strength = value / 255, after non-maximum
suppression. The rows that are printed are those of the public benchmark's eval_bdry.txt and eval_bdry_thr.txt.
"""

import json
import time

from genseg_mm.evaluation.edge_matching import MAX_DISTANCE
from genseg_mm.evaluation.edge_scores import evaluate_edge_folder
from genseg_mm.files import write_text
from genseg_mm.launch import ToolParser, run_tool


def main() -> None:
    parser = ToolParser(description=__doc__.split('\n', maxsplit=1)[0])
    parser.add_argument('png_dir', help='edge maps, <name>.png')
    parser.add_argument('gt_dir', help="BSDS500's ground truth, <name>.mat")
    parser.add_argument('--num-thresholds', type=int, default=99, help='default: 99, the benchmark')
    parser.add_argument(
        '--max-distance',
        type=float,
        default=MAX_DISTANCE,
        help='farthest match as a share of the diagonal (default: 0.0075)',
    )
    parser.add_argument('--no-thin', action='store_true', help='do not thin the thresholded maps')
    parser.add_argument('--out', writes='text', metavar='JSON', help='write all numbers to this file')
    args = parser.parse_args()
    start = time.perf_counter()
    scores = evaluate_edge_folder(args.png_dir, args.gt_dir, args.num_thresholds, args.max_distance, not args.no_thin)
    seconds = time.perf_counter() - start
    print('threshold   recall  precision  F')
    for row in scores['thresholds']:
        print('{:9.4f} {:8.4f} {:10.4f} {:7.4f}'.format(*row))
    print(
        f'{len(scores["images"])} images: ODS F {scores["ODS_F"]:.2f} (threshold {scores["ODS_threshold"]:.4f}), '
        f'OIS F {scores["OIS_F"]:.2f}, AP {scores["AP"]:.2f} ({seconds:.1f} s)'
    )
    if args.out:
        write_text(args.out, json.dumps(scores, indent=1))
        print(f'written to {args.out}')


if __name__ == '__main__':
    run_tool(main)
