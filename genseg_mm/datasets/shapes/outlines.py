"""Outlines of shapes, and their drawing.

An outline is a list of closed polygons (P, 2) of (x, y) with y pointing down, about one unit from
the centre to the border. Where polygons overlap, an even number of them makes a hole.
"""

import math
from collections.abc import Sequence

import cv2
import numpy as np

Window = tuple[slice, slice]  # rows and columns of an image


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
