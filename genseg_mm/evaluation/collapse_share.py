"""Whether colour maps depend on their pictures, from sums of all maps: no map has to be kept."""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

_STEPS = 1 << 24  # of a colour unit: float32 from 1 on has no finer ones
_LARGEST = 4096  # beyond colours, which end at 255; sums of products stay within 64 bits


@dataclass
class MapSums:
    """Sums over colour maps in whole numbers, so that neither their order nor how they are put together matters.

    Attributes:
        number: Of maps.
        values: Sum of the maps in 2**-24 colour units, (3, h, w) int64.
        squares: Sum of all squared values in 2**-48 colour units.
    """

    number: int
    values: np.ndarray
    squares: int

    @classmethod
    def of(cls, colors: np.ndarray) -> 'MapSums':
        """Those of one map, (3, h, w), colours from 0 to 255; what lies beyond +-4096 counts as that."""
        values = np.rint(np.clip(colors, -_LARGEST, _LARGEST).astype(np.float64) * _STEPS).astype(np.int64)
        high, low = values >> 16, values & 0xFFFF
        parts = [int((one * other).sum()) for one, other in ((high, high), (high, low), (low, low))]
        return cls(1, values, (parts[0] << 32) + (parts[1] << 17) + parts[2])

    def __add__(self, other: 'MapSums') -> 'MapSums':
        return MapSums(self.number + other.number, self.values + other.values, self.squares + other.squares)


def collapse_share(sums: Iterable[MapSums]) -> float:
    """Share of the colour variance of all maps that their mean map explains.

    With N maps of P pixels, the sum S of the maps and the sum Q of all squares: (P sum(S^2) - sum_c (sum S_c)^2) /
    (N P Q - sum_c (sum S_c)^2), in whole numbers, rounded once. 1.0 where there is no variance at all.

    Args:
        sums: At least one.
    """
    first, *others = sums
    for own in others:
        first += own
    channels = [[int(value) for value in own] for own in first.values.reshape(len(first.values), -1)]
    squared_means = sum(sum(own) ** 2 for own in channels)
    explained = len(channels[0]) * sum(value * value for own in channels for value in own) - squared_means
    total = first.number * len(channels[0]) * first.squares - squared_means
    return explained / total if total else 1.0
