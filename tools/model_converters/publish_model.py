"""Weights of a training checkpoint alone, as a small safetensors file that tools/test.py and the inferencer take.

python tools/model_converters/publish_model.py CHECKPOINT OUT.safetensors [--half]
"""

import argparse
from pathlib import Path

import torch

from genseg_mm import __version__, launch
from genseg_mm.checkpoint import load_weights_only, model_weights
from genseg_mm.files.tensors import write_tensors


def parse_args() -> argparse.Namespace:
    parser = launch.ToolParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('checkpoint', help='checkpoint of a training (.pth)')
    parser.add_argument('out', writes='file', type=Path, help='file to write (.safetensors)')
    parser.add_argument('--half', action='store_true', help='store floating point as float16')
    parser.add_argument('--force', action='store_true', help='replace OUT')
    return parser.parse_args()


def weights_of(checkpoint: object, source: str, half: bool) -> dict[str, torch.Tensor]:
    """The model's tensors; optimizer, schedule and log stay behind."""
    if not isinstance(checkpoint, dict) or not checkpoint.get('state_dict'):
        raise ValueError(f'{source} must be a checkpoint of a training, with a state_dict')
    weights = {}
    for name, value in model_weights(checkpoint, source).items():
        if half and value.is_floating_point():
            value = value.half()
            if not value.isfinite().all():
                raise ValueError(f'{source}: {name} does not fit into float16; leave --half out')
        weights[name] = value.clone().contiguous()
    return weights


def main() -> None:
    args = parse_args()
    if args.out.suffix != '.safetensors':
        raise ValueError(f'OUT must end in .safetensors, but got {args.out}')
    if args.out.exists() and not args.force:
        raise ValueError(f'{args.out} exists; --force replaces it')
    checkpoint = load_weights_only(args.checkpoint)
    weights = weights_of(checkpoint, args.checkpoint, args.half)
    meta = checkpoint.get('meta') or {}
    facts = {key: str(meta[key]) for key in ('experiment_name', 'iter', 'seed') if key in meta}
    write_tensors(args.out, weights, {'genseg_mm': __version__, **facts})
    numbers = sum(value.numel() for value in weights.values())
    print(f'{args.out}: {numbers} numbers, {args.out.stat().st_size / 2**20:.1f} MiB, {facts}')


if __name__ == '__main__':
    launch.run_tool(main)
