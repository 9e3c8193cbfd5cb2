"""COCO's annotation format: which values an entry may have. One checker for every data set in that format."""

import os
from collections.abc import Callable, Collection, Mapping
from reprlib import repr as short_repr
from typing import Any, NamedTuple

from genseg_mm.datasets.annotation_files import is_integer, is_number
from genseg_mm.files import read_json

MAX_SIDE = 65_535  # pixels, as of JPEG


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


def read_coco(path: str | os.PathLike, lists: Mapping[str, Mapping[str, Field]]) -> dict[str, list[dict]]:
    """Reads a file in COCO's format and checks every entry.

    Args:
        path: The json.
        lists: Fields of the entries of each list that the file must have.

    Returns:
        The content; in each list every id is there once, and every annotation is of one of the images.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is damaged, lacks a list, or an entry is wrong; names file, list and entry.
    """
    content = read_lists(path, lists)
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


def read_lists(path: str | os.PathLike, names: Collection[str]) -> dict[str, Any]:
    """The dict of a COCO file, which has these lists.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is damaged or lacks a list.
    """
    content = read_json(path)
    missing = [name for name in names if not isinstance(content, dict) or not isinstance(content.get(name), list)]
    if missing:
        raise ValueError(
            f"{path}: expected a dict with the lists {tuple(names)} (COCO's format), but {missing[0]} is missing or no "
            f'list in {short_repr(content)}'
        )
    return content


def _id(entry: Mapping) -> str:
    return f' (id {short_repr(entry["id"])})' if 'id' in entry else ''
