"""Inference on overlapping tiles for small objects: settings, sizes, and the map of one picture."""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from genseg_mm.functional.map_tiles import blend_tiles, tile_spans
from genseg_mm.network_sizes import Size, network_sizes

# 2 x 2 tiles, in which everything is half as large again.
DEFAULTS = dict(size=2 / 3, overlap=0.5, blend=0.5)
PIXELS_AT_ONCE = 1 << 18  # of a pass of the network
_RANGES = dict(
    size=('a share of the picture in (0, 1)', lambda value: 0 < value < 1),
    overlap=('a share of a tile in [0, 1)', lambda value: 0 <= value < 1),
    blend=('a share in [0, 1]', lambda value: 0 <= value <= 1),
)


def checked_tiles(tiles: Any) -> dict[str, float] | None:
    """The settings in a config's ``tiles``: a dict, True for the defaults, None or False for none.

    Args:
        tiles: ``size``: side of a tile as a share of the picture's; ``overlap``: share of a tile that it has in common
            with the next one, at least; ``blend``: share of the tiles' colours in the result.

    Raises:
        ValueError: If it is something else, names a setting that does not exist, or a number is out of its range.
    """
    if tiles is None or tiles is False:
        return None
    if tiles is not True and not isinstance(tiles, Mapping):
        raise ValueError(f'tiles: expected settings out of {", ".join(DEFAULTS)}, True or None, but got {tiles!r}')
    settings = {**DEFAULTS, **({} if tiles is True else tiles)}
    unknown = sorted(settings.keys() - DEFAULTS.keys())
    if unknown:
        raise ValueError(f'tiles: expected settings out of {", ".join(DEFAULTS)}, but got {", ".join(unknown)}')
    for key, (expected, fits) in _RANGES.items():
        value = settings[key]
        if isinstance(value, bool) or not isinstance(value, int | float) or not fits(value):
            raise ValueError(f'tiles: expected {key} to be {expected}, but got {value!r}')
    return settings


def tiled_resize(resize: Mapping[str, Any], tiles: Mapping[str, float]) -> dict[str, Any]:
    """Settings of ``NetworkResize`` by which a tile, and no longer the whole, has the size of the network.

    Args:
        resize: Those for the whole picture.
        tiles: Settings of the tiles.
    """
    larger = dict(resize)
    if larger.get('longer_side'):
        larger['longer_side'] = round(larger['longer_side'] / tiles['size'])
    if larger.get('size') is not None:
        larger['size'] = tuple(round(side / tiles['size']) for side in larger['size'])
    return larger


def whole_sizes(
    image: Size, original: Size | None, resize: Mapping[str, Any], tiles: Mapping[str, float]
) -> tuple[Size, Size]:
    """Sizes at which the network sees the whole picture and each tile, without and with padding.

    A picture that came as large as ``tiled_resize`` asks for is brought back to the size for the whole; any other one
    has been sized by its pipeline or caller.

    Args:
        image: (height, width) of the picture as it came, without padding.
        original: Of the picture before it was resized; None where that is not known.
        resize: Settings of ``NetworkResize`` without tiles.
        tiles: Settings of the tiles.
    """

    def sized(height: int, width: int, **settings: Any) -> tuple[Size, Size]:
        known = {key: settings.get(key) for key in ('size', 'longer_side', 'multiples')}
        return network_sizes(height, width, **known, pad=settings.get('pad', False))

    if original is not None and sized(*original, **tiled_resize(resize, tiles))[0] == tuple(image):
        return sized(*original, **resize)
    return sized(*image, multiples=resize.get('multiples'), pad=resize.get('pad', False))


def tiled_colors(
    colors_of: Callable[[Tensor], Tensor], image: Tensor, sizes: tuple[Size, Size], tiles: Mapping[str, float]
) -> Tensor:
    """Colours of one picture from its whole and its tiles.

    Args:
        colors_of: Network, (n, 3, h, w) in [-1, 1] to colours of the same size, picture by picture. It sees as many at
            once as have ``PIXELS_AT_ONCE``, a large one alone, which then needs no more memory than without tiles.
        image: (3, H, W), without padding.
        sizes: Of the network's input without and with padding (:func:`whole_sizes`).
        tiles: Settings of the tiles.

    Returns:
        (3, H, W).
    """
    resized, padded = sizes
    rows, columns = (tile_spans(side, tiles['size'], tiles['overlap']) for side in image.shape[-2:])
    parts = [image, *(image[:, slice(*row), slice(*column)] for row in rows for column in columns)]
    bottom, right = (after - before for before, after in zip(resized, padded, strict=True))
    seen = F.pad(torch.cat([_resize(part, resized) for part in parts]), (0, right, 0, bottom), mode='replicate')
    at_once = max(PIXELS_AT_ONCE // (padded[0] * padded[1]), 1)
    maps = torch.cat([colors_of(some) for some in seen.split(at_once)])[..., : resized[0], : resized[1]]
    whole, *others = (_resize(own, part.shape[-2:])[0] for own, part in zip(maps, parts, strict=True))
    return blend_tiles(whole, others, rows, columns, tiles['blend'])


def _resize(one: Tensor, size: Size) -> Tensor:
    """(3, h, w) to (1, 3, H, W)."""
    if tuple(one.shape[-2:]) == tuple(size):
        return one[None]
    return F.interpolate(one[None], size=tuple(size), mode='bilinear', align_corners=False, antialias=True)
