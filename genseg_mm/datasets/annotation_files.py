"""What the readers share: entries with their keys, paths that stay inside, files that exist, folders to search."""

import math
import os
from collections.abc import Iterator
from reprlib import repr as short_repr

from genseg_mm.files import has_lone_surrogate
from genseg_mm.files import read_json as read_json  # own readers of users take it from here


def where_configs_look() -> str:
    """For messages about a missing folder: where our configs look for data."""
    now = os.environ.get('GENSEG_DATA', 'unset, which means data')
    return f'Our configs look in the folder that the environment variable GENSEG_DATA names (now {now})'


def is_integer(value: object) -> bool:
    """Whether a value is a whole number that 64 bits hold; true and false are none."""
    return type(value) is int and -(2**63) <= value < 2**63


def is_number(value: object) -> bool:
    """Whether a value is a finite number; true and false are none."""
    return type(value) is int and abs(value) < 2**1000 or type(value) is float and math.isfinite(value)


def picture_path(folder: str, name: str, data_root: str | None, where: str, allow_outside: bool = False) -> str:
    """Path of a picture that an annotation names.

    Annotations come from elsewhere and are no reason to read any file of this machine: the path, as it is written, has
    to stay in the data set's root or in the folder of its pictures. ``..`` and absolute paths that end in there are
    fine. Links are not followed for this: what the user links into the folder belongs to it.

    Args:
        folder: Of the pictures.
        name: Relative to it.
        data_root: Root of the data set.
        where: What the message of an error starts with.
        allow_outside: Whether the path may lead elsewhere.

    Raises:
        ValueError: If the name is empty, no name of a file, or leads elsewhere.
    """
    if not isinstance(name, str) or not name.strip() or '\0' in name or has_lone_surrogate(name):
        raise ValueError(f'{where}: expected the name of a picture, but got {short_repr(name)}')
    path = os.path.join(folder, name)
    if allow_outside or not (os.path.isabs(name) or '..' in name or '://' in name):
        return path
    whole = os.path.abspath(path)
    inside = (os.path.abspath(own) for own in (folder, data_root) if own)
    if '://' in name or not any(os.path.commonpath((own, whole)) == own for own in inside):
        raise ValueError(
            f'{where}: expected a picture below {data_root or folder!r}, but got {name!r}, which leads elsewhere; '
            'allow_outside=True reads it'
        )
    return path


class ExistingFiles:
    """Which files exist (``path in files``), by one listing of each folder: far fewer calls than one per file."""

    def __init__(self) -> None:
        self._names: dict[str, set[str]] = {}

    def __contains__(self, path: str) -> bool:
        folder, name = os.path.split(path)
        if folder not in self._names:
            try:
                with os.scandir(folder or '.') as entries:
                    self._names[folder] = {entry.name for entry in entries if entry.is_file()}
            except (FileNotFoundError, NotADirectoryError):
                self._names[folder] = set()
        return name in self._names[folder]


def folders_below(root: str) -> Iterator[tuple[str, list[str]]]:
    """Every folder from ``root`` on, sorted, with the names of its files; hidden ones are no data.

    Links to folders are followed; a folder that is reached twice, as in a circle of links, comes once.

    Raises:
        OSError: If a folder cannot be read.
    """

    def fail(error: OSError) -> None:
        raise error

    seen = set()
    for folder, subfolders, names in os.walk(root, onerror=fail, followlinks=True):
        if os.path.realpath(folder) in seen:
            subfolders.clear()
            continue
        seen.add(os.path.realpath(folder))
        subfolders[:] = sorted(name for name in subfolders if not name.startswith('.'))
        yield folder, sorted(name for name in names if not name.startswith('.'))
