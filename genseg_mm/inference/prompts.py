"""Points, boxes and texts as users write them -> checked arrays, image by image."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from genseg_mm.files import check_texts
from genseg_mm.functional.point_prompting import check_prompts, prompt_settings
from genseg_mm.models.map_prompting import settings_of


@dataclass(frozen=True)
class Prompts:
    """The prompts of one image."""

    points: np.ndarray | None = None  # (K, P, 2) float32, (x, y) in pixels of the image
    point_labels: np.ndarray | None = None  # (K, P), 1 positive, 0 negative, -1 no point
    boxes: np.ndarray | None = None  # (K, 4) float32, xyxy
    texts: tuple[str, ...] | None = None

    @property
    def has_geometry(self) -> bool:
        """Whether there are points or boxes."""
        return self.points is not None or self.boxes is not None

    def check(self, name: str, size: tuple[int, int] | None = None, hint: str = '') -> None:
        """Raises ValueError for points or boxes that no map, or none of this (height, width), could take."""
        if not self.has_geometry and self.point_labels is None:
            return
        try:
            check_prompts(self.points, self.point_labels, self.boxes, size)
        except ValueError as error:
            raise ValueError(f'{name}: {error}{hint}') from error


def split_prompts(
    names: Sequence[str],
    is_single: bool,
    points: Any = None,
    point_labels: Any = None,
    boxes: Any = None,
    texts: Any = None,
    is_folder: bool = False,
) -> list[Prompts]:
    """Deals prompts out to the images and checks their form.

    Args:
        names: Names of the images, for messages.
        is_single: Whether one image was given, not in a list; then prompts are its own, not one list per image.
        points: (K, 2), K prompts of one point, or (K, P, 2), for each image; None for none. Prompts may differ in their
            number of points: they are filled up with points of label -1.
        point_labels: As points without (x, y): 1 positive, 0 negative, -1 no point.
        boxes: (K, 4) xyxy for each image.
        texts: A string or a list of strings for each image; a single string stands for all images.
        is_folder: Whether the images are those of a folder: prompts are as for a single image, and every image gets
            them all.

    Returns:
        One ``Prompts`` per image.

    Raises:
        ValueError: If the number of lists is not that of the images, or a prompt has a wrong shape.
    """
    if isinstance(texts, str) or texts is not None and (is_single or is_folder):
        texts = [texts] * len(names)
    given = dict(points=points, point_labels=point_labels, boxes=boxes)
    if is_single or is_folder:
        given = {key: None if value is None else [value] * len(names) for key, value in given.items()}
    given['texts'] = texts
    for key, value in given.items():
        if value is None:
            given[key] = [None] * len(names)
        elif not hasattr(value, '__len__') or len(value) != len(names):
            length = len(value) if hasattr(value, '__len__') else repr(value)
            raise ValueError(
                f'{key}: expected one list (or None) for each of the {len(names)} images of the list, but got {length}'
            )
    prompts = [_read(name, *own) for name, *own in zip(names, *given.values(), strict=True)]
    hint = '' if is_single or is_folder else '; a list of images takes one such list per image'
    for name, own in zip(names, prompts, strict=True):
        own.check(name, hint=hint)
    return prompts


def check_options(
    prompts: Sequence[Prompts],
    takes_texts: bool,
    automatic: bool | dict | None = None,
    prompting: dict | None = None,
) -> None:
    """Raises ValueError for prompts and settings that the model does not take, before it runs.

    Args:
        prompts: Of all images.
        takes_texts: Whether the model is GenMask, not Gen2Seg.
        automatic: Whether Gen2Seg is to find instances without prompts, or settings of that.
        prompting: Settings of Gen2Seg's prompting.
    """
    has_texts = [one.texts is not None for one in prompts]
    if not takes_texts and any(has_texts):
        raise ValueError('Gen2Seg takes points, boxes or no prompt, but got texts, which GenMask takes')
    given = {'points or boxes': any(one.has_geometry for one in prompts)}
    given |= dict(automatic=is_set(automatic), prompting=is_set(prompting))
    if takes_texts and any(given.values()):
        names = ' and '.join(name for name, is_given in given.items() if is_given)
        raise ValueError(f'GenMask takes texts, but got {names}, which Gen2Seg takes')
    if takes_texts and not all(has_texts):
        raise ValueError("GenMask needs texts, an expression or a list for each image, such as 'the red ring'")
    settings_of(automatic)
    if prompting is not None and not isinstance(prompting, dict):
        raise ValueError(f'prompting: expected a dict of settings or None, but got {prompting!r}')
    prompt_settings(**(prompting or {}))


def is_set(option: Any) -> bool:
    """Whether an option that takes True or settings is on: an empty dict means with default settings."""
    return option is not None and option is not False


def _read(name: str, points: Any, point_labels: Any, boxes: Any, texts: Any) -> Prompts:
    """Prompts as arrays: points and their labels with all axes, where their form allows it."""
    if points is not None:
        points, point_labels = _filled_up(name, points, point_labels)
        points = _numbers(points, f'{name}: points', '(K, 2) or (K, P, 2), as (x, y)')
        points = points.reshape(0, 1, 2) if points.size == 0 else points
        if points.ndim == 2 and points.shape[1] == 2:
            points = points[:, None]
    if point_labels is not None:
        point_labels = _numbers(point_labels, f'{name}: point_labels', '(K, P)')
        num_points = points.shape[1] if points is not None and points.ndim == 3 else None
        if num_points is not None and point_labels.size == 0 or num_points == point_labels.ndim == 1:
            point_labels = point_labels.reshape(-1, num_points)
        if np.isin(point_labels, (-1, 0, 1)).all():
            point_labels = point_labels.astype(np.int64)
    if boxes is not None:
        boxes = _numbers(boxes, f'{name}: boxes', '(K, 4), as (x0, y0, x1, y1)')
        boxes = boxes.reshape(0, 4) if boxes.size == 0 else boxes
    return Prompts(points, point_labels, boxes, _strings(name, texts))


def _numbers(value: Any, what: str, form: str) -> np.ndarray:
    if hasattr(value, 'detach'):
        value = value.detach().cpu()
        value = value.float() if value.is_floating_point() else value  # NumPy has no bfloat16
    try:
        array = np.asarray(value, dtype=np.float32)
    except (TypeError, ValueError, OverflowError) as error:
        raise ValueError(f'{what}: expected numbers {form}, but got {value!r}') from error
    if not np.isfinite(array).all():
        raise ValueError(f'{what}: expected finite numbers {form}, but got NaN or infinity')
    return array


def _filled_up(name: str, points: Any, point_labels: Any) -> tuple[Any, Any]:
    """Prompts of as many points each; those of fewer have points of label -1 added."""
    if not isinstance(points, (list, tuple)) or not all(hasattr(one, '__len__') for one in points):
        return points, point_labels
    num_points = max(map(len, points), default=0)
    if all(len(one) == num_points for one in points):
        return points, point_labels
    form = '(P, 2) in each prompt, as (x, y)'
    points = [_numbers(one, f'{name}: points', form) for one in points]
    for one in points:
        if one.ndim != 2 or one.shape[1] != 2:
            raise ValueError(f'{name}: points: expected {form}, but got {one.shape}')
    if point_labels is None:
        point_labels = [np.ones(len(one)) for one in points]
    lengths = [len(one) for one in points]
    given = [len(one) if hasattr(one, '__len__') else 1 for one in point_labels]
    if given != lengths:
        raise ValueError(f'{name}: point_labels: expected {lengths} in the prompts, one per point, but got {given}')
    filled = np.zeros((len(points), num_points, 2), np.float32)
    labels = np.full((len(points), num_points), -1.0)
    for number, length in enumerate(lengths):
        filled[number, :length], labels[number, :length] = points[number], point_labels[number]
    return filled, labels


def _strings(name: str, texts: Any) -> tuple[str, ...] | None:
    if texts is None:
        return None
    texts = (texts,) if isinstance(texts, str) else texts
    if not isinstance(texts, (list, tuple)) or not all(isinstance(text, str) for text in texts):
        raise ValueError(f'{name}: texts: expected a string or a list of strings, but got {texts!r}')
    check_texts(texts, f'{name}: texts')
    for text in texts:
        check_not_empty(text, name)
    return tuple(texts)


def check_not_empty(text: str, where: str) -> None:
    """Raises ValueError for a text without a word."""
    if not text.strip():
        raise ValueError(f'{where}: texts: expected words, but got the empty text {text[:20]!r}')
