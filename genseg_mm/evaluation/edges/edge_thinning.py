"""Thinning of binary maps to lines one pixel wide, as MATLAB's ``bwmorph(map, 'thin', inf)``."""

import numpy as np

# Neighbours x1 ... x8 of Guo and Hall (row, column): east, then counterclockwise.
_NEIGHBOURS = ((0, 1), (-1, 1), (-1, 0), (-1, -1), (0, -1), (1, -1), (1, 0), (1, 1))


def _deletable() -> tuple[np.ndarray, np.ndarray]:
    """For all 256 neighbourhoods (bit k - 1 is x_k) whether the first and the second subiteration delete."""
    codes = np.arange(256)
    x1, x2, x3, x4, x5, x6, x7, x8 = ((codes >> k & 1).astype(bool) for k in range(8))
    crossings = sum(
        (~odd & (even | after)).astype(int)
        for odd, even, after in ((x1, x2, x3), (x3, x4, x5), (x5, x6, x7), (x7, x8, x1))
    )
    first = (x1 | x2).astype(int) + (x3 | x4) + (x5 | x6) + (x7 | x8)
    second = (x2 | x3).astype(int) + (x4 | x5) + (x6 | x7) + (x8 | x1)
    fewest = np.minimum(first, second)
    simple = (crossings == 1) & (fewest >= 2) & (fewest <= 3)
    return simple & ~((x2 | x3 | ~x8) & x1), simple & ~((x6 | x7 | ~x4) & x5)


_RULES = _deletable()


def thin(mask: np.ndarray) -> np.ndarray:
    """Thins to convergence (Guo and Hall, CACM 1989; Lam, Lee and Suen, PAMI 1992, p. 879).

    Two subiterations of parallel deletions take turns until neither finds a pixel. Outside the map nothing is set.

    Args:
        mask: (H, W) bool.

    Returns:
        (H, W) bool, a subset of ``mask``.
    """
    height, width = mask.shape
    stride = width + 2
    padded = np.zeros((height + 2) * stride, np.uint8)
    inner = padded.reshape(-1, stride)[1:-1, 1:-1]
    inner[:] = mask
    offsets = [row * stride + column for row, column in _NEIGHBOURS]
    live = np.flatnonzero(padded)
    # A pixel can only become deletable for a rule when a neighbour went since that rule last looked at it.
    pending = [live, live]
    while len(pending[0]) or len(pending[1]):
        for turn, rule in enumerate(_RULES):
            places = pending[turn]
            pending[turn] = places[:0]
            places = places[padded[places] > 0]
            code = np.zeros(len(places), np.uint8)
            for bit, offset in enumerate(offsets):
                code |= padded[places + offset] << bit
            gone = places[rule[code]]
            if len(gone):
                padded[gone] = 0
                around = np.unique((gone[:, None] + offsets).ravel())
                pending = [np.union1d(old, around) if len(old) else around for old in pending]
    return inner.astype(bool)
