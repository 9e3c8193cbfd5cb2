"""What the readers share: paths that stay inside, files that exist, folders to search, entries in COCO's format."""

import logging
import math
import os
from collections.abc import Callable, Collection, Iterator, Mapping
from reprlib import repr as short_repr
from typing import Any, NamedTuple

from mmengine.logging import print_log

from genseg_mm.files import has_lone_surrogate
from genseg_mm.files import read_json as read_json  # own readers of users take it from here

MAX_SIDE = 65_535  # pixels, as of JPEG


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


def with_slashes(name: str) -> str:
    """The name of a file as this system writes it: annotations that were made on Windows have backslashes."""
    return name.replace('\\', '/') if os.sep == '/' else name


def picture_path(folder: str, name: str, data_root: str | None, where: str, allow_outside: bool = False) -> str:
    r"""Path of a picture that an annotation names.

    Annotations come from elsewhere and are no reason to read any file of this machine: the path, as it is written, has
    to stay in the dataset's root or in the folder of its pictures. ``..`` and absolute paths that end in there are
    fine. Links are not followed for this: what the user links into the folder belongs to it.

    ``\``, which Windows has written, is ``/``.

    Args:
        folder: Of the pictures.
        name: Relative to it.
        data_root: Root of the dataset.
        where: What the message of an error starts with.
        allow_outside: Whether the path may lead elsewhere.

    Raises:
        ValueError: If the name is empty, no name of a file, or leads elsewhere.
    """
    if not isinstance(name, str) or not name.strip() or '\0' in name or has_lone_surrogate(name):
        raise ValueError(f'{where}: expected the name of a picture, but got {short_repr(name)}')
    name = with_slashes(name)
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


def named_files(folder: str | os.PathLike, suffixes: Collection[str]) -> set[str]:
    """Names without ending of the files of a folder that end so; none where there is no folder.

    Hidden ones (``._*`` of macOS) are no data.
    """
    names = map(os.path.splitext, os.listdir(folder) if os.path.isdir(folder) else ())
    return {stem for stem, suffix in names if suffix in suffixes and not stem.startswith('.')}


def warn_counted(message: str, count: int, what: str = '') -> None:
    """Logs a warning, with its count, where that is 1, 10, 100, ...

    Args:
        message: What happened.
        count: How often it has happened in this process, this time included.
        what: Name of what is counted, where the message does not say it.
    """
    if str(count).strip('0') == '1':
        counted = f'{count} {what} so far' if what else f'{count} so far'
        print_log(f'{message} ({counted} in this process)', 'current', logging.WARNING)


# ---- COCO's format: one checker for every dataset in it


class Field(NamedTuple):
    """What the value of a key must be: in words and as a test."""

    expected: str
    is_valid: Callable[[Any], bool]
    optional: bool = False


def _is_side(value: object) -> bool:
    return is_integer(value) and 1 <= value <= MAX_SIDE


def _is_bbox(value: object) -> bool:
    return isinstance(value, list) and len(value) == 4 and all(map(is_number, value)) and min(value[2:]) >= 0


def _is_flag(value: object) -> bool:
    return isinstance(value, (bool, int)) and value in (0, 1)


def _is_segmentation(value: object) -> bool:
    """Polygons, an RLE, or several; their numbers are checked where they are decoded."""
    return isinstance(value, dict) or (
        isinstance(value, list) and all(isinstance(part, (list, dict)) for part in value)
    )


ID = Field('int (a whole number of 64 bits)', is_integer)
SIDE = Field(f'int (pixels, 1 to {MAX_SIDE})', _is_side)
NAME = Field('str (the name of a file)', lambda value: isinstance(value, str) and bool(value.strip()))
IMAGE = dict(id=ID, file_name=NAME, height=SIDE, width=SIDE)
CATEGORY = dict(id=ID, name=Field('str', lambda value: isinstance(value, str)))
SEGMENTATION = Field('a list of polygons or an RLE dict', _is_segmentation)
FLAGS = dict(iscrowd=Field('0 or 1', _is_flag, optional=True), ignore=Field('0 or 1', _is_flag, optional=True))
INSTANCE = dict(
    id=ID,
    image_id=ID,
    category_id=ID,
    bbox=Field('[x, y, width, height], finite and not negative in size', _is_bbox),
    area=Field('a number from 0 on', lambda value: is_number(value) and value >= 0),
    segmentation=Field(SEGMENTATION.expected, lambda value: value is None or _is_segmentation(value), optional=True),
    **FLAGS,
)
CAPTION = dict(id=ID, image_id=ID)  # its text may be empty: see usable_text


def check_entry(entry: object, fields: Mapping[str, Field], where: str) -> None:
    """Checks that an entry is a dict with valid values.

    Raises:
        ValueError: If it is not. The message starts with ``where`` and ends with the entry's id.
    """
    if not isinstance(entry, dict):
        raise ValueError(f'{where}: expected a dict with {list(fields)}, but got {short_repr(entry)}')
    for key, field in fields.items():
        if key not in entry:
            if not field.optional:
                raise ValueError(f'{where} lacks the key {key!r}, it has {sorted(map(str, entry))}{_id(entry)}')
        elif not field.is_valid(entry[key]):
            raise ValueError(f'{where}: {key} must be {field.expected}, but got {short_repr(entry[key])}{_id(entry)}')


def read_coco(
    path: str | os.PathLike,
    lists: Mapping[str, Mapping[str, Field]],
    complete: Callable[[dict], None] | None = None,
) -> dict[str, list[dict]]:
    """Reads a file in COCO's format and checks every entry.

    Args:
        path: The json.
        lists: Fields of the entries of each list that the file must have.
        complete: Fills in what follows from the rest, before anything is checked.

    Returns:
        The content; in each list every id is there once, and every annotation is of one of the images. Images without
        ``file_name`` have the one that their ``coco_url`` ends with, as in LVIS: ``train2017/000000391895.jpg``.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is damaged, lacks a list, or an entry is wrong; names file, list and entry.
    """
    content = read_lists(path, lists, complete)
    for image in content['images']:
        if isinstance(image, dict) and 'file_name' not in image and isinstance(image.get('coco_url'), str):
            image['file_name'] = '/'.join(image['coco_url'].split('/')[-2:])
    for name, fields in lists.items():
        seen = set()
        for index, entry in enumerate(content[name]):
            check_entry(entry, fields, f'{path}, {name}[{index}]')
            if entry['id'] in seen:
                raise ValueError(f'{path}: two {name} have the same id {entry["id"]}')
            seen.add(entry['id'])
    known = {image['id'] for image in content['images']}
    for own in content['annotations']:
        if own['image_id'] not in known:
            raise ValueError(f'{path}: annotation {own["id"]} is of image {own["image_id"]}, which is not in the file')
    return content


def read_lists(
    path: str | os.PathLike, names: Collection[str], complete: Callable[[dict], None] | None = None
) -> dict[str, Any]:
    """The dict of a COCO file, which has these lists; ``complete`` as of :func:`read_coco`.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is damaged or lacks a list.
    """
    content = read_json(path)
    if complete is not None and isinstance(content, dict):
        complete(content)
    missing = [name for name in names if not isinstance(content, dict) or not isinstance(content.get(name), list)]
    if missing:
        raise ValueError(
            f"{path}: expected a dict with the lists {tuple(names)} (COCO's format), but {missing[0]} is missing or no "
            f'list in {short_repr(content)}'
        )
    return content


def _id(entry: Mapping) -> str:
    return f' (id {short_repr(entry["id"])})' if 'id' in entry else ''
