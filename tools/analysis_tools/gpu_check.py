"""GPU acceptance: one command that says whether this machine trains what the configs promise, and how fast.

    bash tools/gpu_check.sh

Runs, each in a process of its own and with random weights (nothing is downloaded): the tests marked gpu; bfloat16 and
compiled training steps against float32 ones, and the card against the CPU; the instance-coloring loss; point
prompting; a full-size training step of ``configs/genmask/refcoco.py`` and of the Stable Diffusion 2 colorer, with
memory, images per second and the share of what this card reaches in a plain bfloat16 product; FSDP2 on all cards. A
check that fails does not stop the others; the exit code says whether all passed.

Writes ``gpu_check.json`` and ``gpu_check.md`` into --out. ``--device cpu`` takes tiny models, to try the tool itself.
"""

import argparse
import json
import platform
import re
import statistics
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from mmengine.config import Config

from genseg_mm import launch
from genseg_mm.leaderboard.markdown import escaped, table_lines
from genseg_mm.registry import MODELS

# The checks are the functions of these names, which return numbers or raise; they may take so many seconds.
CHECKS = dict(
    gpu_tests=120,
    precision=90,
    compiled=120,
    coloring_loss=120,
    prompting=60,
    genmask_step=240,
    sd2_step=120,
    fsdp2=180,
)


def parse_args() -> argparse.Namespace:
    parser = launch.ToolParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--device', default='cuda', help='cuda (default; CUDA_VISIBLE_DEVICES chooses), or cpu')
    parser.add_argument('--checks', nargs='+', choices=CHECKS, default=list(CHECKS), help='default: all')
    parser.add_argument('--batch', type=int, default=8, help='pictures of a full-size step (default: 8)')
    parser.add_argument('--steps', type=int, default=3, help='timed steps, after one (default: 3)')
    parser.add_argument('--out', writes='folder', default='work_dirs/gpu_check', help='folder')
    parser.add_argument('--one', choices=CHECKS, help=argparse.SUPPRESS)
    args = parser.parse_args()
    args.device = args.device.partition(':')[0]
    if min(args.batch, args.steps) < 1:
        parser.error(f'--batch and --steps must be at least 1, but got {args.batch} and {args.steps}')
    return args


if __name__ == '__main__':
    launch.run_tool(parse_args)  # help and mistakes, before what is imported below takes seconds

import torch
import torch.nn.functional as F
from benchmark_coloring_loss import make_scene, run, tiled_loss
from benchmark_prompting import SCENES, batched_masks, timed
from benchmark_prompting import make_scene as prompting_scene
from costs import clock, count_flops, made_up_batch
from mmengine.runner import set_random_seed
from models_without_weights import build_parts, encode_prompt, training_forward
from torch import Tensor, nn

from genseg_mm.planning.kept_bytes import ShapesOnly
from genseg_mm.planning.training_plan import plan_training, prompt_length

ROOT = Path(__file__).parents[2]
GB = 1e9
TINY = ('configs/genmask/genmask_sana_shapes_tiny.py', 'configs/genmask/genmask_wan_shapes_tiny.py')
UNET = 'configs/gen2seg/gen2seg_unet_shapes_tiny.py'
SHARDED = 'configs/genmask/genmask_wan_shapes_fsdp2_tiny.py'
FULL = 'configs/genmask/refcoco.py'


def gpu_tests(args: argparse.Namespace) -> dict[str, Any]:
    """The tests marked gpu."""
    if args.device == 'cpu':
        return dict(skipped='needs a GPU')
    command = [sys.executable, '-m', 'pytest', '-q', '-m', 'gpu', '-p', 'no:cacheprovider', 'tests/functional']
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    counts = {name: int(number) for number, name in re.findall(r'(\d+) (passed|failed|skipped|error)', done.stdout)}
    if done.returncode or not counts.get('passed'):
        raise RuntimeError(f'expected passed tests, but got: {done.stdout[-400:].strip()}')
    return counts


def precision(args: argparse.Namespace) -> dict[str, Any]:
    """Losses and gradients of tiny models: this device against the CPU, bfloat16 against float32."""
    numbers: dict[str, Any] = {}
    for path in (*TINY, UNET):
        name = Path(path).stem.removesuffix('_tiny')
        exact, exact_gradient = tiny_step(path, 'cpu')
        own, own_gradient = tiny_step(path, args.device)
        low, low_gradient = tiny_step(path, args.device, torch.bfloat16)
        numbers[f'{name}: loss, device to CPU'] = abs(own - exact) / abs(exact)
        numbers[f'{name}: gradient, device to CPU'] = relative(own_gradient, exact_gradient)
        numbers[f'{name}: loss, bfloat16 to float32'] = abs(low - own) / abs(own)
        numbers[f'{name}: gradient, bfloat16 to float32'] = relative(low_gradient, own_gradient)
    # Bounds: a float32 kernel that adds up in another order; eight bits of mantissa through a tiny network.
    bounds = {'device to CPU': 5e-3, 'loss, bfloat16': 2e-2, 'gradient, bfloat16': 0.2}
    for name, value in numbers.items():
        bound = next(bound for part, bound in bounds.items() if part in name)
        if not value <= bound:
            raise RuntimeError(f'{name}: expected at most {bound}, but got {value:.2e}')
    return numbers


def compiled(args: argparse.Namespace) -> dict[str, Any]:
    """A compiled transformer's loss and gradient against the eager one's."""
    eager, eager_gradient = tiny_step(TINY[0], args.device)
    fast, fast_gradient = tiny_step(TINY[0], args.device, compile_it=True)
    numbers = dict(loss=abs(fast - eager) / abs(eager), gradient=relative(fast_gradient, eager_gradient))
    if not max(numbers.values()) <= 5e-3:
        raise RuntimeError(f'compiled against eager: expected at most 5e-3, but got {numbers}')
    return numbers


def coloring_loss(args: argparse.Namespace) -> dict[str, Any]:
    """The loss of 50 instances on two maps of 480 x 640, forward and backward."""
    size, instances = ('480x640', 50) if args.device == 'cuda' else ('48x64', 5)
    colors, ids = make_scene(size, instances, 2, args.device)
    exact = colors.detach().double().requires_grad_()
    expected, expected_gradient, _ = run(tiled_loss, exact, ids, 'reference')
    run(tiled_loss, colors, ids, 'reference')  # compiles
    reset_peak(args.device)
    rounds = [run(tiled_loss, colors, ids, 'reference') for _ in range(args.steps)]
    value, gradient, _ = rounds[-1]
    numbers = dict(
        milliseconds=1e3 * min(seconds for _, _, seconds in rounds),
        value_error=abs(value - expected) / abs(expected),
        gradient_error=relative(gradient.double(), expected_gradient),
    )
    if not (numbers['value_error'] < 1e-5 and numbers['gradient_error'] < 1e-4):
        raise RuntimeError(f'expected the loss of float64 to 1e-5 and its gradient to 1e-4, but got {numbers}')
    return numbers


def prompting(args: argparse.Namespace) -> dict[str, Any]:
    """Masks of 100 points on a map of 480 x 640, with the filter; on this device and on the CPU."""
    size, prompts = ('480x640', 100) if args.device == 'cuda' else ('48x64', 5)
    color_map, points = prompting_scene(size, 25, prompts, *next(iter(SCENES.values())), args.device)
    timed(batched_masks, color_map, points, True)
    rounds = [timed(batched_masks, color_map, points, True) for _ in range(args.steps)]
    expected = batched_masks(color_map.cpu(), points.cpu(), True)
    numbers = dict(
        milliseconds=1e3 * min(seconds for _, seconds in rounds),
        pixels_other_than_on_cpu=float((rounds[0][0].cpu() != expected).float().mean()),
    )
    if not numbers['pixels_other_than_on_cpu'] < 1e-4:
        raise RuntimeError(f"expected the CPU's masks to 1e-4 of the pixels, but got {numbers}")
    return numbers


def genmask_step(args: argparse.Namespace) -> dict[str, Any]:
    """A training step of the paper's model, all of its frozen parts included, at 512 x 512 in bfloat16."""
    full = args.device == 'cuda'
    cfg = Config.fromfile(ROOT / (FULL if full else TINY[1]))
    size, batch = ((512, 512), args.batch) if full else ((64, 64), 2)
    length = prompt_length(cfg.model.prompt_encoder)
    set_random_seed(0)
    parts = build_parts(cfg.model, args.device).train()
    trained = [own for own in parts.backbone.parameters() if own.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=1e-6, fused=True)
    now = clock(torch.device(args.device))

    def step() -> dict[str, float]:
        start = now()
        with torch.autocast(args.device, torch.bfloat16):
            with torch.no_grad():
                encode_prompt(parts.prompt_encoder, length, size, batch)
            encoded = now()
            loss = training_forward(parts, batch, size, length)
        forward = now()
        loss.backward()
        backward = now()
        nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()
        optimizer.zero_grad()
        return dict(
            prompts=encoded - start, forward=forward - encoded, backward=backward - forward, optimizer=now() - backward
        )

    step()
    reset_peak(args.device)
    rounds = [step() for _ in range(args.steps)]
    seconds = {name: statistics.median(own[name] for own in rounds) for name in rounds[0]}
    whole = sum(seconds.values())
    flops = training_flops(cfg.model, batch, size, length)
    numbers = dict(
        config=FULL if full else TINY[1],
        batch=batch,
        parameters_trained=sum(own.numel() for own in trained),
        seconds_of_a_step=whole,
        **{f'seconds_{name}': value for name, value in seconds.items()},
        images_per_second=batch / whole,
        teraflops=flops / whole / 1e12,
    )
    if full:
        reached = product_teraflops()
        numbers |= dict(teraflops_of_a_plain_product=reached, share_of_it=numbers['teraflops'] / reached)
        plan = plan_training(cfg, 1)
        planned = plan.per_card(replace(plan.setup, batch=batch))
        numbers |= dict(peak_gb=torch.cuda.max_memory_allocated() / GB, planned_gb=sum(planned.values()) / GB)
    return numbers


def sd2_step(args: argparse.Namespace) -> dict[str, Any]:
    """A training step of the Stable Diffusion 2 colorer with AdamW, two pictures of 480 x 640, with checkpointing."""
    tool = str(Path(__file__).with_name('benchmark_training_step.py'))
    if args.device == 'cuda':
        options = ['--sd2', '--size', '480x640', '--batch', '2', '--optimizer', 'AdamW']
    else:
        options = [str(ROOT / UNET), '--batch', '2']
    options += ['--device', args.device, '--iters', str(args.steps), '--variant', 'on']
    done = subprocess.run([sys.executable, tool, *options], capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(done.stderr.strip().splitlines()[-1])
    measured = json.loads(done.stdout.splitlines()[-1])
    seconds = statistics.median(sum(own.values()) for own in measured['steps'])
    return dict(
        seconds_of_a_step=seconds, images_per_second=2 / seconds, peak_gb=measured['peak'] / GB, loss=measured['loss']
    )


def fsdp2(args: argparse.Namespace) -> dict[str, Any]:
    """Training, checkpoint and resume of the sharded tiny config on all cards here."""
    cards = torch.cuda.device_count() if args.device == 'cuda' else 2
    work_dir = Path(args.out) / 'fsdp2'
    command = ['bash', 'tools/dist_train.sh', SHARDED, str(cards), '--work-dir', str(work_dir.resolve())]
    for updates in (10, 20):
        options = ['--cfg-options', f'train_cfg.max_iters={updates}', 'train_cfg.val_begin=100']
        options += ['default_hooks.checkpoint.interval=10']
        resumed = ['--resume'] if updates > 10 else []
        done = subprocess.run([*command, *resumed, *options], cwd=ROOT, capture_output=True, text=True)
        if done.returncode:
            raise RuntimeError((done.stderr.strip() or done.stdout.strip()).splitlines()[-1])
    losses = [float(value) for value in re.findall(r'\bloss: ([\d.]+)', done.stdout + done.stderr)]
    return dict(cards=cards, updates=20, last_loss=losses[-1] if losses else None)


def tiny_step(
    path: str, device: str, dtype: torch.dtype | None = None, compile_it: bool = False
) -> tuple[float, Tensor]:
    """Loss and gradient (all of it, in a row, on the CPU) of a tiny config's model on made-up pictures."""
    cfg = Config.fromfile(ROOT / path)
    set_random_seed(0)
    model = MODELS.build(cfg.model)
    model.init_weights()
    for parameter in model.parameters():  # layers that start at zero would hide what is before them
        if parameter.requires_grad and not parameter.any():
            nn.init.normal_(parameter, std=0.02)
    model.to(device).train()
    if compile_it:
        model.backbone.transformer = torch.compile(model.backbone.transformer)
    batch = made_up_batch((64, 64), 4, 0)
    for number, sample in enumerate(batch['data_samples']):
        ids = torch.zeros(1, 64, 64, dtype=torch.int64)
        ids[:, 8 : 20 + 8 * number, 8:40], ids[:, 44:60, 20:60] = 1, 2
        sample.gt_sem_seg.data = (ids == 1).to(torch.uint8)
        sample.gt_instance_map = type(sample.gt_sem_seg)(data=ids)
    batch = model.data_preprocessor(batch, True)
    with torch.autocast(device, dtype or torch.float32, enabled=dtype is not None):
        loss, _ = model.parse_losses(model(**batch, mode='loss'))
    loss.backward()
    gradients = [own.grad.float().cpu().flatten() for own in model.parameters() if own.grad is not None]
    return loss.item(), torch.cat(gradients)


def relative(own: Tensor, exact: Tensor) -> float:
    """Norm of the difference over that of the exact one."""
    return ((own - exact).norm() / exact.norm()).item()


def reset_peak(device: str) -> None:
    if device == 'cuda':
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()


def training_flops(model: dict, batch: int, size: tuple[int, int], length: int) -> int:
    """FLOPs of a step: frozen parts once, the trained network three times (forward, and twice as much backward).

    What gradient checkpointing computes again does not count, as is usual for a model's share of a card's peak.
    """
    parts = build_parts(model, 'meta')
    with torch.no_grad(), ShapesOnly():
        with count_flops() as counter:
            encode_prompt(parts.prompt_encoder, length, size, batch)
        total = counter.get_total_flops()
        with count_flops() as counter:
            training_forward(parts, batch, size, length)
        forward = counter.get_total_flops()
        with count_flops() as counter:
            training_forward(parts, batch, size, length, only_backbone=True)
    return total + forward + 2 * counter.get_total_flops()


def product_teraflops(side: int = 8192) -> float:
    """What this card reaches in a product of two bfloat16 matrices."""
    left, right = (torch.randn(side, side, device='cuda', dtype=torch.bfloat16) for _ in range(2))
    now, seconds = clock(torch.device('cuda')), []
    for _ in range(8):
        start = now()
        F.linear(left, right)
        seconds.append(now() - start)
    return 2 * side**3 / min(seconds) / 1e12


def run_check(name: str, args: argparse.Namespace) -> dict[str, Any]:
    """A check in a process of its own: its numbers, or what went wrong in one line."""
    function, limit = globals()[name], CHECKS[name]
    options = ['--device', args.device, '--batch', str(args.batch), '--steps', str(args.steps), '--out', args.out]
    start = time.perf_counter()
    result: dict[str, Any] = dict(check=name, what=(function.__doc__ or '').strip().splitlines()[0], status='passed')
    try:
        done = subprocess.run(
            [sys.executable, __file__, '--one', name, *options], capture_output=True, text=True, timeout=limit
        )
        if done.returncode:
            result.update(status='failed', why=last_line(done.stderr))
        else:
            result['numbers'] = json.loads(done.stdout.splitlines()[-1])
            if 'skipped' in result['numbers']:
                result['status'] = 'skipped'
    except subprocess.TimeoutExpired:
        result.update(status='failed', why=f'took longer than {limit} s')
    return dict(result, seconds=round(time.perf_counter() - start, 1))


def last_line(text: str) -> str:
    lines = [line for line in text.strip().splitlines() if line.strip()]
    return lines[-1] if lines else 'ended without a word'


def machine(device: str) -> dict[str, Any]:
    """What was measured on."""
    here = dict(torch=torch.__version__, python=platform.python_version(), device=platform.processor() or 'CPU')
    if device == 'cuda':
        own = torch.cuda.get_device_properties(0)
        here.update(
            device=own.name,
            cards=torch.cuda.device_count(),
            memory_gb=round(own.total_memory / GB, 1),
            cuda=torch.version.cuda,
        )
    return here


def markdown(report: dict[str, Any]) -> str:
    """The report as a page."""
    here = ', '.join(f'{name} {value}' for name, value in report['machine'].items())
    rows = []
    for own in report['checks']:
        numbers = own.get('numbers', {})
        shown = '; '.join(f'{name.replace("_", " ")} {number(value)}' for name, value in numbers.items())
        cells = own['check'], own['what'], own['status'], own.get('why') or shown, f'{own["seconds"]:.0f}'
        rows.append([escaped(cell) for cell in cells])
    header = ['check', 'what', 'result', 'numbers', 's']
    return '\n'.join(['# GPU acceptance', '', here, '', *table_lines(header, rows), ''])


def number(value: Any) -> str:
    return f'{value:.3g}' if isinstance(value, float) else str(value)


def main() -> None:
    args = parse_args()
    if args.one:
        print(json.dumps(globals()[args.one](args)))
        return
    report: dict[str, Any] = dict(machine=machine(args.device), checks=[])
    for name in args.checks:
        report['checks'].append(run_check(name, args))
        own = report['checks'][-1]
        print(f'{name}: {own["status"]} in {own["seconds"]:.0f} s {own.get("why", "")}'.rstrip(), flush=True)
    out = Path(args.out)
    out.mkdir(parents=True, exist_ok=True)
    (out / 'gpu_check.json').write_text(json.dumps(report, indent=1) + '\n')
    (out / 'gpu_check.md').write_text(markdown(report))
    print(f'\n{markdown(report)}\nwritten to {out}/gpu_check.json and gpu_check.md')
    if any(own['status'] == 'failed' for own in report['checks']):
        sys.exit(1)


if __name__ == '__main__':
    launch.run_tool(main)
