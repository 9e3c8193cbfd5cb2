"""How far from pure noise a mask shows through its own noise, and the width `a` of the timestep law that follows.

    python tools/analysis_tools/measure_mask_leak.py configs/genmask/genmask_sana_shapes_tiny.py
    python tools/analysis_tools/measure_mask_leak.py configs/genmask/refcoco.py --masks 300 --steps 0

For each noise level, overall IoU of readers that see neither text nor picture, on training masks that they were not
fitted on, beside what each makes of pure noise. The best linear reader of all latents together is in closed form; `a`
follows from it, as for a='auto' of LongTailTimesteps. That of each token alone shows what neighbours add, a small
convolutional network, trained for --steps, what learning adds. 'which of two' is the probability with which the better
of two masks of the data is told from the other, in closed form as well: 50 % is chance.

Writes leak.md, leak.json and leak.png.
"""

import argparse
import json
import math
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from genseg_mm.config_file import read_config_file
from genseg_mm.files import check_writable
from genseg_mm.functional.mask_leak import (
    TOLERANCE,
    MaskLeak,
    Reader,
    fit_linear_reader,
    leaks,
    linear_leak,
    long_tail_width,
    thinned,
)
from genseg_mm.launch import ToolParser, run_tool
from genseg_mm.launch.auto_timesteps import LEAKED_SHARE, NUM_MASKS, encoded, read_model_codec, training_masks
from genseg_mm.launch.config import CfgOptions, override_config

DISTANCES = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.03, 0.05, 0.1, 0.2, 0.3, 0.5)
READERS = dict(linear='linear, all tokens', token='linear, one token', network='network')
WIDTHS = (0.0005, 0.002, 0.005, 0.02, 0.05, 0.1, 0.5)


def parse_args() -> argparse.Namespace:
    parser = ToolParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('config', help='config with model.codec and train_dataloader')
    parser.add_argument('--out-dir', writes='folder', help='default: work_dirs/mask_leak/<config>')
    parser.add_argument('--masks', type=int, default=NUM_MASKS, help='two thirds to fit on (default: %(default)s)')
    parser.add_argument('--distances', type=float, nargs='+', default=DISTANCES, help='from pure noise, 1 - sigma')
    parser.add_argument('--leaked-share', type=float, default=LEAKED_SHARE, help='of the law (default: %(default)s)')
    parser.add_argument('--steps', type=int, default=600, help='of the network; 0: none (default: %(default)s)')
    parser.add_argument('--seed', type=int, default=0)
    parser.add_argument('--cfg-options', nargs='+', action=CfgOptions, metavar='KEY=VALUE')
    args = parser.parse_args()
    if args.masks < 6 or args.steps < 0 or not all(0 < own < 1 for own in args.distances):
        parser.error('--masks must be at least 6, --steps at least 0 and --distances between 0 and 1')
    args.distances = sorted(args.distances)
    return args


class MaskNetwork(nn.Module):
    """A small convolutional reader: logits of the pixels of each cell, told the distance from pure noise.

    Args:
        channels: Of the latents.
        cell_size: Side of a cell in pixels.
        width: Channels of the layers.
    """

    def __init__(self, channels: int, cell_size: int, width: int = 64) -> None:
        super().__init__()
        layers = [nn.Conv2d(channels + 1, width, 3, padding=1)]
        for dilation in (2, 4, 1):
            layers += [nn.GELU(), nn.Conv2d(width, width, 3, padding=dilation, dilation=dilation)]
        self.layers = nn.Sequential(*layers, nn.GELU(), nn.Conv2d(width, cell_size**2, 1))
        self.cell_size = cell_size

    def forward(self, noisy: Tensor, distance: Tensor) -> Tensor:
        """Logits (N, H, W) of noisy latents (N, C, h, w) at distances (N,)."""
        level = distance.log10().view(-1, 1, 1, 1).expand(-1, 1, *noisy.shape[-2:])
        return F.pixel_shuffle(self.layers(torch.cat([noisy, level], 1)), self.cell_size)[:, 0]


def train_network(latents: Tensor, masks: Tensor, steps: int, seed: int) -> MaskNetwork:
    """Trains the network on latents (N, C, h, w) of masks (N, H, W), distances log-uniform from 0.005 to 0.7."""
    torch.manual_seed(seed)
    network = MaskNetwork(latents.shape[1], masks.shape[-1] // latents.shape[-1])
    optimizer = torch.optim.AdamW(network.parameters(), lr=2e-3, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 4e-3, steps)
    for _ in range(steps):
        chosen = torch.randint(len(latents), (32,))
        distance = 10 ** (torch.rand(32) * math.log10(0.7 / 0.005) + math.log10(0.005))
        clean, own = latents[chosen], distance.view(-1, 1, 1, 1)
        noisy = own * clean + (1 - own) * torch.randn_like(clean)
        loss = F.binary_cross_entropy_with_logits(network(noisy, distance), masks[chosen].float())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    return network.eval()


def readers(latents: Tensor, masks: Tensor, args: argparse.Namespace) -> dict[str, Reader]:
    """The readers, fitted on clean latents (N, C, h, w) of masks (N, H, W)."""
    height, width = latents.shape[-2:]
    cell = masks.shape[-1] // width
    together = fit_linear_reader(latents.flatten(1), thinned(masks))
    cells = F.pixel_unshuffle(masks[:, None].float(), cell).movedim(1, -1).flatten(0, -2)
    alone = fit_linear_reader(latents.movedim(1, -1).flatten(0, -2), cells)

    def one_token(noisy: Tensor, distance: float) -> Tensor:
        found = alone(noisy.movedim(1, -1).flatten(0, -2), distance).view(len(noisy), height, width, -1)
        return thinned(F.pixel_shuffle(found.movedim(-1, 1), cell)[:, 0])

    found: dict[str, Reader] = dict(
        linear=lambda noisy, distance: together(noisy.flatten(1), distance), token=one_token
    )
    if args.steps:
        network = train_network(latents, masks, args.steps, args.seed)
        # Pure noise has no distance whose logarithm it could be told: it takes the smallest that it knows.
        found['network'] = lambda noisy, distance: thinned(
            network(noisy, torch.full((len(noisy),), max(distance, 0.005))).detach()
        )
    return found


def which_of_two(latents: Tensor, distances: list[float], seed: int) -> list[float]:
    """Probability of telling which of two masks it is, over random pairs: normal(s |difference| / 2 (1 - s))."""
    order = torch.randperm(len(latents), generator=torch.Generator().manual_seed(seed))
    difference = (latents - latents[order]).flatten(1).double().norm(dim=1)
    difference = difference[difference > 0]
    return [float(torch.special.ndtr(s * difference / (2 * (1 - s))).mean()) for s in distances]


def measure(args: argparse.Namespace) -> dict:
    """All that is reported.

    Raises:
        ValueError: If the config has no codec or no masks, or nothing follows from them.
    """
    cfg = read_config_file(args.config)
    if args.cfg_options:
        override_config(cfg, args.cfg_options)
    if 'codec' not in (cfg.get('model') or {}) or 'train_dataloader' not in cfg:
        raise ValueError(f'{args.config}: expected model.codec and train_dataloader, but got {sorted(cfg)}')
    masks = training_masks(cfg, args.masks, args.seed)
    latents = encoded(read_model_codec(cfg), masks)
    num_fit = len(masks) * 2 // 3
    held_out, pixels = latents[num_fit:], thinned(masks[num_fit:])
    curves = {}
    for name, reader in readers(latents[:num_fit], masks[:num_fit], args).items():
        floor, *iou = leaks(reader, held_out, pixels, [0.0, *args.distances], args.seed)
        curves[name] = dict(floor=floor, iou=iou, share=MaskLeak((), tuple(iou), floor).shares())
    distance = linear_leak(latents, masks, until=TOLERANCE, seed=args.seed).first_distance()
    return dict(
        config=args.config,
        masks=len(masks),
        size=list(masks.shape[1:]),
        latents=list(latents.shape[1:]),
        distances=list(args.distances),
        readers=curves,
        which_of_two=which_of_two(held_out, args.distances, args.seed),
        leaks_from=distance,
        tolerance=TOLERANCE,
        leaked_share=args.leaked_share,
        a=long_tail_width(distance, args.leaked_share),
        leaked_share_of={str(a): a**2 / (a**2 + distance**2) for a in WIDTHS},
    )


def to_markdown(report: dict) -> str:
    """The report as a table and two sentences."""
    height, width = report['size']
    channels, *cells = report['latents']
    names = list(report['readers'])
    lines = [
        f'# Leak of {Path(report["config"]).stem}: {report["masks"]} training masks, {height}x{width} pixels, '
        f'{cells[0]}x{cells[1]} tokens of {channels} channels',
        '',
        f'| sigma | {" | ".join(f"{READERS[name]}: oIoU" for name in names)} | which of two |',
        '|---' * (len(names) + 2) + '|',
    ]
    floors = [f'{100 * report["readers"][name]["floor"]:.1f}' for name in names]
    lines.append(f'| 1 (floor) | {" | ".join(floors)} | 50.0 |')
    for place, distance in enumerate(report['distances']):
        values = [f'{100 * report["readers"][name]["iou"][place]:.1f}' for name in names]
        lines.append(f'| {1 - distance:.6g} | {" | ".join(values)} | {100 * report["which_of_two"][place]:.1f} |')
    lines += [
        '',
        f'The linear reader of all tokens is {report["tolerance"]:.0%} of the way from its floor to 1 at '
        f'{report["leaks_from"]:.3g} from pure noise. At most {report["leaked_share"]:.2g} of the draws of '
        f'LongTailTimesteps lie further away with **a = {report["a"]:g}**.',
        '',
        '| a | ' + ' | '.join(report['leaked_share_of']) + ' |',
        '|---' * (len(report['leaked_share_of']) + 1) + '|',
        '| drawn where masks leak | '
        + ' | '.join(f'{100 * own:.3g} %' for own in report['leaked_share_of'].values())
        + ' |',
        '',
    ]
    return '\n'.join(lines)


def draw(report: dict, path: Path) -> None:
    """The figure: what the readers recover, and where the laws draw."""
    import matplotlib

    matplotlib.use('Agg')
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(figsize=(7.5, 5), layout='constrained')
    distances = torch.tensor(report['distances'], dtype=torch.float64)
    for place, (name, curve) in enumerate(report['readers'].items()):
        axes.plot(distances, curve['iou'], '-o', color=f'C{place}', markersize=4, label=READERS[name])
        axes.axhline(curve['floor'], color=f'C{place}', linestyle=':', linewidth=1)
    axes.plot(distances, report['which_of_two'], '--', color='gray', label='which of two (chance 0.5)')
    for a in (report['a'], 0.02, 0.05):
        axes.plot(distances, a**2 / (a**2 + distances**2), color='black', alpha=0.35, linewidth=1)
        axes.annotate(f'a = {a:g}', (a, 0.5), fontsize=8, rotation=-55)
    axes.axvline(report['leaks_from'], color='tab:red', linewidth=1)
    axes.set(xscale='log', ylim=(0, 1.02), xlabel='distance from pure noise, 1 - sigma')
    axes.set_ylabel('overall IoU, dotted: of pure noise; thin: share of draws further away')
    axes.set_title(f'{Path(report["config"]).stem}: a = {report["a"]:g}', fontsize=10)
    axes.legend(fontsize=8, loc='upper left')
    figure.savefig(path, dpi=110)
    plt.close(figure)


def main() -> None:
    args = parse_args()
    out_dir = check_writable(args.out_dir or Path('work_dirs/mask_leak', Path(args.config).stem), '--out-dir')
    report = measure(args)
    out_dir.mkdir(parents=True, exist_ok=True)
    text = to_markdown(report)
    (out_dir / 'leak.md').write_text(text)
    (out_dir / 'leak.json').write_text(json.dumps(report, indent=1) + '\n')
    draw(report, out_dir / 'leak.png')
    print(text)
    print(f'written to {out_dir}/leak.md, leak.json, leak.png')
    print(f'--cfg-options model.mask_head.timesteps.mask.a={report["a"]:g}')


if __name__ == '__main__':
    run_tool(main)
