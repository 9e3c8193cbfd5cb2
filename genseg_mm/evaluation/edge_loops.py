"""The loops of boundary matching and thinning: Numba compiles them; without it Python runs the same code, slowly."""

import warnings
from typing import NamedTuple

import numpy as np

from genseg_mm.compiled_loops import compiled, njit

FREE, ABSENT = -1, -2  # partners of pixels without one, and of pixels that the map does not have
FAR = np.iinfo(np.int64).max


if njit is None:
    warnings.warn(
        'Numba is not installed: boundaries are matched to the same counts, but some 80 times slower; '
        "pip install 'numba>=0.61'",
        stacklevel=2,
    )


class Side(NamedTuple):
    """Pixels of the predicted maps or of the truth, n of them, and the state of their matching.

    Attributes:
        row: (n,) int32. Pixels are in order of bands as high as partners may be away, in a band of columns, so that
            those around a place are three runs at most.
        column: (n,) int32.
        first: How many of them come before each column of a band, and after its last, (bands, W + 1) int32.
        tie: What a pixel costs besides its distance, (n,) int64.
        dual: Its price, (n,) int64, not negative.
        partner: The number of its partner on the other side, FREE or ABSENT, (n,) int64.
    """

    row: np.ndarray
    column: np.ndarray
    first: np.ndarray
    tie: np.ndarray
    dual: np.ndarray
    partner: np.ndarray


def side_of(there: np.ndarray, band: int) -> Side:
    """The pixels of an image (H, W) that are set; none is in a map yet, none costs anything.

    Args:
        there: (H, W) bool.
        band: Rows of a band.
    """
    row, column = np.nonzero(there)
    order = np.lexsort((row, column, row // band))
    row, column = (places[order].astype(np.int32) for places in (row, column))
    counts = np.add.reduceat(there, range(0, len(there), band), axis=0, dtype=np.int32)
    first = np.zeros((len(counts), counts.shape[1] + 1), np.int32)
    first[:, 1:] = np.cumsum(counts).reshape(counts.shape)
    first[1:, 0] = first[:-1, -1]
    none = np.zeros(len(row), np.int64)
    return Side(row, column, first, none, none.copy(), np.full(len(row), ABSENT))


@compiled
def match_maps(
    maps: np.ndarray,
    ends: np.ndarray,
    predicted: Side,
    truth: Side,
    gain: np.ndarray,
    matched: np.ndarray,
    pairs: np.ndarray,
) -> None:
    """Finds the matching of the largest gain for each of T maps, starting from that of the one before.

    Args:
        maps: The pixels of all maps, one map after the other, numbers in ``predicted``, (M,).
        ends: Where each map ends, (T,).
        predicted: All pixels that a map has.
        truth: The true pixels.
        gain: Of a pair by its distance in rows and columns, (2 reach + 2, reach + 1), without the ``tie`` of its
            pixels; 0 where they are too far from each other. ``reach + 1`` is the height of a band.
        matched: Is set where the matching has the pixel, (M,) bool.
        pairs: Takes the number of pairs, (T,).
    """
    last_of = np.full(len(predicted.row), -1)  # the last map that has the pixel
    distance = np.full(max(len(predicted.row), len(truth.row)), FAR)
    via = np.empty(len(distance), np.int64)
    truth.partner[:] = FREE
    start = before = 0
    for place in range(len(ends)):
        end = ends[place]
        for entry in range(start, end):
            last_of[maps[entry]] = place
        deserted = [np.int64(-1) for _ in range(0)]
        for entry in range(before, start):
            pixel = maps[entry]
            if last_of[pixel] != place:
                partner = predicted.partner[pixel]
                predicted.partner[pixel] = ABSENT
                predicted.dual[pixel] = 0
                if partner >= 0:
                    truth.partner[partner] = FREE
                    deserted.append(partner)
        for entry in range(start, end):
            pixel = maps[entry]
            if predicted.partner[pixel] == ABSENT:
                predicted.partner[pixel] = FREE
                _join(pixel, predicted, truth, gain)
                _settle(pixel, predicted, truth, gain, distance, via)
        for pixel in deserted:
            if truth.partner[pixel] == FREE:
                _settle(pixel, truth, predicted, gain, distance, via)
        for entry in range(start, end):
            if predicted.partner[maps[entry]] >= 0:
                matched[entry] = True
                pairs[place] += 1
        before, start = start, end


@compiled
def _join(pixel: int, own: Side, other: Side, gain: np.ndarray) -> None:
    """Gives a new pixel the lowest price that, with those of the other side, covers the gain of all its pairs."""
    row, column, reach, last = own.row[pixel], own.column[pixel], gain.shape[1] - 1, other.first.shape[1] - 1
    for band in range(max(row - reach, 0) // (reach + 1), min((row + reach) // (reach + 1) + 1, len(other.first))):
        begin, end = other.first[band, max(column - reach, 0)], other.first[band, min(column + reach + 1, last)]
        for partner in range(begin, end):
            needed = gain[abs(other.row[partner] - row), abs(other.column[partner] - column)]
            needed -= own.tie[pixel] + other.tie[partner]
            own.dual[pixel] = max(own.dual[pixel], needed - other.dual[partner])


@compiled
def _settle(start: int, own: Side, other: Side, gain: np.ndarray, distance: np.ndarray, via: np.ndarray) -> None:
    """Makes the matching the best one again after ``start`` came or lost its partner (shortest augmenting path).

    Two prices cover the gain of their pair, and equal it where the pair is taken; a pixel without a partner has the
    price 0. These conditions prove a matching the best, and ``start`` alone may break the last one. The cheapest chain
    of alternating pairs leads to a free pixel of the other side, or to one of its own side that goes without instead.

    Args:
        start: A pixel of its own side without a partner.
        own: That side.
        other: The other one.
        gain: See :func:`match_maps`.
        distance: For the other side's pixels, all FAR, and so again in the end.
        via: For them, too.
    """
    best, end = own.dual[start], -1  # the cheapest chain so far; without one, the start itself goes without
    if best == 0:
        return
    reach, last = gain.shape[1] - 1, other.first.shape[1] - 1
    node, walked = start, np.int64(0)
    # Searched for the nearest one after the other: 20 wait at a time, and a heap takes a third longer.
    waiting = [np.int64(0) for _ in range(0)]
    touched = [np.int64(0) for _ in range(0)]
    while True:
        row, column = own.row[node], own.column[node]
        price = walked + own.dual[node] + own.tie[node]
        for band in range(max(row - reach, 0) // (reach + 1), min((row + reach) // (reach + 1) + 1, len(other.first))):
            begin, finish = other.first[band, max(column - reach, 0)], other.first[band, min(column + reach + 1, last)]
            for pixel in range(np.int64(begin), np.int64(finish)):
                far = price + other.dual[pixel] + other.tie[pixel]
                far -= gain[abs(other.row[pixel] - row), abs(other.column[pixel] - column)]
                partner = other.partner[pixel]
                if far < best and far < distance[pixel] and partner != ABSENT:
                    if distance[pixel] == FAR:
                        touched.append(pixel)
                        if partner != FREE:
                            waiting.append(pixel)
                    distance[pixel], via[pixel] = far, node
                    if partner == FREE:
                        best, end = far, pixel
                    elif far + own.dual[partner] < best:
                        best, end = far + own.dual[partner], pixel
        walked, place = best, -1
        for entry in range(len(waiting)):
            if distance[waiting[entry]] < walked:
                walked, place = distance[waiting[entry]], entry
        if place < 0:
            break
        node = other.partner[waiting[place]]
        waiting[place] = waiting[-1]
        waiting.pop()

    own.dual[start] -= best
    for pixel in touched:
        if distance[pixel] < best:
            other.dual[pixel] += best - distance[pixel]
            own.dual[other.partner[pixel]] -= best - distance[pixel]
        distance[pixel] = FAR
    if end >= 0:
        if other.partner[end] >= 0:
            own.partner[other.partner[end]] = FREE
        while end >= 0:
            node = via[end]
            following = own.partner[node]
            own.partner[node], other.partner[end] = end, node
            end = following


@compiled
def thin(padded: np.ndarray, offsets: np.ndarray, rules: np.ndarray) -> None:
    """Deletes pixels until no rule finds one, see :func:`genseg_mm.evaluation.edge_matching.thin_map`.

    Args:
        padded: A flat map with a frame of zeros, uint8, changed in place.
        offsets: From a pixel to its neighbours x1 ... x8, (8,).
        rules: Whether each of the two subiterations deletes a pixel with these neighbours, (2, 256) bool.
    """
    waiting = np.empty((2, len(padded)), np.int32)
    waits = np.zeros((2, len(padded)), np.bool_)
    numbers = np.zeros(2, np.int64)
    for place in range(len(padded)):
        if padded[place]:
            for rule in range(2):
                waiting[rule, numbers[rule]] = place
                waits[rule, place] = True
                numbers[rule] += 1
    while numbers[0] or numbers[1]:
        for turn in range(2):
            gone = [np.int64(0) for _ in range(0)]
            for entry in range(numbers[turn]):
                place = waiting[turn, entry]
                waits[turn, place] = False
                code = 0
                for bit in range(8):
                    code |= padded[place + offsets[bit]] << bit
                if padded[place] and rules[turn, code]:
                    gone.append(place)
            numbers[turn] = 0
            for place in gone:
                padded[place] = 0
            # A pixel can only become deletable for a rule when a neighbour went since that rule last looked at it.
            for place in gone:
                for bit in range(8):
                    near = place + offsets[bit]
                    for rule in range(2):
                        if padded[near] and not waits[rule, near]:
                            waiting[rule, numbers[rule]] = near
                            waits[rule, near] = True
                            numbers[rule] += 1
