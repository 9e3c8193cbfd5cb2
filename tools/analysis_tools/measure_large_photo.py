"""Seconds and memory of one prompt on a large photograph.

    python tools/analysis_tools/measure_large_photo.py --size 480x640 3000x4000 [--models unet mae]

The shipped tiny models answer a point, a box, no prompt (automatic instances) or a text, each in a process of its own,
on a picture of noise and plain shapes. CPU seconds of a call after a small first one, and the peak of the resident
memory over what the process held before it. Results have the size of the picture.
"""

import argparse
import re
import resource
import subprocess
import sys
import time
from pathlib import Path

from genseg_mm.launch import ToolParser, run_tool

ROOT = Path(__file__).resolve().parents[2]
MODELS = dict(
    unet=('gen2seg/gen2seg_unet_shapes_long_tiny', 'gen2seg_unet_shapes', ('point', 'box', 'automatic')),
    mae=('gen2seg/gen2seg_mae_shapes_long_tiny', 'gen2seg_mae_shapes', ('point', 'box', 'automatic')),
    genmask=('genmask/genmask_sana_shapes_long_tiny', 'genmask_sana_shapes', ('text',)),
)
PROMPTS = ('point', 'box', 'automatic', 'text')


def parse_args() -> argparse.Namespace:
    """Command line."""
    parser = ToolParser(description='Seconds and memory on a large photograph')
    parser.add_argument('--size', nargs='+', default=['3000x4000'], metavar='HxW', help='(default: 3000x4000)')
    parser.add_argument('--models', nargs='+', choices=MODELS, default=list(MODELS))
    parser.add_argument('--prompts', nargs='+', choices=PROMPTS, default=list(PROMPTS))
    parser.add_argument('--rule', help="of prompting: 'reference' or 'paper' (default: the model's radius)")
    parser.add_argument('--limit', type=float, default=600, help='seconds for one process')
    parser.add_argument('--one', action='store_true', help=argparse.SUPPRESS)
    return parser.parse_args()


def measure(model: str, prompt: str, height: int, width: int, rule: str | None) -> str:
    """One row of the table, in this process."""
    import numpy as np

    from genseg_mm.inferencers import GenSegInferencer

    config, weights, _ = MODELS[model]
    infer = GenSegInferencer(
        str(ROOT / f'configs/{config}.py'), str(ROOT / f'genseg_mm/weights/{weights}.safetensors'), device='cpu'
    )
    rng = np.random.default_rng(0)
    image = rng.integers(90, 110, (height, width, 3), dtype=np.uint8)
    image[height // 4 : height // 2, width // 4 : width // 2] = (40, 200, 60)
    image[height // 2 : -height // 8, width // 2 : -width // 8] = (40, 60, 200)
    x, y = width * 3 // 8, height * 3 // 8
    given = dict(
        point=dict(points=[[x, y]]),
        box=dict(boxes=[[width // 4, height // 4, width // 2, height // 2]]),
        automatic=dict(automatic=True),
        text=dict(texts='the green rectangle'),
    )[prompt]
    if rule is not None and prompt in ('point', 'box'):
        given['prompting'] = dict(rule=rule, radius=None)
    small = np.ascontiguousarray(image[:64, :64])
    warm = dict(point=dict(points=[[5, 5]]), box=dict(boxes=[[4, 4, 40, 40]])).get(prompt, given)
    infer(small, return_vis=False, **warm)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    start = time.process_time()
    masks = infer(image, return_vis=False, **given)['predictions'][0]['masks']
    seconds = time.process_time() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024 - before
    assert masks.shape[1:] == (height, width)
    million = height * width / 1e6
    return f'| {million:.1f} | {model} | {prompt} | {seconds:.2f} | {peak:.0f} | {len(masks)} | {masks.mean():.3f} |'


def main() -> None:
    """Prints a Markdown table."""
    args = parse_args()
    for size in args.size:
        if not re.fullmatch(r'[1-9]\d*x[1-9]\d*', size):
            raise ValueError(f'--size: expected HEIGHTxWIDTH, such as 3000x4000, but got {size!r}')
    if args.one:
        print(measure(args.models[0], args.prompts[0], *map(int, args.size[0].split('x')), args.rule))
        return
    print('| megapixels | model | prompt | CPU seconds | peak memory, MiB | masks | share of the picture |')
    print('|---:|---|---|---:|---:|---:|---:|', flush=True)
    for size in args.size:
        for model in args.models:
            for prompt in [one for one in MODELS[model][2] if one in args.prompts]:
                print(in_own_process(args, size, model, prompt), flush=True)


def in_own_process(args: argparse.Namespace, size: str, model: str, prompt: str) -> str:
    """One row of the table; its peak of memory is that of no other row."""
    command = [sys.executable, __file__, '--one', '--size', size, '--models', model]
    command += ['--prompts', prompt, *(['--rule', args.rule] if args.rule else [])]
    try:
        run = subprocess.run(command, capture_output=True, text=True, timeout=args.limit)
    except subprocess.TimeoutExpired:
        return f'| {size} | {model} | {prompt} | more than {args.limit:.0f} s of waiting | | | |'
    if run.returncode:
        raise SystemExit(run.stderr)
    return run.stdout.strip().splitlines()[-1]


if __name__ == '__main__':
    run_tool(main)
