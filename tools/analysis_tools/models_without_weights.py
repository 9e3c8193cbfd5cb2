"""Models whose weights are not here: shapes alone, on the meta device, and what their passes cost.

The sizes come from the ``config.json`` of a local folder or of the hub's cache, or are those of genseg_mm/hub_layouts.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from costs import PhaseMeter, count_flops
from mmengine.config import ConfigDict
from torch import Tensor, nn

from genseg_mm.files import read_json
from genseg_mm.hub_layouts import Part, layout
from genseg_mm.planning.kept_bytes import ShapesOnly
from genseg_mm.planning.training_plan import build_without_values, prompt_length
from genseg_mm.registry import MODELS, class_name

CONFIG_FILES = ('config.json', 'model_index.json')
PIPELINE_PARTS = ('unet', 'vae')


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
    folder = Path(os.path.expanduser(source))
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
    """The parts of a GenMask or Gen2Seg config on the meta device for evaluation, see :func:`build_parts`."""
    return build_parts(model, 'meta').eval()


def build_parts(model: dict, device: str) -> nn.Module:
    """The parts of a GenMask or Gen2Seg config as a module, under their names, with random weights.

    Of a prompt encoder only the network is built (its tokenizer has no parameters), in the dtype of its config; codec,
    backbone and colorer are this package's own classes.

    Args:
        model: Of a config.
        device: 'meta', where nothing has values, or a real one.

    Raises:
        ValueError: If the model is another, or the sizes of a part are not known here.
    """
    kind = class_name(model.get('type'))
    holder = nn.Module()
    model = ConfigDict(model).to_dict()
    if kind == 'Gen2Seg' and class_name(model['colorer'].get('type')) == 'DiTColorer':
        holder.colorer = build_without_values(model).colorer  # embeds its prompt once, and needs its tokenizer
        return holder
    with torch.device(device):
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
    return holder


@contextmanager
def _default_dtype(cfg: dict) -> Iterator[None]:
    """Floating-point tensors are made in the dtype that a part's config asks for."""
    name, before = str(cfg.get('dtype') or cfg.get('torch_dtype') or 'float32'), torch.get_default_dtype()
    torch.set_default_dtype(getattr(torch, name.removeprefix('torch.')))
    try:
        yield
    finally:
        torch.set_default_dtype(before)


def _diffusion(cfg: dict) -> nn.Module:
    """UNet and codec of an ``SDColorer``, whose noise level needs values."""
    from diffusers import UNet2DConditionModel

    from genseg_mm.models.latent_codec import LatentCodec

    colorer = nn.Module()
    colorer.unet = UNet2DConditionModel(**cfg['config']['unet'])
    colorer.codec = LatentCodec({'type': 'diffusers.AutoencoderKL', **cfg['config']['vae']})
    return colorer


def _prompt_network(cfg: dict) -> nn.Module:
    from genseg_mm.models.prompt_encoders.prompt_encoder import keep_layers

    if 'parts' in cfg:
        rows = [row if isinstance(row, (list, tuple)) else [row] for row in cfg['parts']]
        networks = nn.ModuleList(_prompt_network(part) for row in rows for part in row)
        for network, part in zip(networks, (part for row in rows for part in row), strict=True):
            network.own_length = prompt_length(dict(part, keep='all'))
        return networks
    encoder = _replaced(cfg['encoder'], 'model.prompt_encoder.encoder')
    pretrained = 'type' in cfg['encoder']
    with _default_dtype(cfg['encoder']):
        network = MODELS.get(cfg['type']).build(encoder)
    if 'hidden_layer' in cfg:
        keep_layers(getattr(network, 'language_model', network), cfg['hidden_layer'])
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
        return owner.from_config({key: value for key, value in sizes.items() if key[0] != '_'})
    return owner(owner.config_class.from_dict(dict(sizes)))


def _sizes(cfg: dict, path: str) -> dict:
    file = local_file(cfg)
    if file is not None:
        return read_json(file)
    source, subfolder = source_of(cfg)
    part = released_parts(source, path, cfg).get(subfolder)
    if part is None:
        raise _unknown(path, cfg)
    return part.config


def _colorer_sizes(cfg: dict, path: str) -> dict:
    source, _ = source_of(cfg)
    file = local_file(cfg)
    if str(cfg['type']).endswith('MAEColorer'):
        return released_parts(source, path, cfg)[''].config if file is None else read_json(file)
    if file is None:
        read = {name: released_parts(source, path, cfg)[name].config for name in PIPELINE_PARTS}
    else:
        read = {name: read_json(file.parent / name / 'config.json') for name in PIPELINE_PARTS}
    return {part: {k: v for k, v in own.items() if k[0] != '_'} for part, own in read.items()}


def released_parts(source: str, path: str, cfg: dict) -> dict[str, Part]:
    """Parts of a repository whose layout is known."""
    try:
        return layout(source)
    except ValueError as error:
        raise _unknown(path, cfg) from error


def _unknown(path: str, cfg: dict) -> ValueError:
    return ValueError(
        f'{path} ({cfg["type"]}): the sizes of {"/".join(filter(None, source_of(cfg)))} are not known without its '
        'config.json: fetch that file into a folder or the cache (hf download), or add its layout to '
        'genseg_mm/hub_layouts/released'
    )


def count_on_meta(parts: nn.Module, model: dict, size: tuple[int, int]) -> tuple[dict[str, int], list[str]]:
    """FLOPs by phase of parts from :func:`build_on_meta`, and what was left out."""
    images = torch.zeros(1, 3, *size, device='meta')
    with torch.no_grad(), ShapesOnly(), count_flops() as counter:
        meter = PhaseMeter(counter.get_total_flops)
        booked = meter.start_round()
        if not hasattr(parts, 'colorer'):
            left_out = _generate(parts, model, images, meter)
        else:
            left_out = ['what points do with the map']
            _color(parts.colorer, model['colorer'], images, meter)
    return {name: used for name, used in booked.items() if used}, left_out


def _color(colorer: nn.Module, cfg: dict, images: torch.Tensor, meter: PhaseMeter) -> None:
    if not (hasattr(colorer, 'unet') and hasattr(colorer, 'codec')):
        with meter.phase('colorer'):
            colorer(images)
        return
    latents = _encode(colorer.codec, images, meter)
    length = 77 if cfg.get('parity') == 'training' else 2
    text = torch.zeros(1, length, colorer.unet.config.cross_attention_dim, device='meta')
    with meter.phase('denoise'):
        colorer.unet(latents, torch.zeros(1, device='meta'), encoder_hidden_states=text)
    _decode(colorer.codec, latents, meter)


def _encode(codec: nn.Module, images: torch.Tensor, meter: PhaseMeter) -> torch.Tensor:
    # Not its encode(): that turns autocast off, which the meta device does not have.
    with meter.phase('encode'):
        return codec._encode(images)


def _decode(codec: nn.Module, latents: torch.Tensor, meter: PhaseMeter) -> None:
    with meter.phase('decode'):
        codec._decode(latents)


def _generate(parts: nn.Module, model: dict, images: torch.Tensor, meter: PhaseMeter) -> list[str]:
    from genseg_mm.models.prompt_encoders import PromptEmbeddings

    latents = _encode(parts.codec, images, meter)
    length = prompt_length(model['prompt_encoder'])
    with meter.phase('prompt'):
        encode_prompt(parts.prompt_encoder, length, tuple(images.shape[-2:]))
    states = torch.zeros(1, length, parts.backbone.prompt_dims, device='meta')
    there = torch.ones(1, length, dtype=torch.bool, device='cpu')
    prompt = PromptEmbeddings(states, there)
    head = model.get('mask_head') or {}
    for _ in range(head.get('num_steps', 1)):
        with meter.phase('denoise'):
            has_image = torch.tensor([model.get('image_condition', True)], device='cpu')
            parts.backbone(latents, torch.ones(1, device='meta'), prompt, latents, has_image)
    if head.get('through') == 'linear' or 'ProbeMaskHead' in str(head.get('type')):
        return ['the linear layer that reads the mask off the latents']
    _decode(parts.codec, latents, meter)
    return []


def encode_prompt(encoder: nn.Module, length: int, size: tuple[int, int], batch: int = 1) -> None:
    """Runs a text encoder on as many tokens; a Qwen-VL sees the pictures too, whose tokens are among them.

    Args:
        encoder: Network of a prompt encoder, on any device.
        length: Tokens of a prompt.
        size: Height and width of a picture.
        batch: Number of prompts.
    """
    if isinstance(encoder, nn.ModuleList):
        for part in encoder:
            encode_prompt(part, part.own_length, size, batch)
        return
    tensor = next(encoder.parameters())
    device, dtype = tensor.device, tensor.dtype
    if not hasattr(encoder, 'language_model'):
        encoder(input_ids=torch.zeros(batch, length, dtype=torch.long, device=device))
        return
    width = encoder.config.text_config.hidden_size
    encoder.language_model(inputs_embeds=torch.zeros(batch, length, width, device=device, dtype=dtype))
    vision = encoder.config.vision_config
    rows, columns = (side // vision.patch_size for side in size)
    rows, columns = (n // vision.spatial_merge_size * vision.spatial_merge_size for n in (rows, columns))
    values = 3 * vision.temporal_patch_size * vision.patch_size**2
    patches = torch.zeros(batch * rows * columns, values, device=device, dtype=dtype)
    grid_device = 'cpu' if device.type == 'meta' else device
    encoder.visual(patches, grid_thw=torch.tensor([[1, rows, columns]] * batch, device=grid_device))


def training_forward(
    parts: nn.Module, batch: int, size: tuple[int, int], length: int, only_backbone: bool = False
) -> Tensor:
    """The loss of a GenMask batch of masks on random pictures and prompts: both encodings, then the backbone.

    Args:
        parts: From :func:`build_parts`.
        batch: Number of pictures.
        size: Their height and width.
        length: Tokens of a prompt.
        only_backbone: Leaves the codec out.
    """
    from genseg_mm.models.prompt_encoders import PromptEmbeddings

    device = next(parts.backbone.parameters()).device
    on_meta = device.type == 'meta'
    rows, columns = (side // parts.codec.downsample for side in size)
    image = data = torch.randn(batch, parts.backbone.latent_channels, rows, columns, device=device)
    if not only_backbone:
        # On the meta device not its encode(), which turns autocast off: there is none there.
        encode = parts.codec._encode if on_meta else parts.codec.encode
        with torch.no_grad():
            image, data = (encode(torch.rand(batch, 3, *size, device=device) * 2 - 1) for _ in range(2))
    noise = torch.randn_like(data)
    there = torch.ones(batch, length, dtype=torch.bool, device='cpu' if on_meta else device)
    prompt = PromptEmbeddings(torch.randn(batch, length, parts.backbone.prompt_dims, device=device), there)
    sigma = torch.full((batch,), 0.9, device=device)
    noisy = torch.lerp(data, noise, 0.9)
    velocity = parts.backbone(noisy, sigma, prompt, image, there[:, 0])
    return torch.nn.functional.mse_loss(velocity, noise - data)
