"""The config of a saved model as JSON: written with the local files that it names, and read without trusting it.

MMEngine builds whatever a ``type`` names, any function of any module among it. A saved folder comes from outside, so
that only classes count that are registered here, are layers of mmseg and mmdet, or models of diffusers and
transformers; and no value may name a file, or an address, but where parts come from.
"""

import inspect
import json
import math
import os
import re
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path, PurePosixPath
from typing import Any

import torch
from torch import nn

from genseg_mm.models.latent_codec import SHIPPED_WEIGHTS
from genseg_mm.models.pretrained_parts import LIBRARIES
from genseg_mm.registry import MODELS, TASK_UTILS, TRANSFORMS

SAVED = 'genseg_mm'  # model_type in a saved model's config.json
PARTS = 'parts'  # folder of the files and folders that a config names
# Keys whose values are files or folders, or hub ids.
SOURCES = (
    'pretrained_model_name_or_path', 'pretrained', 'tokenizer', 'processor', 'weights', 'prompt_embedding',
)  # fmt: skip
# Of from_pretrained and of tokenizers: settings that fetch or run code, or read pickles.
FORBIDDEN = (
    'trust_remote_code', 'custom_pipeline', 'weights_only', 'attn_implementation', 'experts_implementation',
    'use_kernels', 'init_cfg', 'cache_dir', 'proxies', 'token', 'code_revision', 'gguf_file', 'disable_mmap',
    'quantization_config', 'device_map', 'use_safetensors',
)  # fmt: skip
OTHERS = ('mmseg', 'mmdet')  # whose networks a colorer may be made of
# Below `models`: of what else is registered there some evaluates texts, or opens configs and pickles by their names.
_NETWORKS = (
    'backbones', 'data_preprocessor', 'data_preprocessors', 'decode_heads', 'layers', 'losses', 'necks', 'segmentors',
)  # fmt: skip
_FETCHING = ('VPD', 'TIMMBackbone')  # weights, when they are built
_PICKLED = ('.bin', '.pt', '.pth', '.ckpt', '.pkl', '.pickle', '.npy', '.npz', '.py')  # or code
_LEFT_OUT = shutil.ignore_patterns('*.bin', '*.pt', '*.pth', '*.ckpt', '*.msgpack', '*.h5', '*.onnx', '.*', '*.py')
_RANKS = 64  # nested deeper than any config is


def plain_config(value: Any, where: str, scope: str) -> Any:
    """A config in JSON's types, with the scopes of its types.

    Args:
        value: What a model was built with.
        where: Its key, for messages.
        scope: In which types without one were found.

    Raises:
        ValueError: If something in it cannot be written; with the key.
    """
    if isinstance(value, Mapping):
        plain = {}
        for key, own in value.items():
            if not isinstance(key, str):
                raise ValueError(f'{where}: expected keys that are strings, but got {key!r}')
            if key in ('_scope_', 'init_cfg'):  # the weights are in the folder
                continue
            plain[key] = (
                type_name(own, f'{where}.{key}', scope)
                if key == 'type' and is_type(own, scope)
                else plain_config(own, f'{where}.{key}', scope)
            )
        return plain
    if isinstance(value, (list, tuple)):
        return [plain_config(own, f'{where}[{place}]', scope) for place, own in enumerate(value)]
    if isinstance(value, torch.dtype):
        return str(value).removeprefix('torch.')
    if isinstance(value, Path):
        return str(value)
    if value is None or isinstance(value, (str, bool, int)):
        return value
    if isinstance(value, float) and math.isfinite(value):
        return value
    if isinstance(value, nn.Module):
        raise ValueError(
            f'{where}: expected the config of a part, from which it can be built again, but got a built '
            f'{type(value).__name__}'
        )
    raise ValueError(f'{where}: expected what JSON can hold, but got {type(value).__name__} {value!r:.60}')


def is_type(value: Any, scope: str) -> bool:
    """Whether a value of the key ``type`` means a class; settings of libraries may be called so, too."""
    return not isinstance(value, str) or '.' in value or _found(value, scope) is not None


def type_name(kind: Any, where: str, scope: str) -> str:
    """Name of a type with its scope: ``genseg_mm.GenMask``, ``diffusers.AutoencoderKL.from_pretrained``.

    Raises:
        ValueError: If it is neither registered nor of diffusers or transformers.
    """
    if isinstance(kind, str):
        if '.' in kind:
            return kind
        return f'{_found(kind, scope)}.{kind}'
    owner = getattr(kind, '__self__', None)
    if inspect.ismethod(kind) and inspect.isclass(owner) and kind.__name__ == 'from_pretrained':
        return f'{owner.__module__.partition(".")[0]}.{owner.__name__}.from_pretrained'
    library = getattr(kind, '__module__', '').partition('.')[0]
    name = getattr(kind, '__name__', '')
    if inspect.isclass(kind) and (library in LIBRARIES or _found(name, library) == library):
        return f'{library}.{name}'
    raise ValueError(f'{where}: expected the name of a registered class, or a class, but got {kind!r:.80}')


def _registries(scope: str) -> list[Any]:
    if scope == 'genseg_mm':
        return [MODELS, TASK_UTILS, TRANSFORMS]
    if scope in OTHERS:
        import importlib

        registry = importlib.import_module(f'{scope}.registry')
        return [registry.MODELS, registry.TASK_UTILS]
    return []


def _found(name: str, scope: str) -> str | None:
    """The scope that a name without one is registered in: the one given, else ours."""
    for own in dict.fromkeys((scope, 'genseg_mm')):
        for registry in _registries(own):
            registry.import_from_location()
            if name in registry.module_dict:
                return own
    return None


def check_config(config: Any, where: str, rank: int = 0) -> None:
    """Refuses a config from outside that names anything but classes which may be built.

    Args:
        config: JSON's types.
        where: Its key, for messages.
        rank: How deep it stands.

    Raises:
        ValueError: If it does; with the key.
    """
    if rank > _RANKS:
        raise ValueError(f'{where}: expected a config, but it is nested deeper than {_RANKS}')
    if isinstance(config, list):
        for place, own in enumerate(config):
            check_config(own, f'{where}[{place}]', rank + 1)
    if isinstance(config, str):
        _check_text(config, where)
    if not isinstance(config, dict):
        return
    for key, own in config.items():
        if key in FORBIDDEN or key == '_scope_':
            raise ValueError(f'{where}.{key}: a saved model may not set this')
        if key == 'type':
            _check_type(own, f'{where}.type')
        elif key not in SOURCES or not isinstance(own, str):  # those are for `from_parts`
            check_config(own, f'{where}.{key}', rank + 1)


def _check_text(text: str, where: str) -> None:
    """Refuses the name of a file: what takes one where no part comes from may read a pickle, or run a config."""
    path = PurePosixPath(text)
    try:
        names_file = path.is_absolute() or '..' in path.parts or Path(text).is_file()
    except (OSError, ValueError):  # longer than any name, or no name
        names_file = False
    if names_file or text.startswith('~') or '://' in text:
        raise ValueError(f'{where}: a saved model may name no file or address here, but got {text!r:.80}')


def _check_type(kind: Any, where: str) -> None:
    expected = (
        f'expected a class registered in genseg_mm, a network of {" or ".join(OTHERS)}, or a model of '
        f'{" or ".join(LIBRARIES)}'
    )
    if not isinstance(kind, str):
        raise ValueError(f'{where}: {expected}, but got {type(kind).__name__}')
    library, dot, name = kind.partition('.')
    if not dot:  # no class: what libraries call a type, such as a kind of scaling
        if _found(kind, 'genseg_mm') is not None or not re.fullmatch(r'[a-z_\d]{1,40}', kind):
            raise ValueError(f'{where}: {expected}, with its scope, but got {kind!r:.80}')
        return
    if library in LIBRARIES:
        import importlib

        name = name.removesuffix('.from_pretrained')
        owner = getattr(importlib.import_module(library), name, None) if name.isidentifier() else None
        is_auto = library == 'transformers' and re.fullmatch(r'AutoModel\w*', name) is not None
        if owner is None or not (is_auto or (inspect.isclass(owner) and issubclass(owner, nn.Module))):
            raise ValueError(f'{where}: {expected}, but got {kind!r:.80}')
        return
    for registry in _registries(library):
        registry.import_from_location()
        if library == 'genseg_mm' and name in registry.module_dict:
            return
        if library in OTHERS and _is_network(registry.module_dict.get(name), library):
            return
    hint = '; import the module that registers it first' if library == 'genseg_mm' else ''
    raise ValueError(f'{where}: {expected}, but got {kind!r:.80}{hint}')


def _is_network(owner: Any, library: str) -> bool:
    if not inspect.isclass(owner) or not issubclass(owner, nn.Module) or owner.__name__ in _FETCHING:
        return False
    return owner.__module__.split('.')[:2] == [library, 'models'] and owner.__module__.split('.')[2] in _NETWORKS


def walk_sources(config: Any, change: Callable[[str, dict], str]) -> Any:
    """A copy of a config whose files, folders and hub ids are what ``change(value, dict it stands in)`` gives."""
    if isinstance(config, list):
        return [walk_sources(own, change) for own in config]
    if not isinstance(config, dict):
        return config
    return {
        key: change(own, config) if key in SOURCES and isinstance(own, str) else walk_sources(own, change)
        for key, own in config.items()
    }


def with_parts(config: dict[str, Any], folder: Path) -> tuple[dict[str, Any], list[str]]:
    """Copies the local files and folders that a config names into ``folder/parts``.

    Args:
        config: As :func:`plain_config` gives it.
        folder: Of the saved model.

    Returns:
        The config with paths relative to the folder, and what it still asks for elsewhere: hub ids, packages.
    """
    taken: dict[Path, str] = {}
    elsewhere: list[str] = []

    def change(value: str, owner: dict) -> str:
        place = Path(os.path.expanduser(value))
        if not place.exists() and place.name == value and (SHIPPED_WEIGHTS / value).is_file():
            place = SHIPPED_WEIGHTS / value
        if not place.exists():
            if '/' in value or ':' in value:
                elsewhere.append(value)
            return value
        place = place.resolve()
        if place not in taken:
            names = {PurePosixPath(own).name for own in taken.values()}
            name = next(own for number in range(len(names) + 1) if (own := _numbered(place.name, number)) not in names)
            taken[place] = f'{PARTS}/{name}'
        target = folder / taken[place]
        if place.is_file():
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(place, target)
            return taken[place]
        settings = owner.get('tokenizer_kwargs') if value == owner.get('tokenizer') else owner
        inside = (settings or {}).get('subfolder') or ''
        shutil.copytree(place / inside, target / inside, dirs_exist_ok=True, ignore=_LEFT_OUT)
        return taken[place]

    return walk_sources(config, change), list(dict.fromkeys(elsewhere))


def _numbered(name: str, number: int) -> str:
    stem, dot, ending = name.partition('.')
    return f'{stem}_{number}{dot}{ending}' if number else name


def from_parts(config: dict[str, Any], folder: Path) -> dict[str, Any]:
    """A checked config whose relative paths are those of the folder that it came in.

    Raises:
        FileNotFoundError: If it names a file of the folder that is not there.
        ValueError: If it names a file elsewhere on this machine.
    """

    def change(value: str, owner: dict) -> str:
        path = PurePosixPath(value)
        if path.parts[:1] == (PARTS,):
            place = folder.joinpath(*path.parts)
            if '..' in path.parts:
                raise ValueError(f'{folder}: expected paths below {PARTS}/, but got {value!r:.80}')
            if not place.exists():
                raise FileNotFoundError(f'{folder}: its config names {value}, which is not there; fetch it again')
            for own in [place, *place.rglob('*')] if place.is_dir() else [place]:
                if own.suffix.lower() in _PICKLED:
                    raise ValueError(f'{own}: a saved model holds safetensors and JSON, no pickles and no code')
            return str(place)
        if path.is_absolute() or '..' in path.parts or value[:1] == '~' or '://' in value or Path(value).exists():
            raise ValueError(
                f'{folder}: a saved model may name files below {PARTS}/, hub ids and packages, but got {value!r:.80}'
            )
        return value

    return walk_sources(config, change)


def as_json(config: dict[str, Any]) -> str:
    """The text of ``config.json``."""
    return json.dumps(config, indent=2, ensure_ascii=False, allow_nan=False) + '\n'
