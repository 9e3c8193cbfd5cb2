"""What a picture's file says of itself before it is decoded: kind, size, orientation, frames.

No more than ``GENSEG_MAX_IMAGE_PIXELS`` (environment, default 100 million: every camera's photograph) are decoded.
"""

import io
import os
import re
import stat
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import NamedTuple

from PIL import Image, UnidentifiedImageError

MAX_PIXELS_VARIABLE = 'GENSEG_MAX_IMAGE_PIXELS'
MAX_PIXELS = 100_000_000
# Not all that PIL knows: some of its formats run other programs.
FORMATS = ('JPEG', 'PNG', 'WEBP', 'TIFF', 'BMP', 'DIB', 'PPM', 'GIF', 'AVIF', 'JPEG2000')
TAKEN = 'JPEG, PNG, WebP, TIFF, BMP, PPM, AVIF, JPEG 2000 or a GIF of one frame'
A_PICTURE = f'a picture ({TAKEN})'
ORIENTATION = 0x0112
PNG_START = b'\x89PNG\r\n\x1a\n'
_SNIFFED = 64  # bytes that tell a video
_LIMIT = threading.Lock()


class Header(NamedTuple):
    """What a picture's file says before it is decoded."""

    format: str  # PIL's name
    mode: str  # PIL's
    height: int  # as stored
    width: int
    orientation: int  # EXIF, 1 to 8; 1 is upright


def max_pixels() -> int:
    """The most pixels that a picture or map may have.

    Raises:
        ValueError: If the environment variable is no positive number.
    """
    text = os.environ.get(MAX_PIXELS_VARIABLE, '').strip()
    if not text:
        return MAX_PIXELS
    if not text.isdecimal() or len(text) > 18 or not int(text):
        raise ValueError(f'{MAX_PIXELS_VARIABLE} must be a number of pixels, but got {text!r}')
    return int(text)


def check_pixels(height: int, width: int, name: str) -> None:
    """Refuses a size that is too large to decode.

    Args:
        height: As the header says.
        width: Likewise.
        name: Of the file, as messages say it.

    Raises:
        ValueError: If there are more pixels than :func:`max_pixels`.
    """
    limit = max_pixels()
    if height * width > limit:
        raise ValueError(
            f'{name}: expected at most {limit} pixels, but its header says {height}x{width}; where that is right, '
            f'{MAX_PIXELS_VARIABLE}={height * width} in the environment allows it'
        )


def check_file(path: str | os.PathLike, name: str) -> None:
    """Refuses what need not be read to see that it is no picture: no file, a video, a file beyond every picture's size.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is something else than a picture.
    """
    status = os.stat(path)  # its error names the file
    if not stat.S_ISREG(status.st_mode):
        kind = 'a folder' if stat.S_ISDIR(status.st_mode) else 'a device or pipe'
        raise ValueError(f'{name}: expected the file of a picture, but got {kind}')
    with open(path, 'rb') as file:
        _refuse_videos(file.read(_SNIFFED), name)
    most = 16 * max_pixels()  # 4 channels of 4 bytes
    if status.st_size > most:
        raise ValueError(f'{name}: expected a picture of at most {most} bytes, but got {status.st_size}')


def check_opened(image: Image.Image, name: str) -> None:
    """Refuses what somebody else opened with PIL and that :func:`decode_picture` would refuse by its header.

    Raises:
        ValueError: If it has several frames or too many pixels.
    """
    if image.format != 'MPO' and getattr(image, 'is_animated', False):
        _refuse_frames(image, name)
    check_pixels(image.height, image.width, name)


def read_header(source: bytes | str | os.PathLike, name: str, expected: str = A_PICTURE) -> Header:
    """Format, size and orientation of a picture, without decoding it.

    Args:
        source: The whole file, or its path.
        name: As messages say it, such as 'image a.jpg'.
        expected: What it should be, as messages say it.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is damaged, no picture, has several frames, or too many pixels.
    """
    with opened(source, name, expected) as image:
        return _header(image, source)


@contextmanager
def opened(source: bytes | str | os.PathLike, name: str, expected: str) -> Iterator[Image.Image]:
    """A picture that PIL has read the header of, and that has passed the checks of it."""
    if isinstance(source, bytes):
        _refuse_videos(source[:_SNIFFED], name)
        _check_webp(source, name)
        source = io.BytesIO(source)
    else:
        check_file(source, name)
    with one_line_errors(name, expected), _LIMIT:
        limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None  # ours goes below
        try:
            image = Image.open(source, formats=_known_formats())
            animated = getattr(image, 'is_animated', False)  # may look for a second frame
        finally:
            Image.MAX_IMAGE_PIXELS = limit
    with image:
        if animated and image.format != 'MPO':
            _refuse_frames(image, name)
        check_pixels(image.height, image.width, name)
        yield image


@contextmanager
def one_line_errors(name: str, expected: str) -> Iterator[None]:
    """Turns what PIL raises, on damaged bytes nearly anything, into a ValueError that names the file."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter('ignore')  # damage is told below, and sizes are bounded here
            yield
    except MemoryError:
        raise
    except Exception as error:
        known = str(error) if isinstance(error, (OSError, SyntaxError)) else ''
        if isinstance(error, UnidentifiedImageError):  # its own words name the file once more
            known = 'a file of no known format, or a damaged one'
        reason = ' '.join((known or f'{type(error).__name__}: {error}').split())[:200]
        raise ValueError(f'{name}: expected {expected}, but got {reason}') from error


@cache
def _known_formats() -> tuple[str, ...]:
    Image.init()  # some builds of Pillow lack some
    return tuple(own for own in FORMATS if own in Image.OPEN)


def _header(image: Image.Image, source: bytes | str | os.PathLike) -> Header:
    height, width = image.height, image.width
    orientation = _orientation(image, source)
    if image.format == 'TIFF' and orientation > 4:
        height, width = width, height  # PIL says the size of the turned picture
    return Header(image.format, image.mode, height, width, orientation)


def _orientation(image: Image.Image, source: bytes | str | os.PathLike) -> int:
    """1 to 8; damaged EXIF data say nothing, as in other programs."""
    try:
        if image.format == 'PNG':  # where PIL decodes the picture to look behind it
            exif = Image.Exif()
            exif.load(_png_exif(source) or b'')
            found = exif.get(ORIENTATION)
            xmp = image.info.get('XML:com.adobe.xmp', '') if found is None else ''
            if match := re.search(r'tiff:Orientation(?:="|>)([0-9])', str(xmp)):
                found = int(match[1])
        else:
            with warnings.catch_warnings():
                warnings.simplefilter('ignore')
                found = image.getexif().get(ORIENTATION)
    except Exception:  # PIL raises what the damaged bytes happen to spell
        found = None
    return found if isinstance(found, int) and 1 <= found <= 8 else 1


def _png_exif(source: bytes | str | os.PathLike) -> bytes | None:
    with io.BytesIO(source) if isinstance(source, bytes) else open(source, 'rb') as file:
        file.seek(len(PNG_START))
        while len(head := file.read(8)) == 8:
            size = int.from_bytes(head[:4], 'big')
            if head[4:] == b'eXIf' and size < 1 << 20:
                return b'Exif\x00\x00' + file.read(size)
            file.seek(size + 4, os.SEEK_CUR)
    return None


def _refuse_frames(image: Image.Image, name: str) -> None:
    kind = 'pages' if image.format == 'TIFF' else 'frames'
    raise ValueError(
        f'{name}: expected a picture ({TAKEN}), but got a {image.format} file of several {kind}; save those you '
        'want as pictures of their own, e.g. ffmpeg -i FILE FRAMES/%06d.png'
    )


def _refuse_videos(head: bytes, name: str) -> None:
    kind, advice = None, 'take pictures out of it first, e.g. ffmpeg -i FILE FRAMES/%06d.png'
    brand = head[8:12]
    if head[4:8] == b'ftyp':
        if brand in (b'heic', b'heix', b'heim', b'heis', b'mif1', b'msf1', b'hevc'):
            if b'avif' not in head:
                kind, advice = 'a HEIC file', 'convert it first, e.g. heif-convert FILE PICTURE.jpg'
        elif brand not in (b'avif', b'avis'):
            kind = 'a video (MP4 or QuickTime)'
    elif head[:4] == b'RIFF' and head[8:12] == b'AVI ':
        kind = 'a video (AVI)'
    elif head[:4] == b'\x1a\x45\xdf\xa3':
        kind = 'a video (Matroska or WebM)'
    elif head[:4] in (b'\x00\x00\x01\xba', b'\x00\x00\x01\xb3') or head[:3] == b'FLV':
        kind = 'a video (MPEG or Flash)'
    elif head[:16] == bytes.fromhex('3026b2758e66cf11a6d900aa0062ce6c'):
        kind = 'a video (WMV)'
    elif head[4:8] in (b'moov', b'mdat', b'wide'):
        kind = 'a video (QuickTime)'
    if kind is not None:
        raise ValueError(f'{name}: expected a picture ({TAKEN}), but got {kind}; {advice}')


def _check_webp(data: bytes, name: str) -> None:
    """PIL makes room for two canvases before it tells the size."""
    if data[:4] != b'RIFF' or data[8:12] != b'WEBP' or len(data) < 30:
        return
    kind = data[12:16]
    if kind == b'VP8X':
        sides = [int.from_bytes(data[start : start + 3], 'little') + 1 for start in (24, 27)]
    elif kind == b'VP8L':
        bits = int.from_bytes(data[21:25], 'little')
        sides = [(bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1]
    else:
        sides = [int.from_bytes(data[start : start + 2], 'little') & 0x3FFF for start in (26, 28)]
    check_pixels(sides[1], sides[0], name)
