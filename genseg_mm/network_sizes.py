"""From the size of a picture to the size that a network takes it at.

A model or colorer says its size in one place, a method ``network_resize()``: keyword arguments of the transform
``NetworkResize``. Colorers take ``network_resize(size=None)``, a ``processing_size`` in place of their own.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from genseg_mm.files.image_headers import MAX_PIXELS_VARIABLE, max_pixels
from genseg_mm.registry import class_name

Size = tuple[int, int]
NATIVE = 0  # a processing size: pictures keep theirs


def network_sizes(
    height: int,
    width: int,
    size: Sequence[int] | None = None,
    longer_side: int | None = None,
    multiples: Sequence[int] | None = None,
    pad: bool = False,
) -> tuple[Size, Size]:
    """Sizes (height, width) of the resized picture, and of the network's input with padding.

    Args:
        height: Of the picture, in pixels.
        width: Of the picture.
        size: (height, width) for all pictures.
        longer_side: Or the longer side, up or down, the shorter one in proportion, cut to whole pixels; 0 and None: the
            picture's own size.
        multiples: (height, width) of which the input's sides are multiples.
        pad: Whether they become so by padding, or by rounding to the nearest, a half upwards, at least one.

    Raises:
        ValueError: If the picture has no pixel, or the network's input more than every picture may have.
    """
    if height < 1 or width < 1:
        raise ValueError(f'height and width must be positive, but got {(height, width)}')
    resized, whole = _sizes(height, width, size, longer_side, multiples, pad)
    check_network_size(*whole)
    return resized, whole


def check_network_size(height: int, width: int) -> None:
    """Raises ValueError for more pixels than a picture may have, before they are asked for."""
    if height * width > max_pixels():
        raise ValueError(
            f'size of the network: expected at most {max_pixels()} pixels ({MAX_PIXELS_VARIABLE} in the environment), '
            f'but got {height}x{width}; take a smaller image_size or processing_size'
        )


def is_network_resize(transform: Any) -> bool:
    """Whether a transform's config is ``NetworkResize`` without settings, which means: ask the model."""
    return (
        isinstance(transform, Mapping)
        and set(transform) == {'type'}
        and isinstance(transform['type'], (str, type))
        and class_name(transform['type']) == 'NetworkResize'
    )


def network_resize_of(model: Any) -> dict[str, Any] | None:
    """Settings of ``NetworkResize`` for a model's pictures.

    Those of its ``network_resize()``; segmentors of mmseg work at the ``img_size`` of their backbone or the
    ``size_divisor`` of their preprocessor.

    Args:
        model: A built model or colorer.

    Returns:
        Keyword arguments, or None for a model that takes pictures as they are (controls, any module).

    Raises:
        ValueError: If it has only ``preferred_size``, which nothing asks.
    """
    if hasattr(model, 'network_resize'):
        return model.network_resize()
    if hasattr(model, 'preferred_size'):  # what colorers had to have before
        raise ValueError(
            f'{type(model).__name__}: preferred_size(height, width) is not asked any more; expected a method '
            'network_resize(size=None) that gives the keyword arguments of NetworkResize'
        )
    size = getattr(getattr(model, 'backbone', None), 'img_size', None)
    if size is not None:
        return dict(size=(size, size) if isinstance(size, int) else tuple(map(int, size)))
    divisor = getattr(getattr(model, 'data_preprocessor', None), 'size_divisor', None)
    return dict(multiples=(divisor, divisor)) if divisor else None


def checked_processing_size(size: Any) -> int | tuple[int, int] | None:
    """A ``processing_size`` of a config or command line, or a ValueError.

    Args:
        size: None (as the network wants), 0 (the picture's own size), the longer side, or (height, width).
    """
    if size is None or (isinstance(size, int) and not isinstance(size, bool) and size >= 0):
        return size
    if isinstance(size, list | tuple) and [type(side) for side in size] == [int, int] and min(size) > 0:
        return tuple(size)
    raise ValueError(
        'processing_size must be the longer side in pixels, (height, width), 0 for the own size of a picture, or None '
        f'for what the network asks for, but got {size!r}'
    )


def resize_to(size: int | tuple[int, int], multiples: Sequence[int] | int, **how: Any) -> dict[str, Any]:
    """Settings of ``NetworkResize`` for a processing size.

    Args:
        size: The longer side, 0, or (height, width).
        multiples: Of the sides.
        how: ``pad``, ``method``, ``whole``.
    """
    if isinstance(size, int):
        multiples = (multiples, multiples) if isinstance(multiples, int) else tuple(multiples)
        return dict(longer_side=size, multiples=multiples, **how)
    return dict(size=tuple(size), **{key: value for key, value in how.items() if key != 'pad'})


def _sizes(
    height: int,
    width: int,
    size: Sequence[int] | None,
    longer_side: int | None,
    multiples: Sequence[int] | None,
    pad: bool,
) -> tuple[Size, Size]:
    if size is not None:
        return tuple(size), tuple(size)
    if longer_side:
        longest = max(height, width)
        height, width = (max(side * longer_side // longest, 1) for side in (height, width))
    sides = list(zip((height, width), multiples or (1, 1), strict=True))
    if pad:
        return (height, width), tuple(-(-side // step) * step for side, step in sides)
    rounded = tuple(max((2 * side + step) // (2 * step), 1) * step for side, step in sides)
    return rounded, rounded
