"""What objects stand on: flat, shaded, textured or drawn scenery, or a photograph of a folder.

To add a ground, add a function to ``GROUNDS``: it draws a picture and says what people would call it ('' for nothing).
"""

import math
import os
from collections.abc import Callable, Collection, Sequence
from functools import lru_cache
from pathlib import Path

import cv2
import numpy as np
from numpy.random import Generator

from genseg_mm.files import read_bytes
from genseg_mm.files.images import decode_picture

PHOTO_SUFFIXES = ('.jpg', '.jpeg', '.png', '.webp')
NUM_KEPT_PHOTOS, PHOTO_SIDE = 256, 384  # how many are kept in memory, and how large
COLOR_WORDS = {  # RGB
    'white': (238, 238, 236), 'grey': (150, 150, 152), 'black': (28, 28, 32), 'red': (196, 52, 48),
    'orange': (232, 140, 50), 'yellow': (240, 212, 84), 'green': (88, 168, 82), 'blue': (70, 118, 204),
    'purple': (138, 88, 176), 'pink': (240, 164, 190), 'brown': (134, 92, 60),
}  # fmt: skip
_GRAIN = 256  # side of the tile that noise is cut from
Ground = tuple[np.ndarray, str]  # float32 RGB in [0, 255], (H, W, 3); and its name


def draw_ground(
    rng: Generator, image_size: tuple[int, int], kinds: Sequence[str], photos: Sequence[str] = ()
) -> Ground:
    """A ground of one of some kinds.

    Args:
        rng: Source of everything random.
        image_size: (height, width).
        kinds: Keys of ``GROUNDS``, or 'photo'.
        photos: Files to cut photographs from.

    Returns:
        float32 RGB in [0, 255], (H, W, 3), and a phrase such as 'on grass', or ''.
    """
    kind = kinds[int(rng.integers(len(kinds)))]
    if kind == 'photo':
        return _photo(rng, image_size, photos[int(rng.integers(len(photos)))]), ''
    return GROUNDS[kind](rng, image_size)


def add_grain(rng: Generator, image: np.ndarray, strength: float) -> np.ndarray:
    """The image, (H, W, 3), with pixel noise of a standard deviation in grey levels."""
    height, width = image.shape[:2]
    if max(height, width) > _GRAIN // 2:
        return image + strength * rng.standard_normal(image.shape, dtype=np.float32)
    y, x = rng.integers(_GRAIN // 2, size=2)
    return image + strength * _grain()[y : y + height, x : x + width]


def find_photos(folder: str | os.PathLike) -> tuple[str, ...]:
    """The photographs of a folder and its subfolders, in order.

    Raises:
        FileNotFoundError: If there is no such folder, or none in it.
    """
    if not Path(folder).is_dir():
        raise FileNotFoundError(f'ground_folder: expected a folder of photographs, but {folder} is none')
    paths = sorted(str(own) for own in Path(folder).rglob('*') if own.suffix.lower() in PHOTO_SUFFIXES)
    if not paths:
        raise FileNotFoundError(f'ground_folder: {folder} holds no photograph ({", ".join(PHOTO_SUFFIXES)})')
    return tuple(paths)


@lru_cache(maxsize=1)
def _grain() -> np.ndarray:
    return np.random.default_rng(0).standard_normal((_GRAIN, _GRAIN, 3), dtype=np.float32)


def _smooth(rng: Generator, image_size: tuple[int, int], cells: int, channels: int = 3) -> np.ndarray:
    """Smooth noise in [-0.5, 0.5], (H, W, channels)."""
    coarse = rng.random((cells, cells, channels), dtype=np.float32) - 0.5
    grown = cv2.resize(coarse, (image_size[1], image_size[0]), interpolation=cv2.INTER_CUBIC)
    return grown if channels > 1 else grown[..., None]


def _color(rng: Generator, base: Sequence[float], spread: float = 14) -> np.ndarray:
    return np.asarray(base, np.float32) + rng.normal(0, spread, 3).astype(np.float32)


def _named_color(rng: Generator) -> tuple[np.ndarray, str]:
    word = list(COLOR_WORDS)[int(rng.integers(len(COLOR_WORDS)))]
    return _color(rng, COLOR_WORDS[word], 7), word


def _filled(image_size: tuple[int, int], color: np.ndarray) -> np.ndarray:
    return np.full((*image_size, 3), color, np.float32)


def _flat(rng: Generator, image_size: tuple[int, int]) -> Ground:
    color, word = _named_color(rng)
    return _filled(image_size, color), f'on a {word} background'.replace('a orange', 'an orange')


def _shaded(rng: Generator, image_size: tuple[int, int]) -> Ground:
    first, second = (_color(rng, rng.uniform(40, 235, 3), 1) for _ in range(2))
    angle = rng.uniform(0, 2 * math.pi)
    y = np.linspace(-0.5, 0.5, image_size[0], dtype=np.float32)[:, None] * math.sin(angle)
    x = np.linspace(-0.5, 0.5, image_size[1], dtype=np.float32)[None, :] * math.cos(angle)
    return first + (second - first) * (0.5 + (x + y) / 1.42)[..., None], ''


def _clouded(rng: Generator, image_size: tuple[int, int]) -> Ground:
    """Smooth colours at several scales: no pattern that has a name."""
    image = _filled(image_size, rng.uniform(40, 220, 3))
    for cells, weight in ((2, 130), (5, 90), (11, 70), (24, 40)):
        if rng.random() < 0.7:
            image += weight * rng.random() * _smooth(rng, image_size, cells, 3 if rng.random() < 0.5 else 1)
    return image, ''


def _striped(rng: Generator, image_size: tuple[int, int]) -> Ground:
    angle, waves = rng.uniform(0, math.pi), rng.uniform(8, 45)
    y = np.linspace(0, math.sin(angle) * waves, image_size[0], dtype=np.float32)[:, None]
    x = np.linspace(0, math.cos(angle) * waves, image_size[1], dtype=np.float32)[None, :]
    wave = np.sin(x + y)
    if rng.random() < 0.5:
        wave = np.clip(wave * 5, -1, 1)
    first, second = _color(rng, rng.uniform(50, 230, 3), 1), _color(rng, rng.uniform(50, 230, 3), 1)
    return (first + second) / 2 + (first - second) * (0.2 + 0.3 * rng.random()) * wave[
        ..., None
    ], 'on a striped background'


def _checked(rng: Generator, image_size: tuple[int, int]) -> Ground:
    cell = max(3, int(min(image_size) * rng.uniform(0.06, 0.2)))
    y, x = np.arange(image_size[0]) // cell, np.arange(image_size[1]) // cell
    is_first = ((y[:, None] + x[None, :]) % 2).astype(np.float32)
    first, second = _color(rng, rng.uniform(50, 230, 3), 1), _color(rng, rng.uniform(50, 230, 3), 1)
    return first + (second - first) * (0.4 + 0.6 * rng.random()) * is_first[..., None], 'on a checked background'


def _speckled(rng: Generator, image_size: tuple[int, int], base: tuple, spread: float, stretch: int) -> np.ndarray:
    """Fine grain, drawn out downwards, on smooth patches: grass, sand, snow."""
    height, width = image_size
    fine = rng.random((max(height // stretch, 2), width, 1), dtype=np.float32) - 0.5
    fine = cv2.resize(fine, (width, height), interpolation=cv2.INTER_LINEAR)[..., None]
    color = _color(rng, base, 8)
    return color + (spread * fine + spread * _smooth(rng, image_size, 5, 1)) * (color / 160)


def _grass(rng: Generator, image_size: tuple[int, int]) -> Ground:
    return _speckled(rng, image_size, (86, 140, 56), 90, 3), 'on grass'


def _sand(rng: Generator, image_size: tuple[int, int]) -> Ground:
    return _speckled(rng, image_size, (218, 188, 132), 34, 1), 'on sand'


def _snow(rng: Generator, image_size: tuple[int, int]) -> Ground:
    return _speckled(rng, image_size, (232, 238, 246), 14, 1), 'on snow'


def _water(rng: Generator, image_size: tuple[int, int]) -> Ground:
    """Flat waves: smooth noise that is much wider than high."""
    height, width = image_size
    rows = int(rng.integers(14, 26))
    waves = rng.random((rows, 5), dtype=np.float32) - 0.5
    waves = cv2.resize(waves, (width, height), interpolation=cv2.INTER_CUBIC)[..., None]
    return _color(rng, (54, 128, 184), 10) + waves * np.array([70, 66, 56], np.float32), 'on water'


def _sky(rng: Generator, image_size: tuple[int, int]) -> Ground:
    height, width = image_size
    ramp = np.linspace(0, 1, height, dtype=np.float32)[:, None, None]
    image = _color(rng, (84, 150, 224), 8) * (1 - ramp) + _color(rng, (190, 220, 244), 6) * ramp
    clouds = np.clip(_smooth(rng, image_size, 4, 1) + 0.6 * _smooth(rng, image_size, 9, 1), 0, 0.35) / 0.35
    return np.broadcast_to(image, (height, width, 3)) + (250 - image) * 0.8 * clouds, 'in the sky'


def _wood(rng: Generator, image_size: tuple[int, int]) -> Ground:
    """Boards with a grain along them."""
    height, width = image_size
    grain = rng.random((height, 3, 1), dtype=np.float32) - 0.5
    grain = cv2.resize(grain, (width, height), interpolation=cv2.INTER_LINEAR)[..., None]
    image = _color(rng, (166, 116, 70), 10) * (1 + 0.3 * grain)
    board = max(4, int(height * rng.uniform(0.16, 0.3)))
    image[board - 1 :: board] *= 0.6
    return image, 'on a wooden table'


def _bricks(rng: Generator, image_size: tuple[int, int]) -> Ground:
    height, width = image_size
    tall = max(4, int(min(image_size) * rng.uniform(0.08, 0.14)))
    y, x = np.arange(height)[:, None], np.arange(width)[None, :]
    row = y // tall
    column = (x + (row % 2) * tall) // (2 * tall)
    shade = rng.uniform(0.8, 1.15, (height // tall + 2, width // tall + 2)).astype(np.float32)[row, column]
    is_joint = (y % tall == 0) | ((x + (row % 2) * tall) % (2 * tall) == 0)
    image = _color(rng, (164, 82, 62), 10) * shade[..., None]
    image[is_joint] = _color(rng, (196, 188, 178), 6)
    return image, 'in front of a brick wall'


GROUNDS: dict[str, Callable[[Generator, tuple[int, int]], Ground]] = {
    'flat': _flat, 'shaded': _shaded, 'clouded': _clouded, 'striped': _striped, 'checked': _checked, 'grass': _grass,
    'sand': _sand, 'snow': _snow, 'water': _water, 'sky': _sky, 'wood': _wood, 'bricks': _bricks,
}  # fmt: skip


def checked_kinds(kinds: str | Collection[str]) -> tuple[str, ...]:
    """Kinds of grounds of a setting: 'all', or one or several keys of ``GROUNDS``.

    Raises:
        ValueError: If one has no meaning.
    """
    kinds = tuple(GROUNDS) if kinds == 'all' else (kinds,) if isinstance(kinds, str) else tuple(kinds)
    unknown = [own for own in kinds if own not in GROUNDS]
    if unknown or not kinds:
        raise ValueError(f"grounds must be 'all' or some of {tuple(GROUNDS)}, but got {unknown or kinds!r}")
    return kinds


@lru_cache(maxsize=NUM_KEPT_PHOTOS)
def _shrunk(path: str) -> np.ndarray:
    """A photograph whose shorter side is at most ``PHOTO_SIDE``, uint8 RGB."""
    picture = decode_picture(read_bytes(path), f'photograph {path}')[..., ::-1]
    scale = PHOTO_SIDE / min(picture.shape[:2])
    if scale < 1:
        size = round(picture.shape[1] * scale), round(picture.shape[0] * scale)
        picture = cv2.resize(picture, size, interpolation=cv2.INTER_AREA)
    return np.ascontiguousarray(picture)


def _photo(rng: Generator, image_size: tuple[int, int], path: str) -> np.ndarray:
    """A random part of a photograph with the picture's aspect ratio, mirrored or not."""
    photo = _shrunk(path)
    height, width = image_size
    largest = min(photo.shape[0] / height, photo.shape[1] / width)
    scale = largest * rng.uniform(0.5, 1)
    tall, wide = max(1, int(height * scale)), max(1, int(width * scale))
    y = int(rng.integers(photo.shape[0] - tall + 1))
    x = int(rng.integers(photo.shape[1] - wide + 1))
    part = cv2.resize(photo[y : y + tall, x : x + wide], (width, height), interpolation=cv2.INTER_AREA)
    return (part[:, ::-1] if rng.random() < 0.5 else part).astype(np.float32)
