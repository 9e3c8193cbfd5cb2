"""Turns checkpoints into one another: a sharded folder, one .pth file, a folder as diffusers releases them.

    python tools/model_converters/convert_checkpoint.py iter_8000 iter_8000.pth        # weights, optimizer, everything
    python tools/model_converters/convert_checkpoint.py iter_8000.pth iter_8000        # the same back, sharded
    python tools/model_converters/convert_checkpoint.py iter_8000 OUT --config CONFIG  # the DiT alone, for diffusers
    python tools/model_converters/convert_checkpoint.py RELEASED weights.pth           # its DiT, for load_from

With --config, OUT/transformer is what ``from_pretrained(OUT, subfolder='transformer')`` of diffusers opens. Adapters of
LoRA are merged into it with --merge-lora; else they are written alone as OUT/lora, which peft and
``DiTBackbone.load_lora`` open. One process; the memory holds about one copy.
"""

import argparse
from pathlib import Path
from typing import Any

from mmengine.config import ConfigDict

from genseg_mm import launch
from genseg_mm.config_file import read_config_file
from genseg_mm.files.whole_files import whole_file
from genseg_mm.files.whole_folders import whole_folder
from genseg_mm.launch.config import CfgOptions, override_config
from genseg_mm.registry import MODELS


def parse_args() -> argparse.Namespace:
    parser = launch.ToolParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('source', type=Path, help='sharded folder, .pth or .safetensors file, or released folder')
    parser.add_argument('out', writes='either', type=Path, help='file (.pth) or folder to write')
    parser.add_argument('--config', help='config of the training: OUT becomes a folder for diffusers')
    parser.add_argument('--merge-lora', action='store_true', help='with --config: add the adapters to the weights')
    parser.add_argument('--weights-only', action='store_true', help='leave optimizer, schedules and log behind')
    parser.add_argument('--force', action='store_true', help='replace OUT')
    parser.add_argument(
        '--cfg-options',
        nargs='+',
        action=CfgOptions,
        metavar='KEY=VALUE',
        help='with --config: override settings of the config',
    )
    args = parser.parse_args()
    if not args.source.exists():
        raise FileNotFoundError(f'checkpoint {args.source} does not exist')
    return args


if __name__ == '__main__':
    launch.run_tool(parse_args)  # help and mistakes, before what is imported below takes seconds

import torch
from torch import nn

from genseg_mm.checkpoint import check_whole, load_weights_only, model_weights, some_of
from genseg_mm.checkpoint_folders import is_checkpoint_folder, paths_of, read_metadata
from genseg_mm.models.dit_lora import has_lora, merge_lora, save_lora
from genseg_mm.models.pretrained_parts import variants_of
from genseg_mm.sharding.sharded_checkpoints import load_sharded, save_dict_sharded

_PREFIX = 'backbone.transformer.'  # of a GenMask


def check_arguments(args: argparse.Namespace) -> None:
    """Refuses what makes no sense before anything is read."""
    if args.merge_lora and args.config is None:
        raise ValueError('--merge-lora expects --config CONFIG, by which adapters are told from other weights')
    if args.config is not None and args.out.suffix in ('.pth', '.safetensors'):
        raise ValueError(f'with --config OUT is a folder for diffusers, but got {args.out}')
    if args.out.suffix == '.safetensors':
        raise ValueError(
            f'OUT must be a .pth file or a folder, but got {args.out}; publish_model.py writes .safetensors'
        )
    if args.source.resolve() == args.out.resolve():
        raise ValueError(f'OUT is SOURCE: {args.out}')
    if not args.out.exists():
        return
    if not args.force:
        raise ValueError(f'{args.out} exists; --force replaces it')
    if not (args.out.is_file() or is_checkpoint_folder(args.out) or is_written_here(args.out)):
        raise ValueError(f'{args.out} is a folder of something else; choose another one')


def is_written_here(folder: Path) -> bool:
    """Whether a folder is such a one as this tool writes with --config."""
    return {own.name for own in folder.iterdir()} <= {'transformer', 'lora'}


def read(source: Path, weights_only: bool) -> dict[str, Any]:
    """A checkpoint, as a runner writes it to one file; of a released folder the weights of its DiT."""
    if source.is_dir() and not is_checkpoint_folder(source):
        return read_released(source)
    check_whole(str(source))
    checkpoint = load_weights_only(str(source), mmap=True)
    weights = model_weights(checkpoint, str(source))
    if weights_only or 'state_dict' not in checkpoint:
        return dict(state_dict=weights, meta=dict(checkpoint.get('meta') or {}) if 'state_dict' in checkpoint else {})
    return {**checkpoint, 'state_dict': weights}


def read_released(source: Path) -> dict[str, Any]:
    """Weights of a diffusers transformer, under the names that they have in a GenMask."""
    places = [own for own in (source / 'transformer', source) if (own / 'config.json').is_file()]
    if not places:
        names = sorted(own.name for own in source.iterdir())[:6]
        raise ValueError(
            f'{source}: expected a sharded checkpoint, or a released folder with transformer/config.json, but got '
            f'{names}'
        )
    found = variants_of(places[0])
    if not found:
        raise FileNotFoundError(f'{places[0]}: expected weights (*.safetensors or *.bin), but got none')
    if None not in found and len(found) > 1:
        raise ValueError(f'{places[0]} has weights of several variants, {sorted(found)}; keep one of them')
    state = {}
    for path in found.get(None, next(iter(found.values()))):
        state.update({f'{_PREFIX}{name}': own for name, own in load_weights_only(str(path), mmap=True).items()})
    return dict(state_dict=state, meta=dict(source=str(source)))


def write(checkpoint: dict[str, Any], out: Path) -> None:
    """One file, or a folder."""
    if out.suffix == '.pth':
        needed = sum(own.nbytes for own in checkpoint['state_dict'].values())
        with whole_file(out, needed=needed) as unfinished:
            torch.save(checkpoint, unfinished)
    else:
        out.parent.mkdir(parents=True, exist_ok=True)
        save_dict_sharded(out, checkpoint)


def build_backbone(path: str, options: dict[str, Any] | None) -> tuple[nn.Module, str]:
    """The DiTBackbone of a config alone, and how the names of its weights start in a checkpoint."""
    cfg = read_config_file(path)
    if options:
        override_config(cfg, options)
    found = list(backbones(cfg.get('model') or ConfigDict()))
    if len(found) != 1:
        raise ValueError(
            f'{path}: expected a model with one DiTBackbone, but got {len(found)}; gen2seg_to_pretrained.py writes '
            'colorers of Stable Diffusion and MAE'
        )
    config, prefix = found[0]
    return MODELS.build(config), prefix


def backbones(config: Any, prefix: str = '') -> Any:
    """Configs of DiTBackbones within one of a model, and their names."""
    if isinstance(config, dict):
        kind = config.get('type', '')
        if getattr(kind, '__name__', str(kind)).rpartition('.')[2] == 'DiTBackbone':
            yield config, prefix
        for key, own in config.items():
            yield from backbones(own, f'{prefix}{key}.')


def load_backbone(backbone: nn.Module, prefix: str, source: Path) -> None:
    """Reads its weights, and nothing else, out of a checkpoint that has to have all of them."""
    holder = owner = nn.Module()
    *names, last = prefix.rstrip('.').split('.')
    for name in names:
        setattr(owner, name, nn.Module())
        owner = getattr(owner, name)
    setattr(owner, last, backbone)
    wanted = holder.state_dict()
    check_whole(str(source))
    if source.is_dir():
        there = {place[1] for place in paths_of(read_metadata(source)).values() if place[0] == 'state_dict'}
    else:
        weights = model_weights(load_weights_only(str(source), mmap=True), str(source))
        there = weights.keys()
    missing = sorted(wanted.keys() - there)
    foreign = sorted(name for name in set(there) - wanted.keys() if name.startswith(prefix))
    if missing or foreign:
        raise ValueError(
            f'{source} does not fit the config: {len(missing)} missing in it{_shown(missing)}, {len(foreign)} only in '
            f'it{_shown(foreign)}; is it the config of this training?'
        )
    if source.is_dir():
        load_sharded(source, holder, None, strict=False)
        return
    wrong = [name for name, own in wanted.items() if own.shape != weights[name].shape]
    if wrong:
        raise ValueError(f'{source} does not fit the config: {len(wrong)} of other shapes{_shown(wrong)}')
    holder.load_state_dict({name: own for name, own in weights.items() if name.startswith(prefix)}, strict=False)


def _shown(names: list[str]) -> str:
    return f' ({some_of(names)})' if names else ''


def write_released(backbone: nn.Module, out: Path, merge: bool) -> str:
    """The folder for diffusers, or of adapters for peft; gives its name back."""
    transformer = backbone.transformer
    keeps_lora = has_lora(transformer) and not merge
    if merge:
        merge_lora(transformer)
    with whole_folder(out) as folder:
        if keeps_lora:
            save_lora(transformer, folder / 'lora', backbone.new_layers)
        else:
            transformer.save_pretrained(str(folder / 'transformer'), safe_serialization=True)
    return str(out / ('lora' if keeps_lora else 'transformer'))


def main() -> None:
    args = parse_args()
    check_arguments(args)
    if args.config is not None:
        backbone, prefix = build_backbone(args.config, args.cfg_options)
        if args.merge_lora and not has_lora(backbone.transformer):
            raise ValueError(f'{args.config}: --merge-lora expects a DiTBackbone with lora=dict(...), but got none')
        load_backbone(backbone, prefix, args.source)
        print(f'{write_released(backbone, args.out, args.merge_lora)} written')
        return
    checkpoint = read(args.source, args.weights_only)
    write(checkpoint, args.out)
    numbers = sum(own.numel() for own in checkpoint['state_dict'].values())
    print(f'{args.out}: {numbers} numbers of weights, {", ".join(sorted(checkpoint))}')


if __name__ == '__main__':
    launch.run_tool(main)
