"""Which size a model works at: the one place that asks it.

The arithmetic, which transforms share, is in :mod:`genseg_mm.network_sizes`; the answer comes into the pipelines of a
config by :mod:`genseg_mm.launch.network_size`.
"""

from collections.abc import Sequence
from typing import Any

from torch import nn

from genseg_mm.network_sizes import network_sizes

NATIVE = 0  # a processing size: pictures keep theirs


class NetworkSizeMixin:
    """For models and colorers with ``network_resize()``: the size that they take a picture at."""

    def preferred_size(self, height: int, width: int) -> tuple[int, int]:
        """Size (height, width) of the network's input, padding included, for a picture of this size."""
        settings = self.network_resize()
        keys = ('size', 'longer_side', 'multiples', 'pad')
        return network_sizes(height, width, **{key: settings[key] for key in keys if key in settings})[1]


def network_resize_of(model: nn.Module, shape: tuple[int, int] | None = None) -> dict[str, Any] | None:
    """Settings of :class:`genseg_mm.datasets.transforms.NetworkResize` for a model's pictures.

    A model or colorer says it by a method ``network_resize()``. Other colorers may have
    ``preferred_size(height, width)``: one size for all pictures, or the nearest multiples of a stride. Segmentors of
    mmseg work at the ``img_size`` of their backbone or the ``size_divisor`` of their preprocessor.

    Args:
        model: A built model or colorer.
        shape: (height, width) of the picture in question; without one ``preferred_size`` is asked what it does to any.

    Returns:
        Keyword arguments, or None for a model that takes pictures as they are (controls, any module).
    """
    colorer = getattr(model, 'colorer', model)
    only_preferred = hasattr(colorer, 'preferred_size') and not hasattr(colorer, 'network_resize')
    if only_preferred and shape is not None and getattr(model, 'processing_size', None) is None:
        return dict(size=tuple(map(int, colorer.preferred_size(*shape))))
    if hasattr(model, 'network_resize'):
        return model.network_resize()
    if hasattr(model, 'preferred_size'):
        least, large = (tuple(map(int, model.preferred_size(side, side))) for side in (1, 10_000))
        return dict(size=least) if least == large else dict(multiples=tuple(max(side, 1) for side in least))
    if hasattr(model, 'colorer'):
        return network_resize_of(model.colorer)
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
