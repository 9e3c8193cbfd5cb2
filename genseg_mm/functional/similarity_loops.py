"""Similarity masks on maps of whole levels, in loops that Numba compiles."""

import math

import numpy as np
import torch
from torch import Tensor

from genseg_mm.compiled_loops import compiled
from genseg_mm.functional.joint_bilateral import SIGMA, window_offsets
from genseg_mm.functional.similarity_masks import EPS, RADIUS, padded_bands

BAND = 1 << 18  # pixels that are worked on at once: most of it stays in a core's cache
LANES = 2048  # pixels whose extremes are followed side by side, since a single one would wait for itself


def filtered_masks(color_map: Tensor, queries: Tensor, level: float, rule: str) -> Tensor:
    """As :func:`similarity_masks.similar_masks` with the filter, for a map of whole levels on a CPU.

    Roots are rounded to the nearest and sums are in float64, which torch's are not: where a mean is within float32's
    rounding of .5, the answer may be another than torch's (16 of 7 10^8 pixels of
    photographs and their maps).

    Args:
        color_map: (3, H, W) uint8.
        queries: (Q, 3) float32.
        level: In [0, 255].
        rule: 'reference' or 'paper'.

    Returns:
        (Q, H, W) bool.
    """
    (height, width), colors = color_map.shape[1:], color_map.contiguous().flatten(1).numpy()
    queries = queries.detach().contiguous().numpy()
    plus, least = (np.float32(own) for own in ((EPS, 0) if rule == 'reference' else (0, 1)))
    ends = [tuple(map(np.float32, extremes(colors, query, plus, least))) for query in queries]
    offsets = [offset for offset in window_offsets(RADIUS) if offset > (0, 0)]
    nearness = np.array([math.exp(-0.5 * (dy * dy + dx * dx) / SIGMA**2) for dy, dx in offsets])
    likeness = np.exp(-0.5 * np.arange(3 * 255 + 1) ** 2 / SIGMA**2)
    masks = torch.empty(len(queries), height, width, dtype=torch.bool)
    levels = spare = None
    for band, rows in padded_bands(color_map, torch.uint8, BAND):
        stride, colors = band.shape[2], band.flatten(1).numpy()
        size = colors.shape[1]
        if levels is None:  # the first band is the largest
            levels, spare = np.empty(size, np.float32), np.zeros(6 * size, np.uint8)
        inside, steps = spare[:size], spare[size : 6 * size]
        shifts = np.array([dy * stride + dx for dy, dx in offsets])
        for number, query in enumerate(queries):
            write_levels(colors, query, plus, least, *ends[number], np.float32(level), levels[:size], inside)
            pixels = undecided(inside, stride, width, steps)
            # No mean is at .5: the weights are different powers of e, and no other weighs as much as the pixel itself.
            middle = math.floor(level) + 0.5
            filter_pixels(colors, levels, pixels, shifts, nearness, likeness, middle, inside)
            found = torch.from_numpy(inside).view(torch.bool).view(-1, stride)
            masks[number, rows] = found[RADIUS:-RADIUS, RADIUS : RADIUS + width]
    return masks


@compiled
def squared_distance(red: int, green: int, blue: int, query: np.ndarray) -> np.float32:
    """From a colour to a query."""
    first, second, third = np.float32(red) - query[0], np.float32(green) - query[1], np.float32(blue) - query[2]
    return first * first + second * second + third * third


@compiled
def similarity(squared: np.float32, plus: np.float32, least: np.float32) -> np.float32:
    """For a squared distance; what is added to the distance, and what it counts as at least."""
    distance = np.sqrt(squared) + plus
    return np.float32(1) / (max(least, distance))


@compiled
def extremes(
    colors: np.ndarray, query: np.ndarray, plus: np.float32, least: np.float32
) -> tuple[np.float32, np.float32]:
    """Smallest and largest similarity of colours, (3, N) uint8, to a query, (3,) float32."""
    red, green, blue = colors
    # np.full, min() and max() would take longer to compile than all the rest.
    low, high, squared = np.empty(LANES, np.float32), np.zeros(LANES, np.float32), np.empty(LANES, np.float32)
    for lane in range(LANES):
        low[lane] = np.inf
    for start in range(0, len(red), LANES):
        number = min(LANES, len(red) - start)
        reds, greens, blues = red[start:], green[start:], blue[start:]
        for lane in range(number):
            squared[lane] = squared_distance(reds[lane], greens[lane], blues[lane], query)
        for lane in range(number):
            low[lane] = min(low[lane], squared[lane])
            high[lane] = max(high[lane], squared[lane])
    nearest, farthest = low[0], high[0]
    for lane in range(1, LANES):
        nearest, farthest = min(nearest, low[lane]), max(farthest, high[lane])
    return similarity(farthest, plus, least), similarity(nearest, plus, least)


@compiled
def write_levels(
    colors: np.ndarray,
    query: np.ndarray,
    plus: np.float32,
    least: np.float32,
    low: np.float32,
    high: np.float32,
    level: np.float32,
    levels: np.ndarray,
    inside: np.ndarray,
) -> None:
    """Similarity levels of colours, see :func:`similarity_masks.similarity_levels`, and which exceed that of a mask.

    Args:
        colors: (3, N) uint8.
        query: (3,) float32.
        plus: See :func:`similarity`.
        least: See there.
        low: Smallest similarity of the map.
        high: The largest.
        level: Of the mask.
        levels: Takes them, (N,) float32.
        inside: Takes 1 or 0, (N,) uint8.
    """
    red, green, blue = colors
    span = high - low + np.float32(EPS)
    for place in range(len(levels)):
        likeness = similarity(squared_distance(red[place], green[place], blue[place], query), plus, least)
        levels[place] = np.floor((likeness - low) / span * np.float32(255))
        inside[place] = np.uint8(levels[place] > level)


@compiled
def undecided(inside: np.ndarray, stride: int, width: int, spare: np.ndarray) -> np.ndarray:
    """Pixels in whose window of the filter, a disk 9 across, pixels of both kinds are.

    Args:
        inside: 0 or 1, (N,) uint8, the rows of a map one after the other, with the window's reach around it.
        stride: Of a row, a multiple of 8.
        width: Of the map.
        spare: For the steps, (5 N,) uint8.

    Returns:
        Places, (n,) int64.
    """
    kinds, five, seven, nine, both = spare.reshape(5, len(inside))
    for place in range(len(inside)):
        kinds[place] = 2 - inside[place]  # 1 inside, 2 outside
    k1, k2, k3, k4 = kinds[1:], kinds[2:], kinds[3:], kinds[4:]
    k5, k6, k7, k8 = kinds[5:], kinds[6:], kinds[7:], kinds[8:]
    for place in range(len(inside) - 2 * RADIUS):  # kinds in a run of pixels, counted from its first
        run = kinds[place] | k1[place] | k2[place] | k3[place] | k4[place]
        five[place] = run
        run |= k5[place] | k6[place]
        seven[place] = run
        nine[place] = run | k7[place] | k8[place]
    start = RADIUS * (stride + 1)
    number = len(inside) - 2 * start
    a, i = kinds[start - 4 * stride :], kinds[start + 4 * stride :]
    b, h = five[start - 3 * stride - 2 :], five[start + 3 * stride - 2 :]
    c, g = seven[start - 2 * stride - 3 :], seven[start + 2 * stride - 3 :]
    d, f = seven[start - stride - 3 :], seven[start + stride - 3 :]
    e, found = nine[start - 4 :], both[start:]
    for place in range(number):
        run = a[place] | b[place] | c[place] | d[place] | e[place] | f[place] | g[place] | h[place] | i[place]
        found[place] = run & (run >> 1)
    words, count = both.view(np.uint64), 0  # mostly zero, so that eight are asked at once
    places = np.empty(number, np.int64)
    for row in range(RADIUS * stride, len(inside) - RADIUS * stride, stride):
        for word in range(row // 8, (row + stride) // 8):
            if words[word]:
                for place in range(max(8 * word, row + RADIUS), min(8 * word + 8, row + RADIUS + width)):
                    if both[place]:
                        places[count] = place
                        count += 1
    return places[:count]


@compiled
def weighted(
    colors: np.ndarray, levels: np.ndarray, pixel: int, other: int, likeness: np.ndarray, middle: float
) -> float:
    """What another pixel adds to a weighted sum of levels above the middle, but for its weight in space."""
    pixel, other = np.uint64(pixel), np.uint64(other)  # or Numba would ask whether they count from the end
    change = 0
    for channel in range(3):
        change += abs(np.int32(colors[channel, other]) - np.int32(colors[channel, pixel]))
    return likeness[np.uint64(change)] * (levels[other] - middle)


@compiled
def filter_pixels(
    colors: np.ndarray,
    levels: np.ndarray,
    pixels: np.ndarray,
    shifts: np.ndarray,
    nearness: np.ndarray,
    likeness: np.ndarray,
    middle: float,
    inside: np.ndarray,
) -> None:
    """Whether the mean over the window of the joint bilateral filter exceeds a level, at some pixels.

    Args:
        colors: (3, N) uint8, the rows of a map one after the other, with the window's reach around it.
        levels: (N,) float32.
        pixels: Places, (n,) int64.
        shifts: From a pixel to those of its window after it, (T,) int64; as many lie before it.
        nearness: Weights of these in space, (T,) float64.
        likeness: Weights of a summed difference of colours, (766,) float64.
        middle: What a mean is to exceed.
        inside: Takes the answer at these pixels, (N,) uint8.
    """
    for pixel in pixels:
        total = levels[pixel] - middle
        for tap in range(len(shifts)):
            after = weighted(colors, levels, pixel, pixel + shifts[tap], likeness, middle)
            before = weighted(colors, levels, pixel, pixel - shifts[tap], likeness, middle)
            total += nearness[tap] * (after + before)
        inside[pixel] = np.uint8(total > 0)
