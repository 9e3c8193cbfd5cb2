"""Where the time of a whole training step goes, and its peak memory with and without gradient checkpointing.

Data, preprocessor, forward pass (of the Stable Diffusion colorer: VAE encoder, UNet, VAE decoder),
loss, backward pass (back to the colour map, to the UNet's output, to the weights), optimizer. Every
variant runs in a process of its own; the peak is that process's largest resident memory, libraries
and weights included (on a GPU, what torch allocated). Times are medians over --iters steps after
--warmup untimed ones.

    python tools/analysis_tools/benchmark_training_step.py configs/gen2seg/gen2seg_unet_shapes_tiny.py
    python tools/analysis_tools/benchmark_training_step.py --sd2 --size 256x256 --iters 1 --warmup 0

--sd2 builds a real-size Stable Diffusion 2 (UNet of 866 M parameters, VAE of 84 M) with random
weights and draws a scene of Voronoi cells. AdamW on float32 weights needs 14 GB for the UNet alone.
"""

import argparse
import json
import resource
import statistics
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mmengine.config import Config, ConfigDict

from genseg_mm import launch
from genseg_mm.config_file import find_config
from genseg_mm.registry import MODELS


def parse_args() -> argparse.Namespace:
    parser = launch.ToolParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('config', nargs='?', help='config of a training')
    parser.add_argument('--sd2', action='store_true', help='a real-size Stable Diffusion 2')
    parser.add_argument('--size', default='256x256', metavar='HxW', help='images of --sd2')
    parser.add_argument('--batch', type=int, help='batch size (default: the config; 1 for --sd2)')
    parser.add_argument(
        '--optimizer',
        choices=['config', 'AdamW', 'SGD', 'none'],
        help="default: the config's; SGD without momentum for --sd2, which keeps no state",
    )
    parser.add_argument('--iters', type=int, default=10, help='timed steps')
    parser.add_argument('--warmup', type=int, default=1, help='steps before them')
    parser.add_argument('--threads', type=int, default=1, help='CPU threads of torch')
    parser.add_argument('--device', default='cpu')
    parser.add_argument(
        '--cpu-time',
        action='store_true',
        help="CPU seconds of the process (all its threads, no data workers) instead of the clock's, for a busy machine",
    )
    parser.add_argument(
        '--checkpointing',
        choices=['both', 'on', 'off'],
        default='both',
        help='gradient checkpointing: the variants to run',
    )
    parser.add_argument('--variant', choices=['on', 'off'], help=argparse.SUPPRESS)
    args = parser.parse_args()
    if (args.config is None) != args.sd2:
        parser.error('give either a config or --sd2')
    if args.iters < 1 or args.warmup < 0:
        parser.error('--iters must be at least 1 and --warmup at least 0')
    if args.config is not None:
        find_config(args.config)
    return args


if __name__ == '__main__':
    launch.run_tool(parse_args)  # help and mistakes, before what is imported below takes seconds

import torch
from benchmark_coloring_loss import voronoi_cells
from costs import PhaseMeter, clock
from mmengine.optim import OptimWrapper, build_optim_wrapper
from mmengine.runner import Runner, set_random_seed
from mmengine.structures import PixelData
from mmseg.structures import SegDataSample
from torch import Tensor, nn

from genseg_mm.datasets.cached_encodings import kinds_always_cached
from genseg_mm.hub_layouts import sizes_of

ORDER = (
    'data', 'preprocessor', 'encoder', 'network', 'decoder', 'forward', 'loss',
    'backward: loss', 'backward: decoder', 'backward', 'optimizer',
)  # fmt: skip

MEMORY = {
    'peak memory, MiB': 'peak',
    'of it before the first step': 'built',
    'kept by a forward pass': 'kept',  # the gradients come while this goes
}


class BackwardMarks:
    """Moments at which the backward pass reaches the colour map and the network's output."""

    def __init__(self, meter: PhaseMeter) -> None:
        self.meter, self.moments = meter, {}

    def mark(self, tensor: Tensor, name: str) -> None:
        def reached(_: Tensor) -> None:
            self.moments[name] = self.meter.count()

        if tensor.requires_grad:
            tensor.register_hook(reached)

    def split(self, start: float, end: float) -> None:
        """Books the time of a backward pass to what lay between the marks."""
        step, last = self.meter.rounds[-1], start
        for name in ('loss', 'decoder'):
            if name in self.moments:
                step[f'backward: {name}'] += self.moments[name] - last
                last = self.moments[name]
        step['backward'] += end - last
        self.moments = {}


def watch(model: nn.Module, meter: PhaseMeter) -> BackwardMarks:
    """Times the parts of a model's forward pass; what is left of it is the loss."""
    marks = BackwardMarks(meter)
    colorer = getattr(model, 'colorer', None)
    if colorer is None:
        return marks
    if (codec := getattr(colorer, 'codec', None)) is not None:
        meter.watch(codec, 'encode', 'encoder')
        meter.watch(codec, 'decode', 'decoder')
        colorer.unet.register_forward_hook(lambda *call: marks.mark(call[2].sample, 'decoder'))
    meter.watch(colorer, 'forward', 'network')
    colorer.register_forward_hook(lambda *call: marks.mark(call[2], 'loss'))
    return marks


def sd2_sizes() -> dict[str, dict]:
    """Arguments of the two networks of Stable Diffusion 2."""
    return sizes_of('stabilityai/stable-diffusion-2', 'unet', 'vae')


def sd2_config(args: argparse.Namespace) -> ConfigDict:
    colorer = dict(type='genseg_mm.SDColorer', config=sd2_sizes(), parity='training')
    optimizer = dict(type='SGD', lr=6e-5)
    return ConfigDict(
        model=dict(type='genseg_mm.Gen2Seg', colorer=colorer, normalize='batch'),
        optim_wrapper=dict(type='OptimWrapper', optimizer=optimizer),
    )


def scenes(size: str, batch: int, cells: int = 20) -> Iterator[dict]:
    """Batches of noise images whose instances are Voronoi cells; the first cell is background."""
    height, width = (int(side) for side in size.split('x'))
    generator = torch.Generator().manual_seed(0)
    while True:
        data = dict(inputs=[], data_samples=[])
        for _ in range(batch):
            ids, _ = voronoi_cells(height, width, cells, generator)
            sample = SegDataSample(metainfo=dict(img_shape=(height, width)))
            sample.gt_instance_map = PixelData(data=ids[None])
            data['data_samples'].append(sample)
            image = torch.randint(0, 256, (3, height, width), generator=generator)
            data['inputs'].append(image.to(torch.uint8))
        yield data


def endless(loader: Any) -> Iterator[dict]:
    while True:
        yield from loader


def set_checkpointing(model: ConfigDict, on: bool) -> None:
    """Switches gradient checkpointing of whatever takes the switch: a colorer or a backbone."""
    part = model.get('colorer') or model.get('backbone') or model
    part.pop('gradient_checkpointing', None)  # a model without the switch can be measured too
    if on:
        part['gradient_checkpointing'] = True


def build(args: argparse.Namespace) -> tuple[Iterator[dict], nn.Module, OptimWrapper]:
    if args.sd2:
        cfg = sd2_config(args)
        data = scenes(args.size, args.batch or 1)
    else:
        cfg = Config.fromfile(args.config)
        if args.batch:
            cfg.train_dataloader.batch_size = args.batch
        loader = Runner.build_dataloader(cfg.train_dataloader, seed=0)
        if 'global_batch_size' in cfg and hasattr(loader.sampler, 'set_update'):  # a step is one of its micro-batches
            loader.sampler.set_update(cfg.global_batch_size, loader.batch_size)
        data = endless(loader)
    set_checkpointing(cfg.model, args.variant == 'on')
    model = MODELS.build(cfg.model)
    if hasattr(model, 'leave_encoders_on_host'):  # as the runner does
        model.leave_encoders_on_host(kinds_always_cached(cfg.train_dataloader.dataset))
    model = model.to(args.device).train()
    wrapper = cfg.optim_wrapper
    if args.optimizer in ('AdamW', 'SGD'):
        wrapper.optimizer = dict(type=args.optimizer, lr=6e-5)
    if args.optimizer == 'none' or (args.sd2 and args.optimizer is None):
        wrapper.optimizer = dict(type='SGD', lr=6e-5)
    if wrapper.optimizer.type == 'AdamW':
        wrapper.optimizer.fused = True
    return data, model, build_optim_wrapper(model, wrapper)


def run_variant(args: argparse.Namespace) -> dict[str, Any]:
    """Runs the steps of one variant in this process."""
    torch.set_num_threads(args.threads)
    set_random_seed(0)  # NumPy's too: samplers draw their seed from it
    data, model, optimizer = build(args)
    meter = PhaseMeter(clock(torch.device(args.device), args.cpu_time))
    built, marks = peak_bytes(args.device), watch(model, meter)
    losses, kept = [], 0
    for _ in range(args.warmup + args.iters):
        meter.start_round()
        with meter.phase('data'):
            batch = next(data)
        with meter.phase('preprocessor'):
            batch = model.data_preprocessor(batch, True)
        before = used_bytes(args.device)
        with meter.phase('loss' if hasattr(model, 'colorer') else 'forward'):
            loss, _ = model.parse_losses(model(**batch, mode='loss'))
        losses.append(loss.item())
        kept = max(kept, used_bytes(args.device) - before)
        start = meter.count()
        loss.backward()
        marks.split(start, meter.count())
        with meter.phase('optimizer'):
            if args.optimizer != 'none':
                optimizer.step()
            optimizer.zero_grad()
    return dict(
        steps=meter.rounds[args.warmup :],
        loss=losses[0],
        built=built,
        peak=peak_bytes(args.device),
        kept=kept,
        parameters=sum(p.numel() for p in model.parameters()),
        trainable=sum(p.numel() for p in model.parameters() if p.requires_grad),
        optimizer='none' if args.optimizer == 'none' else type(optimizer.optimizer).__name__,
    )


def peak_bytes(device: str) -> int:
    """Most memory that this process has had so far."""
    if device.startswith('cuda'):
        return torch.cuda.max_memory_allocated()
    unit = 1 if sys.platform == 'darwin' else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def used_bytes(device: str) -> int:
    """Memory of this process now; where the system does not tell (only Linux does), its peak so far."""
    if device.startswith('cuda'):
        return torch.cuda.memory_allocated()
    status = Path('/proc/self/statm')
    if not status.is_file():
        return peak_bytes(device)
    return int(status.read_text().split()[1]) * resource.getpagesize()


def run_in_process(variant: str) -> dict[str, Any]:
    command = [sys.executable, __file__, *sys.argv[1:], '--variant', variant]
    result = subprocess.run(command, stdout=subprocess.PIPE, text=True)
    if result.returncode == -9:
        raise MemoryError(f'gradient checkpointing {variant}: the process was killed, likely for its memory')
    if result.returncode:
        raise SystemExit(result.returncode)  # it has said why on stderr
    return json.loads(result.stdout.splitlines()[-1])


def print_table(results: dict[str, dict[str, Any]]) -> None:
    """One row per phase, one pair of columns per variant."""
    medians = {
        variant: {name: statistics.median(step.get(name, 0.0) for step in result['steps']) for name in ORDER}
        for variant, result in results.items()
    }
    header = ['phase', *(f'checkpointing {v}, s | share' for v in results)]
    print(f'| {" | ".join(header)} |\n|{"---|" * (1 + 2 * len(results))}')
    for name in ORDER:
        if any(times[name] for times in medians.values()):
            cells = (f'{t[name]:.4f} | {t[name] / sum(t.values()):.0%}' for t in medians.values())
            print(f'| {name} | {" | ".join(cells)} |')
    print(f'| whole step | {" | ".join(f"{sum(t.values()):.4f} | " for t in medians.values())} |')
    for label, key in MEMORY.items():
        cells = (f'{result[key] / 2**20:.0f} | ' for result in results.values())
        print(f'| {label} | {" | ".join(cells)} |')


def main() -> None:
    args = parse_args()
    if args.config is not None and not Path(args.config).is_file():
        raise FileNotFoundError(f'config {args.config} does not exist')
    if args.variant:
        print(json.dumps(run_variant(args)))
        return
    variants = ['off', 'on'] if args.checkpointing == 'both' else [args.checkpointing]
    results = {variant: run_in_process(variant) for variant in variants}
    first = next(iter(results.values()))
    losses = ', '.join(f'{result["loss"]:.6g}' for result in results.values())
    print(
        f'{args.config or "Stable Diffusion 2 at " + args.size}: {first["parameters"] / 1e6:.1f} M parameters, '
        f'{first["trainable"] / 1e6:.1f} M trained, optimizer {first["optimizer"]}, {args.device}, '
        f'{args.threads} thread(s), torch {torch.__version__}, {args.iters} step(s) after {args.warmup}, '
        f'{"CPU time" if args.cpu_time else "wall time"}; '
        f'loss of the first step {losses}\n'
    )
    print_table(results)


if __name__ == '__main__':
    launch.run_tool(main)
