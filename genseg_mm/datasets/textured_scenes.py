"""Look-alike textured objects: the scenes of the instance task.

All objects of a scene share two colours, so that the colour of a pixel tells object from ground but
not one object from another; each has its own texture and a dark rim. To add a shape, add one line
to ``SEEN_TEXTURED`` or ``UNSEEN_TEXTURED``.
"""

import colorsys
import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import cv2
import numpy as np
from numpy.random import Generator

from genseg_mm.datasets.shape_scenes import Scene, Window, box, ellipse, finish, place, plus, rasterise, star

GROUNDS = ('plain', 'textured')
NUM_OBJECTS = (2, 6)
RADIUS = (0.08, 0.32)  # share of the short side, log-uniform
LEAST_ASPECT = 0.3
MIN_VISIBLE = 16 / 64**2  # least visible area / short side squared of an object
RIM_BRIGHTNESS = 0.45
MAX_DRAWS = 100


class TexturedShape(NamedTuple):
    """How a shape is drawn.

    Attributes:
        outline: Draws the outline (see ``shape_scenes``), one unit from the centre to the border.
        scale: Times the drawn radius.
        least_aspect: Height / width is drawn log-uniformly from [0.3, 1] and not below this.
        keep_area: Whether a flat object becomes longer in turn.
        stroke: Range of the width of an open line, in radii; None fills the outline.
    """

    outline: Callable[[Generator], list[np.ndarray]]
    scale: float = 1.0
    least_aspect: float = LEAST_ASPECT
    keep_area: bool = False
    stroke: tuple[float, float] | None = None


def _polar(angles: np.ndarray, radii: np.ndarray | float) -> list[np.ndarray]:
    return [np.stack([np.cos(angles) * radii, np.sin(angles) * radii], axis=1)]


def _triangle(rng: Generator) -> list[np.ndarray]:
    return _polar(np.arange(3) * (2 * np.pi / 3) + rng.uniform(-0.3, 0.3, 3), 1.3)


def _blob(rng: Generator) -> list[np.ndarray]:
    angles = np.linspace(0, 2 * np.pi, 48)
    waves = ((0.28, rng.integers(2, 4)), (0.18, rng.integers(3, 6)))
    return _polar(angles, 1 + sum(a * np.sin(angles * n + rng.random() * 6) for a, n in waves))


def _polygon(rng: Generator) -> list[np.ndarray]:
    corners = int(rng.integers(5, 9))
    angles = np.sort(np.arange(corners) * 2 * np.pi / corners + rng.uniform(-0.3, 0.3, corners))
    return _polar(angles, rng.uniform(0.6, 1.2, corners))


def _worm(rng: Generator) -> list[np.ndarray]:
    heading = np.cumsum(rng.normal(0, 0.45, 12))
    path = np.cumsum(_polar(heading, 0.3)[0], axis=0)
    return [path - path.mean(axis=0)]


def _crescent(rng: Generator) -> list[np.ndarray]:
    """The disk of radius 1.15 around 0 without the disk of radius 0.9 around (0.65, 0)."""
    x = (1.15**2 - 0.9**2 + 0.65**2) / (2 * 0.65)  # where the two circles meet
    y = math.sqrt(1.15**2 - x**2)
    outer, inner = math.atan2(y, x), math.atan2(y, x - 0.65)
    around = ellipse(1.15, outer, 2 * math.pi - outer)
    back = ellipse(0.9, 2 * math.pi - inner, inner, x=0.65)
    return [np.concatenate([around, back])]


TEE = np.array([(-1, -1), (1, -1), (1, -0.35), (0.33, -0.35), (0.33, 1.1), (-0.33, 1.1), (-0.33, -0.35), (-1, -0.35)])

SEEN_TEXTURED = {
    'ellipse': TexturedShape(lambda rng: [ellipse()], keep_area=True),
    'rectangle': TexturedShape(lambda rng: [box(-0.9, -0.9, 0.9, 0.9)], keep_area=True),
    'triangle': TexturedShape(_triangle, keep_area=True),
    'blob': TexturedShape(_blob, scale=1.1, least_aspect=0.5),
    'worm': TexturedShape(_worm, least_aspect=1.0, stroke=(0.35, 0.7)),
    'polygon': TexturedShape(_polygon, scale=1.2, least_aspect=0.5),
}
UNSEEN_TEXTURED = {
    'star': TexturedShape(lambda rng: [star(int(rng.integers(4, 7)), 0.5, 1.25)], 1.15, 0.6),
    'ring': TexturedShape(lambda rng: [ellipse(1.15), ellipse(0.6)], 1.15, 0.6),
    'cross': TexturedShape(lambda rng: [plus(1.1, 0.35)], 1.15, 0.6),
    'crescent': TexturedShape(_crescent, 1.15, 0.6),
    'tee': TexturedShape(lambda rng: [TEE], 1.15, 0.6),
}
TEXTURED_SHAPES = {**SEEN_TEXTURED, **UNSEEN_TEXTURED}


def _stripes(rng: Generator, u: np.ndarray, v: np.ndarray, side: int) -> np.ndarray:
    return 0.5 + 0.5 * np.sin(2 * math.pi * (rng.uniform(6, 14) * u + rng.random()))


def _checker(rng: Generator, u: np.ndarray, v: np.ndarray, side: int) -> np.ndarray:
    cells = rng.uniform(7, 14)
    return (np.floor(u * cells) + np.floor(v * cells)) % 2


def _dots(rng: Generator, u: np.ndarray, v: np.ndarray, side: int) -> np.ndarray:
    cells = rng.uniform(5, 10)
    u, v = (u * cells) % 1 - 0.5, (v * cells) % 1 - 0.5
    return (u * u + v * v < 0.09).astype(np.float32)


def _patches(rng: Generator, u: np.ndarray, v: np.ndarray, side: int) -> np.ndarray:
    cell = side / int(rng.integers(8, 18))
    height, width = u.shape
    coarse = rng.random((math.ceil(height / cell), math.ceil(width / cell)), dtype=np.float32)
    size = math.ceil(coarse.shape[1] * cell), math.ceil(coarse.shape[0] * cell)
    values = cv2.resize(coarse, size, interpolation=cv2.INTER_CUBIC)[:height, :width]
    return np.clip((values - 0.5) * 3 + 0.5, 0, 1)


TEXTURES = (_stripes, _checker, _patches, _dots)


def draw_textured_scene(
    rng: Generator, image_size: tuple[int, int], shapes: Sequence[str], grounds: str = 'plain'
) -> Scene:
    """Two to six objects that nearer ones may cover; objects that hardly show are left out.

    The composition is drawn before the pixels, so it is the same at every size of one aspect ratio.

    Args:
        rng: Source of everything that is random.
        image_size: (height, width).
        shapes: Names from ``TEXTURED_SHAPES`` to choose from.
        grounds: 'plain', a greyish ramp; or 'textured', where ground and objects share one palette
            of four colours (harder: colour does not even tell object from ground).
    """
    for _ in range(MAX_DRAWS):
        layers = _layers(rng, image_size, shapes)
        if layers:
            break
    else:
        raise RuntimeError(f'no object was visible in {MAX_DRAWS} draws of {shapes} at {image_size}')
    image, palette = _ground(rng, image_size, grounds)
    ids = np.zeros(image_size, np.uint8)
    for number, (window, mask, _) in enumerate(layers, start=1):
        surface = _texture(rng, palette, window, min(image_size))
        surface[_rim(mask, image_size)] *= RIM_BRIGHTNESS
        image[window][mask] = surface[mask]
        ids[window][mask] = number
    image += rng.standard_normal(image.shape, dtype=np.float32) * 0.03
    return finish(image * 255, ids, [fields for *_, fields in layers])


def _layers(
    rng: Generator, image_size: tuple[int, int], shapes: Sequence[str]
) -> list[tuple[Window, np.ndarray, dict]]:
    """Windows, masks and ``SceneObject`` fields of objects that show enough, from far to near."""
    count = int(rng.integers(NUM_OBJECTS[0], NUM_OBJECTS[1] + 1))
    layers = [_random_object(rng, image_size, shapes) for _ in range(count)]
    ids = np.zeros(image_size, np.uint8)
    for number, (window, mask, _) in enumerate(layers, start=1):
        ids[window][mask] = number
    visible = np.bincount(ids.ravel(), minlength=count + 1)[1:]
    # Leaving out one object can only uncover others, so one pass is enough.
    return [layer for layer, seen in zip(layers, visible, strict=True) if seen >= MIN_VISIBLE * min(image_size) ** 2]


def _random_object(
    rng: Generator, image_size: tuple[int, int], shapes: Sequence[str]
) -> tuple[Window, np.ndarray, dict]:
    height, width = image_size
    side = min(image_size)
    name = shapes[rng.integers(len(shapes))]
    shape = TEXTURED_SHAPES[name]
    radius = side * math.exp(rng.uniform(math.log(RADIUS[0]), math.log(RADIUS[1])))
    center = (rng.uniform(0.08, 0.92) * width, rng.uniform(0.08, 0.92) * height)
    aspect = max(math.exp(rng.uniform(math.log(LEAST_ASPECT), 0)), shape.least_aspect)
    reach = radius * shape.scale / (math.sqrt(aspect) if shape.keep_area else 1)
    polygons = place(shape.outline(rng), center, (reach, reach * aspect), rng.uniform(0, 2 * math.pi))
    stroke = 0
    if shape.stroke:
        stroke = int(max(3 * side / 64, radius * rng.uniform(*shape.stroke)))
    window, coverage = rasterise(polygons, image_size, stroke=stroke)
    mask = coverage > 0
    return window, mask, dict(shape=name, center=center, radius=radius, area=int(mask.sum()))


def _rim(mask: np.ndarray, image_size: tuple[int, int]) -> np.ndarray:
    """Border of a mask, 1 pixel wide at a short side of 64; none where the image cuts it."""
    width = max(1, round(min(image_size) / 64))
    core = cv2.erode(mask.astype(np.uint8), np.ones((3, 3), np.uint8), iterations=width, borderValue=1)
    return mask & (core == 0)


def _ground(rng: Generator, image_size: tuple[int, int], grounds: str) -> tuple[np.ndarray, np.ndarray]:
    """Ground, float32 RGB in [0, 1], (H, W, 3), and the palette (2 or 4, 3) of the objects."""
    height, width = image_size
    if grounds == 'textured':
        palette = rng.random((4, 3), dtype=np.float32)
        return _texture(rng, palette, (slice(0, height), slice(0, width)), min(image_size)), palette
    angle = rng.uniform(0, 2 * math.pi)
    x = (np.arange(width, dtype=np.float32) / width - 0.5) * math.cos(angle)
    y = (np.arange(height, dtype=np.float32) / height - 0.5) * math.sin(angle)
    ramp = 0.5 + 0.5 * (x[None, :] + y[:, None])
    first, second = rng.uniform(0.25, 0.95), rng.uniform(0.25, 0.95)
    tint = rng.uniform(-0.06, 0.06, 3).astype(np.float32)
    image = (first * ramp + second * (1 - ramp))[..., None] + tint
    hue = rng.random()
    palette = [
        colorsys.hsv_to_rgb((hue + turn) % 1, 0.9, rng.uniform(0.51, 1)) for turn in (0, rng.uniform(0.25, 0.75))
    ]
    return image, np.array(palette, np.float32)


def _texture(rng: Generator, palette: np.ndarray, window: Window, side: int) -> np.ndarray:
    """A random pattern of two colours of the palette, float32, (h, w, 3), at a random angle."""
    first, second = palette[rng.permutation(len(palette))[:2]]
    angle = rng.uniform(0, math.pi)
    cos, sin = math.cos(angle), math.sin(angle)
    y = np.arange(window[0].start, window[0].stop, dtype=np.float32)[:, None] / side
    x = np.arange(window[1].start, window[1].stop, dtype=np.float32)[None, :] / side
    pattern = TEXTURES[rng.integers(len(TEXTURES))](rng, cos * x + sin * y, cos * y - sin * x, side)
    return first + (second - first) * pattern[..., None]
