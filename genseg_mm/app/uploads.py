"""Pictures from the browser: files of strangers, bounded before anything is decoded."""

import base64
import binascii
import math
from typing import Any

import cv2
import numpy as np

from genseg_mm.app import limits
from genseg_mm.app.steps import Picture
from genseg_mm.files.image_headers import read_header
from genseg_mm.files.images import decode_picture


def picture_of_upload(text: Any, name: Any) -> Picture:
    """A picture of the bytes of a file.

    Args:
        text: Base64 of the file.
        name: Of the file, for messages.

    Raises:
        ValueError: If it is too large, damaged or no picture; in one line.
    """
    name = file_name(name)
    most = limits.MAX_BYTES
    if not isinstance(text, str):
        raise ValueError(f'{name}: expected the bytes of a picture in base64, but got {type(text).__name__}')
    if len(text) * 3 // 4 > most + 2:
        raise ValueError(f'{name}: expected a picture of at most {most // 2**20} MB, but got a larger file')
    try:
        data = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise ValueError(f'{name}: expected the bytes of a picture in base64, but got something else') from None
    if not data:
        raise ValueError(f'{name}: expected a picture, but the file is empty')
    try:
        header = read_header(data, name)
    except ValueError as error:
        if error.__cause__ is None:  # it says what it is, such as a video
            raise
        raise ValueError(
            f'{name}: expected a picture (JPEG, PNG, WebP, TIFF, BMP, AVIF), but it is something else or damaged'
        ) from error
    if header.height * header.width > limits.MAX_PIXELS:
        raise ValueError(
            f'{name}: expected at most {limits.MAX_PIXELS // 10**6} megapixels, but its header says '
            f'{header.width} x {header.height}'
        )
    return picture_of(decode_picture(data, name), name)


def picture_of(bgr: np.ndarray, name: str) -> Picture:
    """A picture (H, W, 3), brought to a size that is worked on quickly."""
    height, width = bgr.shape[:2]
    if height * width > limits.WORK_PIXELS:
        scale = math.sqrt(limits.WORK_PIXELS / (height * width))
        size = max(int(width * scale), 1), max(int(height * scale), 1)
        return Picture(cv2.resize(bgr, size, interpolation=cv2.INTER_AREA), (height, width), name)
    return Picture(bgr, (height, width), name)


def file_name(name: Any) -> str:
    """The last part of a name, in printable characters."""
    text = name if isinstance(name, str) else ''
    text = text.replace('\\', '/').rpartition('/')[2]
    return ''.join(one for one in text if one.isprintable())[-60:].strip() or 'picture'
