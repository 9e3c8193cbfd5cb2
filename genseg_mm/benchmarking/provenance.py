"""Where a number comes from: hashes that are the same on every machine, and what it was computed with."""

import hashlib
import importlib.metadata
import json
import os
import platform
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config

import genseg_mm
from genseg_mm.benchmarking.effective_config import model_transforms
from genseg_mm.version import __version__

ROOT = Path(genseg_mm.__file__).resolve().parents[1]
PACKAGES = (
    'torch', 'numpy', 'mmengine', 'mmcv', 'mmdet', 'mmsegmentation', 'diffusers', 'transformers', 'scipy',
    'pycocotools', 'opencv-python-headless', 'pillow',
)  # fmt: skip
_FORKS = ('mmengine', 'mmcv', 'mmsegmentation')
_HASHED_BYTES = 64 << 20
# What a number is called or how far it may move does not decide it.
_NOT_HASHED = ('title', 'tolerance')


def canonical(value: Any) -> Any:
    """A config as JSON of one form: sorted keys, lists for tuples, names for classes, no folders of this machine."""
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
    return f'{getattr(value, "__module__", "")}.{getattr(value, "__qualname__", repr(value))}'


def config_sha256(value: Any) -> str:
    """Hash of a config that depends neither on the order of its keys nor on where files lie."""
    text = json.dumps(canonical(value), sort_keys=True, separators=(',', ':'))
    return hashlib.sha256(text.encode()).hexdigest()


def model_sha256(model_cfg: Config) -> str:
    """Hash of what a model's config contributes to a measurement: the model and the transforms that are its own."""
    transforms = model_transforms(model_cfg)
    parts = dict(model=model_cfg.model, data_preprocessor=model_cfg.get('data_preprocessor'), transforms=transforms)
    return config_sha256([parts, {os.path.basename(own): _content(own) for own in _existing_paths(parts)}])


def _existing_paths(value: Any) -> Iterator[str]:
    """Files and folders that a config names: pretrained parts, descriptions."""
    if isinstance(value, Mapping):
        value = list(value.values())
    if isinstance(value, list | tuple):
        for inner in value:
            yield from _existing_paths(inner)
    elif isinstance(value, str) and os.sep in value and os.path.exists(os.path.expanduser(value)):
        yield value


def _content(path: str) -> str:
    """Hash of a file or folder by its bytes; of large files by their size, since they are many gigabytes."""
    root = Path(path).expanduser()
    files = sorted(own for own in root.rglob('*') if own.is_file()) if root.is_dir() else [root]
    return config_sha256(
        {
            own.relative_to(root).as_posix(): weights_sha256(str(own))
            if own.stat().st_size <= _HASHED_BYTES
            else own.stat().st_size
            for own in files
        }
    )


def benchmark_sha256(benchmark: Mapping) -> str:
    """Hash of a benchmark, without its title and tolerance."""
    return config_sha256({key: own for key, own in benchmark.items() if key not in _NOT_HASHED})


@lru_cache(maxsize=64)
def file_sha256(path: str, modified: int) -> str:
    """Hash of a file; ``modified`` (its time in nanoseconds) only tells versions apart."""
    digest = hashlib.sha256()
    with open(path, 'rb') as file:
        while block := file.read(1 << 22):
            digest.update(block)
    return digest.hexdigest()


def weights_sha256(path: str) -> str:
    """Hash of a checkpoint, or of all files of a folder of weights.

    Raises:
        FileNotFoundError: If there is no such file.
    """
    found = Path(path).expanduser()
    if found.is_dir():
        files = sorted(file for file in found.rglob('*') if file.is_file())
        names = {file.relative_to(found).as_posix(): weights_sha256(str(file)) for file in files}
        return config_sha256(names)
    if not found.is_file():
        raise FileNotFoundError(f'checkpoint {path} does not exist')
    return file_sha256(str(found), found.stat().st_mtime_ns)


def released_sha(source: str, cache_dir: str | None = None) -> str | None:
    """Hash of a folder of released weights, or the hub's commit of those in the cache; None if they are in neither.

    Args:
        source: Folder or hub id.
        cache_dir: Of the hub; default: its own.
    """
    if Path(source).expanduser().is_dir():
        return weights_sha256(source)
    from huggingface_hub import try_to_load_from_cache

    for name in ('model_index.json', 'config.json'):
        found = try_to_load_from_cache(source, name, cache_dir=cache_dir)
        if isinstance(found, str):
            return Path(found).parent.name
    return None


def run_key(model: str, checkpoint: str | None, benchmark: str, fingerprint: str | None, mode: Sequence) -> str:
    """What two results have in common if one need not be computed again: hashes, version and way of running."""
    return config_sha256([model, checkpoint, benchmark, fingerprint, __version__, *mode])


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
