"""One-to-one matching of predicted and true boundary pixels (Martin, Fowlkes and Malik, PAMI 2004)."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

MAX_DISTANCE = 0.0075  # of the image's diagonal
COST_STEPS = 100  # distances count in hundredths of a pixel, as in the public benchmark
TIE_BITS = 24  # below that, what decides between equal sums of distances
PAIR = 1 << 61  # what a pair is worth before its distance goes off: more than all distances together


class EdgeCounts(NamedTuple):
    """Pixel counts of one image at T thresholds; counts of images add up.

    Attributes:
        truth: True pixels of all annotators.
        matched_truth: Those of them that have a partner, (T,) int64.
        predicted: Predicted pixels, (T,) int64.
        matched_predicted: Those that have a partner in at least one annotator's map, (T,) int64.
    """

    truth: int
    matched_truth: np.ndarray
    predicted: np.ndarray
    matched_predicted: np.ndarray


def edge_thresholds(num_thresholds: int) -> np.ndarray:
    """The benchmark's thresholds ``linspace(1 / (n + 1), 1 - 1 / (n + 1), n)``, (n,) float64.

    In MATLAB's order of operations, which decides whether 8-bit values that equal a threshold reach it.

    Raises:
        ValueError: If the number is not positive.
    """
    if num_thresholds < 1:
        raise ValueError(f'num_thresholds must be positive, but got {num_thresholds}')
    first = 1 / (num_thresholds + 1)
    last = 1 - first
    if num_thresholds == 1:
        return np.array([last])
    thresholds = first + np.arange(num_thresholds) * (last - first) / (num_thresholds - 1)
    thresholds[-1] = last
    return thresholds


def count_edges(
    strength: np.ndarray,
    boundaries: np.ndarray,
    thresholds: Sequence[float],
    max_distance: float = MAX_DISTANCE,
    thin: bool = True,
) -> EdgeCounts:
    """Counts what the public BSDS500 benchmark counts of an image (Arbelaez et al., PAMI 2011).

    At each threshold t the pixels with ``strength >= t`` are thinned and matched with every annotator's pixels, one to
    one, within ``max_distance``: as many pairs as possible, and of all such matchings one with the smallest sum of
    distances. Between equals decide fixed numbers of the pixels, so that no threshold influences another. The public
    code approximates this with a random sparse graph; its counts differ by some 1e-4.

    Args:
        strength: (H, W) in [0, 1].
        boundaries: Maps of N annotators, (N, H, W), zero or not.
        thresholds: (T,), in any order.
        max_distance: As a share of the image's diagonal; a pair at exactly this distance may match.
        thin: Thin the maps to lines one pixel wide first, as the benchmark does. The truth is never thinned.

    Raises:
        ValueError: If shapes do not fit, there is no annotator, or max_distance is not positive.
    """
    strength, boundaries = np.asarray(strength, np.float64), np.asarray(boundaries) != 0
    if boundaries.ndim != 3 or not len(boundaries) or boundaries.shape[1:] != strength.shape:
        raise ValueError(
            f'boundaries must be (annotators, {", ".join(map(str, strength.shape))}) like strength, with at least one '
            f'annotator, but got {boundaries.shape}'
        )
    if max_distance <= 0:
        raise ValueError(f'max_distance must be positive, but got {max_distance}')
    # Each map is matched from the matching of the next stronger one, most of whose pixels it has, too.
    order = np.argsort(-np.asarray(thresholds, np.float64), kind='stable')
    maps, above = [], -1
    for threshold in np.asarray(thresholds, np.float64)[order]:
        predicted = strength >= threshold
        if np.count_nonzero(predicted) > above:  # otherwise the same map again
            above, pixels = np.count_nonzero(predicted), np.flatnonzero(thin_map(predicted) if thin else predicted)
        maps.append(pixels)
    matched_truth, matched = match_edges(maps, boundaries, max_distance * float(np.hypot(*strength.shape)))
    counts = np.zeros((3, len(maps)), np.int64)
    counts[:, order] = matched_truth, [len(own) for own in maps], [np.count_nonzero(own) for own in matched]
    return EdgeCounts(int(np.count_nonzero(boundaries)), *counts)


def match_edges(maps: list[np.ndarray], boundaries: np.ndarray, reach: float) -> tuple[np.ndarray, list[np.ndarray]]:
    """Matches T maps with every annotator's.

    Args:
        maps: The pixels of each map, flat.
        boundaries: (N, H, W) bool.
        reach: The largest distance of a pair in pixels.

    Returns:
        Number of matched true pixels over all annotators, (T,), and for each map which of its pixels match any.
    """
    from genseg_mm.evaluation.edge_loops import match_maps, side_of  # imports Numba

    height, width = boundaries.shape[1:]
    every, ends = np.concatenate(maps), np.cumsum([len(own) for own in maps])
    there = np.zeros(height * width, bool)
    there[every] = True
    band = int(reach) + 1
    square = np.add.outer(np.arange(2 * band) ** 2, np.arange(band) ** 2)
    gain = PAIR - (np.rint(COST_STEPS * np.sqrt(square)).astype(np.int64) << TIE_BITS)
    gain[square > reach * reach] = 0
    names = np.zeros(height * width, np.int64)
    pairs, matched = np.zeros(len(maps), np.int64), np.zeros(len(every), bool)
    for own in boundaries:
        predicted = side_of(there.reshape(height, width), band)
        pixels = predicted.row.astype(np.int64) * width + predicted.column
        names[pixels] = np.arange(len(pixels))
        predicted.tie[:] = _ties(pixels)
        match_maps(names[every], ends, predicted, side_of(own, band), gain, matched, pairs)
    return pairs, np.split(matched, ends[:-1])


def _ties(pixels: np.ndarray) -> np.ndarray:
    """A number for each flat pixel in [0, 2 ** TIE_BITS), the same in every map (the mixing of SplitMix64).

    Of several best matchings it chooses one, whatever order they are looked for in.
    """
    mixed = (pixels.astype(np.uint64) + 1) * 0x9E3779B97F4A7C15
    mixed = (mixed ^ mixed >> 30) * 0xBF58476D1CE4E5B9
    mixed = (mixed ^ mixed >> 27) * 0x94D049BB133111EB
    return (mixed >> 64 - TIE_BITS).astype(np.int64)


# ---- thinning of binary maps to lines one pixel wide, as MATLAB's ``bwmorph(map, 'thin', inf)``

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


_RULES = np.stack(_deletable())


def thin_map(mask: np.ndarray) -> np.ndarray:
    """Thins to convergence (Guo and Hall, CACM 1989; Lam, Lee and Suen, PAMI 1992, p. 879).

    Two subiterations of parallel deletions take turns until neither finds a pixel. Outside the map nothing is set.

    Args:
        mask: (H, W) bool.

    Returns:
        (H, W) bool, a subset of ``mask``.
    """
    from genseg_mm.evaluation.edge_loops import thin

    height, width = mask.shape
    padded = np.zeros((height + 2, width + 2), np.uint8)
    padded[1:-1, 1:-1] = mask
    thin(padded.ravel(), np.array([row * (width + 2) + column for row, column in _NEIGHBOURS]), _RULES)
    return padded[1:-1, 1:-1].astype(bool)
