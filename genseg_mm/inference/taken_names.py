"""Names in a folder of results that are taken: what is there of another picture or video is not lost without a word.

The name of a result is that of its picture, so that those of ``x/a.jpg`` and ``y/a.jpg``, or of ``a.jpg`` and
``a.mp4``, have one name in one folder. Where the first is there, the second is refused before anything is predicted: a
name of its own, such as ``a_2``, would leave whoever looks for ``a`` with the other picture's masks. What has no name
of its own (arrays, pictures of texts) takes the next number that is free.
"""

import hashlib
import json
import os
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from PIL.PngImagePlugin import PngInfo

from genseg_mm.files import parse_json, read_json_dict
from genseg_mm.files.image_headers import A_PICTURE, opened
from genseg_mm.files.whole_folders import crc32_of

PNG_KEY = 'genseg_mm'  # of the text in a drawn picture that says whose it is


def identity(path: str | os.PathLike) -> dict[str, Any]:
    """What tells the file of a picture or video from another of its name: ``place``, 16 digits, and ``crc``.

    The place is that of the file on this machine, hashed: results may be given away. ``crc`` is None where there is no
    such file.
    """
    place = hashlib.sha256(os.path.realpath(path).encode('utf-8', 'surrogateescape')).hexdigest()[:16]
    try:
        return dict(place=place, crc=crc32_of(path))
    except OSError:
        return dict(place=place, crc=None)


def png_text(path: str) -> PngInfo:
    """What a drawn picture says of the file that it is of."""
    text = PngInfo()
    text.add_itxt(PNG_KEY, json.dumps(dict(image=path, **(identity(path) if path else {}))))
    return text


def check_names(names: Iterable[tuple[str, str]], out_dir: str | os.PathLike) -> None:
    """Refuses to write over results of another picture or video.

    Args:
        names: Stem and path of everything that is to be predicted.
        out_dir: Folder of ``preds`` and ``vis``.

    Raises:
        FileExistsError: If there is one.
    """
    taken = [(stem, path, other) for stem, path in names if (other := _other(Path(out_dir), stem, path)) is not None]
    if taken:
        stem, path, other = taken[0]
        more = f' (and {len(taken) - 1} more names are taken so)' if len(taken) > 1 else ''
        raise FileExistsError(
            f'{out_dir}: {stem!r} is there already, of {other or "an array"} and not of {path or "an array"}{more}: '
            'choose another folder by --out-dir, or replace it by --force (in Python: out_dir=, force=True)'
        )


def first_free_number(out_dir: str | os.PathLike) -> int:
    """The number behind the largest that is the name of a result, such as ``00000007``; 0 if there is none."""
    found = [0]
    for folder in ('preds', 'vis'):
        try:
            names = os.listdir(Path(out_dir, folder))
        except OSError:
            continue
        found += [int(name[:8]) + 1 for name in names if re.fullmatch(r'\d{8}\.(json|png)', name)]
    return max(found)


def _other(out_dir: Path, stem: str, path: str) -> str | None:
    """Of which other file the results of a name are; None if there are none, or nobody can say."""
    content = _known(out_dir, stem)
    known = content.get('image', content.get('video'))
    if not isinstance(known, str):
        return None
    if 'place' not in content or not path:  # of an array, or by a version that did not say
        return None if known == path else known
    own = identity(path)
    is_same = content['place'] == own['place'] or (own['crc'] is not None and content.get('crc') == own['crc'])
    return None if is_same else known


def _known(out_dir: Path, stem: str) -> dict[str, Any]:
    """What the results of a name say of their picture."""
    prediction, drawn = out_dir / 'preds' / f'{stem}.json', out_dir / 'vis' / f'{stem}.png'
    try:
        if prediction.is_file():
            return read_json_dict(prediction)
        if drawn.is_file():
            with opened(drawn, f'picture {drawn}', A_PICTURE) as image:
                content = parse_json(str(image.info.get(PNG_KEY, '{}')), str(drawn))
            return content if isinstance(content, dict) else {}
    except (ValueError, OSError):  # not whole, or none of ours
        pass
    return {}
