"""Times the instance-coloring loss against the straightforward loop over instances.

The loop takes one boolean mask per instance and leaves the gradient to autograd. Both run
interleaved in one process (best of --repeat). The peak of extra memory, with the gradient of the
colours, comes from a fresh process for each on the CPU, from the CUDA allocator on a GPU.

    python tools/analysis_tools/benchmark_coloring_loss.py --threads 1
"""

import argparse
import multiprocessing
import resource
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from genseg_mm.functional.instance_coloring import instance_coloring_loss

MEBIBYTE = 1 << 20


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('--sizes', nargs='+', default=['480x640'], metavar='HxW')
    parser.add_argument('--instances', nargs='+', type=int, default=[10, 50, 200])
    parser.add_argument('--batch', type=int, default=2)
    parser.add_argument('--formula', choices=['reference', 'paper'], default='reference')
    parser.add_argument('--threads', type=int, default=1, help='CPU threads of torch')
    parser.add_argument('--device', default='cpu')
    parser.add_argument('--repeat', type=int, default=2)
    return parser.parse_args()


def make_scene(size: str, instances: int, batch: int, device: str) -> tuple[Tensor, Tensor]:
    """Random colours, Voronoi cells with sparse ids; the quarter far from any seed is black."""
    height, width = (int(side) for side in size.split('x'))
    generator = torch.Generator().manual_seed(instances)
    colors = torch.empty(batch, 3, height, width).uniform_(0, 255, generator=generator)
    rows, columns = torch.arange(height)[:, None], torch.arange(width)
    ids = torch.zeros(batch, height, width, dtype=torch.int64)
    for image in ids:
        nearest = torch.full((height, width), torch.inf)
        seeds = torch.rand(instances, 2, generator=generator) * torch.tensor([height, width])
        for number, (row, column) in enumerate(seeds, start=1):
            distance = torch.hypot(rows - row, columns - column)
            image[distance < nearest] = 7919 * number
            nearest = torch.minimum(nearest, distance)
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


def tiled_loss(colors: Tensor, ids: Tensor, formula: str) -> Tensor:
    return sum(instance_coloring_loss(colors, ids, formula=formula))


LOSSES = {'loop': loop_loss, 'tiled': tiled_loss}


def run(loss: Callable, colors: Tensor, ids: Tensor, formula: str) -> tuple[float, Tensor, float]:
    """Value, gradient and seconds of one forward and backward pass."""
    colors.grad = None
    synchronize = torch.cuda.synchronize if colors.is_cuda else lambda: None
    synchronize()
    start = time.perf_counter()
    value = loss(colors, ids, formula)
    value.backward()
    synchronize()
    return value.item(), colors.grad, time.perf_counter() - start


def _resident(key: str) -> int:
    """Bytes of a line of /proc/self/status (Linux)."""
    for line in Path('/proc/self/status').read_text().splitlines():
        if line.startswith(key + ':'):
            return int(line.split()[1]) * 1024
    raise ValueError(f'/proc/self/status has no {key}')


def _child(connection, name: str, size: str, instances: int, args: argparse.Namespace) -> None:
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


def peak_memory(name: str, size: str, instances: int, args: argparse.Namespace) -> float:
    """Peak of memory on top of the inputs, in MiB."""
    if args.device.startswith('cuda'):
        scene = make_scene(size, instances, args.batch, args.device)
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


def main() -> None:
    args = parse_args()
    torch.set_num_threads(args.threads)
    print(
        f'{args.formula} formula, batch {args.batch}, {args.device}, {args.threads} thread(s), '
        f'torch {torch.__version__}, best of {args.repeat}\n'
    )
    header = [
        'size',
        'N',
        'loop s',
        'tiled s',
        'ratio',
        'ns per pair',
        'value diff',
        'gradient diff',
        'loop MiB',
        'tiled MiB',
    ]
    print(f'| {" | ".join(header)} |\n|{"---|" * len(header)}')
    for size in args.sizes:
        for instances in args.instances:
            scene = make_scene(size, instances, args.batch, args.device)
            seconds = {name: float('inf') for name in LOSSES}
            results = {}
            for _ in range(args.repeat):
                for name, loss in LOSSES.items():
                    value, grad, elapsed = run(loss, *scene, args.formula)
                    results[name] = value, grad
                    seconds[name] = min(seconds[name], elapsed)
            (expected, expected_grad), (value, grad) = results['loop'], results['tiled']
            pairs = instances * scene[1].numel()
            memory = {name: peak_memory(name, size, instances, args) for name in LOSSES}
            row = [
                size,
                f'{instances}',
                f'{seconds["loop"]:.3f}',
                f'{seconds["tiled"]:.4f}',
                f'{seconds["loop"] / seconds["tiled"]:.1f}',
                f'{seconds["tiled"] / pairs * 1e9:.2f}',
                f'{abs(value - expected) / abs(expected):.1e}',
                f'{((grad - expected_grad).norm() / expected_grad.norm()).item():.1e}',
                f'{memory["loop"]:.0f}',
                f'{memory["tiled"]:.0f}',
            ]
            print(f'| {" | ".join(row)} |', flush=True)


if __name__ == '__main__':
    main()
