"""How folders of data of one's own lie: which belong together, and which are for training and validation."""

import os
import re
from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import Any

import numpy as np

from genseg_mm.datasets.annotation_files import folders_below
from genseg_mm.datasets.instance_folders import PICTURES
from genseg_mm.files import parse_json, read_bytes

DEPTH = 3  # of folders below the given one
MAX_FOLDERS = 2000
FEW_FOLDERS = 20
_SMALL = 2**24  # bytes
_ROOT = 'from the folder that GENSEG_DATA names (docs/data.md)'
SAMPLED = 16  # files that stand for all
TRAIN = ('train', 'training', 'trainval')
VAL = ('val', 'valid', 'validation', 'dev', 'test', 'testA', 'testing')
CLASS_WORDS = re.compile(r'class|semantic', re.IGNORECASE)
MAP_WORDS = re.compile(r'mask|instance|ids?$|label|annot|seg|gt|ground', re.IGNORECASE)


def near_folders(root: str) -> Iterator[tuple[str, list[str]]]:
    """Folders with their files, not deeper than ``DEPTH``."""
    depth = root.count(os.sep)
    for number, (folder, files) in enumerate(folders_below(root)):
        if number >= MAX_FOLDERS:
            return
        if folder.count(os.sep) - depth <= DEPTH:
            yield folder, files


def known_set(root: str) -> str | None:
    """What a folder is that is read by a dataset of its own, or by nothing yet, and what to type; None for others."""
    for folder, names in near_folders(root):
        jsons = [name for name in names if name.lower().endswith('.json')]
        if any(re.fullmatch(r'grefs\(\w+\)\.(p|json)', name) for name in names):
            return f'{folder} is of gRefCOCO, which the config mixed reads, {_ROOT}'
        if any(re.fullmatch(r'refs\(\w+\)\.(p|json)', name) for name in names):
            return f'{folder} is of RefCOCO, which the config refcoco reads, {_ROOT}'
        keys = _keys(os.path.join(folder, jsons[0])) if jsons else set()
        if {'shapes', 'text'} <= keys:
            return f'{folder} is of ReasonSeg, which the config reasonseg reads, {_ROOT}'
        if {'shapes', 'imagePath'} <= keys:
            return (
                f"{folder} holds labelme's json, one per picture: convert it to COCO's first (such as by labelme2coco)"
            )
    return None


def _keys(path: str) -> set[str]:
    """The keys of a small json that holds a dict."""
    try:
        content = parse_json(read_bytes(path, _SMALL), path, fallback='cp1252')
    except (ValueError, OSError):
        return set()
    return set(content) if isinstance(content, dict) else set()


@lru_cache(maxsize=64)
def files_below(folder: str) -> list[str]:
    """All files of a folder, at any depth."""
    return [os.path.join(below, name) for below, names in folders_below(folder) for name in names]


def is_picture(path: str) -> bool:
    return path.lower().endswith(PICTURES)


def sampled(names: Sequence[Any], most: int = SAMPLED) -> list:
    """So many at most, spread evenly."""
    places = np.linspace(0, len(names) - 1, min(most, len(names))).astype(int)
    return [names[place] for place in np.unique(places)]


def folder_of_most(names: Sequence[str], places: Sequence[str], what: str) -> str:
    """The first folder that has most of a sample of files."""
    sample = sampled(names)
    for place in places:
        if sum(os.path.isfile(os.path.join(place, name)) for name in sample) * 2 > len(sample):
            return place
    raise FileNotFoundError(f'{what}: there is no {sample[0]} in any of {", ".join(dict.fromkeys(places[:4]))}')


def _side(names: Sequence[str], wanted: Sequence[str]) -> str | None:
    """The first of the names that says one of these words."""
    for word in wanted:
        pattern = re.compile(rf'(?:^|[^a-z]){word.lower()}(?:[^a-z]|$)')
        for name in names:
            if pattern.search(name.lower()):
                return name
    return None


def sides_of(names: Sequence[str]) -> tuple[str, str] | None:
    """The names of training and validation; None where they do not say so."""
    train, val = _side(names, TRAIN), _side(names, VAL)
    return (train, val) if train is not None and val is not None and train != val else None


def folder_pairs(root: str) -> list[tuple[str, str]]:
    """Folders that may belong together: beside each other, or of the same name in folders beside each other."""
    folders = sorted(folder for folder, _ in near_folders(root) if folder != root)
    names = {folder: os.path.relpath(folder, root).split(os.sep) for folder in folders}
    pairs = []
    for first in folders:
        for second in folders:
            a, b = names[first], names[second]
            # Exactly one part of the path differs: images/train and labels/train, train/images and train/labels.
            differ = [y for x, y in zip(a, b, strict=True) if x != y] if len(a) == len(b) else []
            # Of many folders only those that are named so: a folder per video is none of pictures and one of maps.
            if len(differ) == 1 and (len(folders) <= FEW_FOLDERS or MAP_WORDS.search(differ[0])):
                pairs.append((first, second))
    # Of maps of classes and of objects, as Pascal VOC has, those of objects.
    return sorted(pairs, key=lambda own: (own[0].count(os.sep), bool(CLASS_WORDS.search(os.path.basename(own[1])))))


def is_below(own: tuple[str, str], other: tuple[str, str]) -> bool:
    return own != other and all(a.startswith(f'{b}{os.sep}') for a, b in zip(own, other, strict=True))


def pairs_of_sides(root: str, pairs: dict[str, tuple[str, str]]) -> list[tuple[str, str]] | None:
    """The pairs of training and validation among the pairs or their folders below."""
    whole = dict(pairs)
    for pictures, other in pairs.values():
        for below in sorted(own.name for own in os.scandir(pictures) if own.is_dir()):
            if os.path.isdir(os.path.join(other, below)):
                whole[os.path.join(pictures, below)] = os.path.join(pictures, below), os.path.join(other, below)
    sides = sides_of([os.path.relpath(own, root) for own in whole])
    return [whole[os.path.join(root, side)] for side in sides] if sides else None
