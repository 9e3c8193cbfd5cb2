"""The one way to decode a picture: whole, of a bounded size, and turned as its EXIF orientation says.

=====================  ==============================================================================
what a file may hold   what comes
=====================  ==============================================================================
EXIF orientation       honoured in every format, once (JPEG, PNG, TIFF, WebP, AVIF, ...)
grey, palette, 1 bit   three equal channels, or the palette's colours
alpha                  dropped, without blending
16 bits per channel    the upper 8
CMYK                   converted to RGB
several frames         an error: videos and animations are no pictures (a phone's MPO is: its first)
floats                 an error
=====================  ==============================================================================

No more than ``GENSEG_MAX_IMAGE_PIXELS`` (environment, default 100 million: every camera's photograph) are decoded; the
header says how many there are before anything is.
"""

import io
import os
import re
import stat
import sys
import tempfile
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import BinaryIO, NamedTuple

import mmcv
import numpy as np
from PIL import Image

MAX_PIXELS_VARIABLE = 'GENSEG_MAX_IMAGE_PIXELS'
MAX_PIXELS = 100_000_000
# Not all that PIL knows: some of its formats run other programs.
FORMATS = ('JPEG', 'PNG', 'WEBP', 'TIFF', 'BMP', 'DIB', 'PPM', 'GIF', 'AVIF', 'JPEG2000')
TAKEN = 'JPEG, PNG, WebP, TIFF, BMP, PPM, AVIF, JPEG 2000 or a GIF of one frame'
_A_PICTURE = f'a picture ({TAKEN})'
ORIENTATION = 0x0112
_SNIFFED = 64  # bytes that tell a video
_PADDING = 16  # bytes before the end marker of a JPEG that some cameras leave
_CAPTURE, _LIMIT = threading.Lock(), threading.Lock()
_PNG_START = b'\x89PNG\r\n\x1a\n'
_JPEG_START, _JPEG_END, _JPEG_SCAN = b'\xff\xd8', b'\xff\xd9', 0xDA


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
    if not text.isdigit() or not int(text):
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
        raise ValueError(
            f'{name}: expected a picture of at most {most} bytes, but got {status.st_size}'
        )


def read_header(source: bytes | str | os.PathLike, name: str, expected: str = _A_PICTURE) -> Header:
    """Format, size and orientation of a picture, without decoding it.

    Args:
        source: The whole file, or its path.
        name: As messages say it, such as 'image a.jpg'.
        expected: What it should be, as messages say it.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is damaged, no picture, has several frames, or too many pixels.
    """
    with _opened(source, name, expected) as image:
        return _header(image, source)


def read_stored(
    source: bytes | str | os.PathLike, name: str, expected: str = _A_PICTURE
) -> tuple[np.ndarray, str]:
    """The pixels of a picture as they are stored, for ids and edges: indices of palettes, 16 bits, nothing turned.

    Photographs go through :func:`decode_picture`.

    Args:
        source: The whole file, or its path.
        name: As messages say it.
        expected: What it should be, likewise.

    Returns:
        Array (H, W) or (H, W, C), and PIL's name of the mode.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is damaged, no picture, has several frames, or too many pixels.
    """
    with _opened(source, name, expected) as image, _one_line_errors(name, expected):
        return np.array(image), image.mode


@contextmanager
def _opened(source: bytes | str | os.PathLike, name: str, expected: str) -> Iterator[Image.Image]:
    """A picture that PIL has read the header of, and that has passed the checks of it."""
    if isinstance(source, bytes):
        _refuse_videos(source[:_SNIFFED], name)
        _check_webp(source, name)
        source = io.BytesIO(source)
    else:
        check_file(source, name)
    with _one_line_errors(name, expected), _LIMIT:
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
def _one_line_errors(name: str, expected: str) -> Iterator[None]:
    """Turns what PIL raises, on damaged bytes nearly anything, into a ValueError that names the file."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter('ignore')  # damage is told below, and sizes are bounded here
            yield
    except MemoryError:
        raise
    except Exception as error:
        known = str(error) if isinstance(error, (OSError, SyntaxError)) else ''
        reason = ' '.join((known or f'{type(error).__name__}: {error}').split())[:200]
        raise ValueError(f'{name}: expected {expected}, but got {reason}') from error


@cache
def _known_formats() -> tuple[str, ...]:
    Image.init()  # some builds of Pillow lack some
    return tuple(own for own in FORMATS if own in Image.OPEN)


def check_opened(image: Image.Image, name: str) -> None:
    """Refuses what somebody else opened with PIL and that :func:`decode_picture` would refuse by its header.

    Raises:
        ValueError: If it has several frames or too many pixels.
    """
    if image.format != 'MPO' and getattr(image, 'is_animated', False):
        _refuse_frames(image, name)
    check_pixels(image.height, image.width, name)


def decode_picture(
    data: bytes,
    name: str,
    color_type: str = 'color',
    backend: str = 'cv2',
    annotated: tuple[int | None, int | None] = (None, None),
) -> np.ndarray:
    """Decodes a picture, or says in one line why not.

    A JPEG with missing bytes is refused: decoders fill the rest with grey. A few bytes that are missing can pass where
    the decoder finds its way back without a word; 200 or more do not.

    Args:
        data: The whole file.
        name: As messages say it, such as 'image a.jpg'.
        color_type: Flag of ``mmcv.imfrombytes``: ``'color'`` and ``'grayscale'`` turn the picture as its orientation
            says, ``'..._ignore_orientation'`` and ``'unchanged'`` leave it as it is stored.
        backend: Of ``mmcv.imfrombytes``.
        annotated: Height and width that an annotation gives. Where the picture has them as it is stored and not when
            it is turned, the annotation was made on it as stored, and it is not turned.

    Returns:
        (H, W, 3) uint8 BGR; (H, W) for ``'grayscale'``.

    Raises:
        ValueError: If it is damaged, no picture, has several frames, or too many pixels.
    """
    if not data:
        raise _undecodable(name, data, 'an empty file')
    if not _is_whole(data):
        raise ValueError(f'{name} is cut short ({len(data)} bytes, no end marker): fetch it again')
    try:
        header = read_header(data, name)
    except ValueError as error:
        if error.__cause__ is None:  # ours: it says more than that it cannot be decoded
            raise
        raise _undecodable(name, data, f'expected {TAKEN}, or it is damaged') from error
    turned = color_type in ('color', 'grayscale')
    if turned and None not in annotated:
        stored = header.height, header.width
        upright = stored[::-1] if header.orientation > 4 else stored
        turned = annotated == upright or annotated != stored
    pixels = _decode(data, name, header, color_type, backend)
    # OpenCV and PIL turn a TIFF whatever they are told.
    is_turned = header.format == 'TIFF' and backend in ('cv2', 'pillow')
    if turned and not is_turned:
        pixels = turn(pixels, header.orientation)
    elif is_turned and not turned:
        pixels = turn(pixels, {6: 8, 8: 6}.get(header.orientation, header.orientation))
    return pixels


def turn(pixels: np.ndarray, orientation: int) -> np.ndarray:
    """Turns an array (H, W) or (H, W, C) as an EXIF orientation says, from as stored to upright."""
    if orientation > 4:
        pixels = pixels.swapaxes(0, 1)
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    return np.ascontiguousarray(pixels)


def _decode(data: bytes, name: str, header: Header, color_type: str, backend: str) -> np.ndarray:
    if header.mode == 'F':
        raise ValueError(
            f'{name}: expected 8 or 16 bits per channel, but got floats; scale them to 8 bits'
        )
    flag = color_type
    if color_type in ('color', 'grayscale'):
        flag = f'{color_type}_ignore_orientation'
    pixels, reason = None, 'unknown or damaged format'
    with _decoder_messages() as messages:
        try:
            if header.format == 'TIFF' and header.mode in ('RGBA', 'LA'):
                # OpenCV would multiply the colours by alpha.
                with Image.open(io.BytesIO(data), formats=['TIFF']) as image:
                    pixels = np.ascontiguousarray(np.array(image.convert('RGB'))[..., ::-1])
                if color_type.startswith('grayscale'):
                    pixels = mmcv.bgr2gray(pixels)
            else:
                pixels = mmcv.imfrombytes(data, flag=flag, backend=backend)
        except MemoryError:
            raise
        except Exception as error:  # every decoding backend has exceptions of its own
            reason = ' '.join(f'{type(error).__name__}: {error}'.split())
    if pixels is None:
        raise _undecodable(name, data, ' '.join([reason, *messages[:1]])[:300])
    damage = next((line for line in messages if _tells_damage(line, header.format)), None)
    if damage is not None:
        raise ValueError(
            f'{name} is damaged ({len(data)} bytes, {damage}): a part of the picture is missing, fetch it again'
        )
    for line in messages:  # of no harm, and not ours to hide
        print(f'{name}: {line}', file=sys.stderr)
    stored = header.height, header.width
    if pixels.shape[:2] not in (stored, stored[::-1]):
        raise _undecodable(name, data, f'header of {stored}, but pixels of {pixels.shape[:2]}')
    return pixels


def _undecodable(name: str, data: bytes, reason: str) -> ValueError:
    return ValueError(f'{name} cannot be decoded ({len(data)} bytes, {reason}): fetch it again')


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
        file.seek(len(_PNG_START))
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


def _is_whole(data: bytes) -> bool:
    """Whether a JPEG or PNG file has its end marker; decoders fill up the rest in silence."""
    if data.startswith(_PNG_START):
        return data.rfind(b'IEND') != -1
    if not data.startswith(_JPEG_START):
        return True
    # The marker is looked for in the picture only: an embedded thumbnail ends with one as well.
    position = len(_JPEG_START)
    while position + 4 <= len(data) and data[position] == 0xFF and data[position + 1] != _JPEG_SCAN:
        if data[position + 1] == 0xFF:  # padding between segments
            position += 1
        else:
            position += 2 + int.from_bytes(data[position + 2 : position + 4], 'big')
    return data.find(_JPEG_END, position) != -1


def _tells_damage(message: str, kind: str) -> bool:
    """Whether a decoder that gave a picture said that a part of it is made up."""
    if kind in ('JPEG', 'MPO'):
        spare = re.search(r'(\d+) extraneous bytes before marker 0xd9', message)
        if spare is not None and int(spare[1]) <= _PADDING:
            return False
        return message.startswith(('Corrupt JPEG', 'Premature end', 'Inconsistent progression'))
    return kind == 'TIFF' and 'Warning' not in message and 'WARN' not in message


def _scratch_file() -> BinaryIO:
    if hasattr(os, 'memfd_create'):  # ten times as fast as a file on disk
        return os.fdopen(os.memfd_create('decoder'), 'w+b')
    return tempfile.TemporaryFile()


@contextmanager
def _decoder_messages() -> Iterator[list[str]]:
    """Collects what the C libraries of decoders write to the error stream: only there they tell of a hole."""
    messages: list[str] = []
    with _CAPTURE:  # one at a time: the stream is the process's
        try:
            before = os.dup(2)
        except OSError:  # a process without an error stream
            before = None
        with _scratch_file() as file:
            os.dup2(file.fileno(), 2)
            try:
                yield messages
            finally:
                os.close(2) if before is None else os.dup2(before, 2)
                if before is not None:
                    os.close(before)
                file.seek(0)
                lines = file.read(10_000).decode(errors='replace').splitlines()
                messages += [' '.join(line.split()) for line in lines if line.strip()]
