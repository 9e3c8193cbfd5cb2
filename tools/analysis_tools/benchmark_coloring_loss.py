"""Times the instance-coloring loss against the straightforward loop over instances.

The loop takes one boolean mask per instance and leaves the gradient to autograd. The loss runs in
eager tiles and, unless --no-compile, with its pairs compiled; all run interleaved in one process
(best of --repeat), on the CPU and on a GPU if there is one. A pair is an (instance, pixel); 'pairs'
is the time of the pairs alone, 'rest' what the pixels cost besides. Both gradients are included.
With one CPU thread the time is the process's own, which other users of the core do not lengthen.
Errors are those of float32: against the tiles in float64.
The peak of extra memory, with the gradient of the colours, comes from a fresh process for each on
the CPU, from the CUDA allocator on a GPU.

    python tools/analysis_tools/benchmark_coloring_loss.py --threads 1
    TORCHINDUCTOR_CACHE_DIR=$(mktemp -d) python ... --instances 10    # compilation from nothing
"""

import argparse
import functools
import multiprocessing
import resource
import sys
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.profiler import profile

from genseg_mm.functional import instance_coloring
from genseg_mm.functional.instance_coloring import instance_coloring_loss
from genseg_mm.functional.inverse_distance import compiled_sums
from genseg_mm.launch import ToolParser, run_tool

MEBIBYTE = 1 << 20


def parse_args() -> argparse.Namespace:
    parser = ToolParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--sizes', nargs='+', default=['480x640'], metavar='HxW')
    parser.add_argument('--instances', nargs='+', type=int, default=[10, 50, 200])
    parser.add_argument('--batch', type=int, default=2)
    parser.add_argument('--formula', choices=['reference', 'paper'], default='reference')
    parser.add_argument('--threads', type=int, default=1, help='CPU threads of torch')
    parser.add_argument('--devices', nargs='+', default=None, help="default: 'cpu', and 'cuda' if there is one")
    parser.add_argument('--repeat', type=int, default=3)
    parser.add_argument('--no-loop', action='store_true', help='leave out the plain loop')
    parser.add_argument('--no-compile', action='store_true', help='leave out the compiled pairs')
    parser.add_argument('--no-memory', action='store_true', help='leave out the peaks of memory')
    parser.add_argument('--profile', action='store_true', help="print the operators' times, too")
    return parser.parse_args()


def voronoi_cells(height: int, width: int, num_cells: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """The nearest of random seeds, and how far it is.

    Returns:
        Number of the seed, (H, W) int64 from 0, and the distance to it in pixels, (H, W).
    """
    seeds = torch.rand(num_cells, 2, generator=generator) * torch.tensor([height, width])
    rows, columns = torch.arange(height)[:, None], torch.arange(width)
    cells = torch.zeros(height, width, dtype=torch.int64)
    nearest = torch.full((height, width), torch.inf)
    for number, (row, column) in enumerate(seeds):  # one by one: memory peaks are measured, too
        distance = torch.hypot(rows - row, columns - column)
        cells[distance < nearest] = number
        nearest = torch.minimum(nearest, distance)
    return cells, nearest


def make_scene(size: str, instances: int, batch: int, device: str) -> tuple[Tensor, Tensor]:
    """Random colours, Voronoi cells with sparse ids; the quarter far from any seed is black."""
    height, width = (int(side) for side in size.split('x'))
    generator = torch.Generator().manual_seed(instances)
    colors = torch.empty(batch, 3, height, width).uniform_(0, 255, generator=generator)
    ids = torch.zeros(batch, height, width, dtype=torch.int64)
    for image in ids:
        cells, nearest = voronoi_cells(height, width, instances, generator)
        image.copy_(7919 * (cells + 1))
        image[nearest > nearest.flatten().kthvalue(int(0.75 * nearest.numel())).values] = 0
    return colors.to(device).requires_grad_(), ids.to(device)


def loop_loss(colors: Tensor, ids: Tensor, formula: str) -> Tensor:
    """The loss as its formula reads: one instance after the other, with boolean masks."""
    reference = formula == 'reference'
    losses = []
    for image, image_ids in zip(colors, ids, strict=True):
        loss, means = image.new_zeros(()), []
        for key in image_ids.unique().tolist():
            mask = image_ids == key
            inside, outside = image[:, mask], image[:, ~mask]
            mean = inside.mean(1) if key else image.new_zeros(3)
            huber = F.huber_loss(inside, mean[:, None].expand_as(inside), reduction='none')
            loss = loss + (huber.mean() if reference else huber.sum(0).mean())
            means.append(mean)
            if key and outside.numel():
                closeness = (1 / (1 + (outside - mean[:, None]).square().sum(0))).mean()
                loss = loss + (10 if reference else 1) * 300 * closeness / inside.shape[1] ** 0.5
        pairs = torch.combinations(torch.arange(len(means)))
        stacked = torch.stack(means)
        closeness = 1 / (1 + (stacked[pairs[:, 0]] - stacked[pairs[:, 1]]).square().sum(1))
        if reference:
            losses.append((loss + 300 * closeness.mean()) / len(means))
        else:
            number = int((image_ids.unique() != 0).sum())
            losses.append(loss + 300 * closeness.sum() / (number * (number + 1)))
    return torch.stack(losses).mean()


def tiled_loss(colors: Tensor, ids: Tensor, formula: str, compiled: bool = False) -> Tensor:
    return sum(instance_coloring_loss(colors, ids, formula=formula, compiled=compiled))


LOSSES = {'loop': loop_loss, 'tiles': tiled_loss, 'compiled': functools.partial(tiled_loss, compiled=True)}


def clock(device: torch.device) -> float:
    """Seconds, after all work so far."""
    if device.type != 'cpu':
        torch.cuda.synchronize()
    elif torch.get_num_threads() == 1:
        return time.process_time()
    return time.perf_counter()


def run(loss: Callable, colors: Tensor, ids: Tensor, formula: str) -> tuple[float, Tensor, float]:
    """Value, gradient and seconds of one forward and backward pass."""
    colors.grad = None
    start = clock(colors.device)
    value = loss(colors, ids, formula)
    value.backward()
    return value.item(), colors.grad, clock(colors.device) - start


def pair_seconds(loss: Callable, colors: Tensor, ids: Tensor, formula: str) -> float:
    """Seconds of the pairs alone, without the loss's work per pixel."""
    original, seconds = instance_coloring.inverse_distance_sum, []

    def timed(*args) -> tuple:
        start = clock(colors.device)
        result = original(*args)
        seconds.append(clock(colors.device) - start)
        return result

    instance_coloring.inverse_distance_sum = timed
    try:
        run(loss, colors, ids, formula)
    finally:
        instance_coloring.inverse_distance_sum = original
    return sum(seconds)


def reciprocal_seconds(device: str) -> float:
    """Seconds per number of 1 / x in place on a tile: what one pass over the pairs costs."""
    tile = torch.ones(1 << (17 if device == 'cpu' else 25), device=device)
    seconds = []
    for _ in range(20):
        start = clock(tile.device)
        tile.reciprocal_()
        seconds.append(clock(tile.device) - start)
    return min(seconds) / tile.numel()


def _resident(key: str) -> int:
    """Bytes of a line of /proc/self/status (Linux)."""
    for line in Path('/proc/self/status').read_text().splitlines():
        if line.startswith(key + ':'):
            return int(line.split()[1]) * 1024
    raise ValueError(f'/proc/self/status has no {key}')


def _child(connection: Connection, name: str, size: str, instances: int, args: argparse.Namespace) -> None:
    torch.set_num_threads(args.threads)
    run(LOSSES[name], *make_scene('48x64', 3, args.batch, 'cpu'), args.formula)  # warm-up
    scene = make_scene(size, instances, args.batch, 'cpu')
    if sys.platform == 'linux':
        Path('/proc/self/clear_refs').write_text('5')  # the peak starts again from here
        before = _resident('VmRSS')
        run(LOSSES[name], *scene, args.formula)
        connection.send(_resident('VmHWM') - before)
    else:
        unit = 1 if sys.platform == 'darwin' else 1024
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        run(LOSSES[name], *scene, args.formula)
        connection.send((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * unit)


def peak_memory(name: str, size: str, instances: int, device: str, args: argparse.Namespace) -> float:
    """Peak of memory on top of the inputs, in MiB."""
    if device != 'cpu':
        scene = make_scene(size, instances, args.batch, device)
        before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        run(LOSSES[name], *scene, args.formula)
        return (torch.cuda.max_memory_allocated() - before) / MEBIBYTE
    context = multiprocessing.get_context('spawn')
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_child, args=(sender, name, size, instances, args))
    process.start()
    sender.close()  # a child that dies then ends the wait below with EOFError
    peak = receiver.recv() / MEBIBYTE
    process.join()
    return peak


HEADER = (
    'device | size | N | variant | s | x loop | ns per pair | pairs alone: ns | share '
    '| rest: ns per pixel | value error | gradient error | extra MiB'
)


def rows(device: str, size: str, instances: int, names: list[str], args: argparse.Namespace) -> list[str]:
    """Lines of the table for one scene, one per variant."""
    scene = make_scene(size, instances, args.batch, device)
    seconds = {name: float('inf') for name in names}
    alone, results = dict(seconds), {}
    for _ in range(args.repeat):
        for name in names:
            value, grad, elapsed = run(LOSSES[name], *scene, args.formula)
            results[name] = value, grad
            seconds[name] = min(seconds[name], elapsed)
            if name != 'loop':
                alone[name] = min(alone[name], pair_seconds(LOSSES[name], *scene, args.formula))
    lines = []
    exact = scene[0].detach().double().requires_grad_()
    expected, expected_grad, _ = run(tiled_loss, exact, scene[1], args.formula)
    pixels = scene[1].numel()
    for name, (value, grad) in results.items():
        total, pairs = seconds[name], alone[name]
        ratio = f'{seconds["loop"] / total:.1f}' if 'loop' in names else '-'
        cells = [device, size, f'{instances}', name, f'{total:.4f}', ratio]
        cells.append(f'{total / instances / pixels * 1e9:.2f}')
        if name == 'loop':
            cells += ['-', '-', '-']
        else:
            cells.append(f'{pairs / instances / pixels * 1e9:.2f}')
            cells.append(f'{pairs / total:.0%}')
            cells.append(f'{(total - pairs) / pixels * 1e9:.1f}')
        difference = ((grad - expected_grad).norm() / expected_grad.norm()).item()
        cells += [f'{abs(value - expected) / abs(expected):.1e}', f'{difference:.1e}']
        memory = '-' if args.no_memory else f'{peak_memory(name, size, instances, device, args):.0f}'
        lines.append(' | '.join([*cells, memory]))
    return lines


def main() -> None:
    args = parse_args()
    torch.set_num_threads(args.threads)
    devices = args.devices or ['cpu', 'cuda'][: 1 + torch.cuda.is_available()]
    print(
        f'{args.formula} formula, batch {args.batch}, {args.threads} thread(s), '
        f'torch {torch.__version__}, best of {args.repeat}'
    )
    variants = {}
    for device in devices:
        names = [name for name in LOSSES if not (name == 'loop' and args.no_loop)]
        if args.no_compile:
            names.remove('compiled')
        else:
            start = time.perf_counter()
            if compiled_sums(torch.device(device).type, torch.float32) is None:
                names.remove('compiled')
            print(f'{device}: {time.perf_counter() - start:.1f} s for the compilation')
        print(f'{device}: {reciprocal_seconds(device) * 1e9:.3f} ns per number for 1 / x in place')
        variants[device] = names
    columns = HEADER.count('|') + 1
    print(f'\n| {HEADER} |\n|{"---|" * columns}')
    for device, names in variants.items():
        for size in args.sizes:
            for instances in args.instances:
                for line in rows(device, size, instances, names, args):
                    print(f'| {line} |', flush=True)
    for device, names in variants.items() if args.profile else ():
        scene = make_scene(args.sizes[0], args.instances[0], args.batch, device)
        for name in names:
            with profile() as profiler:
                run(LOSSES[name], *scene, args.formula)
            print(f'\n{device}, {name}, {args.sizes[0]}, {args.instances[0]} instances')
            print(profiler.key_averages().table(sort_by='self_cpu_time_total', row_limit=15))


if __name__ == '__main__':
    run_tool(main)
