"""What the readers of annotation files share: entries with their keys, paths that stay inside, pictures that exist."""

import math
import os
from collections.abc import Collection, Mapping
from reprlib import repr as short_repr

from genseg_mm.files import has_lone_surrogate, read_json

__all__ = [
    'check_keys',
    'is_integer',
    'is_number',
    'missing_pictures',
    'picture_path',
    'read_json',
    'where_configs_look',
]


def where_configs_look() -> str:
    """For messages about a missing folder: where our configs look for data."""
    now = os.environ.get('GENSEG_DATA', 'unset, which means data')
    return (
        'Our configs look in the folder that the environment variable GENSEG_DATA names '
        f'(now {now})'
    )


def is_integer(value: object) -> bool:
    """Whether a value is a whole number that 64 bits hold; true and false are none."""
    return type(value) is int and -(2**63) <= value < 2**63


def is_number(value: object) -> bool:
    """Whether a value is a finite number; true and false are none."""
    return type(value) is int and abs(value) < 2**1000 or type(value) is float and math.isfinite(value)


def check_keys(entry: object, keys: Mapping[str, type | tuple[type, ...]], where: str) -> None:
    """Checks that an entry is a dict with values of these types; true and false are no int.

    Raises:
        ValueError: If it is not. The message starts with ``where``.
    """
    if not isinstance(entry, dict):
        raise ValueError(f'{where}: expected a dict with {list(keys)}, but got {short_repr(entry)}')
    for key, types in keys.items():
        if key not in entry:
            raise ValueError(f'{where} lacks the key {key!r}, it has {sorted(map(str, entry))}')
        types = types if isinstance(types, tuple) else (types,)
        value = entry[key]
        if not isinstance(value, types) or (isinstance(value, int) and not is_integer(value)):
            names = [kind.__name__ for kind in types]
            raise ValueError(f'{where}: {key} must be {" or ".join(names)}, but got {short_repr(value)}')


def picture_path(
    folder: str, name: str, data_root: str | None, where: str, allow_outside: bool = False
) -> str:
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


def missing_pictures(paths: Collection[str], folder: str, layout: str) -> str | None:
    """Says how many pictures do not exist; listings of the folders are much faster than asking for every file.

    Args:
        paths: Of all pictures, below ``folder``.
        folder: Of ``data_prefix``.
        layout: What is expected, for the message.

    Returns:
        The message, None if all exist.

    Raises:
        FileNotFoundError: If the folder does not exist.
    """
    if not os.path.isdir(folder):
        raise FileNotFoundError(
            f'data_prefix img_path: folder {folder!r} does not exist, expected {layout}'
        )
    listings = {
        parent: set(os.listdir(parent)) if os.path.isdir(parent) else set()
        for parent in {os.path.dirname(path) for path in paths}
    }
    missing = [p for p in paths if os.path.basename(p) not in listings[os.path.dirname(p)]]
    if not missing:
        return None
    return f'{len(missing)} of {len(paths)} pictures are missing, the first is {min(missing)}'
