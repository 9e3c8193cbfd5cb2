"""Fits the tiny models' closed-form codec on procedural scenes and reports its round trip.

The shipped weights: ``python tools/fit_patch_codec.py genseg_mm/weights/patch_codec_shapes.safetensors``;
``python tools/fit_patch_codec.py genseg_mm/weights/patch_codec_objects.safetensors --scenes objects --patch-size 12
--latent-channels 32``, and ``patch_codec_objects_48.safetensors`` likewise with 48.
"""

import argparse
from pathlib import Path

import numpy as np
import torch

from genseg_mm.datasets import ObjectScenesDataset, ShapesDataset
from genseg_mm.files.tensors import write_tensors
from genseg_mm.files.whole_files import check_writable
from genseg_mm.launch import ToolParser, run_tool

SCENES = dict(shapes=ShapesDataset, objects=ObjectScenesDataset)


def parse_args() -> argparse.Namespace:
    parser = ToolParser(description=__doc__)
    parser.add_argument('out', writes='file', type=Path, help='safetensors file to write')
    parser.add_argument('--scenes', choices=SCENES, default='shapes', help='objects: of prepare_objects.py')
    parser.add_argument('--latent-channels', type=int, default=20)
    parser.add_argument('--patch-size', type=int, default=8)
    parser.add_argument('--num-scenes', type=int, default=2000)
    args = parser.parse_args()
    args.out = check_writable(args.out.parent, 'OUT in') / args.out.name
    return args


if __name__ == '__main__':
    run_tool(parse_args)  # help and mistakes, before what is imported below takes seconds


from genseg_mm.models.latent_codec import PatchCodec, fit_patch_codec
from genseg_mm.models.mask_head import GenerativeMaskHead


def scenes(kind: str, split: str, num_scenes: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Images (N, 3, H, W) in [-1, 1] and referred masks (N, H, W) of procedural scenes of a kind of ``SCENES``."""
    dataset = SCENES[kind](num_scenes=num_scenes, task='referring', split=split, expressions='random', pipeline=[])
    samples = [dataset[index] for index in range(len(dataset))]
    images = np.stack([sample['img'][..., ::-1] for sample in samples])
    masks = np.stack([sample['gt_seg_map'] for sample in samples])
    return torch.from_numpy(images).permute(0, 3, 1, 2) / 127.5 - 1, torch.from_numpy(masks)


def round_trip(codec: PatchCodec, images: torch.Tensor, masks: torch.Tensor) -> tuple[float, float]:
    """Overall IoU of masks and PSNR in dB of images after encoding and decoding."""
    mask_images = GenerativeMaskHead.masks_to_images(masks)
    again = codec.decode(codec.encode(mask_images).latents).sample.mean(1) > 0
    masks = masks.bool()
    iou = (again & masks).sum() / (again | masks).sum()
    error = (codec.decode(codec.encode(images).latents).sample - images).pow(2).mean()
    return float(iou), float(10 * torch.log10(4 / error))


def main() -> None:
    args = parse_args()
    images, masks = scenes(args.scenes, 'train', args.num_scenes)
    state = fit_patch_codec(images, GenerativeMaskHead.masks_to_images(masks), args.latent_channels, args.patch_size)
    write_tensors(args.out, state)
    iou, psnr = round_trip(PatchCodec(str(args.out)), *scenes(args.scenes, 'test', 300))
    print(f'{args.out}: held-out masks oIoU {iou:.4f}, images {psnr:.2f} dB')


if __name__ == '__main__':
    run_tool(main)
