"""Which COCO pictures are for evaluation, so that no training set holds them.

RefCOCO, RefCOCO+, RefCOCOg and gRefCOCO take their pictures from COCO train2014 and split each in its own way: a test
picture of one is a training picture of another, and of every caption or instance set made of COCO. COCO names its
pictures by one number, ``COCO_train2014_000000581857.jpg`` in 2014 and ``000000581857.jpg`` in 2017: the number is the
image id in all of them, the 2014 and 2017 releases only divide the same pictures differently.
"""

import os
import re
from collections.abc import Sequence
from functools import lru_cache
from reprlib import repr as short_repr

from genseg_mm.datasets.annotation_files import is_integer
from genseg_mm.files import read_json, read_lines
from genseg_mm.files.pickles import load_plain_pickle

_UNC_UMD = ('refcoco/refs(unc).p', 'refcoco+/refs(unc).p', 'refcocog/refs(umd).p')
_GOOGLE = 'refcocog/refs(google).p'
_GREFCOCO = ('grefcoco/grefs(unc).json', 'grefcoco/grefs(unc).p')  # either name, by release

# Names for lists of refs files. All pictures that PolyFormer leaves out (10,113) are those of 'unc+umd+google'.
PRESETS = {'unc+umd': _UNC_UMD, 'unc+umd+google': (*_UNC_UMD, _GOOGLE), 'all': (*_UNC_UMD, _GOOGLE, _GREFCOCO)}
_COCO_NAME = re.compile(r'(?:^|[_/\\])(\d{12})(?:_\d+)?(?:\.[A-Za-z]+)?$')


def coco_image_id(name: str) -> int | None:
    """Image id in the file name of a COCO picture of 2014 or 2017, None for any other name.

    The suffix of ``file_name`` in refs files (``COCO_train2014_000000581857_16.jpg``) is no part of the id.
    """
    found = _COCO_NAME.search(name)
    return int(found[1]) if found else None


def evaluation_image_ids(sources: Sequence[str | int], data_root: str = '') -> frozenset[int]:
    """Ids of all pictures that training must leave out.

    Args:
        sources: Any of

            - an image id;
            - a preset: ``'unc+umd'`` (RefCOCO, RefCOCO+, RefCOCOg UMD), ``'unc+umd+google'`` (also the validation
              pictures of RefCOCOg Google, which are training pictures elsewhere; PolyFormer's choice), ``'all'``
              (also gRefCOCO). Their files must exist below ``data_root``;
            - a refs file (``.p`` or ``.json``) of RefCOCO, RefCOCO+, RefCOCOg or gRefCOCO: its pictures of any split
              other than train, here also those that its training split holds as well;
            - a ``.p`` of a plain set or list of ids or names (PolyFormer's ``val_test_files.p``);
            - a ``.txt`` of one id or COCO file name per line;
            - a ``.json`` in COCO's format, e.g. ``annotations/captions_val2017.json``: all its pictures;
            - a folder, e.g. ``ReasonSeg/val``: its pictures with COCO names. Others are not of COCO.
        data_root: Folder that the paths are relative to.

    Returns:
        The ids.

    Raises:
        FileNotFoundError: If a file or folder is missing.
        ValueError: If a source is none of these.
    """
    ids: set[int] = set()
    for source in [sources] if isinstance(sources, (str, int)) else sources:
        if isinstance(source, int) and not isinstance(source, bool):
            ids.add(source)
        elif isinstance(source, (str, os.PathLike)):
            for path in _paths(os.fspath(source), data_root):
                status = os.stat(path)
                ids |= _ids_of(path, status.st_mtime_ns, status.st_size)
        else:
            raise ValueError(f'expected image ids, files or one of {tuple(PRESETS)}, but got {short_repr(source)}')
    return frozenset(ids)


def _paths(source: str, data_root: str) -> list[str]:
    """Existing files or the folder that a source names."""
    found = []
    for names in PRESETS.get(source, (source,)):
        names = (names,) if isinstance(names, str) else names
        paths = [os.path.join(data_root or '', name) for name in names]
        existing = [path for path in paths if os.path.exists(path)]
        if not existing:
            raise FileNotFoundError(
                f'pictures to leave out of training: no file {" or ".join(map(repr, paths))}, '
                f'asked for by {source!r}; expected a refs file, an id list, a folder or one of '
                f'{tuple(PRESETS)}'
            )
        found += existing
    return found


@lru_cache(maxsize=32)  # several training sets of a run name the same files
def _ids_of(path: str, mtime_ns: int, size: int) -> frozenset[int]:
    del mtime_ns, size  # they are in the key: a changed file is read again
    if os.path.isdir(path):
        return frozenset(number for name in os.listdir(path) if (number := coco_image_id(name)) is not None)
    if path.endswith('.txt'):
        lines = ((number, line.strip()) for number, line in read_lines(path))
        return frozenset(_number(line, f'{path}, line {number}') for number, line in lines if line)
    content = read_json(path) if path.endswith('.json') else load_plain_pickle(path)
    if isinstance(content, dict):
        images = content.get('images')
        if not isinstance(images, list):
            raise ValueError(f'{path} lacks the list images, it has {short_repr(sorted(map(str, content)))}')
        return frozenset(_key(own, 'id', int, f'{path}, images') for own in images)
    if not isinstance(content, (list, set, frozenset)) or not content:
        raise ValueError(f'{path}: expected a list of references, but got {short_repr(content)}')
    if not any(isinstance(entry, dict) for entry in content):
        return frozenset(_number(entry, path) for entry in content)
    return frozenset(
        _key(ref, 'image_id', int, f'{path}, reference {index}')
        for index, ref in enumerate(content)
        if _key(ref, 'split', str, f'{path}, reference {index}') != 'train'
    )


def _number(entry: object, where: str) -> int:
    if is_integer(entry):
        return entry
    if isinstance(entry, str) and entry.isdecimal() and len(entry) < 19:
        return int(entry)
    number = coco_image_id(entry) if isinstance(entry, str) else None
    if number is None:
        raise ValueError(f'{where}: expected one image id, but got {short_repr(entry)}')
    return number


def _key(entry: object, key: str, kind: type, where: str) -> object:
    value = entry.get(key) if isinstance(entry, dict) else None
    if not isinstance(value, kind) or (kind is int and not is_integer(value)):
        raise ValueError(f'{where}: expected a dict with {key} ({kind.__name__}), but got {short_repr(entry)}')
    return value
