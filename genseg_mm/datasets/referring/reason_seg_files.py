"""Reading of ReasonSeg's annotation files, and the masks that their polygons mean."""

from collections.abc import Callable
from reprlib import repr as short_repr

import cv2
import numpy as np

from genseg_mm.datasets.annotation_files import is_number
from genseg_mm.datasets.segmentations import MAX_REACH
from genseg_mm.files import read_json

IGNORED = 255


def read_annotation(path: str, usable: Callable[[object, str], str]) -> dict:
    """Reads one annotation file, UTF-8 or, as some are, Windows-1252.

    Args:
        path: The file.
        usable: Takes a text and its place, and gives it back, or ``''`` for what is none and is left out.

    Returns:
        ``sentences`` (all different ways to say the same, without those that are no text), ``is_sentence`` (whether
        they are long questions), ``shapes`` (dicts of ``points`` [[x, y], ...] and ``ignore``; a union, without those
        labelled 'flag') and ``num_flags``.

    Raises:
        ValueError: If the file is damaged or lacks something.
    """
    content = read_json(path, fallback='cp1252')
    kinds = dict(text=list, is_sentence=int, shapes=list)
    for key, kind in kinds.items():
        if not isinstance(content, dict) or not isinstance(content.get(key), kind):
            raise ValueError(
                f'{path}: expected a dict with text (list of str), is_sentence (bool) and shapes (list), but {key} '
                f'is {short_repr(content.get(key) if isinstance(content, dict) else content)}'
            )
    sentences = content['text']
    if not sentences:
        raise ValueError(f'{path}: text must be a list of sentences, but got []')
    usable_ones = [usable(text, f'{path}, text {index}') for index, text in enumerate(sentences)]
    shapes = [_shape(own, f'{path}, shape {index}') for index, own in enumerate(content['shapes'])]
    kept = [shape for shape in shapes if shape is not None]
    return dict(
        sentences=[text.strip() for text in usable_ones if text],
        is_sentence=bool(content['is_sentence']),
        shapes=kept,
        num_flags=len(shapes) - len(kept),
    )


def draw_shapes(
    shapes: list[dict], height: int, width: int, ignored: int = IGNORED, where: str = 'shapes'
) -> np.ndarray:
    """The mask of the shapes as LISA draws it (``utils/data_processing.py``).

    Points are cut to integers; each polygon covers its interior and its outline, one pixel thick. pycocotools' masks of
    the same polygons are smaller: their IoU with these is 0.85 for small and 0.98 for large objects. Polygons are
    painted by their area, the largest first, so that a smaller one stays visible on a larger one; of two equal ones
    the first in the list lies on top.

    Args:
        shapes: Dicts of ``points`` and ``ignore``, see :func:`read_annotation`.
        height: Of the picture as OpenCV decodes it, turned as its EXIF data say.
        width: Of the same.
        ignored: Value of the regions to ignore.
        where: What the message of an error starts with.

    Returns:
        (height, width) uint8: 1 on the target, ``ignored`` on regions to ignore, 0 elsewhere.

    Raises:
        ValueError: If points lie far outside of the picture.
    """
    limit = MAX_REACH * max(height, width)  # far outside OpenCV's fixed-point coordinates overflow
    polygons, areas = [], []
    for shape in shapes:
        points = np.asarray(shape['points'], np.float64)
        if np.abs(points).max() > limit:
            raise ValueError(
                f'{where}: expected coordinates inside of the picture of {height}x{width} or near it, but got '
                f'{points[np.abs(points).max(axis=1).argmax()].tolist()}'
            )
        polygons.append(points.astype(np.int32)[None])
        areas.append(int(_paint(np.zeros((height, width), np.uint8), polygons[-1], 1).sum()))
    mask = np.zeros((height, width), np.uint8)
    for index in np.argsort(areas, kind='stable')[::-1]:
        _paint(mask, polygons[index], ignored if shapes[index]['ignore'] else 1)
    return mask


def _paint(mask: np.ndarray, polygon: np.ndarray, value: int) -> np.ndarray:
    cv2.polylines(mask, polygon, isClosed=True, color=value, thickness=1)
    cv2.fillPoly(mask, polygon, value)
    return mask


def _shape(shape: dict, where: str) -> dict | None:
    if not isinstance(shape, dict) or not isinstance(shape.get('label'), str):
        raise ValueError(f'{where}: expected a dict with a label, but got {short_repr(shape)}')
    label = shape['label'].lower()
    if label == 'flag':
        return None
    points = shape.get('points')
    valid = isinstance(points, list) and len(points) > 0
    if not valid or not all(_is_point(point) for point in points):
        raise ValueError(f'{where}: points must be [[x, y], ...], but got {short_repr(points)}')
    return dict(points=points, ignore='ignore' in label)


def _is_point(point: object) -> bool:
    return isinstance(point, (list, tuple)) and len(point) == 2 and all(map(is_number, point))
