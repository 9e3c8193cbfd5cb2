"""Writes a trained gen2seg checkpoint in the format of the released weights.

A colorer that started from a Stable Diffusion pipeline becomes a pipeline folder, which diffusers'
``StableDiffusionPipeline.from_pretrained`` opens; a ViT-MAE becomes a folder for transformers'
``ViTMAEForPreTraining.from_pretrained``. genseg_mm loads both with ``load_released(OUT)``. A DiT colorer becomes a
folder with its diffusers ``transformer`` (with LoRA: ``lora``, the adapters for peft) and its embedded prompt, which a
config names in place of the release.

    python tools/model_converters/gen2seg_to_pretrained.py CONFIG CHECKPOINT OUT
"""

import argparse
from pathlib import Path
from typing import Any

from mmengine.config import ConfigDict

from genseg_mm import launch
from genseg_mm.config_file import find_config, read_config_file
from genseg_mm.files.whole_folders import whole_folder
from genseg_mm.launch.config import CfgOptions, override_config
from genseg_mm.registry import MODELS


def parse_args() -> argparse.Namespace:
    parser = launch.ToolParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('config', help='config of the training')
    parser.add_argument('checkpoint', help='its checkpoint (.pth, .safetensors)')
    parser.add_argument('out', writes='folder', type=Path, help='folder to write')
    parser.add_argument('--force', action='store_true', help='replace a released folder that OUT already holds')
    parser.add_argument(
        '--cfg-options',
        nargs='+',
        action=CfgOptions,
        metavar='KEY=VALUE',
        help='override settings of the config, e.g. model.colorer.pretrained=FOLDER',
    )
    args = parser.parse_args()
    find_config(args.config)
    return args


if __name__ == '__main__':
    launch.run_tool(parse_args)  # help and mistakes, before what is imported below takes seconds

from genseg_mm.inference.build_model import load_weights
from genseg_mm.models import DiTColorer, Gen2Seg, MAEColorer, SDColorer
from genseg_mm.models.colorers.dit_colorer import PROMPT_FILE
from genseg_mm.models.colorers.released_folder import released_kind
from genseg_mm.models.gen2seg import AS_PUBLISHED, settings_for


def check_out(out: Path, force: bool) -> None:
    """Refuses to write over anything but an empty folder, or with --force a released one."""
    if out.exists() and not out.is_dir():
        raise ValueError(f'{out} must be a folder, but it is a file')
    if not out.is_dir() or not any(out.iterdir()):
        return
    if not force:
        raise ValueError(f'{out} is not empty; choose another folder, or replace it with --force')
    if not {PROMPT_FILE} <= {own.name for own in out.iterdir()} <= {PROMPT_FILE, 'transformer', 'lora'}:
        released_kind(str(out))  # --force replaces a model, never some other folder


def build_model(config: str, options: dict[str, Any] | None) -> tuple[Gen2Seg, ConfigDict]:
    """The Gen2Seg of a config, whose colorer has a released format."""
    cfg = read_config_file(config)
    if options:
        override_config(cfg, options)
    if cfg.get('model') is None:
        raise ValueError(f'{config} has no model; is it a base config?')
    model = MODELS.build(cfg.model)
    if not isinstance(model, Gen2Seg):
        raise ValueError(f'{config} must build a Gen2Seg, but got {type(model).__name__}')
    if not isinstance(model.colorer, (SDColorer, MAEColorer, DiTColorer)):
        raise ValueError(
            f'{config}: only SDColorer, MAEColorer and DiTColorer have a released format, but got '
            f'{type(model.colorer).__name__}'
        )
    if isinstance(model.colorer, SDColorer) and model.colorer.source is None:
        raise ValueError(
            f'{config}: its SDColorer was built from a config, without text encoder and tokenizer, so it makes no '
            'whole pipeline; only trainings that start with pretrained=FOLDER can be written'
        )
    return model, cfg.model


def loading_call(out: Path, config: ConfigDict) -> str:
    """What gives the trained model back: the folder formats hold weights alone."""
    if (out / PROMPT_FILE).is_file():
        keys = dict(prompt_encoder=None, prompt_embedding=str(out / PROMPT_FILE))
        if not (out / 'lora').is_dir():
            keys['backbone.transformer.pretrained_model_name_or_path'] = str(out)
            keys['backbone.transformer.subfolder'] = 'transformer'
        text = '--cfg-options ' + ' '.join(f'model.colorer.{key}={value}' for key, value in keys.items())
        if (out / 'lora').is_dir():
            return f'its config with {text}, and then model.colorer.backbone.load_lora({str(out / "lora")!r})'
        return f'its config with {text}'
    kind = released_kind(str(out))
    name = {'sd': 'SDColorer', 'mae': 'MAEColorer'}[kind]
    published = AS_PUBLISHED[name]
    used = settings_for(config.get('preset'), name, **{key: config.get(key) for key in published})
    arguments = {key: value for key, value in used.items() if value != published[key]}
    for key, default in (
        ('bias', 0.0),
        ('processing_size', None),
        ('prompting', {}),
        ('automatic', None),
        ('data_preprocessor', None),
    ):
        if config.get(key, default) != default:
            arguments[key] = config[key]
    own = ('type', 'pretrained', 'config', 'gradient_checkpointing')
    colorer = {key: value for key, value in config.colorer.items() if key not in own}
    if kind == 'sd':
        colorer.setdefault('parity', None)
    if colorer:
        arguments['colorer'] = colorer
    text = ''.join(f', {key}={_plain(value)!r}' for key, value in arguments.items())
    return f'genseg_mm.models.load_released({str(out)!r}{text})'


def _plain(value: Any) -> Any:
    return value.to_dict() if isinstance(value, ConfigDict) else value


def main() -> None:
    args = parse_args()
    check_out(args.out, args.force)
    model, config = build_model(args.config, args.cfg_options)
    load_weights(model, args.checkpoint)
    with whole_folder(args.out) as folder:
        model.colorer.save_pretrained(str(folder))
    print(f'{args.out} written; {loading_call(args.out, config)} loads it')


if __name__ == '__main__':
    launch.run_tool(main)
