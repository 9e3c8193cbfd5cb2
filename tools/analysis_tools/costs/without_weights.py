"""Models of configs whose weights are not here: shapes alone, on the meta device.

The sizes come from the ``config.json`` of a local folder or of the hub's cache, or from the table of released models
(families/configs.py).
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from families.configs import FROZEN, FULL
from mmengine.config import ConfigDict
from torch import nn

from genseg_mm.files import read_json
from genseg_mm.registry import MODELS, class_name

# hub id -> parts -> keyword arguments; unet/config.json, vae/config.json and config.json of these repositories
SD2 = dict(
    unet=dict(
        sample_size=96, in_channels=4, out_channels=4, block_out_channels=(320, 640, 1280, 1280), layers_per_block=2,
        attention_head_dim=[5, 10, 20, 20], cross_attention_dim=1024, use_linear_projection=True,
    ),
    vae=dict(
        block_out_channels=(128, 256, 512, 512), down_block_types=('DownEncoderBlock2D',) * 4,
        up_block_types=('UpDecoderBlock2D',) * 4, layers_per_block=2, latent_channels=4, scaling_factor=0.18215,
    ),
)  # fmt: skip
PIPELINES = {'stabilityai/stable-diffusion-2': SD2}
MAES = {
    'facebook/vit-mae-base': {},
    'facebook/vit-mae-large': dict(
        hidden_size=1024, num_hidden_layers=24, num_attention_heads=16, intermediate_size=4096
    ),
    'facebook/vit-mae-huge': dict(
        hidden_size=1280, num_hidden_layers=32, num_attention_heads=16, intermediate_size=5120, patch_size=14
    ),
}  # fmt: skip
CONFIG_FILES = ('config.json', 'model_index.json')


def pretrained_parts(cfg: Any, path: str = 'model') -> Iterator[tuple[str, dict]]:
    """Place in the config and config of every part that is built from released weights."""
    if isinstance(cfg, dict):
        kind = cfg.get('type')
        name = kind if isinstance(kind, str) else getattr(kind, '__qualname__', '')
        if name.endswith('.from_pretrained') or isinstance(cfg.get('pretrained'), str):
            yield path, cfg
        for key, value in cfg.items():
            yield from pretrained_parts(value, f'{path}.{key}')
    elif isinstance(cfg, (list, tuple)):
        for place, value in enumerate(cfg):
            yield from pretrained_parts(value, f'{path}.{place}')


def source_of(cfg: dict) -> tuple[str, str]:
    """Folder or hub id of a part's weights, and the subfolder ('' for none)."""
    source = cfg.get('pretrained_model_name_or_path') or cfg.get('pretrained')
    return str(source), cfg.get('subfolder') or ''


def local_file(cfg: dict) -> Path | None:
    """The config.json (or model_index.json) of a part's weights in a folder or the hub's cache, None if not here."""
    from huggingface_hub import try_to_load_from_cache

    source, subfolder = source_of(cfg)
    folder = Path(source).expanduser()
    for name in CONFIG_FILES:
        if (folder / subfolder / name).is_file():
            return folder / subfolder / name
        if not folder.exists() and source.count('/') == 1:
            found = try_to_load_from_cache(source, f'{subfolder}/{name}' if subfolder else name)
            if isinstance(found, str):
                return Path(found)
    return None


def check_weights(model: dict) -> None:
    """Raises FileNotFoundError if the weights of a part are neither a folder nor in the hub's cache, naming all."""
    missing = [
        f'{path} ({cfg["type"]}) needs {"/".join(filter(None, source_of(cfg)))}'
        for path, cfg in pretrained_parts(model)
        if local_file(cfg) is None
    ]
    if missing:
        ids = sorted({source_of(c)[0] for _, c in pretrained_parts(model) if local_file(c) is None})
        raise FileNotFoundError(
            f'weights that are not here: {"; ".join(missing)}. Fetch them (hf download {ids[0]}), or count without '
            'weights: --meta'
        )


def build_on_meta(model: dict) -> nn.Module:
    """The parts of a GenMask or Gen2Seg config as a module on the meta device, under their names.

    Of a prompt encoder only the network is built (its tokenizer has no parameters); codec, backbone and colorer are
    this package's own classes.

    Raises:
        ValueError: If the model is another, or the sizes of a part are not known here.
    """
    kind = class_name(model.get('type'))
    holder = nn.Module()
    model = ConfigDict(model).to_dict()
    with torch.device('meta'):
        if kind == 'GenMask':
            holder.codec = MODELS.build(_replaced(model['codec'], 'model.codec'))
            holder.prompt_encoder = _prompt_network(model['prompt_encoder'])
            holder.backbone = MODELS.build(_replaced(model['backbone'], 'model.backbone'))
        elif kind == 'Gen2Seg':
            colorer = _replaced(model['colorer'], 'model.colorer')
            diffusion = str(colorer.get('type')).endswith('SDColorer')
            holder.colorer = _diffusion(colorer) if diffusion else MODELS.build(colorer)
        else:
            raise ValueError(f'--meta knows GenMask and Gen2Seg, but got {model.get("type")!r}')
    return holder.eval()


def _diffusion(cfg: dict) -> nn.Module:
    """UNet and codec of an ``SDColorer``, whose noise level needs values."""
    from diffusers import UNet2DConditionModel

    from genseg_mm.models.latent_codec import LatentCodec

    colorer = nn.Module()
    colorer.unet = UNet2DConditionModel(**cfg['config']['unet'])
    colorer.codec = LatentCodec({'type': 'diffusers.AutoencoderKL', **cfg['config']['vae']})
    return colorer


def _prompt_network(cfg: dict) -> nn.Module:
    from genseg_mm.models.prompt_encoders import qwen_vl_prompt_encoder, t5_prompt_encoder

    encoder = _replaced(cfg['encoder'], 'model.prompt_encoder.encoder')
    pretrained = 'type' in cfg['encoder']
    if str(cfg['type']).endswith('QwenVLPromptEncoder'):
        network = qwen_vl_prompt_encoder.build_qwen_vl(encoder)
        network = network.model if hasattr(network, 'lm_head') else network
        if cfg.get('hidden_layer', -1) != -1:
            raise ValueError(
                f'--meta counts a Qwen-VL with all layers: expected hidden_layer=-1, but got {cfg["hidden_layer"]}'
            )
    elif pretrained:
        network = MODELS.build(encoder)
    else:
        network = t5_prompt_encoder._t5_from_scratch(encoder)
    trainable = cfg.get('trainable')
    trained = not pretrained if trainable is None else trainable
    return network.requires_grad_(trained)


def _replaced(cfg: Any, path: str) -> Any:
    """The config with every released part replaced by its sizes."""
    if isinstance(cfg, (list, tuple)):
        return type(cfg)(_replaced(one, f'{path}.{place}') for place, one in enumerate(cfg))
    if not isinstance(cfg, dict):
        return cfg
    kind = cfg.get('type')
    if isinstance(kind, str) and kind.endswith('.from_pretrained'):
        return dict(
            type=unloaded_from_pretrained, kind=kind.removesuffix('.from_pretrained'),
            sizes=_sizes(cfg, path),
        )  # fmt: skip
    if isinstance(cfg.get('pretrained'), str):
        cfg = dict(cfg)
        sizes = _colorer_sizes(cfg, path)
        del cfg['pretrained']
        return dict(cfg, config=sizes)
    return {key: _replaced(value, f'{path}.{key}') for key, value in cfg.items()}


def unloaded_from_pretrained(kind: str, sizes: dict) -> nn.Module:
    """A model of diffusers or transformers of these sizes; the name tells the registry's users that it is released."""
    import diffusers
    import transformers

    library, _, class_name = kind.partition('.')
    owner = getattr(dict(diffusers=diffusers, transformers=transformers)[library], class_name)
    if library == 'diffusers':
        return owner.from_config(sizes)
    return owner(owner.config_class(**sizes))


def _sizes(cfg: dict, path: str) -> dict:
    file = local_file(cfg)
    if file is not None:
        return read_json(file)
    source, subfolder = source_of(cfg)
    for model in FULL.values():
        if model['source'] == source and subfolder == 'transformer':
            return dict(model['transformer'])
        if model['source'] == source and subfolder == 'vae':
            return dict(FROZEN[model['vae']][1])
        if model['source'] == source and subfolder == 'text_encoder':
            return dict(FROZEN[model['encoders'][0]][1])
    for _, sizes, _, released in FROZEN.values():
        if released == source:
            return dict(sizes)
    raise _unknown(path, cfg)


def _colorer_sizes(cfg: dict, path: str) -> dict:
    source, _ = source_of(cfg)
    file = local_file(cfg)
    if str(cfg['type']).endswith('MAEColorer'):
        if file is None and source not in MAES:
            raise _unknown(path, cfg)
        return MAES[source] if file is None else read_json(file)
    if file is None and source not in PIPELINES:
        raise _unknown(path, cfg)
    if file is None:
        return PIPELINES[source]
    read = {part: read_json(file.parent / part / 'config.json') for part in SD2}
    return {part: {k: v for k, v in own.items() if k[0] != '_'} for part, own in read.items()}


def _unknown(path: str, cfg: dict) -> ValueError:
    return ValueError(
        f'{path} ({cfg["type"]}): the sizes of {"/".join(filter(None, source_of(cfg)))} are not known without its '
        'config.json: fetch that file into a folder or the cache (hf download), or add the model to families/configs.py'
    )
