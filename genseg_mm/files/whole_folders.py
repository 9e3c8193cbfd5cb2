"""Folders that are there whole or not at all: a record of what is in one, written last, and a rename (stdlib only).

A folder ``NAME`` is written as ``NAME.tmp``; its record names every file with size and checksum. One that replaces
another of the same name moves it to ``NAME.old.tmp`` first. Whatever a kill leaves of this, :func:`recover_folders`
finishes or removes.
"""

import json
import os
import re
import shutil
import zlib
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from genseg_mm.files.texts import read_json_dict
from genseg_mm.files.whole_files import scratch_folder, sync

RECORD = 'complete.json'
_BEFORE = 'before'  # ending of the hidden name that a folder has while another one takes its place
_CHUNK = 2**22
_MAX_THREADS = 8


@contextmanager
def whole_folder(path: str | os.PathLike) -> Iterator[Path]:
    """Gives an empty folder to write to, which has its name at the end, in place of one that has it already.

    If anything goes wrong an earlier folder stays as it was, and nothing else is left. A kill between two renames
    leaves it under a hidden name, from which the next call takes it back.
    """
    path = Path(path)
    if path.exists() and not path.is_dir():
        raise NotADirectoryError(f'expected a folder, but {path} is a file')
    before = path.with_name(f'.{path.name}.{_BEFORE}')
    with scratch_folder(path) as place:
        if before.exists():  # of a process that was killed
            shutil.rmtree(before) if path.exists() else before.rename(path)
        yield place
        if path.exists():
            path.rename(before)
        try:
            place.rename(path)
        except OSError:
            if before.exists():
                before.rename(path)
            raise
    shutil.rmtree(before, ignore_errors=True)


def temporary_of(path: str | os.PathLike) -> Path:
    """Where a folder is written before it has its name."""
    return Path(f'{path}.tmp')


def write_record(folder: str | os.PathLike, files: dict[str, tuple[int, int]], **facts: Any) -> None:
    """Completes a folder whose files are on disk.

    Args:
        folder: It.
        files: Size in bytes and CRC-32 of each file, by name.
        facts: Also written.
    """
    path = Path(folder, RECORD)
    with open(path, 'w', encoding='utf-8') as file:
        json.dump(dict(format=1, files={name: list(own) for name, own in sorted(files.items())}, **facts), file)
        file.flush()
        os.fsync(file.fileno())
    sync(folder)


def publish_folder(path: str | os.PathLike) -> None:
    """Gives a finished folder its name; one that has it already goes once the new one is there."""
    path, temporary, old = Path(path), temporary_of(path), Path(f'{path}.old.tmp')
    sync(temporary)
    if path.exists():
        remove_folder(old)
        os.rename(path, old)
    os.rename(temporary, path)
    sync(path.absolute().parent)
    remove_folder(old)


def remove_folder(path: str | os.PathLike) -> None:
    """Removes a folder, the record first: what a kill leaves of it is no whole folder."""
    Path(path, RECORD).unlink(missing_ok=True)
    shutil.rmtree(path, ignore_errors=True)


def recover_folders(temporaries: Iterable[Path]) -> list[str]:
    """Finishes what a kill has interrupted between the last byte and the name, and removes the rest.

    Args:
        temporaries: Folders ``NAME.tmp`` and ``NAME.old.tmp``.

    Returns:
        A line on each of them.
    """
    lines = []
    for temporary in sorted(temporaries, key=lambda own: own.name.endswith('.old.tmp')):  # the newer one first
        path = temporary.with_name(re.sub(r'(\.old)?\.tmp$', '', temporary.name))
        try:
            check_sizes(temporary)
            is_whole = not path.exists()
        except (ValueError, FileNotFoundError):
            is_whole = False
        if is_whole:
            os.rename(temporary, path)
            sync(path.absolute().parent)
            lines.append(f'Publishing {path}, whose save was killed after its last byte.')
        else:
            remove_folder(temporary)
            lines.append(f'Deleting {temporary}, left by an interrupted save.')
    return lines


def read_record(folder: str | os.PathLike) -> dict[str, Any]:
    """The record of a folder.

    Raises:
        ValueError: If there is none, or it is no record.
    """
    path = Path(folder, RECORD)
    if not path.is_file():
        raise ValueError(
            f'checkpoint {folder} is not whole: expected {RECORD}, which is written last, but got none; '
            'copy the whole folder, or take another checkpoint'
        )
    record = read_json_dict(path)
    files = record.get('files')
    is_known = record.get('format') == 1 and isinstance(files, dict) and files
    if not is_known or not all(_is_entry(name, own) for name, own in files.items()):
        raise ValueError(f'{path}: expected the names, sizes and checksums of files in format 1, but got another one')
    return record


def _is_entry(name: str, entry: Any) -> bool:
    numbers = isinstance(entry, list) and len(entry) == 2 and all(type(own) is int for own in entry)
    return numbers and Path(name).name == name and name not in ('', '.', '..', RECORD)


def check_sizes(folder: str | os.PathLike) -> dict[str, Any]:
    """The record of a folder all of whose files are there, by their sizes.

    Raises:
        ValueError: If a file is missing or truncated; named.
    """
    record = read_record(folder)
    for name, (size, _) in record['files'].items():
        path = Path(folder, name)
        if not path.is_file():
            raise ValueError(f'checkpoint {folder} is not whole: expected {name} of {size:,} bytes, but it is missing')
        found = path.stat().st_size
        if found != size:
            word = 'truncated' if found < size else 'another file'
            raise ValueError(
                f'checkpoint {folder} is not whole: {name} is {word}, expected {size:,} bytes, but got {found:,}'
            )
    return record


def check_folder(folder: str | os.PathLike) -> dict[str, Any]:
    """The record of a folder, after reading every file once and comparing its checksum.

    Raises:
        ValueError: If a file is missing, truncated or damaged; named.
    """
    record = check_sizes(folder)
    names = sorted(record['files'])
    with ThreadPoolExecutor(min(_MAX_THREADS, os.cpu_count() or 1)) as pool:  # zlib works beside Python's lock
        sums = dict(zip(names, pool.map(lambda name: crc32_of(Path(folder, name)), names), strict=True))
    for name in names:
        if sums[name] != record['files'][name][1]:
            raise ValueError(f'checkpoint {folder} is corrupt: wrong checksum of {name}; take another checkpoint')
    return record


def crc32_of(path: str | os.PathLike) -> int:
    """CRC-32 of a file."""
    number = 0
    with open(path, 'rb') as file:
        while chunk := file.read(_CHUNK):
            number = zlib.crc32(chunk, number)
    return number
