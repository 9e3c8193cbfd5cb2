"""The loops of boundary matching and thinning: Numba compiles them; without it Python runs the same code, slowly."""

import heapq
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
    """Pixels of the predicted maps or of the truth, n of them, row by row, and the state of their matching.

    Attributes:
        row: (n,) int32.
        column: (n,) int32.
        first: How many of them come before each place of an image with one more column, (H, W + 1) int32.
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


def side_of(there: np.ndarray, tie: np.ndarray | None = None) -> Side:
    """The pixels of an image (H, W) that are set; none is in a map yet, none costs anything."""
    # Contiguous, or Numba would compile for views as well.
    row, column = (np.ascontiguousarray(places, np.int32) for places in np.nonzero(there))
    first = np.zeros((there.shape[0], there.shape[1] + 1), np.int32)
    first[:, 1:] = np.cumsum(there).reshape(there.shape)
    first[1:, 0] = first[:-1, -1]
    tie = np.zeros(len(row), np.int64) if tie is None else tie
    return Side(row, column, first, tie, np.zeros(len(row), np.int64), np.full(len(row), ABSENT))


@compiled
def match_maps(
    maps: np.ndarray,
    ends: np.ndarray,
    predicted: Side,
    truth: Side,
    gain: np.ndarray,
    width: np.ndarray,
    matched: np.ndarray,
    pairs: np.ndarray,
) -> None:
    """Finds the matching of the largest gain for each of T maps, starting from that of the one before.

    Args:
        maps: The pixels of all maps, one map after the other, numbers in ``predicted``, (M,).
        ends: Where each map ends, (T,).
        predicted: All pixels that a map has.
        truth: The true pixels.
        gain: Of a pair by its distance in rows and columns, (reach + 1, reach + 1), without the ``tie`` of its pixels.
        width: How many columns away a pair may be, by its distance in rows, (reach + 1,).
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
                _join(pixel, predicted, truth, gain, width)
                _settle(pixel, predicted, truth, gain, width, distance, via)
        for pixel in deserted:
            if truth.partner[pixel] == FREE:
                _settle(pixel, truth, predicted, gain, width, distance, via)
        for entry in range(start, end):
            if predicted.partner[maps[entry]] >= 0:
                matched[entry] = True
                pairs[place] += 1
        before, start = start, end


@compiled
def _join(pixel: int, own: Side, other: Side, gain: np.ndarray, width: np.ndarray) -> None:
    """Gives a new pixel the lowest price that, with those of the other side, covers the gain of all its pairs."""
    height, columns = other.first.shape
    row, column, reach = own.row[pixel], own.column[pixel], len(width) - 1
    for there in range(max(row - reach, 0), min(row + reach + 1, height)):
        down = abs(there - row)
        begin = other.first[there, max(column - width[down], 0)]
        for partner in range(begin, other.first[there, min(column + width[down] + 1, columns - 1)]):
            needed = gain[down, abs(other.column[partner] - column)] - own.tie[pixel] - other.tie[partner]
            own.dual[pixel] = max(own.dual[pixel], needed - other.dual[partner])


@compiled
def _settle(
    start: int, own: Side, other: Side, gain: np.ndarray, width: np.ndarray, distance: np.ndarray, via: np.ndarray
) -> None:
    """Makes the matching the best one again after ``start`` came or lost its partner (shortest augmenting path).

    Two prices cover the gain of their pair, and equal it where the pair is taken; a pixel without a partner has the
    price 0. These conditions prove a matching the best, and ``start`` alone may break the last one. The cheapest chain
    of alternating pairs leads to a free pixel of the other side, or to one of its own side that goes without instead.

    Args:
        start: A pixel of its own side without a partner.
        own: That side.
        other: The other one.
        gain: See :func:`match_maps`.
        width: See there.
        distance: For the other side's pixels, all FAR, and so again in the end.
        via: For them, too.
    """
    height, columns = other.first.shape
    reach = len(width) - 1
    best, end = own.dual[start], -1  # the cheapest chain so far; without one, the start itself goes without
    node, walked = start, np.int64(0)
    waiting = [(np.int64(0), np.int64(0)) for _ in range(0)]
    touched = [np.int64(0) for _ in range(0)]
    while True:
        row, column = own.row[node], own.column[node]
        price = walked + own.dual[node] + own.tie[node]
        for there in range(max(row - reach, 0), min(row + reach + 1, height)):
            down = abs(there - row)
            begin = other.first[there, max(column - width[down], 0)]
            finish = other.first[there, min(column + width[down] + 1, columns - 1)]
            for pixel in range(np.int64(begin), np.int64(finish)):
                far = price + other.dual[pixel] + other.tie[pixel] - gain[down, abs(other.column[pixel] - column)]
                if far < best and far < distance[pixel] and other.partner[pixel] != ABSENT:
                    if distance[pixel] == FAR:
                        touched.append(pixel)
                    distance[pixel], via[pixel] = far, node
                    if other.partner[pixel] == FREE:
                        best, end = far, pixel
                    else:
                        heapq.heappush(waiting, (far, pixel))
        pixel = -1
        while waiting and pixel < 0:
            walked, pixel = heapq.heappop(waiting)
            if walked > distance[pixel]:  # a shorter chain to it was found since
                pixel = -1
        if pixel < 0 or walked >= best:
            break
        node = other.partner[pixel]
        if walked + own.dual[node] < best:
            best, end = walked + own.dual[node], pixel

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
