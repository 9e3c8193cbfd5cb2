"""Colour maps of overlapping tiles as one map with that of the whole picture.

A network that is shown a part of a picture sees small objects larger. But the colours that it gives to instances are
its free choice, picture by picture: those of a tile have to be brought to those of the whole before they mean the same.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

# Directions in which the colours of a tile vary by less than this share of the largest variance have no slope.
FLAT = 1e-7


def tile_spans(length: int, size: float, overlap: float) -> list[tuple[int, int]]:
    """Equal spans that cover 0 ... length evenly, as few as overlap by at least so much.

    Args:
        length: Of the picture's side, in pixels.
        size: Of a span, as a share of the side, in (0, 1]; at least a pixel.
        overlap: Share of a span that it has in common with the next one, at least, in [0, 1).

    Returns:
        First and one past the last pixel of each.

    Raises:
        ValueError: If a number is out of its range.
    """
    if length < 1:
        raise ValueError(f'length: expected at least 1 pixel, but got {length}')
    if not 0 < size <= 1:
        raise ValueError(f'size: expected a share of the side in (0, 1], but got {size!r}')
    if not 0 <= overlap < 1:
        raise ValueError(f'overlap: expected a share of a tile in [0, 1), but got {overlap!r}')
    side = min(max(round(length * size), 1), length)
    # From shares, not pixels, whose rounding is no reason for one more span.
    steps = math.ceil((1 - size) / (size * (1 - overlap)) - 1e-9)
    starts = sorted({round((length - side) * step / max(steps, 1)) for step in range(steps + 1)})
    return [(start, start + side) for start in starts]


def fit_colors(colors: Tensor, target: Tensor) -> Tensor:
    """The affine change of colours that brings a map nearest to another one, applied.

    Least squares over all pixels: of ``A c + b`` with A (3, 3) and b (3,) the one for which the mean of
    ``|A c + b - t|^2`` is smallest. Where the colours vary in fewer than three directions, A is zero in the others, so
    that a map of one colour becomes the target's mean. Computed in float64.

    Args:
        colors: (3, h, w).
        target: (3, h, w).

    Returns:
        The changed map, (3, h, w), in the type of the target.

    Raises:
        ValueError: If the shapes differ.
    """
    if colors.ndim != 3 or len(colors) != 3 or colors.shape != target.shape:
        raise ValueError(
            f'colors and target: expected two maps (3, h, w) of one size, but got {tuple(colors.shape)} and '
            f'{tuple(target.shape)}'
        )
    source, wanted = colors.flatten(1).double(), target.flatten(1).double()
    source = source - source.mean(1, keepdim=True)
    mean = wanted.mean(1, keepdim=True)
    slope = (wanted - mean) @ source.T @ torch.linalg.pinv(source @ source.T, rtol=FLAT, hermitian=True)
    return (slope @ source + mean).view(target.shape).to(target.dtype)


def blend_tiles(
    whole: Tensor,
    tiles: Sequence[Tensor],
    rows: Sequence[tuple[int, int]],
    columns: Sequence[tuple[int, int]],
    blend: float,
) -> Tensor:
    """The whole map with what its tiles show, each fitted to it.

    Every tile is changed by ``fit_colors`` towards its part of the whole map. Where tiles overlap, their colours are
    averaged with weights that fall to the tiles' borders. The result is ``(1 - blend) * whole + blend * tiles``, so
    tiles that are affine changes of the whole map change nothing.

    Args:
        whole: Map of the whole picture, (3, H, W).
        tiles: Maps of the tiles, row by row, each (3, h, w) of its place.
        rows: Spans of the tiles' rows, see ``tile_spans``.
        columns: Spans of their columns.
        blend: Share of the tiles, in [0, 1].

    Returns:
        (3, H, W), in the type of the whole map.

    Raises:
        ValueError: If the numbers of tiles and places differ, or blend is out of its range.
    """
    if len(tiles) != len(rows) * len(columns):
        raise ValueError(f'tiles: expected {len(rows)} x {len(columns)} maps, but got {len(tiles)}')
    if not 0 <= blend <= 1:
        raise ValueError(f'blend: expected a share in [0, 1], but got {blend!r}')
    total, weights = torch.zeros_like(whole), torch.zeros_like(whole[:1])
    places = [(row, column) for row in rows for column in columns]
    for tile, (row, column) in zip(tiles, places, strict=True):
        part = (slice(None), slice(*row), slice(*column))
        weight = torch.outer(_ramp(row, whole), _ramp(column, whole))
        total[part] += weight * fit_colors(tile, whole[part])
        weights[part] += weight
    return torch.lerp(whole, total / weights, blend)


def _ramp(span: tuple[int, int], like: Tensor) -> Tensor:
    """1, 2, ... to the middle of a span and back."""
    places = torch.arange(1, span[1] - span[0] + 1, device=like.device, dtype=like.dtype)
    return torch.minimum(places, places.flip(0))
