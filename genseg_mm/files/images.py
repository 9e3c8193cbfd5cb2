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
floats, 32 bits        an error
=====================  ==============================================================================

No more than ``GENSEG_MAX_IMAGE_PIXELS`` (environment, default 100 million: every camera's photograph) are decoded; the
header says how many there are before anything is.
"""

import os
import re
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import BinaryIO

import mmcv
import numpy as np

from genseg_mm.files.image_headers import A_PICTURE, PNG_START, TAKEN, Header, one_line_errors, opened, read_header

_PADDING = 16  # bytes before the end marker of a JPEG that some cameras leave
_CAPTURE = threading.Lock()
_JPEG_START, _JPEG_END, _JPEG_SCAN = b'\xff\xd8', b'\xff\xd9', 0xDA


def read_stored(source: bytes | str | os.PathLike, name: str, expected: str = A_PICTURE) -> tuple[np.ndarray, str]:
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
    with opened(source, name, expected) as image, one_line_errors(name, expected):
        return np.array(image), image.mode


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
    if header.mode == 'F' or (header.mode == 'I' and header.format == 'TIFF'):
        kind = 'floats' if header.mode == 'F' else '32 bits'
        raise ValueError(f'{name}: expected 8 or 16 bits per channel, but got {kind}; scale them to 8 bits')
    flag = color_type
    if color_type in ('color', 'grayscale'):
        flag = f'{color_type}_ignore_orientation'
    pixels, reason = None, 'unknown or damaged format'
    with decoder_messages() as messages:
        try:
            if _is_wrong_in(backend, header, color_type):
                pixels = _decode_exactly(data, name)
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


def _is_wrong_in(backend: str, header: Header, color_type: str) -> bool:
    """Whether a backend would give other values than the module says."""
    if header.format == 'TIFF' and header.mode in ('RGBA', 'LA'):
        return True  # OpenCV would multiply the colours by alpha
    if color_type == 'unchanged':
        return False
    if header.format == 'PPM' and backend == 'cv2':
        return True  # its largest value need not be 255, which OpenCV takes it for
    # mmcv would blend grey with alpha, and PIL cut 16 bits at 255.
    return backend == 'pillow' and (header.mode == 'LA' or header.mode.startswith('I'))


def _decode_exactly(data: bytes, name: str) -> np.ndarray:
    """(H, W, 3) uint8 BGR: alpha dropped, the upper 8 bits of 16."""
    with opened(data, name, A_PICTURE) as image:
        if image.mode.startswith('I'):
            return np.repeat((np.array(image) >> 8).astype(np.uint8)[..., None], 3, 2)
        return np.ascontiguousarray(np.array(image.convert('RGB'))[..., ::-1])


def _undecodable(name: str, data: bytes, reason: str) -> ValueError:
    return ValueError(f'{name} cannot be decoded ({len(data)} bytes, {reason}): fetch it again')


def _is_whole(data: bytes) -> bool:
    """Whether a JPEG or PNG file has its end marker; decoders fill up the rest in silence."""
    if data.startswith(PNG_START):
        return _has_whole_chunks(data)
    if not data.startswith(_JPEG_START):
        return True
    # The marker is looked for in the picture only: an embedded thumbnail ends with one as well.
    position = len(_JPEG_START)
    while position + 4 <= len(data) and data[position] == 0xFF and data[position + 1] != _JPEG_SCAN:
        if data[position + 1] == 0xFF:  # padding between segments
            position += 1
        else:
            position += 2 + int.from_bytes(data[position + 2 : position + 4], 'big')
    return data.rfind(_JPEG_END, position) != -1  # from its end: that is where it is


def _has_whole_chunks(data: bytes) -> bool:
    """Whether a PNG's chunks lead to its end; OpenCV makes room for the 2 GiB that a damaged one may claim."""
    position = len(PNG_START)
    while position + 12 <= len(data):  # length, name and checksum
        if data[position : position + 8] == b'\0\0\0\0IEND':
            return True
        position += 12 + int.from_bytes(data[position : position + 4], 'big')
    return False


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
def decoder_messages() -> Iterator[list[str]]:
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
