"""Tar shards of pictures and texts (WebDataset's layout): an index of members, and reading of one by its offset.

A shard is an uncompressed tar whose members are grouped by their name up to the first dot of its last part:
``000017.jpg`` and ``000017.txt`` are one sample. Nothing is ever unpacked to disk.

A member has the address ``tar://<shard>#<offset>+<size>/<member>``, which MMEngine's file client reads once this module
is imported: ``LoadImage``, mmcv's ``LoadImageFromFile`` and ``mmengine.fileio.get`` take it like a path. Each reading
opens the shard anew, so loader workers share no file position.

A shard that was cut short or damaged keeps the samples before that place; members whose names lead out of the shard or
are no UTF-8 are left out.
"""

import json
import math
import os
import re
import struct
import tarfile
from pathlib import Path
from reprlib import repr as short_repr
from typing import Any, NamedTuple

from mmengine.fileio.backends import BaseStorageBackend, register_backend

from genseg_mm.files import EMPTY_TEXT, decode_text, has_lone_surrogate, parse_json, read_json, usable_text
from genseg_mm.whole_files import whole_file

IMAGE_ENDINGS = ('jpg', 'jpeg', 'png', 'webp')
TEXT_ENDINGS = ('txt', 'json')
MAX_TEXT_BYTES = 2**24  # of one text
_ADDRESS = re.compile(r'tar://(.+?\.tar)#(\d+)\+(\d+)/(.*)', re.DOTALL | re.IGNORECASE)
_INDEX_VERSION = 2
# What tarfile raises at damaged headers: numbers that are none, chains of long names without end, ...
_DAMAGE = (tarfile.TarError, ValueError, ArithmeticError, EOFError, LookupError, RecursionError, struct.error)


class Picture(NamedTuple):
    """One sample of a shard."""

    member: str
    offset: int  # of the picture's bytes in the shard
    size: int
    captions: list[str]


class ShardIndex(NamedTuple):
    """What a shard holds, and what of it is no sample: (reason, name of the member)."""

    pictures: list[Picture]
    left_out: list[tuple[str, str]]


@register_backend('genseg_tar', prefixes='tar', force=True)
class TarBackend(BaseStorageBackend):
    """Reads a member by its address (see the module)."""

    def get(self, filepath: str | Path) -> bytes:
        """The bytes of one member.

        Raises:
            FileNotFoundError: If there is no such shard.
            ValueError: If the address is wrong, or the shard ends before the member does.
        """
        found = _ADDRESS.fullmatch(str(filepath))
        if found is None:
            raise ValueError(f'expected an address tar://<shard>#<offset>+<size>/<member>, but got {filepath}')
        path, size = found[1], int(found[3])
        with open(path, 'rb') as file:
            file.seek(int(found[2]))
            data = file.read(size)
        if len(data) < size:
            raise ValueError(f'{filepath}: the shard ends after {len(data)} of {size} bytes')
        return data

    def get_text(self, filepath: str | Path, encoding: str = 'utf-8') -> str:
        """The text of one member."""
        return self.get(filepath).decode(encoding)


def address(shard: str, picture: Picture) -> str:
    """Address of a picture, for ``img_path``."""
    return f'tar://{shard}#{picture.offset}+{picture.size}/{picture.member}'


def split_address(path: str) -> tuple[str, str] | None:
    """The shard of an address, and what follows it; None for another path."""
    found = _ADDRESS.fullmatch(path)
    return None if found is None else (found[1], path[found.end(1) :])


def texts_of(data: bytes, ending: str, text_key: str) -> tuple[list[str], list[str]]:
    """Captions of the bytes of a text file: one in ``.txt``, one or a list of them in ``.json``.

    Returns:
        See :func:`clean_captions`.

    Raises:
        ValueError: If the bytes are no text, or the json has no such key.
    """
    text: Any = decode_text(data, 'the text')
    if ending == 'json':
        content = parse_json(text, 'the text')
        if not isinstance(content, dict) or text_key not in content:
            raise ValueError(f'no key {text_key!r}')
        text = content[text_key]
    return clean_captions(text, 'the text')


def clean_captions(text: object, where: str) -> tuple[list[str], list[str]]:
    """Captions of a string or a list of strings.

    Returns:
        Captions without runs of blanks, and the reason why each of the others is none
        (:func:`genseg_mm.files.usable_text`).

    Raises:
        ValueError: If it is neither; names ``where``.
    """
    captions, reasons = [], []
    for one in text if isinstance(text, list) else [text]:
        is_nan = isinstance(one, float) and math.isnan(one)
        if not (one is None or is_nan or isinstance(one, str)):
            raise ValueError(f'{where}: expected a string or a list of strings, but got {short_repr(text)}')
        usable, reason = usable_text(one, where)
        if reason:
            reasons.append(reason)
        else:
            captions.append(' '.join(usable.split()))
    return captions, reasons or ([] if captions else [EMPTY_TEXT])


def read_index(shard: str, text_key: str, index_dir: str | None = None) -> ShardIndex:
    """Index of a shard; kept in ``index_dir``, read again while the shard has its size and time.

    Args:
        shard: Path of an uncompressed tar.
        text_key: Key of the text in ``.json`` members; a ``.txt`` goes before.
        index_dir: Folder of the kept indices; None keeps none.

    Raises:
        FileNotFoundError: If there is no such shard.
        ValueError: If it is no uncompressed tar.
    """
    if not os.path.isfile(shard):
        raise FileNotFoundError(f'shard {shard} does not exist')
    if index_dir is None:
        return _scan(shard, text_key)
    stat = os.stat(shard)
    key = dict(version=_INDEX_VERSION, size=stat.st_size, mtime_ns=stat.st_mtime_ns, text_key=text_key)
    path = Path(index_dir, f'{os.path.abspath(shard).replace(os.sep, "_")}.json')
    if path.is_file():
        kept = _kept_index(path, key)
        if kept is not None:
            return kept
    index = _scan(shard, text_key)
    # Processes that start together may all write it: each writes a file of its own, and the last one stays.
    with whole_file(path) as part:
        part.write_text(json.dumps(dict(key=key, **index._asdict())), encoding='utf-8')
    return index


def _kept_index(path: Path, key: dict) -> ShardIndex | None:
    """The index in a file, None if it is of the shard as it was before."""
    try:
        content = read_json(path)
        if content['key'] != key:
            return None
        pictures = [Picture(*picture) for picture in content['pictures']]
        left_out = [(reason, name) for reason, name in content['left_out']]
        for member, offset, size, captions in pictures:
            if min(offset, size) < 0 or offset + size > key['size'] or not captions:
                raise ValueError(f'{member!r} lies outside of the shard or has no text')
            if any(usable_text(text, 'a caption')[1] for text in (member, *captions)):
                raise ValueError(f'{member!r} has a text that is none')
        if not all(isinstance(text, str) for entry in left_out for text in entry):
            raise ValueError('left_out holds other things than texts')
    except (ValueError, TypeError, LookupError) as error:
        raise ValueError(f'index {path} is damaged ({error}): delete it') from error
    return ShardIndex(pictures, left_out)


def _scan(shard: str, text_key: str) -> ShardIndex:
    groups, left_out = _members(shard)
    pictures = []
    with open(shard, 'rb') as file:

        def read(offset: int, size: int) -> bytes:
            if size > MAX_TEXT_BYTES:
                raise ValueError(f'expected at most {MAX_TEXT_BYTES} bytes, but got {size}')
            file.seek(offset)
            return file.read(size)

        for key, group in groups.items():
            image = next((group[ending] for ending in IMAGE_ENDINGS if ending in group), None)
            text = next((ending for ending in TEXT_ENDINGS if ending in group), None)
            if image is None or text is None:
                what = 'texts without a picture' if image is None else 'pictures without a text'
                left_out.append((what, f'{shard}/{key}'))
                continue
            member, offset, size = image
            if not looks_like_picture(read(offset, min(size, 16))):
                left_out.append(('damaged pictures', f'{shard}/{member}'))
                continue
            try:
                captions, reasons = texts_of(read(*group[text][1:]), text, text_key)
            except ValueError as error:
                left_out.append(('unreadable texts', f'{shard}/{group[text][0]} ({error})'))
                continue
            left_out += [(reason, f'{shard}/{group[text][0]}') for reason in reasons]
            if captions:
                pictures.append(Picture(member, offset, size, captions))
    return ShardIndex(pictures, left_out)


def _members(shard: str) -> tuple[dict[str, dict[str, tuple]], list[tuple[str, str]]]:
    """Key -> ending -> (name, offset, size) of all whole members, and what is none."""
    groups: dict[str, dict[str, tuple]] = {}
    left_out: list[tuple[str, str]] = []
    total, last = os.path.getsize(shard), 'its start'
    try:
        with tarfile.open(shard, 'r:') as tar:
            while (member := _next(tar)) is not None:
                # Of a sparse one, whose holes are not stored, the size is that with them.
                is_whole = member.size >= 0 and member.offset_data + member.size <= total
                if not is_whole and not member.issparse():
                    break
                tar.members.clear()  # all headers of a shard are more than its index
                if has_lone_surrogate(member.name) or '\0' in member.name:
                    name = member.name.encode('utf-8', 'backslashreplace').decode()
                    left_out.append(('members with a name that is no UTF-8', f'{shard}/{name}'))
                    continue
                last = member.name
                if member.isdir():
                    continue
                if os.path.isabs(member.name) or '..' in member.name.split('/'):
                    left_out.append(('members whose name leads out of the shard', f'{shard}/{member.name}'))
                    continue
                folder, name = os.path.split(member.name)
                stem, _, ending = name.partition('.')
                ending, key = ending.lower(), os.path.join(folder, stem)
                if not member.isreg() or member.issparse() or ending not in IMAGE_ENDINGS + TEXT_ENDINGS:
                    left_out.append(('members of other kinds', f'{shard}/{member.name}'))
                elif ending in groups.setdefault(key, {}):
                    left_out.append(('members that come twice', f'{shard}/{member.name}'))
                else:
                    groups[key][ending] = member.name, member.offset_data, member.size
            end = tar.offset
    except _DAMAGE as error:
        raise ValueError(
            f'{shard} is no uncompressed tar ({error}): unpack a compressed one first, members of it cannot be reached '
            'by their offset'
        ) from error
    with open(shard, 'rb') as file:
        file.seek(min(end, total))
        block = file.read(512)
    if len(block) < 512 or any(block):  # tarfile stops at a damaged header without a word
        left_out.append(('shards cut short or damaged', f'{shard} after {last}'))
    return groups, left_out


def _next(tar: tarfile.TarFile) -> tarfile.TarInfo | None:
    try:
        return tar.next()
    except _DAMAGE:
        if tar.offset == 0:
            raise
        return None  # the end is looked at afterwards


def looks_like_picture(head: bytes) -> bool:
    """Whether the first 16 bytes are those of a JPEG, PNG or WebP file."""
    is_webp = head[:4] == b'RIFF' and head[8:12] == b'WEBP'
    return head.startswith((b'\xff\xd8\xff', b'\x89PNG\r\n\x1a\n')) or is_webp
