"""Where a number comes from: hashes that are the same on every machine, its data, and what it was computed with."""

import hashlib
import importlib.metadata
import json
import os
import platform
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.config import Config
from mmengine.registry import DATASETS, DefaultScope, init_default_scope

import genseg_mm
from genseg_mm import __version__
from genseg_mm.checkpoint import weights_sha256
from genseg_mm.command import typed_name, typed_words
from genseg_mm.dataset_configs import parts_of
from genseg_mm.datasets.published_counts import difference, expected_items, shortage

ROOT = Path(genseg_mm.__file__).resolve().parents[1]
PACKAGES = (
    'torch', 'numpy', 'mmengine', 'mmcv', 'mmdet', 'mmsegmentation', 'diffusers', 'transformers', 'scipy',
    'pycocotools', 'opencv-python-headless', 'pillow',
)  # fmt: skip
_HASHED_BYTES = 64 << 20
_SKIPPED = ('sample_idx',)  # the place in a dataset of several, which is no property of the item
_LONG = 8  # numbers of a list from which on their bytes are hashed: writing them out takes most of the time


def canonical(value: Any) -> Any:
    """A config as JSON of one form: sorted keys, lists for tuples, names for classes, no folders of this machine.

    Our classes have the name of text configs, wherever in the package they stand.
    """
    if isinstance(value, Mapping):
        plain = {str(key): canonical(inner) for key, inner in value.items()}
        if isinstance(plain.get('data_root'), str):
            plain['data_root'] = os.path.basename(plain['data_root'].rstrip('/'))
        return dict(sorted(plain.items()))
    if isinstance(value, list | tuple):
        return [canonical(inner) for inner in value]
    if isinstance(value, str):
        return os.path.basename(value.rstrip('/')) if os.path.isabs(value) else value
    if isinstance(value, set | frozenset):
        return sorted(canonical(inner) for inner in value)
    if value is None or isinstance(value, bool | int | float):
        return value
    module = getattr(value, '__module__', '')
    module = 'genseg_mm' if module.startswith('genseg_mm.') else module
    return f'{module}.{getattr(value, "__qualname__", repr(value))}'


def config_sha256(value: Any) -> str:
    """Hash of a config that depends neither on the order of its keys nor on where files lie."""
    text = json.dumps(canonical(value), sort_keys=True, separators=(',', ':'))
    return hashlib.sha256(text.encode()).hexdigest()


def named_files(value: Any) -> dict[str, str]:
    """Hashes of the files and folders that a config names (pretrained parts, descriptions), by their names."""
    return {os.path.basename(own): _content(own) for own in _existing_paths(value)}


def _existing_paths(value: Any) -> Iterator[str]:
    if isinstance(value, Mapping):
        value = list(value.values())
    if isinstance(value, list | tuple):
        for inner in value:
            yield from _existing_paths(inner)
    elif isinstance(value, str) and os.sep in value and os.path.exists(os.path.expanduser(value)):
        yield value


def _content(path: str) -> str:
    """Hash of a file or folder by its bytes; of large files by their size, since they are many gigabytes."""
    root = Path(os.path.expanduser(path))
    files = sorted(own for own in root.rglob('*') if own.is_file()) if root.is_dir() else [root]
    return config_sha256(
        {
            own.relative_to(root).as_posix(): weights_sha256(str(own))
            if own.stat().st_size <= _HASHED_BYTES
            else own.stat().st_size
            for own in files
        }
    )


def released_sha(source: str, cache_dir: str | None = None) -> str | None:
    """Hash of a folder of released weights, or the hub's commit of those in the cache; None if they are in neither.

    Args:
        source: Folder or hub id.
        cache_dir: Of the hub; default: its own.
    """
    if Path(os.path.expanduser(source)).is_dir():
        return weights_sha256(source)
    from huggingface_hub import try_to_load_from_cache

    for name in ('model_index.json', 'config.json'):
        found = try_to_load_from_cache(source, name, cache_dir=cache_dir)
        if isinstance(found, str):
            return Path(found).parent.name
    return None


def packages() -> dict[str, str]:
    """Versions of what decides the bits, of this package first."""
    versions = {'genseg_mm': __version__, 'python': platform.python_version()}
    for name in PACKAGES:
        for distribution in (name, f'onedl-{name}', name.replace('mmdet', 'onedl-mmdetection')):
            try:
                versions[distribution] = importlib.metadata.version(distribution)
            except importlib.metadata.PackageNotFoundError:
                continue
            break
    return versions


def hardware() -> str:
    """Processor, cores that this process may use, memory and GPU, in one line."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else os.cpu_count()
    parts = [f'{_processor()}, {cores} of {os.cpu_count()} cores']
    if hasattr(os, 'sysconf') and 'SC_PHYS_PAGES' in os.sysconf_names:
        memory = os.sysconf('SC_PHYS_PAGES') * os.sysconf('SC_PAGE_SIZE')
        parts.append(f'{memory / 2**30:.0f} GiB memory')
    for index in range(torch.cuda.device_count()):
        gpu = torch.cuda.get_device_properties(index)
        parts.append(f'{gpu.name} {gpu.total_memory / 2**30:.0f} GiB')
    return '; '.join(parts)


def _processor() -> str:
    info = Path('/proc/cpuinfo')
    found = re.search(r'model name\s*:\s*(.+)', info.read_text()) if info.is_file() else None
    # Which instructions a processor has decides the last bits of its sums.
    level = torch.backends.cpu.get_cpu_capability()
    return f'{found.group(1) if found else platform.machine()} ({level})'


@lru_cache(maxsize=1)
def commit() -> str | None:
    """Git commit of the package, '+changes' behind it where files differ; None if it is no checkout."""
    if not (ROOT / '.git').exists():
        return None

    def git(*arguments: str) -> str:
        command = ['git', '-C', str(ROOT), *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()

    try:
        changed = git('status', '--porcelain', '--untracked-files=normal')
        return git('rev-parse', 'HEAD') + ('+changes' if changed else '')
    except (OSError, subprocess.CalledProcessError):
        return None


@lru_cache(maxsize=1)
def source_sha256() -> str:
    """Hash of the package's Python files: whether two results are of the same code, committed or not."""
    package = Path(genseg_mm.__file__).resolve().parent
    files = sorted(file.relative_to(package) for file in package.rglob('*.py'))
    files = [file for file in files if not file.parts[0].startswith('.')]
    return config_sha256({file.as_posix(): hashlib.sha256((package / file).read_bytes()).hexdigest() for file in files})


def command() -> str:
    """The command line, with the tool's path as it is in the repository."""
    if typed_name():
        return shlex.join(typed_words())
    tool = Path(sys.argv[0])
    if tool.is_absolute() and ROOT in tool.parents:
        tool = tool.relative_to(ROOT)
    return shlex.join(['python', str(tool), *sys.argv[1:]])


def display_path(path: str | None) -> str | None:
    """A path for a report: relative to the repository or the working directory, else its name alone."""
    if path is None or not os.path.isabs(path):
        return path
    for base in (ROOT, Path.cwd()):
        if base in Path(path).parents:
            return Path(path).relative_to(base).as_posix()
    return os.path.basename(path)


def dataset_facts(cfg: Config) -> dict[str, Any]:
    """Section ``dataset`` of a record, of the test set of a config.

    Raises:
        FileNotFoundError: If its files are missing; and whatever else the dataset raises.
    """
    init_default_scope(cfg.default_scope)
    with DefaultScope.overwrite_default_scope(cfg.default_scope):
        dataset = DATASETS.build(cfg.test_dataloader.dataset)
    if hasattr(dataset, 'full_init'):
        dataset.full_init()
    if len(dataset) == 0:
        raise ValueError(f'the {type(dataset).__name__} of this benchmark has no items')
    return dict(
        type=type(dataset).__name__,
        items=len(dataset),
        expected=expected_items(dataset),
        difference=difference(dataset),
        incomplete=shortage(dataset),
        fingerprint=dataset_fingerprint(dataset),
    )


def dataset_fingerprint(dataset: Any) -> str:
    """SHA-256 over what decides the numbers of an evaluation, without the pixels of files.

    In it: the class of the dataset, the number and order of its items, and of every item all that its dataset gives:
    the names of its files relative to ``data_root`` (or to the folder of ``data_prefix``), their sizes in bytes, ids,
    sentences, annotations with their segmentations, rules for labels, and arrays (procedural scenes) whole; of datasets
    in one, each in its order. Not in it: where the data lie, the pipeline, and the bytes of pictures and label maps: a
    file that was changed to one of the same size is not seen.

    Datasets that draw a sentence at each access (training) have no fixed fingerprint.

    Args:
        dataset: A dataset of MMEngine's kind (``get_data_info``), or several in one.

    Returns:
        64 hexadecimal digits.

    Raises:
        ValueError: If it is of another kind, or an item holds what cannot be written down.
    """
    digest = hashlib.sha256()
    _add(dataset, digest)
    return digest.hexdigest()


def _add(dataset: Any, digest: Any) -> None:
    name = type(dataset).__name__
    parts = parts_of(dataset)
    if parts:
        _write(digest, dict(joined=name, parts=len(parts), items=len(dataset)))
        for part in parts:
            _add(part, digest)
        return
    if not hasattr(dataset, 'get_data_info'):
        raise ValueError(f"{name}: expected a dataset of MMEngine's kind, with get_data_info, to take its fingerprint")
    if hasattr(dataset, 'full_init'):
        dataset.full_init()
    files = _Files(dataset)
    _write(digest, dict(type=name, items=len(dataset)))
    for index in range(len(dataset)):
        item = dataset.get_data_info(index)
        try:
            _write(digest, _portable(item, files))
        except TypeError as error:
            raise ValueError(f'item {index} of {name} has no fingerprint: {error}') from error


def _portable(item: Mapping, files: '_Files') -> dict:
    """The item with its files as [name, size]."""
    return {
        key: files.describe(value) if key.endswith('path') and isinstance(value, str) else _shorten(value)
        for key, value in item.items()
        if key not in _SKIPPED
    }


def _shorten(value: Any) -> Any:
    """The value with long lists of numbers (outlines, run lengths) as a hash."""
    if type(value) is dict:
        return {key: _shorten(own) for key, own in value.items()}
    if type(value) not in (list, tuple):
        return value
    if len(value) >= _LONG and type(value[0]) in (float, int):
        try:
            numbers = np.array(value, '<f8')
        except (TypeError, ValueError):  # not numbers alone
            return [_shorten(own) for own in value]
        return hashlib.sha256(numbers).hexdigest()
    return [_shorten(own) for own in value]


class _Files:
    """Names and sizes of files, without where the dataset lies."""

    def __init__(self, dataset: Any) -> None:
        prefixes = getattr(dataset, 'data_prefix', None) or {}
        roots = [getattr(dataset, 'data_root', None), *prefixes.values()]
        self.roots = [os.path.abspath(root) + os.sep for root in roots if isinstance(root, str) and root]
        self._known: dict[str, list] = {}  # many sentences of one picture

    def describe(self, path: str) -> list:
        """[name, size in bytes]; the size is -1 where there is no such file."""
        if path not in self._known:
            self._known[path] = [self._name(path), _size(path)]
        return self._known[path]

    def _name(self, path: str) -> str:
        if not path:  # of a scene that is drawn, not read; an absolute path of it would be the working directory
            return ''
        whole = os.path.abspath(path)
        root = next((own for own in self.roots if whole.startswith(own)), None)
        name = whole[len(root) :] if root else os.path.basename(whole)
        return name.replace(os.sep, '/')


def _size(path: str) -> int:
    try:
        return os.stat(path).st_size if path else -1
    except (FileNotFoundError, NotADirectoryError):
        return -1


def _write(digest: Any, content: dict) -> None:
    digest.update(json.dumps(content, sort_keys=True, default=_plain).encode())
    digest.update(b'\n')


def _plain(value: Any) -> Any:
    """Plain data in place of what JSON does not know, the same on every machine."""
    if isinstance(value, np.ndarray):
        if value.dtype.kind == 'O':
            return value.tolist()
        fixed = np.ascontiguousarray(value, value.dtype.newbyteorder('<'))
        return [str(fixed.dtype), list(fixed.shape), hashlib.sha256(fixed).hexdigest()]
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, (set, frozenset)):
        return sorted(value)
    if isinstance(value, bytes):
        return value.decode('latin-1')
    if isinstance(value, Path):
        return value.as_posix()
    raise TypeError(f'{type(value).__name__} {str(value)[:40]} cannot be written down')
