"""Fits the linear map that reads masks off latents without the VAE's decoder, and compares it with the decoder.

    python tools/fit_latent_probe.py configs/_base_/models/genmask_sana_tiny.py --out work_dirs/latent_probe.safetensors
    python tools/fit_latent_probe.py configs/genmask/refcoco.py --data configs/genmask/refcoco.py --image-size 512 512

Masks come from the dataloaders of --data, or without it from procedural scenes. Prints overall IoU on held-out masks
and the time per mask of both ways. In a GenMask config the file is used so:
``model=dict(mask_head=dict(type='genseg_mm.ProbeMaskHead', weights=FILE))``
"""

import argparse
import statistics
import time
from collections.abc import Callable

import torch
from torch import Tensor

from genseg_mm.benchmarking.suite import read_dataset_config
from genseg_mm.config_file import find_config
from genseg_mm.functional.latent_statistics import METHODS, overall_iou
from genseg_mm.launch import ToolParser, run_tool
from genseg_mm.launch.config import CfgOptions


def parse_args() -> argparse.Namespace:
    parser = ToolParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('config', help="config with 'model.codec' or 'codec'")
    parser.add_argument('--out', writes='file', help='safetensors file to write')
    parser.add_argument('--data', help='config with dataloaders (default: procedural scenes)')
    parser.add_argument('--split', default='train', help='to fit on')
    parser.add_argument('--test-split', default='val', help='to measure on')
    parser.add_argument('--num-train', type=int, default=500)
    parser.add_argument('--num-test', type=int, default=200)
    parser.add_argument('--image-size', type=int, nargs=2, default=(64, 64), metavar=('H', 'W'))
    parser.add_argument('--method', choices=METHODS, default='least_squares')
    parser.add_argument('--ridge', type=float, default=0.001, help='noise that the fit allows for')
    parser.add_argument('--repeat', type=int, default=3, help='rounds of the timing; 0: none')
    parser.add_argument('--threads', type=int, help='CPU threads of torch')
    parser.add_argument('--device', default='cpu')
    parser.add_argument('--seed', type=int, default=0)
    parser.add_argument('--cfg-options', nargs='+', action=CfgOptions, metavar='KEY=VALUE')
    parser.add_argument('--data-options', nargs='+', action=CfgOptions, metavar='KEY=VALUE')
    args = parser.parse_args()
    for name in ('num_train', 'num_test'):
        if getattr(args, name) < 1:
            parser.error(f'--{name.replace("_", "-")} must be at least 1: {getattr(args, name)}')
    find_config(args.config)
    return args


if __name__ == '__main__':
    run_tool(parse_args)  # help and mistakes, before what is imported below takes seconds

from genseg_mm.launch.dataset_parts import read_codec, read_mask_pictures
from genseg_mm.models.latent_codec import LatentCodec
from genseg_mm.models.latent_probe import LatentProbe
from genseg_mm.models.mask_head import GenerativeMaskHead


def encoded_masks(args: argparse.Namespace, codec: LatentCodec, split: str, num: int) -> tuple:
    """Latents (N, C, h, w) of masks, the masks (N, H, W) bool, and what they are."""
    size = tuple(args.image_size)
    cfg = read_dataset_config(args.data, args.data_options) if args.data else None
    data = read_mask_pictures(cfg, split, num, size, args.seed)
    drawn = GenerativeMaskHead.masks_to_images(data.masks.to(args.device))
    return codec.encode(drawn), data.masks, data.source


def seconds(call: Callable[[], Tensor], device: str, repeat: int) -> float:
    """Median time of a call; on a CPU the process's own seconds, which a busy machine hardly stretches."""
    clock = time.process_time if device == 'cpu' else time.perf_counter
    times = []
    for _ in range(repeat):
        start = clock()
        call()
        if device.startswith('cuda'):
            torch.cuda.synchronize()
        times.append(clock() - start)
    return statistics.median(times)


@torch.no_grad()
def main() -> None:
    args = parse_args()
    if args.threads:
        torch.set_num_threads(args.threads)
    codec = read_codec(args.config, args.cfg_options, args.seed).to(args.device)
    latents, masks, source = encoded_masks(args, codec, args.split, args.num_train)
    probe = LatentProbe(codec.latent_channels, codec.downsample)
    probe.fit(latents.cpu(), masks, args.method, args.ridge).to(args.device)
    print(f'fitted on {source}')
    if args.out:
        probe.save(args.out, codec)
        print(f'written to {args.out}')

    latents, masks, source = encoded_masks(args, codec, args.test_split, args.num_test)
    print(f'measured on {source}, latents {tuple(latents.shape[1:])}')
    ways = {'VAE decoder': lambda part: codec.decode(part).mean(1, keepdim=True), f'probe ({args.method})': probe.grey}
    for name, read in ways.items():
        found = torch.cat([read(part).cpu() > 0 for part in latents.split(16)])[:, 0]
        line = f'{name:24} oIoU {overall_iou(found, masks):.4f}'
        if args.repeat:
            took = seconds(lambda read=read: read(latents[:1]), args.device, args.repeat)
            line += f'   {1000 * took:10.3f} ms per mask' + ' of CPU' * (args.device == 'cpu')
        print(line)


if __name__ == '__main__':
    run_tool(main)
