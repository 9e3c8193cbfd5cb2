"""Reading checkpoints without running what is in them, finding the newest whole one, and the hashes of weights.

``torch.load`` without ``weights_only`` runs whatever code a .pth file names. MMEngine tries
``weights_only=True`` first but silently falls back to the unsafe way; here such a file is refused.
"""

import hashlib
import io
import json
import logging
import os
import re
import struct
import tarfile
import warnings
import zipfile
import zlib
from collections.abc import Callable, Collection, Iterator, Mapping
from functools import lru_cache
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import numpy as np
import torch
from mmengine.logging import HistoryBuffer, print_log
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from genseg_mm.checkpoint_folders import EXTRA, is_checkpoint_folder, read_tensors
from genseg_mm.devices import checked_device
from genseg_mm.files.pickles import check_pickle_bounds
from genseg_mm.files.whole_folders import check_folder, check_sizes, recover_folders

# What SafeCheckpointHook writes to; nothing that a user has made is called so.
_STALE = re.compile(r'(?:best_.+_)?(?:iter|epoch)_\d+\.pth(?:\.stream)?\.tmp|last_(?:checkpoint|validation)\.tmp')
_STALE_FOLDER = re.compile(r'(?:best_.+_)?(?:iter|epoch)_\d+(?:\.old)?\.tmp')
_OLDER_FORMAT = bytes.fromhex('80028a0a6cfc9c46f9206aa85019')  # the pickled magic number
# What zipfile raises on damaged bytes; EOFError and RuntimeError of parts that seem cut short, encrypted or packed in a
# way that it does not know.
_DAMAGED_ARCHIVE = (zipfile.BadZipFile, zlib.error, struct.error, OSError, ValueError, EOFError, RuntimeError)
_OLDER_PICKLES = 5  # magic number, version, system, content, keys of the storages that follow
_STATISTICS = ('min', 'max', 'current', 'mean')


def use_safe_loading() -> None:
    """Makes everything in this process that loads a checkpoint refuse those that would run code."""
    from mmengine.runner import CheckpointLoader  # takes longer than all else here

    CheckpointLoader.register_scheme(prefixes='', loader=load_from_local, force=True)
    # For what does not come through the loader above: URLs, other libraries.
    os.environ['TORCH_FORCE_WEIGHTS_ONLY_LOAD'] = '1'


def read_safetensors_anywhere() -> None:
    """Lets MMEngine's ``load_checkpoint``, and so mmseg's and mmdet's APIs, read our ``.safetensors`` files, too."""
    from mmengine.runner import CheckpointLoader

    before = CheckpointLoader._schemes['']

    def load(filename: str, map_location: Any = 'cpu') -> dict:
        is_ours = filename.endswith('.safetensors')
        return (load_from_local if is_ours else before)(filename, map_location)

    CheckpointLoader.register_scheme(prefixes='', loader=load, force=True)


def load_from_local(filename: str, map_location: Any = 'cpu') -> dict:
    """``load_weights_only`` in the form that MMEngine's ``CheckpointLoader`` expects."""
    checkpoint = load_weights_only(filename, map_location)
    if filename.endswith('.safetensors'):  # mmseg's init_model asks for the classes
        classes = dict(classes=('background', 'target'), palette=[[0, 0, 0], [255, 255, 255]])
        return dict(state_dict=checkpoint, meta=dict(dataset_meta=classes))
    if not isinstance(checkpoint, dict):
        raise ValueError(f'checkpoint {filename} must hold a dict, but got {type(checkpoint).__name__}')
    return checkpoint


def check_is_file(path: str) -> None:
    """Raises FileNotFoundError for a checkpoint that is not there, or a folder that is none."""
    if os.path.isdir(path):
        if is_checkpoint_folder(path):
            return
        raise FileNotFoundError(
            f'checkpoint {path} is a folder, expected one of the files in it or elsewhere, or a sharded checkpoint'
        )
    if not os.path.isfile(path):
        raise FileNotFoundError(f'checkpoint {path} does not exist')


def load_weights_only(path: str, map_location: Any = 'cpu', mmap: bool = False) -> Any:
    """Reads a checkpoint of tensors, plain Python data and MMEngine's log history only.

    Args:
        path: A file written by ``torch.save``, an MMEngine runner among others, in its format of today or the older one
            (``_use_new_zipfile_serialization=False``); a ``.safetensors`` file; or the folder of a sharded checkpoint,
            put together as a runner would have written it to one file.
        map_location: As for ``torch.load``.
        mmap: Map the tensors instead of reading them, where the format allows it.

    Raises:
        FileNotFoundError: If there is no such file or folder.
        ValueError: If the file is truncated, no checkpoint, or would run code on loading; or there is no such device.
    """
    path = os.path.expanduser(path)
    check_is_file(path)
    # Below, torch's complaint of the device could not be told from one of the file.
    if isinstance(map_location, (str, torch.device)) and str(map_location) not in ('cpu', 'meta'):
        checked_device(map_location)
    if os.path.isdir(path):
        return _load_folder(path, map_location)
    if path.endswith('.safetensors'):
        try:
            return load_file(path, device=str(map_location or 'cpu'))
        except SafetensorError as error:
            raise ValueError(f'{_unreadable(path, "of safetensors")}: {error}') from error
    is_zip = _starts_with(path, b'PK\x03\x04')
    if is_zip:
        _check_sizes(path)
    elif tarfile.is_tarfile(path):
        raise ValueError(
            f'checkpoint {path}: expected a file of torch.save, but got a tar archive, as torch wrote before 0.2; '
            'where you trust it, open it with torch.load(..., weights_only=False) and save it again'
        )
    _check_pickles(path, is_zip)
    try:
        with warnings.catch_warnings(), torch.serialization.safe_globals(_allowed_globals()):
            warnings.filterwarnings('ignore', 'Detected pickle protocol')  # of damaged bytes
            # torch's older format, which many published files have, cannot be mapped.
            return torch.load(path, map_location=map_location, weights_only=True, mmap=mmap and is_zip)
    except UnpicklingError as error:
        refused = re.search(r'GLOBAL ([\w.]+)', str(error))
        if refused is None and not is_zip:
            raise ValueError(_unreadable(path)) from error
        name = refused.group(1) if refused else 'objects of other classes'
        raise ValueError(
            f'checkpoint {path} was refused: loading it would need {name}, and a checkpoint may '
            'hold tensors, numbers, text and MMEngine log history only; where you trust it, save '
            "its weights alone: torch.save({'state_dict': ...})"
        ) from error
    except (MemoryError, torch.OutOfMemoryError):
        raise
    except Exception as error:  # bytes that are no pickle raise whatever they happen to spell
        raise ValueError(_unreadable(path)) from error


def _load_folder(path: str, map_location: Any) -> dict[str, Any]:
    """A sharded checkpoint as one dict, with the parameters of the optimizer by number."""
    checkpoint = load_without_tensors(path)
    for place, tensor in read_tensors(path).items():
        if isinstance(map_location, (str, torch.device)):
            tensor = tensor.to(map_location)
        own = checkpoint
        for part in place[:-1]:
            own = own.setdefault(part, {})
        own[place[-1]] = tensor
    settings, groups = checkpoint.pop('base_param_settings', None), checkpoint.get('optimizer')
    if groups is not None:
        names = [str(name) for group in groups['param_groups'] for name in group['params']]
        numbers, count = {name: number for number, name in enumerate(names)}, iter(range(len(names)))
        state = {numbers[str(name)]: own for name, own in groups['state'].items()}
        param_groups = [{**group, 'params': [next(count) for _ in group['params']]} for group in groups['param_groups']]
        checkpoint['optimizer'] = dict(state=dict(sorted(state.items())), param_groups=param_groups)
        settings = settings or groups.get('base_param_settings')
        if settings is not None:
            checkpoint['optimizer']['base_param_settings'] = settings
    return checkpoint


def load_without_tensors(path: str) -> Any:
    """A checkpoint without reading the weights: those of a file are mapped, those of a folder are left out.

    Raises:
        As :func:`load_weights_only`.
    """
    path = os.path.expanduser(path)
    check_is_file(path)
    if not os.path.isdir(path):
        return load_weights_only(path, mmap=True)
    check_sizes(path)
    extra = load_weights_only(os.path.join(path, EXTRA))
    if not isinstance(extra, dict):
        raise ValueError(f'{os.path.join(path, EXTRA)} must hold a dict, but got {type(extra).__name__}')
    return extra


def model_weights(checkpoint: Any, source: str) -> dict[str, Tensor]:
    """The model's tensors in a checkpoint, or in a dict of nothing else, by the names of the model.

    Args:
        checkpoint: What ``load_weights_only`` gave.
        source: Its file, for the message.

    Raises:
        ValueError: If it holds something else.
    """
    state = checkpoint.get('state_dict', checkpoint) if isinstance(checkpoint, dict) else None
    if not isinstance(state, dict) or not all(isinstance(own, Tensor) for own in state.values()):
        raise ValueError(f'checkpoint {source} holds no weights: expected a dict of tensors, or one under state_dict')
    # The wrapper of a training in several processes adds to the names.
    return {name.removeprefix('module.'): value for name, value in state.items()}


def check_fits(source: str, weights: Mapping[str, Tensor], own: Mapping[str, Tensor], strict: bool = True) -> list[str]:
    """Compares a checkpoint with the model that it is loaded into.

    Args:
        source: Its file, for messages.
        weights: Its tensors by name.
        own: Those of the model.
        strict: Whether the two have to be the same.

    Returns:
        What does not fit, a line each; nothing if ``strict``.

    Raises:
        ValueError: If they are not the same although ``strict``, or have nothing in common.
    """
    if not weights.keys() & own.keys():
        raise ValueError(
            f'{source} has nothing for this model: its first names are {some_of(sorted(weights))}, those of the model '
            f'{some_of(sorted(own))}'
        )
    missing, foreign = sorted(own.keys() - weights.keys()), sorted(weights.keys() - own.keys())
    lines = [f'{len(foreign)} unexpected keys in the file: {some_of(foreign)}'] if foreign else []
    lines += [f'{len(missing)} missing keys in the file: {some_of(missing)}'] if missing else []
    lines += [
        f'{name} has shape {tuple(weights[name].shape)} in the file, {tuple(value.shape)} in the model'
        for name, value in own.items()
        if name in weights and weights[name].shape != value.shape
    ]
    if strict and lines:
        raise ValueError(f'{source} does not fit the model: {"; ".join(lines)}')
    return lines


def check_resumable(checkpoint: Mapping[str, Any], source: str) -> None:
    """Raises ValueError if a checkpoint holds no training state."""
    if not {'meta', 'message_hub', 'optimizer'} <= checkpoint.keys():
        raise ValueError(
            f'{source} holds weights but no training state (best_*.pth and published files do not), so it cannot be '
            'resumed from; to start from its weights: --cfg-options load_from=FILE'
        )


def some_of(names: list[str]) -> str:
    """The first names of a list, for messages."""
    return ', '.join(names[:4]) + (', ...' if len(names) > 4 else '')


def _unreadable(path: str, kind: str = 'of torch.save') -> str:
    size = os.path.getsize(path)
    return f'checkpoint {path} is truncated, or not a file {kind} ({size} bytes)'


def check_whole(path: str) -> None:
    """Reads the whole file, or all files of a folder, once and compares the checksums of all parts.

    Files without checksums (torch's older format, ``.safetensors``) are loaded instead, which shows whether a part is
    missing.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If a part is missing or damaged.
    """
    check_is_file(path)
    if os.path.isdir(path):
        check_folder(path)
        return
    if path.endswith('.safetensors') or _starts_with(path, _OLDER_FORMAT):
        load_weights_only(path)
        return
    try:
        with zipfile.ZipFile(path) as archive:
            damaged = archive.testzip()
    except _DAMAGED_ARCHIVE as error:
        raise ValueError(
            f'checkpoint {path} is truncated or no checkpoint ({os.path.getsize(path)} bytes): {error}'
        ) from error
    if damaged is not None:
        raise ValueError(f'checkpoint {path} is corrupt: wrong checksum of {damaged}')


def find_resumable(work_dir: str, without: Collection[str] = ()) -> str | None:
    """The newest whole checkpoint of a training that was interrupted at any moment.

    Newest goes by the time written inside (then the iteration), so that copied folders and folders
    that were trained in twice are understood, files and folders side by side. Leftovers of an
    interrupted save (``*.tmp``) are deleted, or published if they lack the name alone; broken
    checkpoints are named in a warning and left alone. ``best_*`` hold weights only and are not
    resumed from; of others those with the state of an optimizer go first.

    Args:
        work_dir: Where the training ran; the folder that ``last_checkpoint`` points to is searched
            too.
        without: Checkpoints that do not count.

    Returns:
        The file or folder, or ``None`` if there is no checkpoint at all.

    Raises:
        ValueError: If there are checkpoints, but not one of them is whole.
    """
    folders = _checkpoint_folders(Path(work_dir))
    leftovers = [file for folder in folders for file in folder.glob('*.tmp') if _STALE.fullmatch(file.name)]
    for leftover in leftovers:
        print_log(f'Deleting {leftover}, left by an interrupted save.', 'current')
        leftover.unlink(missing_ok=True)
    unnamed = [own for folder in folders for own in folder.glob('*.tmp') if _STALE_FOLDER.fullmatch(own.name)]
    for line in recover_folders(unnamed):
        print_log(line, 'current')
    ages, broken = {}, []
    for path in _checkpoints(folders):
        if path in without:
            continue
        try:
            age = _age(path)
        except ValueError as error:
            _warn_broken(error)
            broken.append(path)
        else:
            if age is not None:
                ages[path] = age
    for path in sorted(ages, key=ages.get, reverse=True):
        try:
            check_whole(path)
        except ValueError as error:
            _warn_broken(error)
            broken.append(path)
        else:
            return path
    if broken:
        raise ValueError(
            f'no whole checkpoint to resume from in {work_dir}: {", ".join(sorted(broken))} '
            'cannot be read; delete the folder or choose another --work-dir to start anew'
        )
    return None


def checkpoints_of(work_dir: str | os.PathLike) -> list[str]:
    """All checkpoints that :func:`find_resumable` looks at, whole or not."""
    return list(_checkpoints(_checkpoint_folders(Path(work_dir))))


def _checkpoints(folders: list[Path]) -> Iterator[str]:
    for place in (place for folder in folders for place in sorted(folder.iterdir())):
        if place.name.startswith('best_') or place.name.endswith('.tmp'):
            continue
        if is_checkpoint_folder(place) if place.is_dir() else place.suffix == '.pth':
            yield str(place)


def _starts_with(path: str, start: bytes) -> bool:
    with open(path, 'rb') as file:
        return file.read(len(start)) == start


def _check_sizes(path: str) -> None:
    """Refuses an archive that unpacks to more than it has: torch stores its parts as they are."""
    try:
        with zipfile.ZipFile(path) as archive:
            unpacked = sum(part.file_size for part in archive.infolist())
    except _DAMAGED_ARCHIVE as error:
        raise ValueError(_unreadable(path)) from error
    if unpacked > os.path.getsize(path):
        raise ValueError(
            f'checkpoint {path} was refused: its parts claim {unpacked} bytes, but the file has '
            f'{os.path.getsize(path)}; torch.save does not compress'
        )


def _check_pickles(path: str, is_zip: bool) -> None:
    """Refuses pickles that would keep Python busy for ever, see :mod:`genseg_mm.files.pickles`."""
    try:
        if is_zip:
            with zipfile.ZipFile(path) as archive:
                for part in archive.namelist():
                    if part.endswith('.pkl'):
                        check_pickle_bounds(io.BytesIO(archive.read(part)))
            return
        with open(path, 'rb') as file:
            for _ in range(_OLDER_PICKLES if _starts_with(path, _OLDER_FORMAT) else 1):
                check_pickle_bounds(file)
    except _DAMAGED_ARCHIVE as error:
        reason = ' '.join(str(error).split())[:200]
        raise ValueError(f'{_unreadable(path)}: {reason}') from error


def _warn_broken(error: ValueError) -> None:
    print_log(f'Not resuming from a broken file: {error}', 'current', logging.WARNING)


def _checkpoint_folders(work_dir: Path) -> list[Path]:
    folders = [work_dir]
    pointer = work_dir / 'last_checkpoint'
    written = pointer.read_text().strip(' \n\0') if pointer.is_file() else ''
    if written:  # a power cut leaves it empty or of zeros, and its parent would be the current folder
        folders.append(Path(written).parent)
    return list(dict.fromkeys(folder.resolve() for folder in folders if folder.is_dir()))


def _age(path: str) -> tuple | None:
    """(whether it can be resumed from, time, iteration) of a training, or None if the file holds something else."""
    checkpoint = load_without_tensors(path)
    if not isinstance(checkpoint, dict) or not {'meta', 'message_hub'} <= checkpoint.keys():
        return None
    meta = checkpoint['meta']
    if not isinstance(meta, dict) or not isinstance(meta.get('iter'), int):
        return None
    return 'optimizer' in checkpoint, str(meta.get('time', '')), meta['iter']


def _history_statistic(owner: type, name: str) -> Callable:
    """Stands in for ``getattr``, by which a pickled ``HistoryBuffer`` names its own methods."""
    if owner is HistoryBuffer and name in _STATISTICS:
        return getattr(HistoryBuffer, name)
    raise UnpicklingError(f'GLOBAL builtins.getattr of {name!r} is not allowed')


def _allowed_globals() -> list:
    core = np._core.multiarray if hasattr(np, '_core') else np.core.multiarray
    numbers = {type(np.dtype(kind)) for kind in '?bhilqBHILQefd'}
    functions = [
        (function, f'numpy.{package}.multiarray.{function.__name__}')
        for function in (core._reconstruct, core.scalar)
        for package in ('core', '_core')  # NumPy 1 and 2
    ]
    return [HistoryBuffer, (_history_statistic, 'builtins.getattr'), np.ndarray, np.dtype, slice, *numbers, *functions]


def weights_sha256(path: str) -> str:
    """sha256 of a checkpoint's bytes, or of the names and bytes of all files of a folder of weights, as hex.

    Raises:
        FileNotFoundError: If there is no such file.
    """
    found = Path(os.path.expanduser(path))
    if found.is_dir():
        files = sorted(file for file in found.rglob('*') if file.is_file())
        names = {file.relative_to(found).as_posix(): weights_sha256(str(file)) for file in files}
        text = json.dumps(names, sort_keys=True, separators=(',', ':'))
        return hashlib.sha256(text.encode()).hexdigest()
    if not found.is_file():
        raise FileNotFoundError(f'checkpoint {path} does not exist')
    return _file_sha256(str(found), found.stat().st_mtime_ns)


@lru_cache(maxsize=64)
def _file_sha256(path: str, modified: int) -> str:
    """Hash of a file; ``modified`` (its time in nanoseconds) only tells versions apart."""
    with open(path, 'rb') as file:
        return hashlib.file_digest(file, 'sha256').hexdigest()


def weights_digest(module: nn.Module) -> str:
    """sha256 over names, types, shapes and bytes of all parameters and buffers of a built model, as hex."""
    digest = hashlib.sha256()
    tensors = dict(module.named_parameters()) | dict(module.named_buffers())
    for name, tensor in sorted(tensors.items()):
        digest.update(f'{name}:{tensor.dtype}:{tuple(tensor.shape)}:'.encode())
        plain = tensor.detach().cpu().contiguous()
        digest.update(plain.reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()
