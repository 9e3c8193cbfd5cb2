"""A bank of recognisable objects: cut-outs with their names, in one file that is mapped into memory.

The file is a safetensors file: a JSON header, then a pyramid of premultiplied RGBA pictures. Nothing in it can run, and
no more is read than the header says and the file holds. ``tools/dataset_tools/prepare_objects.py`` makes one.
"""

import difflib
import json
import os
import re
import struct
import unicodedata
from collections.abc import Collection, Iterable, Sequence
from functools import lru_cache
from pathlib import Path
from reprlib import repr as short_repr
from typing import NamedTuple

import cv2
import numpy as np

from genseg_mm.files import parse_json, whole_file

BANK = 'fluent-emoji-3d-1.1.0.safetensors'  # the default one
SIDES = (128, 64, 32, 16)
MAX_OBJECTS = 20_000
MAX_HEADER_BYTES = 32 * 2**20
MIN_ALPHA = 128  # what of a cut-out counts as the object
MIN_PIXELS = 500 / 256**2  # of a cut-out's picture: less is no object
FORMAT = 'genseg_mm objects 1'
PREPARE = 'python tools/dataset_tools/prepare_objects.py'


class CutOut(NamedTuple):
    """An object before it is packed.

    Attributes:
        name: What it is, in words.
        group: Its kind, wide ('Animals & Nature'); may be empty.
        subgroup: Its kind, narrow ('animal-mammal'); may be empty.
        synonyms: Other words for it.
        picture: (H, W, 4) uint8 RGBA, not premultiplied.
    """

    name: str
    group: str
    subgroup: str
    synonyms: tuple[str, ...]
    picture: np.ndarray


def cache_folder() -> Path:
    """Where prepared banks lie: ``$XDG_CACHE_HOME/genseg_mm/objects``, by default below ``~/.cache``."""
    base = os.environ.get('XDG_CACHE_HOME') or Path.home() / '.cache'
    return Path(base) / 'genseg_mm' / 'objects'


def default_bank() -> Path:
    """The bank that datasets take unless told another one; it need not be there."""
    return cache_folder() / BANK


class ObjectBank:
    """Objects by their number.

    Attributes:
        path: The file.
        names: One per object; several objects may share one (24 clocks).
        groups: Wide kinds.
        subgroups: Narrow kinds.
        synonyms: Other words.
        source: Where the pictures come from, and under which licence.
    """

    def __init__(self, path: str | os.PathLike) -> None:
        self.path = os.fspath(path)
        about, self._levels = _read(self.path)
        self.source = about['source']
        rows = about['objects']
        self.names = tuple(row[0] for row in rows)
        self.groups = tuple(row[1] for row in rows)
        self.subgroups = tuple(row[2] for row in rows)
        self.synonyms = tuple(tuple(row[3]) for row in rows)

    def __len__(self) -> int:
        return len(self.names)

    def __reduce__(self) -> tuple:
        return open_bank, (self.path,)  # workers map the file again, instead of a copy through a pipe

    def picture(self, index: int, side: float) -> np.ndarray:
        """The smallest picture of the pyramid that is no smaller than asked, (S, S, 4) uint8, premultiplied RGBA."""
        best = min((own for own in self._levels if own >= side), default=max(self._levels))
        return self._levels[best][index]

    def select(
        self,
        groups: str | Collection[str] | None = None,
        exclude_groups: str | Collection[str] | None = None,
        names: str | Collection[str] | None = None,
        exclude_names: str | Collection[str] | None = None,
    ) -> list[int]:
        """Numbers of the objects of some kinds.

        Args:
            groups: Groups, subgroups or beginnings of subgroups ('animal' is 'animal-mammal', 'animal-bird', ...) to
                keep; None keeps all.
            exclude_groups: Likewise, to leave out.
            names: Names of single kinds to keep.
            exclude_names: Names of single kinds to leave out.

        Raises:
            ValueError: If a group or name is not in the bank, or nothing is left.
        """
        kept = set(range(len(self)))
        for what, wanted, is_kept in (('groups', groups, True), ('exclude_groups', exclude_groups, False)):
            if wanted is not None:
                found = {index for own in _as_list(wanted, what) for index in self._of_group(own, what)}
                kept = kept & found if is_kept else kept - found
        for what, wanted, is_kept in (('names', names, True), ('exclude_names', exclude_names, False)):
            if wanted is not None:
                found = {index for own in _as_list(wanted, what) for index in self._of_name(own, what)}
                kept = kept & found if is_kept else kept - found
        if not kept:
            raise ValueError(
                f'{self.path}: groups={groups!r}, exclude_groups={exclude_groups!r}, names={names!r} and '
                f'exclude_names={exclude_names!r} leave none of its {len(self)} objects'
            )
        return sorted(kept)

    def _of_group(self, wanted: str, what: str) -> list[int]:
        own = wanted.lower()
        found = [
            index
            for index, (group, subgroup) in enumerate(zip(self.groups, self.subgroups, strict=True))
            if own in (group.lower(), subgroup.lower()) or subgroup.lower().startswith(f'{own}-')
        ]
        if not found:
            known = sorted({*self.groups, *self.subgroups} - {''})
            raise ValueError(f'{what}: {self.path} has no group {wanted!r}{_nearest(wanted, known)}; it has {known}')
        return found

    def _of_name(self, wanted: str, what: str) -> list[int]:
        own = clean_words(wanted)
        found = [index for index, name in enumerate(self.names) if name == own]
        if not found:
            raise ValueError(f'{what}: {self.path} has no object {wanted!r}{_nearest(own, sorted(set(self.names)))}')
        return found


@lru_cache(maxsize=4)
def _open_bank(path: str, changed: int) -> ObjectBank:
    return ObjectBank(path)


def open_bank(path: str | os.PathLike | None = None) -> ObjectBank:
    """A bank, opened once per process.

    Args:
        path: The file; None is the one in the cache folder.

    Raises:
        FileNotFoundError: If there is none; says how to get one.
        ValueError: If it is damaged or of another kind.
    """
    path = Path(path or default_bank())
    if not path.is_file():
        raise FileNotFoundError(f'no bank of objects {path}: `{PREPARE}` makes one')
    return _open_bank(str(path.absolute()), path.stat().st_mtime_ns)


def clean_words(text: str) -> str:
    """A name as sentences use it: lower case, plain letters, single blanks."""
    text = unicodedata.normalize('NFKD', text.replace('’', "'").replace('_', ' '))
    text = ''.join(own for own in text if not unicodedata.combining(own)).lower()
    return ' '.join(re.sub(r"[^a-z0-9' -]+", ' ', text).split())


def write_bank(path: str | os.PathLike, objects: Iterable[CutOut], source: str) -> tuple[int, int]:
    """Packs cut-outs into one file, which is there whole or not at all.

    Args:
        path: The file to write.
        objects: The cut-outs; those that show nearly nothing are left out.
        source: Where they come from, and under which licence.

    Returns:
        How many were packed, and how many were left out.

    Raises:
        ValueError: If none is left, there are too many, or one has no name.
        WriteError: If the file cannot be written.
    """
    rows, levels, left_out = [], {side: [] for side in SIDES}, 0
    for own in objects:
        if len(rows) == MAX_OBJECTS:
            raise ValueError(f'{path}: expected at most {MAX_OBJECTS} objects, but got more')
        name = clean_words(own.name)
        if not name:
            raise ValueError(f'{path}: expected a name of letters for every object, but got {own.name!r}')
        square = _square(own.picture)
        if square is None:
            left_out += 1
            continue
        synonyms = [word for word in dict.fromkeys(map(clean_words, own.synonyms)) if word and word != name]
        rows.append([name, own.group, own.subgroup, synonyms])
        for side in SIDES:
            shrunk = cv2.resize(square, (side, side), interpolation=cv2.INTER_AREA)
            levels[side].append(np.rint(shrunk).astype(np.uint8))
    if not rows:
        raise ValueError(f'{path}: no object is left ({left_out} cut-outs show nearly nothing)')
    about = json.dumps(dict(format=FORMAT, source=source, objects=rows))
    header, offset = {'__metadata__': dict(about=about)}, 0
    for side in SIDES:
        size = len(rows) * side * side * 4
        shape = [len(rows), side, side, 4]
        header[f'rgba{side}'] = dict(dtype='U8', shape=shape, data_offsets=[offset, offset + size])
        offset += size
    content = json.dumps(header).encode()
    content += b' ' * (-len(content) % 8)
    with whole_file(path, needed=8 + len(content) + offset) as temporary, open(temporary, 'wb') as file:
        file.write(struct.pack('<Q', len(content)) + content)
        for side in SIDES:
            file.writelines(picture.tobytes() for picture in levels[side])
    return len(rows), left_out


def _square(picture: np.ndarray) -> np.ndarray | None:
    """Premultiplied float RGBA in [0, 255], cut to the square around the object; None where there is hardly one."""
    rgba = picture.astype(np.float32)
    rgba[..., :3] *= rgba[..., 3:] / 255
    is_object = picture[..., 3] >= MIN_ALPHA
    if is_object.mean() < MIN_PIXELS:
        return None
    rows, columns = np.flatnonzero(is_object.any(axis=1)), np.flatnonzero(is_object.any(axis=0))
    top, left = rows[0], columns[0]
    height, width = rows[-1] + 1 - top, columns[-1] + 1 - left
    side = max(height, width)
    square = np.zeros((side, side, 4), np.float32)
    y, x = (side - height) // 2, (side - width) // 2
    square[y : y + height, x : x + width] = rgba[top : top + height, left : left + width]
    return square


def _read(path: str) -> tuple[dict, dict[int, np.ndarray]]:
    """What the header says, and the pyramids by their sides, mapped."""
    size = os.path.getsize(path)
    with open(path, 'rb') as file:
        start = file.read(8)
        length = struct.unpack('<Q', start)[0] if len(start) == 8 else 0
        if not 0 < length <= min(MAX_HEADER_BYTES, size - 8):
            raise ValueError(f'{path} is no whole bank of objects ({size} bytes): `{PREPARE}` makes one')
        header = parse_json(file.read(length), path, 'is no whole bank of objects')
    about = header.pop('__metadata__', None) if isinstance(header, dict) else None
    text = about.get('about') if isinstance(about, dict) else None
    about = parse_json(text, path, 'is no bank of objects') if isinstance(text, str) else None
    _check_about(path, about)
    levels, number = {}, len(about['objects'])
    for side in SIDES:
        entry = header.get(f'rgba{side}')
        shape = [number, side, side, 4]
        offsets = entry.get('data_offsets') if isinstance(entry, dict) else None
        is_pair = isinstance(offsets, list) and len(offsets) == 2 and all(type(own) is int for own in offsets)
        if not is_pair or entry.get('dtype') != 'U8' or entry.get('shape') != shape:
            raise ValueError(f'{path}: expected bytes of {shape} as rgba{side}, but got {short_repr(entry)}')
        begin, end = offsets
        if begin < 0 or end - begin != number * side * side * 4 or 8 + length + end > size:
            raise ValueError(f'{path} is cut short ({size} bytes): `{PREPARE} --again` makes it anew')
        levels[side] = np.memmap(path, np.uint8, 'r', 8 + length + begin, tuple(shape))
    return about, levels


def _check_about(path: str, about: object) -> None:
    if not isinstance(about, dict) or about.get('format') != FORMAT or not isinstance(about.get('source'), str):
        raise ValueError(f'{path}: expected a bank of objects ({FORMAT}), but got another file: `{PREPARE}` makes one')
    rows = about.get('objects')
    if not isinstance(rows, list) or not 0 < len(rows) <= MAX_OBJECTS or not all(map(_is_row, rows)):
        raise ValueError(f'{path}: expected 1 to {MAX_OBJECTS} objects with name, groups and synonyms, but got others')


def _is_row(row: object) -> bool:
    if not isinstance(row, list) or len(row) != 4 or not isinstance(row[3], list):
        return False
    return bool(row[0]) and all(isinstance(own, str) for own in (*row[:3], *row[3]))


def _as_list(wanted: str | Collection[str], what: str) -> Sequence[str]:
    wanted = [wanted] if isinstance(wanted, str) else list(wanted)
    if not wanted or not all(isinstance(own, str) for own in wanted):
        raise ValueError(f'{what} must be names, one or several, but got {wanted!r}')
    return wanted


def _nearest(wanted: str, known: Sequence[str]) -> str:
    near = difflib.get_close_matches(wanted.lower(), known, 3, 0.6)
    return f'; did you mean {" or ".join(map(repr, near))}?' if near else ''
