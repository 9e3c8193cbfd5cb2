"""Pretrained parts of diffusers and transformers: whole, or an error that names the folder and the tensor; frozen ones.

Both libraries draw at random, or leave out, what a folder lacks or has too much of. All parts that are built from a
folder or hub id pass here, whatever the family.
"""

import logging
import os
import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import ContextVar
from functools import partial
from pathlib import Path
from pickle import UnpicklingError
from reprlib import repr as short_repr
from typing import Any

import torch
from huggingface_hub import is_offline_mode
from mmengine.logging import print_log
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from genseg_mm.files import read_json_dict
from genseg_mm.registry import MODELS

LIBRARIES = ('diffusers', 'transformers')
_WEIGHTS = re.compile(
    r'(?:diffusion_pytorch_model|pytorch_model|model)'
    r'(?:\.(?P<variant>[A-Za-z]\w*))?(?:-\d{5}-of-\d{5})?\.(?:safetensors|bin)'
)
# Saved by older versions of the libraries, and computed by today's.
_COMPUTED = ('position_ids', 'attn.masked_bias', 'rotary_emb.inv_freq')
# What the libraries raise for damaged files, and for configs with missing or odd values.
_UNREADABLE = (
    SafetensorError,
    UnpicklingError,
    OSError,
    ValueError,
    RuntimeError,
    KeyError,
    TypeError,
    AttributeError,
    EOFError,
)


def build_part(config: dict) -> nn.Module:
    """Builds a part of a model from its config; a pretrained one of diffusers or transformers has to be whole.

    Args:
        config: With a ``type``, such as ``'diffusers.AutoencoderKL.from_pretrained'``; its other keys are arguments,
            e.g. ``variant='fp16'``.

    Raises:
        FileNotFoundError: If a local folder has no weights.
        ValueError: If the folder is damaged, or its tensors are not those of the model.
    """
    loader = config['type']
    if isinstance(loader, str) and loader.startswith(LIBRARIES):
        loader = MODELS.get(loader)
    owner = getattr(loader, '__self__', None)
    is_library = getattr(owner, '__module__', '').startswith(LIBRARIES)
    if not is_library or loader.__name__ != 'from_pretrained':
        return _on_device(MODELS.build(config), str(config['type']))
    arguments = {key: value for key, value in config.items() if key not in ('type', '_scope_')}
    source = arguments.pop('pretrained_model_name_or_path', None)
    if source is None:
        raise ValueError(
            f'{config["type"]} needs pretrained_model_name_or_path=FOLDER or hub id, but got {sorted(arguments)}'
        )
    return load_part(loader, source, **arguments)


def load_part(loader: Callable, source: str | Path, **arguments: Any) -> nn.Module:
    """A model of diffusers or transformers from a folder or hub id, all of whose tensors have to be there and to fit.

    A local folder that has weights of one variant only (``*.fp16.safetensors``) is taken as such.

    Args:
        loader: ``from_pretrained`` of its class.
        source: Folder or hub id.
        arguments: Of the loader.

    Raises:
        FileNotFoundError: If a local folder has no weights.
        ValueError: If something is damaged, missing, left over or of another shape; with the place and the key.
    """
    if loader.__self__.__module__.startswith('transformers'):
        arguments.setdefault('trust_remote_code', False)  # else it asks on a terminal whether to run a folder's code
    place = check_subfolder(source, arguments.get('subfolder'))
    name = str(place) if place.is_dir() else '/'.join(filter(None, (str(source), arguments.get('subfolder'))))
    if place.is_dir():
        _check_settings(place, loader.__self__)
        arguments['variant'] = _variant(place, arguments.get('variant'))
        source = str(Path(os.path.expanduser(source)))
    arguments = {key: value for key, value in arguments.items() if (key, value) != ('variant', None)}
    if _without_values.get():
        with reading(name), _quiet():
            return _untrained(loader.__self__, str(source), arguments)
    if loader.__self__.__module__.startswith('transformers'):
        # Told by key below; the library's own error leaves the keys to a table in the log.
        arguments['ignore_mismatched_sizes'] = True
    if not place.is_dir() and is_offline_mode():
        # diffusers asks the hub about sharded weights even so, although all of them are in the cache.
        arguments['local_files_only'] = True
    with reading(name), _quiet():
        module, report = loader(str(source), output_loading_info=True, **arguments)
    _check_report(name, report)
    return _on_device(module, name)


def check_subfolder(source: str | Path, subfolder: str | None) -> Path:
    """The place of a part in a local folder; in a folder that is there its subfolder has to be there, too.

    Raises:
        FileNotFoundError: If it is not, with what the folder has.
    """
    folder = Path(os.path.expanduser(source))
    place = folder / (subfolder or '')
    if folder.is_dir() and not place.is_dir():
        names = sorted(path.name for path in folder.iterdir())
        raise FileNotFoundError(f'{folder}: expected a subfolder {subfolder!r}, but got {names[:12]}')
    return place


@contextmanager
def reading(place: str) -> Iterator[None]:
    """Turns what the libraries raise for damaged or missing files into a ValueError with the place."""
    try:
        yield
    except _UNREADABLE as error:
        if isinstance(error, torch.OutOfMemoryError):
            raise
        kind = 'truncated or damaged' if 'safetensor' in repr(error).lower() else 'unreadable'
        text = ' '.join(str(error).split())[:300]
        raise ValueError(f'{place} is {kind}: {type(error).__name__}: {text}') from error


def variants_of(place: Path) -> dict[str | None, list[Path]]:
    """Files of weights in a folder by their variant; None is the plain one."""
    found: dict[str | None, list[Path]] = {}
    for path in sorted(place.iterdir()):
        match = _WEIGHTS.fullmatch(path.name)
        if match is not None:
            found.setdefault(match['variant'], []).append(path)
    return found


def _variant(place: Path, asked: str | None) -> str | None:
    """The variant to load: the one asked for, the plain one, or the only one there is."""
    found = variants_of(place)
    if not found:
        names = sorted(path.name for path in place.iterdir())
        raise FileNotFoundError(f'{place}: expected weights (*.safetensors or *.bin), but got {names[:6]}')
    known = sorted(filter(None, found))
    if asked is not None and asked not in found:
        raise FileNotFoundError(f'{place}: no weights of variant={asked!r}, but of {known or "none"}')
    chosen = asked
    if asked is None and None not in found:
        if len(known) > 1:
            raise ValueError(f'{place} has weights of several variants: set variant to one of {known}')
        chosen = known[0]
        print_log(f'{place}: taking its only weights, variant={chosen!r}', 'current', logging.INFO)
    for path in found[chosen]:
        if path.suffix == '.safetensors':
            _check_whole(path)
    return chosen


def _check_settings(place: Path, owner: type) -> None:
    """Refuses a folder whose own files do not say what it is, or name files that are not in it.

    Without its config transformers would make the largest model of a family, at random, before it says what is missing.
    """
    path = place / 'config.json'
    if not path.is_file():
        names = sorted(own.name for own in place.iterdir())
        raise FileNotFoundError(f'{place}: expected config.json, but got {names[:6]}')
    config = read_json_dict(path)
    known = getattr(getattr(owner, 'config_class', None), 'model_type', '')
    found = config.get('model_type')
    # A text encoder opens the folder of all of CLIP, and T5's those of its multilingual kin.
    if known and not (isinstance(found, str) and found and (known in found or found in known)):
        raise ValueError(f'{path}: expected model_type {known!r} of {owner.__name__}, but got {found!r}')
    for path in sorted(place.glob('*.index*.json')):
        shards = read_json_dict(path).get('weight_map')
        names = set(map(str, shards.values())) if isinstance(shards, dict) else set()
        if not names:
            raise ValueError(f'{path}: expected a weight_map of keys to files, but got {short_repr(shards)}')
        for name in sorted(names):
            if Path(name).name != name or not (place / name).is_file():
                raise ValueError(
                    f'{path}: expected files beside it, but {short_repr(name)} is none; fetch the folder again'
                )


def _check_whole(path: Path) -> None:
    try:
        with safe_open(path, 'pt'):
            pass
    except (SafetensorError, OSError) as error:
        raise ValueError(
            f'{path} is truncated or damaged ({path.stat().st_size} bytes): {error}; fetch it again'
        ) from error


@contextmanager
def _quiet() -> Iterator[None]:
    """Holds back the libraries' tables of keys and names of layers: what they warn of is an error here."""
    loggers = [logging.getLogger(name) for name in ('transformers', 'diffusers')]
    levels = [own.level for own in loggers]
    for own in loggers:
        own.setLevel(logging.ERROR)
    try:
        yield
    finally:
        for own, level in zip(loggers, levels, strict=True):
            own.setLevel(level)


def _check_report(name: str, report: dict[str, Any]) -> None:
    """Refuses a model that is not what its folder says, by the library's own account of loading it."""
    keys = {
        'lacks weights of': _keys(report, 'missing_keys'),
        'has weights that the model of its config.json does not have,': _keys(report, 'unexpected_keys'),
        'has weights of other shapes than the model of its config.json,': _keys(report, 'mismatched_keys'),
    }
    problems = [f'{text} {len(own)} keys such as {own[0]}' for text, own in keys.items() if own]
    problems += [str(error) for error in report.get('error_msgs') or ()][:1]
    left = sorted(map(str, set(report.get('unexpected_keys') or ()) - set(_keys(report, 'unexpected_keys'))))
    if left:
        print_log(f'{name}: {len(left)} tensors of the files are not used, such as {left[0]}', 'current')
    if problems:
        raise ValueError(f'{name} {" and ".join(" ".join(own.split()) for own in problems)}; is it whole?')


def _keys(report: dict[str, Any], kind: str) -> list[str]:
    keys = []
    for key in report.get(kind) or ():
        if isinstance(key, (tuple, list)):  # with its shapes in the file and in the model
            shapes = [f'{tuple(shape)}' for shape in key[1:3]]
            key = f'{key[0]} ({" in place of ".join(shapes)})'
        # A model without its head (transformers.AutoModel) opens the folder of one with it.
        is_head = kind == 'unexpected_keys' and str(key).startswith('lm_head.')
        if not is_head and not str(key).endswith(_COMPUTED):
            keys.append(str(key))
    return sorted(keys)


def _on_device(module: nn.Module, name: str) -> nn.Module:
    if torch.empty(0).is_meta or _without_values.get():  # where only shapes are asked for
        return module
    empty = [key for key, value in module.state_dict().items() if value.is_meta]
    if empty:
        raise ValueError(f'{name} lacks weights of {len(empty)} keys such as {empty[0]}; is it whole?')
    return module


# Parts without values

_without_values: ContextVar[bool] = ContextVar('without_values', default=False)
# What from_pretrained takes that says nothing of the architecture.
_OF_LOADING = (
    'torch_dtype', 'dtype', 'variant', 'use_safetensors', 'low_cpu_mem_usage', 'device_map', 'max_memory',
    'offload_folder', 'weights_only', 'ignore_mismatched_sizes', 'output_loading_info', 'disable_mmap',
)  # fmt: skip


@contextmanager
def without_values() -> Iterator[None]:
    """What is built in here has its parameters on the meta device, and reads no weights from released folders.

    For processes that get the values from another one. Buffers have their values.
    """
    register = nn.Module.register_parameter

    def register_on_meta(module: nn.Module, name: str, param: nn.Parameter | None) -> None:
        register(module, name, param)
        if param is not None and not param.is_meta:
            module._parameters[name] = nn.Parameter(param.data.to('meta'), requires_grad=param.requires_grad)

    token = _without_values.set(True)
    nn.Module.register_parameter = register_on_meta
    try:
        yield
    finally:
        nn.Module.register_parameter = register
        _without_values.reset(token)


def _untrained(owner: type, source: str, arguments: dict[str, Any]) -> nn.Module:
    """The model of a released folder's config, as ``from_pretrained`` builds it before it reads weights."""
    asked = arguments.get('torch_dtype') or arguments.get('dtype')
    dtype = getattr(torch, asked.removeprefix('torch.')) if isinstance(asked, str) and asked != 'auto' else asked
    arguments = {key: value for key, value in arguments.items() if key not in _OF_LOADING}
    if owner.__module__.startswith('diffusers'):
        config, rest = owner.load_config(source, return_unused_kwargs=True, **arguments)
        return owner.from_config(config, **rest).to(dtype or torch.float32).eval()
    from transformers import AutoConfig

    # AutoModel and its kin have no class of config.
    configs = getattr(owner, 'config_class', None) or AutoConfig
    config, rest = configs.from_pretrained(source, return_unused_kwargs=True, **arguments)
    build = owner.from_config if hasattr(owner, 'from_config') else owner._from_config
    kept = getattr(config, 'dtype', None) if dtype in (None, 'auto') else dtype
    return build(config, **rest).to(kept or torch.float32).eval()


# Frozen parts


def freeze(module: nn.Module, has_source: bool) -> nn.Module:
    """Freezes a pretrained part in place.

    Args:
        module: Part to freeze; its parameters stop requiring gradients and it goes to eval mode (its owner keeps it
            there, see :class:`FrozenPartsMixin`).
        has_source: Whether the part is built again from its own source (a released folder or hub id). Then it is left
            out of checkpoints, and loading one keeps the values it was built with.

    Returns:
        The same module.
    """
    module.requires_grad_(False).eval()
    if has_source:
        leave_out_of_checkpoints(module)
    return module


def leave_out_of_checkpoints(part: nn.Module, names: Iterable[str] | None = None) -> None:
    """Leaves tensors of a part out of its owner's checkpoints; loading one keeps the values that they have.

    The part's own ``state_dict``, such as ``save_pretrained`` asks for, stays whole.

    Args:
        part: Module.
        names: Of its parameters and buffers; all by default.
    """
    chosen = None if names is None else frozenset(names)
    part._register_state_dict_hook(partial(_drop_state, chosen))
    part.register_load_state_dict_pre_hook(partial(_keep_state, chosen))


def _drop_state(
    names: frozenset[str] | None, part: nn.Module, state_dict: dict[str, Tensor], prefix: str, *_: object
) -> None:
    if prefix:
        for key in [key for key in state_dict if key.startswith(prefix)]:
            if names is None or key.removeprefix(prefix) in names:
                del state_dict[key]


def _keep_state(
    names: frozenset[str] | None, part: nn.Module, state_dict: dict[str, Tensor], prefix: str, *_: object
) -> None:
    for child_name, child in part.named_modules():
        child_prefix = f'{child_name}.' if child_name else ''
        own = dict(child.named_parameters(recurse=False))
        own |= {
            name: buffer
            for name, buffer in child.named_buffers(recurse=False)
            if name not in child._non_persistent_buffers_set
        }
        for name, value in own.items():
            if names is None or f'{child_prefix}{name}' in names:
                state_dict.setdefault(f'{prefix}{child_prefix}{name}', value)


@contextmanager
def frozen_pass(device: torch.device) -> Iterator[None]:
    """Runs a frozen part without a graph, in the precision that it was loaded in.

    Autocast is off, so that training sees the very encodings of a cache and of evaluation.

    Args:
        device: That the part is on.
    """
    with torch.no_grad(), without_autocast(device):
        yield


def without_autocast(device: torch.device) -> AbstractContextManager:
    """Runs what is inside in its own precision; the meta device has no autocast to leave."""
    return nullcontext() if device.type == 'meta' else torch.autocast(device.type, enabled=False)


class FrozenPartsMixin:
    """Keeps the parts named in ``frozen_parts`` in eval mode whatever mode the owner is in.

    Where a training never asks for them, since all that they would give comes from a cache, they can wait in the
    memory of the host (:meth:`wait_on_host`). Wherever the owner is moved meanwhile, they follow when they are asked
    for (:meth:`fetch_frozen_parts`, which the owner calls before it runs them) and leave again when training goes on.
    """

    frozen_parts: tuple[str, ...] = ()
    _waits = False
    _home: torch.device | None = None  # where parts that are in the memory of the host belong; None: they are there

    def train(self, mode: bool = True) -> 'FrozenPartsMixin':
        super().train(mode)
        for name in self.frozen_parts:
            getattr(self, name).eval()
        if mode and self._waits:
            self._leave()
        return self

    def wait_on_host(self) -> list[nn.Module]:
        """Has the frozen parts wait in the memory of the host whenever the owner is trained; the parts."""
        parts = [getattr(self, name) for name in self.frozen_parts]
        if parts:
            self._waits = True
            self._leave()
        return parts

    def fetch_frozen_parts(self) -> None:
        """Moves frozen parts that wait elsewhere to where the owner is.

        Asked for in the middle of training they stay: moving them back and forth at every step would take longer.
        """
        if self._home is None:
            return
        home, self._home = self._home, None
        if self.training:
            self._waits = False
            print_log(
                f'{type(self).__name__} was to wait in the memory of the host and is asked for in training: it stays '
                f'on {home}',
                'current',
                logging.WARNING,
            )
        for name in self.frozen_parts:
            getattr(self, name).to(home)

    def _leave(self) -> None:
        if self._home is not None:
            return
        parts = [getattr(self, name) for name in self.frozen_parts]
        tensors = (own for part in parts for own in (*part.parameters(), *part.buffers()))
        self._home = next((own.device for own in tensors), torch.device('cpu'))
        for part in parts:
            part.to('cpu')
        if self._home.type == 'cuda':
            torch.cuda.empty_cache()  # torch would keep the memory for itself, in pieces of their sizes

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> 'FrozenPartsMixin':
        """What ``to``, ``cuda``, ``half`` and the like call; parts that wait take a new precision, but stay."""
        if self._home is None:
            return super()._apply(fn, recurse)

        def stay(tensor: Tensor) -> Tensor:
            moved = fn(tensor.new_empty(0, device=self._home))
            self._home = moved.device
            return tensor.to(moved.dtype)

        modules = self._modules
        self._modules = {name: own for name, own in modules.items() if name not in self.frozen_parts}
        try:
            super()._apply(fn, recurse)
        finally:
            self._modules = modules
        for name in self.frozen_parts:
            modules[name]._apply(stay)
        return self


def is_pretrained_config(config: dict | nn.Module) -> bool:
    """Whether a part's config builds it from a released folder, file or hub id."""
    if isinstance(config, nn.Module):
        return False
    kind = config['type']
    name = kind if isinstance(kind, str) else getattr(kind, '__qualname__', '')
    return name.endswith(('from_pretrained', 'from_single_file'))
