"""Example pictures inside the page, as data URIs."""

import base64
import io
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

_MAX_SIDE = 720  # pixels; beyond that a phone and a desktop alike only see a smaller copy
_MAX_BYTES = 150_000
_KINDS = {'JPEG': 'image/jpeg', 'PNG': 'image/png', 'WEBP': 'image/webp'}


@dataclass(frozen=True)
class Embedded:
    """A picture as a data URI, with its size in pixels."""

    uri: str
    width: int
    height: int


def embed(folder: Path | None, file: str) -> Embedded | str:
    """Reads a picture of a record.

    Args:
        folder: Of the record.
        file: Relative to it.

    Returns:
        The picture, smaller if it is large, or a text on why there is none.
    """
    if folder is None:
        return f'{file}: the record does not say where it is'
    path = (folder / file).resolve()
    if not path.is_relative_to(folder.resolve()):
        return f'{file}: not in the folder of its record'
    if not path.is_file():
        return f'{file}: missing'
    try:
        data = path.read_bytes()
        with Image.open(io.BytesIO(data)) as image:
            kind = _KINDS.get(image.format or '')
            image.load()
            size = image.size
            if kind is None or max(size) > _MAX_SIDE or len(data) > _MAX_BYTES:
                data, size = _smaller(image)
                kind = 'image/jpeg'
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        return f'{file}: not a picture that can be read ({type(error).__name__})'
    return Embedded(f'data:{kind};base64,{base64.b64encode(data).decode()}', *size)


def _smaller(image: Image.Image) -> tuple[bytes, tuple[int, int]]:
    copy = image.convert('RGB')
    copy.thumbnail((_MAX_SIDE, _MAX_SIDE))
    out = io.BytesIO()
    copy.save(out, 'JPEG', quality=82, optimize=True)
    return out.getvalue(), copy.size
