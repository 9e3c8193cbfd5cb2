"""A fingerprint of what an evaluation dataset holds: the same on every machine for the same copy and settings."""

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from genseg_mm.dataset_configs import parts_of

SKIPPED = ('sample_idx',)  # the place in a dataset of several, which is no property of the item
LONG = 8  # numbers of a list from which on their bytes are hashed: writing them out takes most of the time


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
        if key not in SKIPPED
    }


def _shorten(value: Any) -> Any:
    """The value with long lists of numbers (outlines, run lengths) as a hash."""
    if type(value) is dict:
        return {key: _shorten(own) for key, own in value.items()}
    if type(value) not in (list, tuple):
        return value
    if len(value) >= LONG and type(value[0]) in (float, int):
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
