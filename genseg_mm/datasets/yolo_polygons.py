"""Labels of YOLO's segmentation format: a text file per picture, and the ``data.yaml`` beside them.

A line of a label file is ``class x0 y0 x1 y1 ...``: the number of a class and the corners of a polygon in shares of
width and height.
"""

import os
from collections import Counter
from collections.abc import Mapping
from reprlib import repr as short_repr
from typing import NamedTuple

from genseg_mm.datasets.annotation_files import with_slashes
from genseg_mm.files import decode_text, read_bytes, read_lines

MAX_YAML_BYTES = 2**20
SPLITS = ('train', 'val', 'test')
TOLERANCE = 0.01  # by which corners may lie outside, as rounding leaves them
_BOX = 5  # numbers of a line of the detection format


class YoloData(NamedTuple):
    """What a ``data.yaml`` says.

    Attributes:
        names: Of the classes, by number.
        splits: Split -> folders of pictures, or lists of them, as they are written.
        path: The folder that they are relative to, as it is written; '' for the file's own.
    """

    names: dict[int, str]
    splits: dict[str, list[str]]
    path: str


def read_data_yaml(path: str | os.PathLike) -> YoloData:
    """Reads a ``data.yaml``.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is damaged, or has no names or no split.
    """
    import yaml

    text = decode_text(read_bytes(path, MAX_YAML_BYTES), str(path))
    try:
        content = yaml.safe_load(text)
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        raise ValueError(f'{path}: expected YAML, but got {" ".join(str(error).split())[:200]}') from error
    expected = 'a dict with names (a list, or number: name) and train, val or test (a folder, or several)'
    if not isinstance(content, dict):
        raise ValueError(f'{path}: expected {expected}, but got {short_repr(content)}')
    names = content.get('names')
    if isinstance(names, list):
        names = dict(enumerate(names))
    if not isinstance(names, dict) or not names or not all(type(key) is int and key >= 0 for key in names):
        raise ValueError(f'{path}: expected {expected}, but got the names {short_repr(content.get("names"))}')
    # A few lines of YAML can stand for lists of billions, which str() would write out.
    odd = next((name for name in names.values() if not isinstance(name, (str, int, float))), None)
    if odd is not None:
        raise ValueError(f'{path}: expected {expected}, but got a {type(odd).__name__} for a name')
    splits = {}
    for split in SPLITS:
        value = content.get(split)
        folders = value if isinstance(value, list) else [value] if value not in (None, '') else []
        if not all(isinstance(folder, str) and folder.strip() for folder in folders):
            raise ValueError(f'{path}: expected {expected}, but got {split}: {short_repr(value)}')
        if folders:
            splits[split] = folders
    root = content.get('path')
    if not isinstance(root, (str, type(None))):
        raise ValueError(f'{path}: path must be a folder, but got {short_repr(root)}')
    return YoloData({key: str(name) for key, name in names.items()}, splits, root or '')


def folder_of(entry: str, data: YoloData, yaml_path: str | os.PathLike) -> str:
    """Where a folder (or list) of a ``data.yaml`` lies.

    The files travel: what they write is often a path on the machine that made them, or relative to another folder. The
    first of these that exists: below ``path``, as it is or below the file; beside the file; beside the file without the
    leading ``../`` that some exports have.

    Raises:
        FileNotFoundError: If there is none.
    """
    beside = os.path.dirname(os.path.abspath(yaml_path))
    entry, root = with_slashes(entry), with_slashes(data.path)
    bare = entry
    while bare.startswith(('../', './')):
        bare = bare.partition('/')[2]
    places = [os.path.join(beside, root, entry), os.path.join(beside, entry), os.path.join(beside, bare)]
    found = [place for place in places if os.path.exists(place)]
    if not found:
        raise FileNotFoundError(f'{yaml_path} names {entry!r}, but there is none of {sorted(set(places))}')
    return os.path.normpath(found[0])


def label_path(image_path: str) -> str:
    """The label file of a picture: the last folder ``images`` of its path becomes ``labels``, as YOLO has it."""
    head, found, tail = image_path.rpartition(f'{os.sep}images{os.sep}')
    moved = f'{head}{os.sep}labels{os.sep}{tail}' if found else image_path
    return f'{os.path.splitext(moved)[0]}.txt'


def read_labels(
    path: str | os.PathLike, height: int, width: int, names: Mapping[int, str], dropped: Counter[str]
) -> list[dict]:
    """Objects of a label file.

    Args:
        path: The file; an empty one is a picture without an object.
        height: Of the picture, in pixels.
        width: Likewise.
        names: Of the classes; empty where they are not known, and any number is one.
        dropped: Counts what is left out: boxes of the detection format, and polygons of fewer than 3 points.

    Returns:
        Dicts of ``category`` (number) and ``polygon`` [x0, y0, x1, y1, ...] in pixels.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If a line is none, or its polygon lies outside of the picture; names it.
    """
    objects = []
    for number, line in read_lines(path):
        words = line.split()
        if not words:
            continue
        where = f'{path}, line {number}'
        category = _category(words[0], names, where)
        if len(words) == _BOX:
            dropped['boxes without a polygon'] += 1
            continue
        if len(words) < 7:
            dropped['polygons of fewer than 3 points'] += 1
            continue
        if len(words) % 2 == 0:
            raise ValueError(f'{where}: expected class x0 y0 x1 y1 ..., but got {len(words)} numbers')
        shares = [_share(word, where) for word in words[1:]]
        polygon = [share * side for share, side in zip(shares, (width, height) * (len(shares) // 2), strict=True)]
        objects.append(dict(category=category, polygon=polygon))
    return objects


def _category(word: str, names: Mapping[int, str], where: str) -> int:
    text = word.removesuffix('.0')  # of tools that write all numbers as floats
    number = int(text) if text.isdecimal() and len(text) < 10 else None
    if number is None or (names and number not in names):
        known = f'one of the {len(names)} in names' if names else 'a whole number from 0 on'
        raise ValueError(f'{where}: expected a class, {known}, but got {short_repr(word)}')
    return number


def _share(word: str, where: str) -> float:
    try:
        value = float(word)
    except ValueError:
        raise ValueError(f'{where}: expected numbers, but got {short_repr(word)}') from None
    if not -TOLERANCE <= value <= 1 + TOLERANCE:  # also false for nan
        raise ValueError(
            f'{where}: expected corners in shares of width and height, 0 to 1, but got {short_repr(word)}: are they '
            'pixels?'
        )
    return min(max(value, 0.0), 1.0)


def is_label_line(line: str) -> bool:
    """Whether a line looks like one of a label file, for telling formats apart."""
    words = line.split()
    try:
        numbers = [float(word) for word in words]
    except ValueError:
        return False
    return len(words) >= _BOX and words[0].removesuffix('.0').isdecimal() and max(numbers[1:]) <= 1 + TOLERANCE
