"""Released folders: what kind they are, their parts, and errors that say what is wrong with them.

Two formats are published: a Stable Diffusion pipeline of diffusers (``model_index.json`` and one subfolder per
part) and a ``ViTMAEForPreTraining`` of transformers (``config.json`` and its weights). A third is our own, see
:mod:`genseg_mm.models.saved`.
"""

import json
import os
import shutil
import warnings
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from genseg_mm.files import read_json_dict
from genseg_mm.files.hub_files import HUB_ID
from genseg_mm.models.pretrained_parts import load_part, reading, variants_of
from genseg_mm.models.saved.config import SAVED

PIPELINE_PARTS = ('unet', 'vae', 'text_encoder', 'tokenizer', 'scheduler')
# Copies of the weights in other precisions and formats, which nothing here reads.
_LEFT_OUT = ('*.bin', '*.ckpt', '*.msgpack', '*.h5', '*.onnx', '*.fp16.*', '*.non_ema.*')
_ignored = shutil.ignore_patterns(*_LEFT_OUT)
_WEIGHT_FILES = ('.pth', '.pt', '.ckpt', '.safetensors')
PROCESSING_RESOLUTION = 768  # of the released pipeline, where the folder states none
_TOKENIZER_FILES = ({'tokenizer.json'}, {'vocab.json', 'merges.txt'})


def released_kind(source: str) -> str:
    """Tells what a released folder or hub id holds, from one small file.

    Args:
        source: Folder or hub id.

    Returns:
        ``'sd'`` for a Stable Diffusion pipeline, ``'mae'`` for a ViT-MAE, ``'genseg_mm'`` for what
        ``save_pretrained`` of our models wrote.

    Raises:
        FileNotFoundError: If there is no such folder.
        ValueError: If it is none of these.
    """
    if is_hub_id(source):
        # A file in the cache settles it without the hub, which may be out of reach.
        if not _is_cached(source, 'config.json') and _hub_file(source, 'model_index.json'):
            return 'sd'
        file = _hub_file(source, 'config.json')
        config = {} if file is None else read_json_dict(file)
    else:
        folder = Path(os.path.expanduser(source))
        if (folder / 'model_index.json').is_file():
            return 'sd'
        file = folder / 'config.json'
        config = read_json_dict(file) if file.is_file() else {}
    if config.get('model_type') == 'vit_mae':
        return 'mae'
    if config.get('model_type') == SAVED:
        return SAVED
    found = f'a config.json of model_type {config.get("model_type")!r}' if config else 'neither file'
    if not config and not is_hub_id(source):
        names = sorted(path.name for path in Path(os.path.expanduser(source)).iterdir())
        found = f'{", ".join(names[:6])}{", ..." if len(names) > 6 else ""}' if names else 'no file'
    raise ValueError(
        f'{source} is not a released colorer: expected a Stable Diffusion pipeline '
        '(model_index.json), a ViT-MAE (config.json with model_type "vit_mae") or a model that genseg_mm saved, '
        f'but got {found}'
    )


def is_hub_id(source: str) -> bool:
    """Whether a source is a hub id (owner/name, and no such folder here).

    Raises:
        FileNotFoundError: If it is neither a folder nor a hub id.
        ValueError: If it is a file.
    """
    path = Path(os.path.expanduser(source))
    if path.is_dir():
        return False
    if path.is_file():
        hint = (
            '; a checkpoint of a training goes with its config, and tools/model_converters/'
            'gen2seg_to_pretrained.py makes a folder of the two'
            if path.suffix in _WEIGHT_FILES
            else ''
        )
        raise ValueError(f'expected a released folder or hub id, but got the file {source}{hint}')
    if HUB_ID.fullmatch(str(source)) and path.suffix not in _WEIGHT_FILES:
        return True
    raise FileNotFoundError(f'released weights {source}: no such folder, and not a hub id (owner/name) either')


def find_pipeline(source: str) -> Path:
    """The local folder of a Stable Diffusion pipeline, fetched from the hub where need be.

    Of a hub id only the parts needed are fetched, as json and safetensors.

    Raises:
        FileNotFoundError: If the folder or one of its parts does not exist.
        ValueError: If it is not a pipeline, or the hub cannot give it.
    """
    if is_hub_id(source):
        from huggingface_hub import snapshot_download

        if _hub_file(source, 'model_index.json') is None:
            raise ValueError(f'{source} has no model_index.json: not a Stable Diffusion pipeline')
        patterns = [f'{part}/*.{kind}' for part in PIPELINE_PARTS for kind in ('json', 'txt', 'safetensors')]
        with reading(source):
            folder = Path(
                snapshot_download(
                    source, allow_patterns=['model_index.json', *patterns], ignore_patterns=list(_LEFT_OUT)
                )
            )
            if (folder / 'unet').is_dir() and not any((folder / 'unet').glob('*.safetensors')):
                # A repository of half precision only.
                snapshot_download(source, allow_patterns=[f'{part}/*.fp16.*' for part in PIPELINE_PARTS])
    else:
        folder = Path(os.path.expanduser(source)).resolve()
    if not (folder / 'model_index.json').is_file():
        raise FileNotFoundError(f'{folder} has no model_index.json: expected the folder of a Stable Diffusion pipeline')
    read_json_dict(folder / 'model_index.json')
    missing = [part for part in PIPELINE_PARTS if not (folder / part).is_dir()]
    if missing:
        raise FileNotFoundError(
            f'{folder} is not a whole Stable Diffusion pipeline: expected the subfolders '
            f'{", ".join(PIPELINE_PARTS)}, but got no {", ".join(missing)}'
        )
    return folder


def part_from_pretrained(owner: type[nn.Module], folder: str | Path, name: str) -> nn.Module:
    """One diffusers model of a pipeline, from safetensors, in float32.

    Raises:
        FileNotFoundError: If its files are missing.
        ValueError: If they are damaged, or lack weights of the model.
    """
    place = Path(folder) / name
    _check_files(place, 'config.json', '*.safetensors')
    return load_part(owner.from_pretrained, place, use_safetensors=True, torch_dtype=torch.float32)


def empty_prompt(folder: Path) -> Tensor:
    """Embedding of the empty prompt by a pipeline's tokenizer and text encoder, padded to the full length.

    CLIP's text encoder is causal, so the first n rows are the embedding of the prompt padded to n.

    Returns:
        (1, L, D) float32; L is 77 for Stable Diffusion, and the first two rows are the start and end token.

    Raises:
        FileNotFoundError: If files are missing.
        ValueError: If they are damaged or do not belong together.
    """
    from transformers import CLIPTextModel, CLIPTokenizer

    place = folder / 'tokenizer'
    names = {path.name for path in place.iterdir()}
    if not any(needed <= names for needed in _TOKENIZER_FILES):
        # The library would silently make a tokenizer without words.
        raise FileNotFoundError(
            f'{place}: expected vocab.json and merges.txt, or tokenizer.json, but got {sorted(names)}'
        )
    with reading(str(place)):
        tokenizer = CLIPTokenizer.from_pretrained(str(place))
    place = folder / 'text_encoder'
    _check_files(place, 'config.json', '*.safetensors')
    encoder = load_part(CLIPTextModel.from_pretrained, place, use_safetensors=True, dtype=torch.float32)
    length = encoder.config.max_position_embeddings
    ids = tokenizer('', padding='max_length', max_length=length, truncation=True).input_ids
    if tokenizer('').input_ids != ids[:2] or max(ids) >= encoder.config.vocab_size:
        raise ValueError(
            f'{folder}: tokenizer and text encoder do not belong together: expected two tokens (start, end) '
            f'below {encoder.config.vocab_size} for the empty prompt, but got {tokenizer("").input_ids}, '
            f'padded with {ids[-1]}'
        )
    if next(encoder.parameters()).is_meta:  # another process has the values
        return torch.zeros(1, length, encoder.config.hidden_size)
    with torch.no_grad():
        return encoder.eval()(input_ids=torch.tensor([ids])).last_hidden_state  # (1, L, D)


def read_scheduler(folder: Path) -> dict[str, Any]:
    """Settings of a pipeline's scheduler."""
    place = folder / 'scheduler'
    _check_files(place, 'scheduler_config.json')
    return read_json_dict(place / 'scheduler_config.json')


def default_processing_resolution(folder: Path) -> int:
    """The longer side that a pipeline brings pictures to, from its ``model_index.json``; 0: it takes them as they are.

    Raises:
        ValueError: If the file states no number of pixels.
    """
    file = folder / 'model_index.json'
    key = 'default_processing_resolution'
    size = read_json_dict(file).get(key)
    if size is None:
        return PROCESSING_RESOLUTION
    if not isinstance(size, int) or isinstance(size, bool) or size < 0:
        raise ValueError(f'{file}: {key} must be the longer side in pixels, or 0, but got {size!r}')
    return size


def read_preprocessor(source: str) -> dict[str, Any]:
    """What the ``preprocessor_config.json`` of a ViT-MAE says; nothing where there is none.

    Args:
        source: Folder or hub id.

    Returns:
        Of ``mean`` and ``std`` (three numbers, of RGB in [0, 1]) and ``size`` (side of the square) those it states.

    Raises:
        ValueError: If the file is damaged, or states something else.
    """
    name = 'preprocessor_config.json'
    if is_hub_id(source):
        try:
            file = _hub_file(source, name)
        except ValueError as error:
            if not _is_cached(source, 'config.json'):
                raise
            # An older copy in the cache, without this file, and no hub to ask.
            warnings.warn(f"{error}; meanwhile ImageNet's mean and std and the model's own size are used", stacklevel=2)
            return {}
    else:
        file = Path(os.path.expanduser(source)) / name
    if file is None or not file.is_file():
        return {}
    settings, found = read_json_dict(file), {}
    if not settings.get('do_normalize', True):
        settings.update(image_mean=[0.0] * 3, image_std=[1.0] * 3)
    for key in ('mean', 'std'):
        value = settings.get(f'image_{key}')
        if value is None:
            continue
        numbers = value if isinstance(value, list) else [value] * 3
        good = all(isinstance(own, int | float) and not isinstance(own, bool) for own in numbers)
        if len(numbers) != 3 or not good or (key == 'std' and min(numbers) <= 0):
            raise ValueError(
                f'{file}: image_{key} must be three numbers{" above 0" * (key == "std")}, but got {value!r}'
            )
        found[key] = tuple(map(float, numbers))
    size = settings.get('size') if settings.get('do_resize', True) else None
    if isinstance(size, dict):
        sides = {size.get('height', size.get('shortest_edge')), size.get('width', size.get('shortest_edge'))}
        size = sides.pop() if len(sides) == 1 else size
    if size is not None:
        if not isinstance(size, int) or isinstance(size, bool) or size < 1:
            raise ValueError(f'{file}: size must be the side of a square in pixels, but got {settings["size"]!r}')
        found['size'] = size
    scale = settings.get('rescale_factor', 1 / 255)
    if not isinstance(scale, int | float) or abs(scale * 255 - 1) > 1e-3:
        raise ValueError(f'{file}: rescale_factor must be 1/255, but got {scale!r}')
    return found


def copy_frozen_parts(source: Path, target: Path) -> None:
    """Copies all of a pipeline but its UNet, file by file.

    Parts beside the five that a colorer needs (a safety checker, say) are left out and taken from
    ``model_index.json``, so that ``StableDiffusionPipeline.from_pretrained`` opens the copy.

    Raises:
        FileNotFoundError: If the source is gone or not whole any more.
        ValueError: If source and target are the same folder.
    """
    if source.resolve() == target.resolve():
        raise ValueError(f'{target} is the folder that the frozen parts come from; choose another')
    source = find_pipeline(str(source))
    for part in PIPELINE_PARTS[1:]:
        shutil.copytree(
            source / part,
            target / part,
            dirs_exist_ok=True,
            ignore=_ignored if part == 'tokenizer' or None in variants_of(source / part) else None,
        )
        _drop_variant(target / part)
    index = read_json_dict(source / 'model_index.json')
    for key, value in index.items():
        if isinstance(value, list) and key not in PIPELINE_PARTS:
            index[key] = [None, None]
    if 'safety_checker' in index:
        index['requires_safety_checker'] = False
    (target / 'model_index.json').write_text(json.dumps(index, indent=2) + '\n')


def _drop_variant(place: Path) -> None:
    """Names weights of a single variant as the plain ones, which need no word to be opened."""
    found = variants_of(place)
    if None in found or len(found) != 1 or len(own := next(iter(found.values()))) != 1:
        return
    (variant,) = found
    own[0].rename(own[0].with_name(own[0].name.replace(f'.{variant}.', '.')))


def find_mae(source: str) -> str:
    """The folder or hub id of a ViT-MAE, for transformers to read.

    Raises:
        FileNotFoundError: If there is no such folder, or it lacks a file.
        ValueError: If it holds something else.
    """
    if is_hub_id(source):
        return source  # transformers tells for itself what it fetches
    place = Path(os.path.expanduser(source))
    _check_files(place, 'config.json')
    if not variants_of(place):
        raise FileNotFoundError(f'{place} has no weights: expected model.safetensors')
    if (kind := read_json_dict(place / 'config.json').get('model_type')) != 'vit_mae':
        raise ValueError(f"{place} is not a ViT-MAE: expected model_type 'vit_mae', but got {kind!r}")
    return str(place)


def _hub_file(source: str, name: str) -> Path | None:
    """One file of a hub id, or None if the repository does not have it."""
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError

    try:
        return Path(hf_hub_download(source, name))
    except LocalEntryNotFoundError as error:
        raise ValueError(
            f'{source}: no such folder here, and the hub could not be asked for {name} '
            f'({str(error).splitlines()[0]}); give a downloaded folder, or check the connection'
        ) from error
    except EntryNotFoundError:
        return None
    except (OSError, ValueError) as error:  # no such repository, no permission, no connection
        text = ' '.join(str(error).split())[:300]
        raise ValueError(f'{source}: no such folder here, and the hub did not give {name}: {text}') from error


def _is_cached(source: str, name: str) -> bool:
    from huggingface_hub import try_to_load_from_cache

    return isinstance(try_to_load_from_cache(source, name), str)


def _check_files(place: Path, *patterns: str) -> None:
    for pattern in patterns:
        if not any(place.glob(pattern)):
            names = sorted(path.name for path in place.iterdir()) if place.is_dir() else 'no folder'
            raise FileNotFoundError(f'{place}: expected {pattern}, but got {names}')
