"""Example pictures inside the page, as data URIs."""

import base64
import io
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from PIL import Image, features

from genseg_mm.image_files import decode_picture
from genseg_mm.image_headers import read_header
from genseg_mm.leaderboard.record import Record

_MAX_SIDE = 720  # pixels; beyond that a phone and a desktop alike only see a smaller copy
_WANTED_BYTES = 10_000  # a page has hundreds of pictures
_QUALITIES = (70, 55, 40)
_KINDS = {'JPEG': 'image/jpeg', 'PNG': 'image/png', 'WEBP': 'image/webp'}
# WebP looks like a JPEG of twice its size, but some builds of Pillow lack it.
_FORMAT = 'WEBP' if features.check('webp') else 'JPEG'


@dataclass(frozen=True)
class Embedded:
    """A picture as a data URI, with its size in pixels."""

    uri: str
    width: int
    height: int


def embed(record: Record, file: str) -> Embedded | str:
    """Reads a picture of a record.

    Args:
        record: The record.
        file: Relative to its folder.

    Returns:
        The picture, encoded anew where that makes it smaller, or a text on why there is none.
    """
    if record.folder is None:
        return f'{file}: the record does not say where it is'
    path = record.file(file)
    if path is None:
        return f'{file}: not in the folder of its record'
    if not path.is_file():
        return f'{file}: missing'
    try:
        return _embedded(path.read_bytes())
    except (OSError, ValueError) as error:
        return f'{file}: not a picture that can be read ({type(error).__name__})'


@lru_cache(maxsize=2048)  # a run writes the page anew after every result
def _embedded(data: bytes) -> Embedded:
    kind = _KINDS.get(read_header(data, 'picture').format)
    copy = Image.fromarray(np.ascontiguousarray(decode_picture(data, 'picture')[..., ::-1]))
    size = copy.size
    copy.thumbnail((_MAX_SIDE, _MAX_SIDE))
    small = _encoded(copy)
    if kind is None or copy.size != size or len(small) < len(data):
        data, kind, size = small, _KINDS[_FORMAT], copy.size
    return Embedded(f'data:{kind};base64,{base64.b64encode(data).decode()}', *size)


def _encoded(image: Image.Image) -> bytes:
    """At the best of a few qualities that makes it as small as wanted, else at the last."""
    for quality in _QUALITIES:
        out = io.BytesIO()
        image.save(out, _FORMAT, quality=quality)
        if out.tell() <= _WANTED_BYTES:
            break
    return out.getvalue()
