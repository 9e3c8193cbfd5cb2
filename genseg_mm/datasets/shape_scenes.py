"""Coloured shapes on noisy grounds, for the referring and text-to-image tasks.

To add a shape, add one line to ``SEEN_SHAPES`` or ``UNSEEN_SHAPES``: its word and its outline. An outline is a list of
closed polygons (P, 2) of (x, y) with y pointing down, about one unit from the centre to the border. Where polygons
overlap, an even number of them makes a hole.

Everything is drawn relative to the short side of the image, so that a scene looks alike at every
size. Coordinates are pixels with pixel centres at integers.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.random import Generator

COLORS = {  # RGB
    'red': (220, 40, 40),
    'green': (40, 180, 60),
    'blue': (50, 80, 220),
    'yellow': (235, 215, 50),
    'purple': (150, 60, 190),
    'orange': (245, 140, 30),
}
SIZES = {'small': (6 / 64, 8 / 64), 'large': (11.5 / 64, 15 / 64)}  # radius / short side
MIN_VISIBLE = 20 / 64**2  # least visible area / short side squared of an object referred to
MAX_PLACEMENTS = 60
Window = tuple[slice, slice]  # rows and columns of an image


@dataclass(frozen=True, slots=True)
class SceneObject:
    """One object of a scene.

    Attributes:
        shape: Name of the shape.
        center: Centre of the whole object (x, y), pixels.
        radius: About half the extent of the whole object, pixels.
        area: Number of pixels it would show if nothing covered it.
        visible: Number of pixels it shows.
        color: Name of the colour; empty where objects are told apart by texture.
        size: 'small', 'large' or empty.
    """

    shape: str
    center: tuple[float, float]
    radius: float
    area: int
    visible: int
    color: str = ''
    size: str = ''


@dataclass(frozen=True, slots=True)
class Scene:
    """A drawn scene.

    Attributes:
        image: uint8 BGR, (H, W, 3).
        ids: uint8, (H, W); 0 is the ground, ``i + 1`` the visible pixels of ``objects[i]``.
        objects: From the farthest to the nearest; each shows at least one pixel.
    """

    image: np.ndarray
    ids: np.ndarray
    objects: tuple[SceneObject, ...]


def ellipse(radius: float = 1.0, start: float = 0.0, stop: float = 2 * math.pi, x: float = 0.0) -> np.ndarray:
    """Arc of a circle around (x, 0) from one angle to another (radians), (40, 2)."""
    angles = np.linspace(start, stop, 40)
    return np.stack([radius * np.cos(angles) + x, radius * np.sin(angles)], axis=1)


def box(x0: float, y0: float, x1: float, y1: float) -> np.ndarray:
    """Rectangle, (4, 2)."""
    return np.array([[x0, y0], [x1, y0], [x1, y1], [x0, y1]], dtype=float)


def plus(reach: float, half_width: float) -> np.ndarray:
    """Cross with arms of equal length, (12, 2)."""
    a, b = half_width, reach
    corners = [(a, a), (b, a), (b, -a), (a, -a), (a, -b), (-a, -b)]
    return np.array(corners + [(-x, -y) for x, y in corners])


def star(points: int, inner: float, outer: float) -> np.ndarray:
    """Star with one point up, (2 * points, 2)."""
    angles = np.arange(2 * points) * np.pi / points - np.pi / 2
    radii = np.where(np.arange(2 * points) % 2, inner, outer)
    return np.stack([radii * np.cos(angles), radii * np.sin(angles)], axis=1)


def heart() -> np.ndarray:
    """The usual parametric heart, (40, 2)."""
    t = np.linspace(0, 2 * np.pi, 40)
    y = 13 * np.cos(t) - 5 * np.cos(2 * t) - 2 * np.cos(3 * t) - np.cos(4 * t)
    return np.stack([16 * np.sin(t) ** 3, -y - 2.5], axis=1) / 14.5


def place(
    outline: Sequence[np.ndarray], center: Sequence[float], radii: Sequence[float], angle: float
) -> list[np.ndarray]:
    """Scales an outline by ``radii`` (x, y), turns it by ``angle`` (radians) and moves it."""
    cos, sin = math.cos(angle), math.sin(angle)
    turn = np.array([[cos * radii[0], sin * radii[0]], [-sin * radii[1], cos * radii[1]]])
    return [polygon @ turn + center for polygon in outline]


def rasterise(
    polygons: Sequence[np.ndarray], image_size: tuple[int, int], supersample: int = 1, stroke: int = 0
) -> tuple[Window, np.ndarray]:
    """Draws polygons into the smallest window of the image that holds them and a margin of a pixel.

    Args:
        polygons: (P, 2) each, (x, y) in pixels.
        image_size: (height, width).
        supersample: Sub-pixels per pixel and axis for antialiasing.
        stroke: If positive, draw open lines of this width (pixels) instead of filling.

    Returns:
        The window and the coverage in it, uint8, 0 to 255; both empty if the polygons are outside
        the image.
    """
    points = np.concatenate(polygons)
    margin = 1 + stroke / 2
    x0, y0 = np.maximum(np.floor(points.min(axis=0) - margin), 0).astype(int).tolist()
    x1, y1 = (np.ceil(points.max(axis=0) + margin).astype(int) + 1).tolist()
    x1, y1 = min(x1, image_size[1]), min(y1, image_size[0])
    width, height = max(x1 - x0, 0), max(y1 - y0, 0)
    coverage = np.zeros((height * supersample, width * supersample), np.uint8)
    window = slice(y0, y0 + height), slice(x0, x0 + width)
    if not coverage.size:
        return window, coverage
    half = 0.5 * (supersample - 1)  # a pixel's centre in sub-pixels (whose centres are integers)
    fixed = [np.rint(((p - (x0, y0)) * supersample + half) * 16).astype(np.int32) for p in polygons]
    if stroke:
        cv2.polylines(coverage, fixed, False, 255, thickness=stroke * supersample, shift=4)
    else:
        cv2.fillPoly(coverage, fixed, 255, shift=4)
    if supersample > 1:
        coverage = cv2.resize(coverage, (width, height), interpolation=cv2.INTER_AREA)
    return window, coverage


SEEN_SHAPES = {
    'circle': [ellipse()],
    'square': [box(-0.88, -0.88, 0.88, 0.88)],
    'triangle': [np.array([[0.0, -1.24], [1.074, 0.62], [-1.074, 0.62]])],
    'cross': [plus(1.0, 0.36)],
}
UNSEEN_SHAPES = {
    'star': [star(5, 0.5, 1.2)],
    'ring': [ellipse(1.05), ellipse(0.55)],
    'diamond': [np.array([[0.0, -1.25], [0.8, 0.0], [0.0, 1.25], [-0.8, 0.0]])],
    'heart': [heart()],
}
SHAPES = {**SEEN_SHAPES, **UNSEEN_SHAPES}


def random_interior_points(ids: np.ndarray, rng: Generator, num_points: int = 1) -> tuple[np.ndarray, np.ndarray]:
    """Uniformly random pixels inside the visible part of every instance, with replacement.

    Args:
        ids: Integer instance map, (H, W), 0 is the ground.
        rng: Source of the draw.
        num_points: P, points per instance.

    Returns:
        Instance ids (K,) int64 in ascending order, and points (K, P, 2) float32, (x, y), integer
        pixel coordinates.
    """
    instances = np.unique(ids[ids > 0]).astype(np.int64)
    points = np.empty((len(instances), num_points, 2), np.float32)
    for row, instance in enumerate(instances):
        pixels = np.flatnonzero(ids == instance)
        y, x = np.divmod(pixels[rng.integers(len(pixels), size=num_points)], ids.shape[1])
        points[row, :, 0], points[row, :, 1] = x, y
    return instances, points


def draw_shape_scene(rng: Generator, image_size: tuple[int, int], shapes: Sequence[str]) -> Scene:
    """Two to five objects on a noisy ground, partly covering each other.

    The composition is drawn before the pixels, so it is the same at every size of one aspect ratio.

    Args:
        rng: Source of everything that is random.
        image_size: (height, width).
        shapes: Names from ``SHAPES`` to choose from.
    """
    planned = [_random_object(rng, shapes, *spot) for spot in _placements(rng, image_size)]
    image = _noisy_ground(rng, image_size)
    ids = np.zeros(image_size, np.uint8)
    drawn = []
    for fields, polygons in planned:
        window, coverage = rasterise(polygons, image_size, supersample=4)
        _paint(rng, image[window], coverage, COLORS[fields['color']])
        mask = coverage >= 128
        drawn.append(dict(fields, area=int(mask.sum())))
        ids[window][mask] = len(drawn)
    return finish(image, ids, drawn)


def finish(rgb: np.ndarray, ids: np.ndarray, drawn: Sequence[dict]) -> Scene:
    """Makes the scene from a drawing, without the objects that are hidden.

    Args:
        rgb: float RGB, (H, W, 3), in [0, 255] up to clipping.
        ids: uint8, (H, W), ``i + 1`` for ``drawn[i]``.
        drawn: Fields of ``SceneObject`` without ``visible``, from far to near.
    """
    visible = np.bincount(ids.ravel(), minlength=len(drawn) + 1)[1:]
    keep = visible > 0
    new_ids = np.concatenate([[0], np.where(keep, np.cumsum(keep), 0)]).astype(np.uint8)
    objects = tuple(
        SceneObject(**fields, visible=int(count))
        for fields, count, stays in zip(drawn, visible, keep, strict=True)
        if stays
    )
    image = cv2.cvtColor(np.clip(rgb, 0, 255).astype(np.uint8), cv2.COLOR_RGB2BGR)
    return Scene(image=image, ids=new_ids[ids], objects=objects)


def _placements(rng: Generator, image_size: tuple[int, int]) -> list[tuple[str, tuple[float, float], float]]:
    """Sizes, centres and radii of objects that stay inside and cover each other only in part."""
    height, width = image_size
    count = int(rng.integers(2, 6))
    placed = []
    for which, grow, u, v in rng.random((MAX_PLACEMENTS, 4)).tolist():
        size = 'large' if which < 0.5 else 'small'
        low, high = SIZES[size]
        radius = (low + (high - low) * grow) * min(image_size)
        x = radius + (width - 2 * radius) * u - 0.5
        y = radius + (height - 2 * radius) * v - 0.5
        if all(math.hypot(x - a, y - b) >= 0.75 * (radius + r) for _, (a, b), r in placed):
            placed.append((size, (x, y), radius))
            if len(placed) == count:
                break
    return placed


def _random_object(
    rng: Generator, shapes: Sequence[str], size: str, center: tuple[float, float], radius: float
) -> tuple[dict, list[np.ndarray]]:
    """``SceneObject`` fields and placed outline of an object of random shape, colour and tilt."""
    shape = shapes[rng.integers(len(shapes))]
    color = list(COLORS)[rng.integers(len(COLORS))]
    polygons = place(SHAPES[shape], center, (radius, radius), rng.uniform(-0.25, 0.25))
    return dict(shape=shape, color=color, size=size, center=center, radius=radius), polygons


def _noisy_ground(rng: Generator, image_size: tuple[int, int]) -> np.ndarray:
    """Grey, smooth colours, pixel noise and sometimes a wave: float32 RGB, (H, W, 3)."""
    height, width = image_size
    knots = int(rng.integers(3, 9))
    smooth = rng.standard_normal((knots, knots, 3), dtype=np.float32) * rng.uniform(8, 28)
    image = _stretch(_stretch(smooth, height).swapaxes(0, 1), width).swapaxes(0, 1)
    image = image + rng.standard_normal((height, width, 3), dtype=np.float32) * rng.uniform(2, 10)
    image += rng.uniform(60, 200)
    if rng.random() < 0.3:
        angle = rng.uniform(0, math.pi)
        frequency = rng.uniform(0.3, 0.9) * 64 / min(image_size)
        x = np.arange(width, dtype=np.float32) * (math.cos(angle) * frequency)
        y = np.arange(height, dtype=np.float32) * (math.sin(angle) * frequency)
        image += (rng.uniform(8, 25) * np.sin(x[None, :] + y[:, None]))[..., None]
    return image


def _stretch(values: np.ndarray, length: int) -> np.ndarray:
    """Linear interpolation along axis 0; first and last value stay at the ends."""
    position = np.linspace(0, len(values) - 1, length, dtype=np.float32)
    left = np.minimum(position.astype(int), len(values) - 2)
    share = (position - left).astype(np.float32)[:, None, None]
    return values[left] * (1 - share) + values[left + 1] * share


def _paint(rng: Generator, image: np.ndarray, coverage: np.ndarray, color: tuple[int, int, int]) -> None:
    """Blends a grainy object, its colour slightly varied, into ``image`` (in place)."""
    base = np.array(color, np.float32) * rng.uniform(0.85, 1.1)
    base += rng.standard_normal(3, dtype=np.float32) * 8
    grain = rng.standard_normal(coverage.shape, dtype=np.float32) * rng.uniform(0, 10)
    alpha = coverage.astype(np.float32) / 255
    image += alpha[..., None] * (base + grain[..., None] - image)
