"""Videos: frames one by one, of bounded size and number, and written whole or not at all.

No more than ``GENSEG_MAX_IMAGE_PIXELS`` are decoded of a frame. FFmpeg, which decodes, opens far more than videos,
lists of other files and addresses among them: only what begins as a video of these kinds is given to it.
"""

import logging
import os
import stat
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
from mmengine.logging import print_log

from genseg_mm.files.image_headers import check_pixels
from genseg_mm.files.images import decoder_messages
from genseg_mm.files.texts import check_name
from genseg_mm.files.whole_files import whole_file

EXTENSIONS = ('.avi', '.gif', '.m4v', '.mkv', '.mov', '.mp4', '.webm')
TAKEN = 'a video (MP4, QuickTime, WebM, Matroska, AVI or animated GIF)'
MAX_FRAMES = 100_000  # an hour of 28 pictures a second
_LOSSLESS, _SMALL = 'FFV1', 'VP80'
_ASSUMED_RATE = 25.0  # pictures a second where a file says none


class VideoHeader(NamedTuple):
    """What a video says of itself, which need not be true."""

    height: int
    width: int
    rate: float  # frames per second
    num_frames: int  # 0: it does not say


def is_video(path: object) -> bool:
    """Whether a path has the ending of a video; of a GIF, whether it has several frames."""
    if not isinstance(path, (str, os.PathLike)) or Path(path).suffix.lower() not in EXTENSIONS or os.path.isdir(path):
        return False
    if Path(path).suffix.lower() != '.gif' or not os.path.isfile(path):
        return True
    with open(path, 'rb') as file:
        return file.read(1 << 20).count(b'\x21\xf9\x04') > 1  # graphic control extensions, one per frame


def read_video_header(path: str | os.PathLike, max_frames: int = MAX_FRAMES) -> VideoHeader:
    """Size, rate and number of the frames; nothing is decoded.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is damaged, no video, or its frames are too large or too many.
    """
    capture, header = _opened(path, max_frames)
    capture.release()
    return header


def read_frames(path: str | os.PathLike, start: int = 0, max_frames: int = MAX_FRAMES) -> Iterator[np.ndarray]:
    """Frames of a video from number ``start`` on, (H, W, 3) uint8 BGR, turned as the file says.

    A file that ends early gives the frames that it has.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is damaged, no video, or its frames are too large, too many, or change their size.
    """
    capture, _ = _opened(path, max_frames)
    try:
        number, size, damage = 0, None, []
        while _grabbed(capture, damage):
            if number >= max_frames:
                raise ValueError(_too_many(path, max_frames, 'more'))
            if number >= start or size is None:
                found, frame = capture.retrieve()
                if not found or frame is None:
                    break
                if size not in (None, frame.shape[:2]):
                    raise ValueError(
                        f'video {path}: expected frames of one size, but frame {number} has {frame.shape[:2]} and '
                        f'those before {size}'
                    )
                size = frame.shape[:2]
                if number >= start:
                    yield frame
            number += 1
        if number == 0:
            raise ValueError(f'video {path} has no frame that can be decoded: it is damaged, or cut short')
        if damage:
            message = f'video {path} is damaged, some of its frames are made up: {damage[0][:100]}'
            print_log(message, 'current', logging.WARNING)
    finally:
        capture.release()


def write_video(path: str | os.PathLike, frames: Iterable[np.ndarray], rate: float, lossless: bool = False) -> int:
    """Writes a video that browsers play (VP8 in .webm), or one that keeps every pixel (FFV1 in .mkv).

    Args:
        path: Ends with .webm, or .mkv for a lossless one.
        frames: (H, W, 3) uint8 BGR, all of one size. Sides are even: the last row or column of an odd one comes twice.
        rate: Frames per second.
        lossless: Whether every pixel is kept.

    Returns:
        The number of frames.

    Raises:
        WriteError: If it cannot be written.
        ValueError: If there is no frame, or this build of OpenCV cannot write it.
    """
    check_name(path, 'video')
    path, number, writer = Path(path), 0, None
    temporary = path.with_name(f'.{path.stem}.{os.getpid()}.part{path.suffix}')
    code = cv2.VideoWriter_fourcc(*(_LOSSLESS if lossless else _SMALL))
    with whole_file(path, temporary, durable=False):
        try:
            for frame in frames:
                height, width = frame.shape[:2]
                frame = cv2.copyMakeBorder(frame, 0, height % 2, 0, width % 2, cv2.BORDER_REPLICATE)
                if writer is None:
                    size = frame.shape[1::-1]
                    with decoder_messages():
                        writer = cv2.VideoWriter(str(temporary), cv2.CAP_FFMPEG, code, rate, size)
                    if not writer.isOpened():
                        raise ValueError(f'video {path}: this build of OpenCV writes no {path.suffix} of {size[::-1]}')
                writer.write(frame)
                number += 1
        finally:
            if writer is not None:
                writer.release()
        if not number:
            raise ValueError(f'video {path}: expected at least one frame, but got none')
    return number


def _grabbed(capture: cv2.VideoCapture, damage: list[str]) -> bool:
    """Whether there is another frame; what FFmpeg says of damage is added to the list."""
    with decoder_messages() as messages:
        found = capture.grab()
    damage += messages[: 1 - len(damage)]
    return found


def _opened(path: str | os.PathLike, max_frames: int) -> tuple[cv2.VideoCapture, VideoHeader]:
    check_name(path, 'video')  # which OpenCV would end the process for
    status = os.stat(path)  # its error names the file
    if not stat.S_ISREG(status.st_mode):
        raise ValueError(f'video {path}: expected the file of a video, but got a folder, device or pipe')
    with open(path, 'rb') as file:
        head = file.read(16)
    if not _is_known(head):
        what = 'an empty file' if not status.st_size else f'a file that begins with {head[:8]!r}'
        raise ValueError(f'video {path}: expected {TAKEN}, but got {what}')
    with decoder_messages() as messages:
        capture = cv2.VideoCapture(os.path.abspath(path), cv2.CAP_FFMPEG)
    try:
        if not capture.isOpened():
            said = f' ({messages[0][:100]})' if messages else ''
            raise ValueError(
                f'video {path} cannot be decoded: it is damaged, cut short ({status.st_size} bytes), or of a codec '
                f"that OpenCV's FFmpeg does not know{said}"
            )
        return capture, _header(capture, path, max_frames)
    except ValueError:
        capture.release()
        raise


def _header(capture: cv2.VideoCapture, path: str | os.PathLike, max_frames: int) -> VideoHeader:
    height, width, rate, count = (
        capture.get(key)
        for key in (
            cv2.CAP_PROP_FRAME_HEIGHT, cv2.CAP_PROP_FRAME_WIDTH, cv2.CAP_PROP_FPS, cv2.CAP_PROP_FRAME_COUNT,
        )
    )  # fmt: skip
    check_pixels(int(height), int(width), f'video {path}')
    count = int(count) if 0 < count < 2**53 else 0
    if count > max_frames:
        raise ValueError(_too_many(path, max_frames, str(count)))
    return VideoHeader(int(height), int(width), float(rate) if 0 < rate <= 1000 else _ASSUMED_RATE, count)


def _too_many(path: str | os.PathLike, limit: int, got: str) -> str:
    return f'video {path}: expected at most {limit} frames, but got {got}; --max-frames allows more'


def _is_known(head: bytes) -> bool:
    return (
        head[4:8] in (b'ftyp', b'moov', b'mdat', b'wide', b'free', b'skip')
        or head[:4] == b'\x1a\x45\xdf\xa3'
        or (head[:4] == b'RIFF' and head[8:12] == b'AVI ')
        or head[:6] in (b'GIF87a', b'GIF89a')
    )
