"""One-to-one matching of predicted and true boundary pixels (Martin, Fowlkes and Malik, PAMI 2004)."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy.sparse import csr_array
from scipy.sparse.csgraph import (
    breadth_first_order,
    connected_components,
    maximum_flow,
    min_weight_full_bipartite_matching,
)

MAX_DISTANCE = 0.0075  # of the image's diagonal
COST_STEPS = 100  # distances count in hundredths of a pixel, as in the public benchmark
COMPONENT_PIXELS = 200  # larger components are solved on their own, smaller ones together


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
    distances. The public code approximates this with a random sparse graph; its counts differ by some 1e-4.

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
    reach = max_distance * float(np.hypot(*strength.shape))
    usable = strength >= min(thresholds)
    truth = _Truth(boundaries, usable, reach)
    counts, last = np.zeros((3, len(thresholds)), np.int64), None
    for place, threshold in enumerate(thresholds):
        predicted = strength >= threshold
        pixels = np.flatnonzero(thin_map(predicted) if thin else predicted)
        if last is None or not np.array_equal(pixels, last):
            matched_truth, matched = _match(pixels, truth)
        counts[:, place] = matched_truth, len(pixels), np.count_nonzero(matched)
        last = pixels
    return EdgeCounts(int(np.count_nonzero(boundaries)), *counts)


class _Truth:
    """The true pixels of all annotators with, for each pixel of the image, those within reach of it."""

    def __init__(self, boundaries: np.ndarray, usable: np.ndarray, reach: float) -> None:
        self.num_annotators, height, width = boundaries.shape
        self.num_pixels = height * width
        annotators, rows, columns = np.nonzero(boundaries)
        span = np.arange(-int(reach), int(reach) + 1)
        down, right = (steps.ravel() for steps in np.meshgrid(span, span, indexing='ij'))
        near = down * down + right * right <= reach * reach
        down, right = down[near], right[near]
        cost = np.rint(COST_STEPS * np.hypot(down, right)).astype(np.int64)
        rows, columns = rows[:, None] + down, columns[:, None] + right  # (true pixels, offsets)
        inside = (rows >= 0) & (rows < height) & (columns >= 0) & (columns < width)
        inside[inside] = usable[rows[inside], columns[inside]]
        truth, offset = np.nonzero(inside)
        pixel = (rows * width + columns)[inside] + annotators[truth] * self.num_pixels
        order = np.argsort(pixel, kind='stable')  # within a pixel, truth ascends
        self.truth, self.cost = truth[order], cost[offset][order]
        every = np.arange(self.num_annotators * self.num_pixels + 1)
        self.first = np.searchsorted(pixel[order], every)
        self._partner = np.full(len(every) - 1, -1)  # of each key in the last matching
        self._keys = np.zeros(0, np.int64)  # of the last matching

    def pairs(self, pixels: np.ndarray) -> '_Pairs':
        """Candidates of the given pixels (flat indices) for every annotator; those without any are left out."""
        own = (np.arange(self.num_annotators)[:, None] * self.num_pixels + pixels).ravel()
        starts = self.first[own]
        lengths = self.first[own + 1] - starts
        present = np.flatnonzero(lengths)
        starts, lengths = starts[present], lengths[present]
        ends = np.cumsum(lengths)
        taken = np.arange(lengths.sum()) + np.repeat(starts - ends + lengths, lengths)
        targets, truth = _renumber(self.truth[taken])
        predicted = np.repeat(np.arange(len(present)), lengths)
        return _Pairs(own[present], present % max(len(pixels), 1), predicted, truth, self.cost[taken], targets)

    def last_partners(self, pairs: '_Pairs') -> np.ndarray:
        """What the last matching gave to these predicted pixels, (P,), -1 for nothing."""
        known = self._partner[pairs.keys]
        return np.where(known >= 0, np.searchsorted(pairs.targets, known), -1)

    def remember(self, pairs: '_Pairs', partner: np.ndarray) -> None:
        """Keeps a matching for :meth:`last_partners`."""
        self._partner[self._keys] = -1
        taken = partner >= 0
        self._partner[pairs.keys[taken]] = pairs.targets[partner[taken]]
        self._keys = pairs.keys


class _Pairs(NamedTuple):
    """Candidate pairs, E of them, of P predicted pixels; one that has candidates of two annotators is there twice."""

    keys: np.ndarray  # (P,), annotator and pixel
    places: np.ndarray  # (P,), which of the pixels asked for
    predicted: np.ndarray  # (E,), in 0 ... P - 1, ascending
    truth: np.ndarray  # (E,), in 0 ... num_truth - 1
    cost: np.ndarray  # (E,)
    targets: np.ndarray  # (num_truth,), ascending, which of all true pixels

    @property
    def num_truth(self) -> int:
        return len(self.targets)


def _match(pixels: np.ndarray, truth: _Truth) -> tuple[int, np.ndarray]:
    """Number of matched true pixels over all annotators, and which pixels match any, (P,) bool.

    In a largest matching, only predicted pixels that compete for fewer true ones (the overdetermined part of Dulmage
    and Mendelsohn) can be left over; all others are matched in every one. So distances need to be looked at among the
    competing pixels only, and only where one of them is matched by no annotator yet.
    """
    pairs = truth.pairs(pixels)
    # Maps change little from one threshold to the next, so the last matching is nearly the largest one.
    partner = _largest_matching(pairs, truth.last_partners(pairs))
    truth.remember(pairs, partner)
    competing = _competing(pairs, partner)
    matched = np.zeros(len(pixels), bool)
    matched[pairs.places[~competing]] = True
    for part in _open_parts(pairs, np.flatnonzero(competing[pairs.predicted]), matched):
        if not matched[pairs.places[pairs.predicted[part]]].all():
            chosen = _nearest_matching(pairs.predicted[part], pairs.truth[part], pairs.cost[part])
            matched[pairs.places[chosen]] = True
    return np.count_nonzero(partner >= 0), matched


def _largest_matching(pairs: _Pairs, partner: np.ndarray) -> np.ndarray:
    """A partner in the truth for as many predicted pixels as possible, (P,), -1 for none.

    Args:
        pairs: The candidates.
        partner: Any matching to start from, (P,). The better it is, the sooner the largest is found.
    """
    num, sink = len(partner), len(partner) + pairs.num_truth + 1
    paired = np.flatnonzero(partner >= 0)
    single = np.flatnonzero(partner < 0)
    if not len(single):
        return partner
    # What is left of a unit flow from a source over pixels and true pixels to a sink: pairs that are taken lead back.
    free = pairs.truth != partner[pairs.predicted]
    back = np.full(pairs.num_truth, sink)
    back[partner[paired]] = 1 + paired
    heads = np.concatenate([1 + single, 1 + num + pairs.truth[free], back])
    lengths = np.concatenate(
        [[len(single)], np.bincount(pairs.predicted[free], minlength=num), np.ones(pairs.num_truth, np.int64), [0]]
    )
    starts = np.concatenate([[0], np.cumsum(lengths)])
    graph = csr_array(
        (np.ones(len(heads), np.int32), heads.astype(np.int32), starts.astype(np.int32)), shape=(sink + 1, sink + 1)
    )
    flow = maximum_flow(graph, 0, sink).flow
    tails = np.repeat(np.arange(num), np.diff(flow.indptr[1 : num + 2]))
    own = slice(flow.indptr[1], flow.indptr[num + 1])
    used = flow.data[own] == 1
    partner = partner.copy()
    partner[tails[used]] = flow.indices[own][used] - num - 1
    return partner


def _competing(pairs: _Pairs, partner: np.ndarray) -> np.ndarray:
    """Predicted pixels that an alternating path joins to one that was left over, (P,) bool."""
    num = len(partner)
    single = partner < 0
    if not single.any():
        return single
    taken = np.flatnonzero(~single)
    start = num + pairs.num_truth
    left_over = np.flatnonzero(single)
    tails = np.concatenate([pairs.predicted, num + partner[taken], np.full(len(left_over), start)])
    heads = np.concatenate([num + pairs.truth, taken, left_over])
    graph = csr_array((np.ones(len(tails), np.int8), (tails, heads)), shape=(start + 1, start + 1))
    reached = breadth_first_order(graph, start, return_predecessors=False)
    competing = np.zeros(num, bool)
    competing[reached[reached < num]] = True
    return competing


def _open_parts(pairs: _Pairs, edges: np.ndarray, matched: np.ndarray) -> list[np.ndarray]:
    """Cuts edges into parts without common pixels; leaves out those whose predicted pixels are all matched."""
    if not len(edges):
        return []
    num = len(pairs.places)
    size = num + pairs.num_truth
    tails, heads = pairs.predicted[edges], num + pairs.truth[edges]
    graph = csr_array((np.ones(len(edges), np.int8), (tails, heads)), shape=(size, size))
    count, label = connected_components(graph, directed=False)
    own = label[tails]
    is_open = np.zeros(count, bool)
    is_open[own[~matched[pairs.places[tails]]]] = True
    large = np.bincount(label, minlength=count) > COMPONENT_PIXELS
    parts = [edges[own == number] for number in np.flatnonzero(is_open & large)]
    small = edges[(is_open & ~large)[own]]
    return parts + [small] * (len(small) > 0)


def _nearest_matching(predicted: np.ndarray, truth: np.ndarray, cost: np.ndarray) -> np.ndarray:
    """The predicted pixels of the cheapest matching that covers all true pixels of the given pairs."""
    names, columns = _renumber(predicted)
    present, rows = _renumber(truth)
    # Zero would mean 'no pair' in a sparse matrix; all matchings have the same number of pairs.
    graph = csr_array((cost + 1, (rows, columns)), shape=(len(present), len(names)))
    return names[min_weight_full_bipartite_matching(graph)[1]]


def _renumber(numbers: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The distinct numbers, ascending, and for each number its place among them."""
    there = np.zeros(numbers.max(initial=-1) + 1, bool)
    there[numbers] = True
    return np.flatnonzero(there), (np.cumsum(there) - 1)[numbers]


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


_RULES = _deletable()


def thin_map(mask: np.ndarray) -> np.ndarray:
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
