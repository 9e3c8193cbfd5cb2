"""What the readers of annotation files share: whole JSON, entries with their keys, pictures that exist."""

import json
import os
from collections.abc import Collection, Mapping
from reprlib import repr as short_repr
from typing import Any


def where_configs_look() -> str:
    """For messages about a missing folder: where our configs look for data."""
    now = os.environ.get('GENSEG_DATA', 'unset, which means data')
    return (
        'Our configs look in the folder that the environment variable GENSEG_DATA names '
        f'(now {now})'
    )


def read_json(path: str | os.PathLike) -> Any:
    """The content of a JSON file.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is cut short or no JSON. The message names the file.
    """
    try:
        with open(path, encoding='utf-8') as file:
            return json.load(file)
    except ValueError as error:
        raise ValueError(f'{path} is not a whole JSON file: {error}') from error


def check_keys(entry: object, keys: Mapping[str, type | tuple[type, ...]], where: str) -> None:
    """Checks that an entry is a dict with values of these types.

    Raises:
        ValueError: If it is not. The message starts with ``where``.
    """
    if not isinstance(entry, dict):
        raise ValueError(f'{where}: expected a dict with {list(keys)}, but got {short_repr(entry)}')
    for key, types in keys.items():
        if key not in entry:
            raise ValueError(f'{where} lacks the key {key!r}, it has {sorted(map(str, entry))}')
        if not isinstance(entry[key], types):
            names = [kind.__name__ for kind in (types if isinstance(types, tuple) else (types,))]
            raise ValueError(
                f'{where}: {key} must be {" or ".join(names)}, but got {short_repr(entry[key])}'
            )


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
