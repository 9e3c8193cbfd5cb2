"""Pictures with texts from a folder, a list or tar shards.

A shard (WebDataset's layout) is an uncompressed tar whose members are grouped by their name up to the first dot of its
last part: ``000017.jpg`` and ``000017.txt`` are one sample. Nothing is ever unpacked to disk.

A member has the address ``tar://<shard>#<offset>+<size>/<member>``, which MMEngine's file client reads once this module
is imported: ``LoadImage``, mmcv's ``LoadImageFromFile`` and ``mmengine.fileio.get`` take it like a path. Each reading
opens the shard anew, so loader workers share no file position.

A shard that was cut short or damaged keeps the samples before that place; members whose names lead out of the shard or
are no UTF-8 are left out.
"""

import glob
import json
import math
import os
import re
import struct
import tarfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from reprlib import repr as short_repr
from typing import Any, NamedTuple

from mmengine.fileio.backends import BaseStorageBackend, register_backend

from genseg_mm.datasets.annotation_files import ExistingFiles, folders_below, picture_path
from genseg_mm.datasets.coco_captions import CaptionDataset
from genseg_mm.datasets.transforms.images import LoadImage
from genseg_mm.files import (
    EMPTY_TEXT,
    decode_text,
    has_lone_surrogate,
    parse_json,
    read_bytes,
    read_json,
    read_json_lines,
    read_table,
    usable_text,
)
from genseg_mm.files.whole_files import whole_file
from genseg_mm.registry import DATASETS

IMAGE_ENDINGS = ('jpg', 'jpeg', 'png', 'webp')
TEXT_ENDINGS = ('txt', 'json')
MAX_TEXT_BYTES = 2**24  # of one text
_ADDRESS = re.compile(r'tar://(.+?\.tar)#(\d+)\+(\d+)/(.*)', re.DOTALL | re.IGNORECASE)
_INDEX_VERSION = 2
# What tarfile raises at damaged headers: numbers that are none, chains of long names without end, ...
_DAMAGE = (tarfile.TarError, ValueError, ArithmeticError, EOFError, LookupError, RecursionError, struct.error)
_TABLES = ('.csv', '.tsv')


@DATASETS.register_module()
class ImageTextDataset(CaptionDataset):
    """Pictures with texts of one's own, for text-to-image generation; see :class:`CaptionDataset`.

    A source is one of these:

    - a folder: pictures (.jpg, .jpeg, .png, .webp) at any depth, with a ``.txt`` or ``.json`` of the same name; links
      to folders are followed, hidden files (``._*`` of macOS) are no data;
    - a list: ``.jsonl`` (a dict in each line), ``.csv`` or ``.tsv`` (columns with names; a tsv has no quoting) with the
      path of a picture and its text; several lines of one picture are its captions;
    - tar shards of WebDataset's layout, uncompressed (see the module): their index is built once, and members are read
      at their offset, in any order and by any number of workers. ``img_path`` is an address that ``LoadImage`` takes.

    A ``.txt`` is one caption; a ``.json`` and a list may also hold several. What is no whole sample (a picture without
    a text, an empty or unreadable text, a shard that was cut short, ...) is left out, counted in a warning and named in
    ``left_out``; so is a row of a list whose text is null, NaN, empty or missing. A row with another type, or a damaged
    list, is an error that names the line. Texts are UTF-8, or what their byte order mark says. Pictures that turn out
    to be damaged when they are read are an error that names them, unless ``check_images`` found them before.

    Args:
        sources: Folder, list or shard, or several, also as patterns: ``'shards/*.tar'``.
        data_root: Folder that the sources are relative to.
        data_prefix: ``img_path`` is the folder that the paths in lists are relative to.
        image_key: Key or column of the picture's path in lists.
        text_key: Key or column of the text, a string or a list of strings, in lists and ``.json`` files.
        index_dir: Folder, relative to data_root, where indices of shards are kept for the next start. None builds them
            at each start: about 0.1 s for 1000 samples.
        check_images: Decodes every picture once at the start, and leaves out those that cannot be.
        **kwargs: As for :class:`CaptionDataset`.
    """

    def __init__(
        self,
        sources: str | Sequence[str],
        data_root: str = '',
        data_prefix: Mapping = dict(img_path=''),
        image_key: str = 'image',
        text_key: str = 'text',
        index_dir: str | None = None,
        check_images: bool = False,
        **kwargs,
    ) -> None:
        self.sources = [sources] if isinstance(sources, str) else list(sources)
        if not self.sources or not all(isinstance(source, str) for source in self.sources):
            raise ValueError(f'sources must be a folder, list or shard, or several, but got {sources!r}')
        self.image_key, self.text_key = image_key, text_key
        self.index_dir = None if index_dir is None else os.path.join(data_root, index_dir)
        self.check_images = check_images
        super().__init__(ann_file='', data_root=str(data_root), data_prefix=data_prefix, **kwargs)

    @property
    def _name(self) -> str:
        return f'{type(self).__name__} {short_repr(self.sources)}'

    def read_pictures(self) -> list[dict]:
        """Pictures of all sources in their order, those of folders sorted by name."""
        pictures = [
            picture for source in self.sources for path in self._existing(source) for picture in self._read(path)
        ]
        return self._decodable(pictures) if self.check_images else pictures

    def _existing(self, source: str) -> list[str]:
        path = os.path.join(self.data_root or '', source)
        found = [path] if os.path.exists(path) else sorted(glob.glob(path))
        if not found:
            raise FileNotFoundError(f'source {path!r}: there is no such file or folder')
        return found

    def _read(self, path: str) -> Iterator[dict]:
        ending = os.path.splitext(path)[1].lower()
        if os.path.isdir(path):
            return self._read_folder(path)
        if ending == '.tar':
            return self._read_shard(path)
        if ending == '.jsonl' or ending in _TABLES:
            rows = read_json_lines(path) if ending == '.jsonl' else read_table(path)
            return self._merged(path, rows)
        raise ValueError(f'source {path!r} must be a folder or a file that ends with .jsonl, .csv, .tsv or .tar')

    def _read_folder(self, root: str) -> Iterator[dict]:
        for folder, names in folders_below(root):
            endings: dict[str, list[str]] = {}
            for name in names:
                stem, ending = os.path.splitext(name)
                endings.setdefault(stem, []).append(ending)
            for stem, own in endings.items():
                path = os.path.join(folder, stem)
                images = [ending for ending in own if ending[1:].lower() in IMAGE_ENDINGS]
                texts = [f'.{kind}' for kind in TEXT_ENDINGS if f'.{kind}' in own]
                if has_lone_surrogate(path) and (images or texts):
                    self.leave_out('files with a name that is no UTF-8', path)
                    continue
                if not images:
                    if texts:
                        self.leave_out('texts without a picture', path + texts[0])
                    continue
                if not texts:
                    self.leave_out('pictures without a text', path + images[0])
                    continue
                for other in images[1:]:
                    self.leave_out('second pictures of one name', path + other)
                captions = self._captions(path + texts[0])
                if captions:
                    name = os.path.relpath(path, root)
                    yield dict(img_path=path + images[0], img_id=name, captions=captions)

    def _captions(self, path: str) -> list[str]:
        try:
            data = read_bytes(path, MAX_TEXT_BYTES)
            captions, reasons = texts_of(data, path.rpartition('.')[2], self.text_key)
        except ValueError as error:
            self.leave_out('unreadable texts', f'{path} ({error})')
            return []
        for reason in reasons:
            self.leave_out(reason, path)
        return captions

    def _read_shard(self, path: str) -> Iterator[dict]:
        index = read_index(path, self.text_key, self.index_dir)
        for reason, name in index.left_out:
            self.leave_out(reason, name)
        shard = os.path.splitext(os.path.basename(path))[0]
        for picture in index.pictures:
            key = os.path.splitext(picture.member)[0]
            yield dict(img_path=address(path, picture), img_id=f'{shard}/{key}', captions=picture.captions)

    def _merged(self, path: str, rows: Iterator[tuple[int, dict]]) -> Iterator[dict]:
        """One picture for each path of a list, in the order of their first lines."""
        captions: dict[str, list[str]] = {}
        ids: dict[str, str] = {}
        lacking, has_texts = '', False
        for number, row in rows:
            where = f'{path}, line {number}'
            image = row.get(self.image_key)
            if not isinstance(image, str) or not image:
                raise ValueError(self._expected(where, row))
            has_texts = has_texts or self.text_key in row
            if not has_texts:  # the key is wrong, unless a later row has it
                lacking = lacking or self._expected(where, row)
            own, reasons = clean_captions(row.get(self.text_key), where)
            for reason in reasons:
                self.leave_out(reason, where)
            full = picture_path(self.data_prefix['img_path'], image, self.data_root, where, self.allow_outside)
            captions.setdefault(full, []).extend(own)
            ids.setdefault(full, os.path.splitext(image)[0])
        if not has_texts and lacking:
            raise ValueError(lacking)
        files = ExistingFiles()
        for full, own in captions.items():
            if full not in files:
                self.leave_out('pictures that do not exist', full)
            elif own:
                yield dict(img_path=full, img_id=ids[full], captions=own)

    def _expected(self, where: str, row: Mapping) -> str:
        return (
            f'{where}: expected {self.image_key!r} and {self.text_key!r} (image_key, text_key), but got '
            f'{short_repr(row)}'
        )

    def _decodable(self, pictures: list[dict]) -> list[dict]:
        load, whole = LoadImage(), []
        for picture in pictures:
            try:
                load(dict(img_path=picture['img_path']))
            except ValueError as error:
                self.leave_out('damaged pictures', f'{picture["img_path"]} ({error})')
            else:
                whole.append(picture)
        return whole


# ---- tar shards: an index of members, and reading of one by its offset


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
