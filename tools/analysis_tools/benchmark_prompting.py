"""Times a batch of point prompts against one prompt at a time, as the formulas read.

The plain version takes every prompt by itself: a Gaussian over the whole map for the query colour,
the similarity of the whole map in 8 bits, and the joint bilateral filter of it (ours, alone: OpenCV's
needs the contrib module). Both run interleaved in one process, with the filter and without; medians
of --repeat rounds, on a CPU of the process's own seconds, which a busy machine hardly stretches. The
masks must be the same but for the float32 rounding of the plain queries, on at most --tolerance of
the pixels.

    python tools/analysis_tools/benchmark_prompting.py --threads 1
"""

import argparse
import statistics
import time
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from genseg_mm.functional.joint_bilateral import joint_bilateral_filter
from genseg_mm.functional.point_prompting import masks_from_points
from genseg_mm.functional.similarity_masks import load_loops
from genseg_mm.launch import ToolParser, run_tool

SCENES = {'flat': (0.0, 0.0), 'noisy': (4.0, 10.0), 'very noisy': (12.0, 5.0)}  # noise, drift


def parse_args() -> argparse.Namespace:
    parser = ToolParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--size', default='480x640', metavar='HxW')
    parser.add_argument('--prompts', type=int, default=100)
    parser.add_argument('--instances', type=int, default=25)
    parser.add_argument('--scenes', nargs='+', choices=list(SCENES), default=list(SCENES))
    parser.add_argument('--threads', type=int, default=1, help='CPU threads of torch')
    parser.add_argument('--device', default='cpu')
    parser.add_argument('--repeat', type=int, default=3)
    parser.add_argument('--tolerance', type=float, default=1e-5, help='share of differing pixels')
    return parser.parse_args()


def make_scene(
    size: str, instances: int, prompts: int, noise: float, drift: float, device: str
) -> tuple[Tensor, Tensor]:
    """Ellipses in random colours on black, as a colorer paints them, and points on them.

    Colours blend over 3 pixels at the borders, drift slowly over the map and carry noise, with the
    given standard deviations.
    """
    height, width = (int(side) for side in size.split('x'))
    generator = torch.Generator().manual_seed(0)
    y, x = torch.arange(height)[:, None].float(), torch.arange(width).float()
    ids = torch.zeros(height, width, dtype=torch.long)
    for number in range(1, instances + 1):
        u, v, a, b, turn = torch.rand(5, generator=generator)
        a, b, turn = (0.06 + 0.12 * a) * height, (0.06 + 0.12 * b) * height, torch.pi * turn
        across, down = x - u * width, y - v * height
        along = across * turn.cos() + down * turn.sin()
        aside = down * turn.cos() - across * turn.sin()
        ids[(along / a).square() + (aside / b).square() < 1] = number
    palette = torch.rand(instances + 1, 3, generator=generator) * 255
    palette[0] = 0
    colors = F.avg_pool2d(palette[ids].permute(2, 0, 1)[None], 3, 1, 1)[0]
    slow = torch.randn(1, 3, 12, 16, generator=generator) * drift
    colors += F.interpolate(slow, (height, width), mode='bicubic')[0]
    colors += torch.randn(3, height, width, generator=generator) * noise
    places = (ids > 0).nonzero()
    chosen = torch.randint(len(places), (prompts,), generator=generator)
    return colors.clamp(0, 255).to(device), places[chosen].flip(1).float().to(device)


def plain_mask(color_map: Tensor, point: Tensor, smooth: bool, sigma: float = 0.01) -> Tensor:
    """One prompt: full-map Gaussian, similarity, filter and threshold of the public code's rule."""
    height, width = color_map.shape[1:]
    x = torch.linspace(0, 1, width, device=point.device) - point[0] / (width - 1)
    y = torch.linspace(0, 1, height, device=point.device)[:, None] - point[1] / (height - 1)
    heat = torch.exp(-(x.square() + y.square()) / (2 * sigma**2))
    query = (color_map * heat).sum((1, 2)) / (heat.sum() + 1e-6)
    similarity = 1 / ((color_map - query[:, None, None]).square().sum(0).sqrt() + 1e-6)
    low, high = similarity.min(), similarity.max()
    levels = ((similarity - low) / (high - low + 1e-6) * 255).to(torch.uint8)
    if smooth:
        levels = joint_bilateral_filter(color_map, levels[None])[0]
    return levels > 3


def plain_masks(color_map: Tensor, points: Tensor, smooth: bool) -> Tensor:
    color_map = color_map.floor()  # the public code reads 8 bits
    return torch.stack([plain_mask(color_map, point, smooth) for point in points])


def batched_masks(color_map: Tensor, points: Tensor, smooth: bool) -> Tensor:
    return masks_from_points(color_map, points, smooth=smooth)


def timed(run: Callable, *args: object) -> tuple[Tensor, float]:
    """Masks and seconds of one run: of the CPU (all threads), or on a GPU of the clock."""
    if not args[0].is_cuda:
        start = time.process_time()
        return run(*args), time.process_time() - start
    torch.cuda.synchronize()
    start = time.perf_counter()
    masks = run(*args)
    torch.cuda.synchronize()
    return masks, time.perf_counter() - start


def compare(scene: tuple[Tensor, Tensor], smooth: bool, repeat: int) -> tuple[list, int, float]:
    """Seconds (plain, batched) of all rounds, differing pixels, and the share of mask pixels."""
    batched_masks(*scene, smooth)  # warm-up
    rounds = []
    for _ in range(repeat):
        plain, plain_seconds = timed(plain_masks, *scene, smooth)
        batched, batched_seconds = timed(batched_masks, *scene, smooth)
        rounds.append((plain_seconds, batched_seconds))
    return rounds, int((plain != batched).sum()), batched.float().mean().item()


def main() -> None:
    args = parse_args()
    load_loops()
    torch.set_num_threads(args.threads)
    print(
        f'{args.prompts} prompts, {args.size}, {args.device}, {args.threads} thread(s), '
        f'torch {torch.__version__}, median of {args.repeat} interleaved rounds\n'
    )
    header = ['scene', 'filter', 'plain s', 'batched s', 'ratio', 'pixels that differ', 'mask share']
    print(f'| {" | ".join(header)} |\n|{"---|" * len(header)}')
    for name in args.scenes:
        scene = make_scene(args.size, args.instances, args.prompts, *SCENES[name], args.device)
        for smooth in (True, False):
            rounds, different, share = compare(scene, smooth, args.repeat)
            ratio = statistics.median(plain / batched for plain, batched in rounds)
            plain, batched = (statistics.median(column) for column in zip(*rounds, strict=True))
            num_pixels = args.prompts * scene[0][0].numel()
            row = [
                name,
                'yes' if smooth else 'no',
                f'{plain:.2f}',
                f'{batched:.3f}',
                f'{ratio:.1f}',
                f'{different} of {num_pixels:.1e}',
                f'{share:.3f}',
            ]
            print(f'| {" | ".join(row)} |', flush=True)
            if different > args.tolerance * num_pixels:
                raise SystemExit(f'the masks differ in more than {args.tolerance} of the pixels')


if __name__ == '__main__':
    run_tool(main)
