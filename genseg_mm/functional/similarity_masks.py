"""Which pixels are like a query colour: distances, 8-bit similarities, and their masks at once."""

import math
from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from genseg_mm.functional.joint_bilateral import DIAMETER, filter_tiles, filtered_pixels, reflect_101

EPS = 1e-6  # of the public code, in every denominator
RADIUS = DIAMETER // 2  # of the filter's window
CELL = 8  # side of the squares of pixels that are decided together; at least the filter's radius
FEW = 8  # queries that torch answers pixel by pixel, on a map that is not large
FEW_COMPILED = 100  # those that compiled loops do, shared by torch's threads, which only the tiles use
LARGE = 1 << 20  # pixels of a map from which on it is worked on in bands, to bound memory and time
BAND = 1 << 19  # pixels of a band whose steps stay in the processor's cache
# Compiled loops save 5 to 20 ns a pixel, and cost a process 0.4 s, once on a machine 2.5. They are loaded when torch
# has taken about as much longer: nobody waits for them who clicks once, and who goes on loses no more than that.
LOADED_AFTER = 1 << 25  # pixels of the masks so far, as of 110 prompts at 480x640 or the fourth on 12 megapixels
MAX_THREADS = 4  # of torch, which they are compared with: they run on one, in a third to a half of its time on one
_answered = 0


def lengths(vectors: Tensor) -> Tensor:
    """Lengths of the vectors along the first of the axes, (3, ...) -> (...).

    ``vectors.norm(dim=0)`` is some 100 times slower on a CPU.
    """
    squared = vectors[0].square()
    for channel in vectors[1:]:
        squared.addcmul_(channel, channel)
    return squared.sqrt_()


def any_along(masks: Tensor, dim: int) -> Tensor:
    """Whether any is true along an axis of bool masks; ``masks.any(dim)`` is 10 to 80 times slower on a CPU."""
    return masks.view(torch.uint8).amax(dim).view(torch.bool) if masks.shape[dim] else masks.any(dim)


def true_places(chosen: Tensor) -> Tensor:
    """Where a bool (N,) is true, (n,) int64; where that is seldom, or in runs, some times faster than ``nonzero``."""
    missing = -len(chosen) % 8
    chosen = F.pad(chosen, (0, missing)) if missing else chosen
    words = chosen.view(torch.int64).nonzero()[:, 0]
    word, place = chosen.view(-1, 8)[words].nonzero().unbind(1)
    return words[word].mul_(8).add_(place)


@torch.no_grad()
def color_distances(color_map: Tensor, queries: Tensor) -> Tensor:
    """Distances of all pixels' colours, (3, H, W), to all queries, (Q, 3): (Q, H, W)."""
    dtype = torch.promote_types(color_map.dtype, torch.float32)
    return _squared(color_map.to(dtype)[:, None], queries.to(dtype).T[..., None, None]).sqrt_()


@torch.no_grad()
def similarity_levels(color_map: Tensor, queries: Tensor, rule: str = 'reference') -> Tensor:
    """8-bit similarity of every pixel to every query colour.

    With d the distance of colours, s is 1 / (d + 1e-6) in the public code ('reference') and min(1, 1 / d) in the paper
    ('paper'). Either is stretched to [0, 1] over the map, (s - min) / (max - min + 1e-6), and 255 times that is cut to
    integers.

    Args:
        color_map: (3, H, W).
        queries: (Q, 3).
        rule: 'reference' or 'paper'.

    Returns:
        (Q, H, W), uint8.

    Raises:
        ValueError: If the rule is unknown.
    """
    check_rule(rule)
    size = color_map.shape[1:]
    levels = torch.empty(len(queries), *size, dtype=torch.uint8, device=color_map.device)
    for part in parts(len(queries), size.numel(), color_map.device):
        distance = color_distances(color_map, queries[part])
        low, high = distance.amax((1, 2), keepdim=True), distance.amin((1, 2), keepdim=True)
        low, high = similarity(low, rule), similarity(high, rule)
        levels[part] = _stretched(similarity(distance, rule), low, high)
    return levels


@torch.no_grad()
def similar_masks(
    color_map: Tensor, queries: Tensor, level: float, rule: str = 'reference', smooth: bool = True
) -> Tensor:
    """Where the (smoothed) similarity level of a query exceeds a level.

    The same as ``joint_bilateral_filter(color_map, similarity_levels(...)) > level``, or without the filter, but what
    is certain is not computed. Levels fall with the distance, so that each query has one distance up to which they
    exceed the level. Where the distances within the filter's reach lie all on one side of it, the mask is decided,
    because a mean lies between its extremes; only the rest is filtered. For few queries, or on a large map, that is
    asked of every pixel; for many queries of squares of pixels, whose weights then serve all of them.

    Args:
        color_map: (3, H, W), uint8, float32 or float64.
        queries: (Q, 3) float32 or float64, of the type of a map in floating point.
        level: In [0, 255].
        rule: 'reference' or 'paper', see ``similarity_levels``.
        smooth: Apply the joint bilateral filter.

    Returns:
        (Q, H, W) bool.

    Raises:
        ValueError: If the rule is unknown.
    """
    check_rule(rule)
    large = color_map[0].numel() > LARGE
    if (
        smooth
        and (large or len(queries) <= FEW_COMPILED // torch.get_num_threads())
        and _loops_answer(color_map, queries)
    ):
        from genseg_mm.functional.similarity_loops import filtered_masks

        return filtered_masks(color_map, queries, level, rule)
    if smooth and (large or len(queries) <= FEW):
        return _filtered_masks(color_map, queries, level, rule)
    color_map = color_map.to(queries.dtype)
    nearest, farthest = _extremes(color_map, queries)  # (Q, cells)
    ends = nearest.amin(1), farthest.amax(1)
    cut = _cut(*ends, level, rule)
    if not smooth:
        return _cut_masks(color_map, queries, cut, nearest, farthest)
    cells = _Grid.of(color_map)
    some = cells.around((nearest <= cut[:, None]).view(len(queries), *cells.grid))
    some_not = cells.around((farthest > cut[:, None]).view(len(queries), *cells.grid))
    masks = cells.spread(~some_not)
    low, high = (similarity(end.sqrt()[:, None, None], rule) for end in reversed(ends))
    undecided = some & some_not  # (Q, rows of cells, columns of cells)
    spare = color_map.new_empty(2, 0)  # kept from tile to tile: fresh memory is slow
    for tile in filter_tiles(color_map, len(queries)):
        top, left = tile.top // CELL, tile.left // CELL
        bottom, right = -(-tile.bottom // CELL), -(-tile.right // CELL)
        live = undecided[:, top:bottom, left:right].flatten(1).any(1).nonzero().flatten()
        window = masks[:, tile.top : tile.bottom, tile.left : tile.right]
        for maps in live.split(tile.maps_at_once) if len(live) else ():
            shape = len(maps), *tile.guide.shape[1:]
            if spare.shape[1] < math.prod(shape):
                spare = color_map.new_empty(2, math.prod(shape))
            buffers = spare[:, : math.prod(shape)].view(2, *shape).unbind()
            mine = queries[maps].T[..., None, None]
            squared = _squared(tile.guide[:, None], mine, buffers)
            likeness = similarity(squared.sqrt_(), rule)
            levels = _stretched(likeness, low[maps], high[maps])
            window[maps] = tile.means(levels, RADIUS).round_() > level
    return masks


def load_loops() -> None:
    """Loads the compiled loops now, for a program that is known to ask for many masks."""
    global _answered
    _answered = LOADED_AFTER
    similar_masks(torch.zeros(3, 1, 1, dtype=torch.uint8), torch.zeros(1, 3), 0.0)


def _loops_answer(color_map: Tensor, queries: Tensor) -> bool:
    """Whether masks are to be made by compiled loops; counts pixels until they are."""
    global _answered
    if (color_map.device.type, color_map.dtype, queries.dtype) != ('cpu', torch.uint8, torch.float32):
        return False
    if torch.get_num_threads() > MAX_THREADS:
        return False
    if _answered < LOADED_AFTER:
        _answered += len(queries) * color_map[0].numel()
        return False
    from genseg_mm.compiled_loops import njit  # imports Numba

    return njit is not None


def _filtered_masks(color_map: Tensor, queries: Tensor, level: float, rule: str) -> Tensor:
    """As :func:`similar_masks` with the filter, every pixel by itself, so that few of them are filtered."""
    size, num = color_map.shape[1:], len(queries)

    def steps() -> Iterator[tuple[int, Tensor, slice, Tensor]]:
        for colors, rows in padded_bands(color_map, queries.dtype, BAND):
            for number, query in enumerate(queries):
                yield number, colors, rows, _squared(colors.flatten(1), query)

    kept = list(steps()) if size.numel() <= BAND and num <= FEW else None  # a single band
    nearest, farthest = queries.new_full((num,), torch.inf), queries.new_zeros(num)
    for number, _, _, squared in kept or steps():
        low, high = torch.aminmax(squared)
        torch.minimum(nearest[number], low, out=nearest[number])
        torch.maximum(farthest[number], high, out=farthest[number])
    cut = _cut(nearest, farthest, level, rule)
    low, high = (similarity(end.sqrt(), rule) for end in (farthest, nearest))
    masks = torch.empty(num, *size, dtype=torch.bool, device=color_map.device)
    for number, colors, rows, squared in kept or steps():
        stride, columns = colors.shape[2], slice(RADIUS, RADIUS + size[1])
        # By way of numbers, since a comparison that gives a bool takes three times as long on a CPU.
        inside = torch.le(squared, cut[number], out=torch.empty_like(squared)).to(torch.int8).view(torch.bool)
        undecided = _undecided(inside, stride)
        undecided.view(-1, stride)[:, columns.stop :] = False
        undecided.view(-1, stride)[:, : columns.start] = False
        pixels = true_places(undecided)

        def levels_of(places: Tensor, squared: Tensor = squared, number: int = number) -> Tensor:
            likeness = similarity(squared.index_select(0, places).sqrt_(), rule)
            return _stretched(likeness, low[number], high[number])

        inside[pixels] = filtered_pixels(colors.flatten(1), stride, pixels, levels_of).round_() > level
        masks[number, rows] = inside.view(-1, stride)[RADIUS:-RADIUS, columns]
    return masks


def padded_bands(color_map: Tensor, dtype: torch.dtype, num_pixels: int) -> Iterator[tuple[Tensor, slice]]:
    """Bands of rows with the filter's reach around them, mirrored at the map's border, and which rows they are.

    A band has at most so many pixels, or one row; on a GPU it is the whole map. Its colours, (3, rows + 2 RADIUS,
    stride), are valid until the next one; a stride is W + 2 RADIUS, and what fills it up to a multiple of 8.
    """
    height, width = color_map.shape[1:]
    stride = -(-(width + 2 * RADIUS) // 8) * 8
    band = height if color_map.is_cuda else max(num_pixels // stride, 1)
    rows, columns = (reflect_101(size, RADIUS, color_map.device) for size in (height, width))
    right = RADIUS + width
    columns = F.pad(columns, (0, stride - len(columns))) + RADIUS
    colors = torch.empty(3, min(band, height) + 2 * RADIUS, stride, dtype=dtype, device=color_map.device)
    for top in range(0, height, band):
        bottom = min(top + band, height)
        out = colors[:, : bottom - top + 2 * RADIUS]
        start, end = max(RADIUS - top, 0), min(height - top, bottom - top + RADIUS) + RADIUS
        out[:, start:end, RADIUS:right] = color_map[:, top + start - RADIUS : top + end - RADIUS]
        for row in (*range(start), *range(end, out.shape[1])):
            out[:, row, RADIUS:right] = color_map[:, rows[top + row]]
        out[:, :, :RADIUS] = out[:, :, columns[:RADIUS]]
        out[:, :, right:] = out[:, :, columns[right:]]
        yield out, slice(top, bottom)


def _undecided(inside: Tensor, stride: int) -> Tensor:
    """Pixels in whose window both kinds of pixels are, (N,) bool to the same, rows one after the other.

    Of the outermost RADIUS rows and columns it says nothing.
    """
    kinds = 2 - inside.view(torch.uint8)  # 1 inside, 2 outside
    runs = {0: kinds}  # kinds in a run of 2 h + 1 pixels, by h; counted from its first pixel
    pair = kinds[:-1] | kinds[1:]
    four = pair[:-2] | pair[2:]
    runs[2] = four[:-1] | kinds[4:]
    runs[3] = four[:-3] | four[3:]
    runs[4] = runs[3][:-2] | runs[3][2:]
    start = RADIUS * (stride + 1)
    num = len(kinds) - 2 * start
    found = torch.zeros_like(kinds)
    both = found[start : start + num]
    for dy in range(-RADIUS, RADIUS + 1):
        half = math.isqrt(RADIUS * RADIUS - dy * dy)
        first = start + dy * stride - half
        both |= runs[half][first : first + num]
    both &= both >> 1
    return found.view(torch.bool)


@torch.no_grad()
def masks_within(color_map: Tensor, queries: Tensor, radius: float) -> Tensor:
    """Where the distance in colour to a query is below a radius, (Q, H, W) bool."""
    limit = torch.full_like(queries[:, 0], radius)
    # The largest square whose root is below the radius, by rounding: within two steps of radius^2.
    cut = torch.nextafter(limit.square(), torch.full_like(limit, torch.inf))
    for _ in range(4):
        below = torch.nextafter(cut, torch.zeros_like(cut))
        cut = torch.where(cut.sqrt() < limit, cut, below)
    if color_map[0].numel() > LARGE and len(queries) <= FEW:
        return _plain_masks(color_map, queries, cut)
    return _cut_masks(color_map, queries, cut)


def similarity(distance: Tensor, rule: str) -> Tensor:
    """Similarity for distances of colours, in place."""
    distance = distance.add_(EPS) if rule == 'reference' else distance.clamp_(min=1.0)
    return distance.reciprocal_()


def check_rule(rule: str) -> None:
    """Raises ValueError for a rule that does not exist."""
    if rule not in ('reference', 'paper'):
        raise ValueError(f"rule: expected 'reference' or 'paper', but got {rule!r}")


def parts(num_maps: int, map_size: int, device: torch.device) -> Iterator[slice]:
    """Splits the maps into parts of as many pixels as fit a cache, or a part of a GPU."""
    size = max(1, (1 << (20 if device.type == 'cpu' else 24)) // map_size)
    return (slice(start, start + size) for start in range(0, num_maps, size))


class _Grid(NamedTuple):
    """The squares of pixels that a map is cut into."""

    grid: tuple[int, int]  # rows and columns of cells
    size: tuple[int, int]  # of the map

    @classmethod
    def of(cls, color_map: Tensor) -> '_Grid':
        height, width = color_map.shape[1:]
        return cls((-(-height // CELL), -(-width // CELL)), (height, width))

    def spread(self, chosen: Tensor) -> Tensor:
        """Pixels of the chosen cells, (Q, rows, columns) bool -> (Q, H, W) bool."""
        (height, width), (rows, columns) = self.size, self.grid
        chosen = chosen[..., None].expand(-1, -1, -1, CELL).reshape(-1, rows, 1, columns * CELL)
        chosen = chosen[..., :width].expand(-1, -1, CELL, -1)
        return chosen.reshape(-1, rows * CELL, width)[:, :height].contiguous()

    def around(self, chosen: Tensor) -> Tensor:
        """Cells that are chosen or next to a chosen one: what the filter's window can reach."""
        grown = F.pad(chosen, (1, 1, 1, 1))
        grown = grown[:, :-2] | grown[:, 1:-1] | grown[:, 2:]
        return grown[:, :, :-2] | grown[:, :, 1:-1] | grown[:, :, 2:]


class _Cells(NamedTuple):
    """A colour map cut into squares of pixels, its border repeated to fill the last ones."""

    colors: Tensor  # (3, cells, pixels of a cell)
    grid: tuple[int, int]  # rows and columns of cells
    size: tuple[int, int]  # of the map

    @classmethod
    def of(cls, color_map: Tensor) -> '_Cells':
        (rows, columns), (height, width) = _Grid.of(color_map)
        missing = (0, columns * CELL - width, 0, rows * CELL - height)
        if any(missing):
            color_map = F.pad(color_map[None], missing, mode='replicate')[0]
        squares = color_map.reshape(3, rows, CELL, columns, CELL).transpose(2, 3)
        return cls(squares.reshape(3, rows * columns, -1), (rows, columns), (height, width))

    def extremes(self, queries: Tensor) -> tuple[Tensor, Tensor]:
        """Smallest and largest squared distance of every cell to every query, (Q, cells) each."""
        nearest = self.colors.new_empty(len(queries), self.colors.shape[1])
        farthest = torch.empty_like(nearest)
        buffers = None  # kept from part to part: fresh memory costs as much as the sums
        for part in parts(len(queries), self.colors[0].numel(), queries.device):
            mine = queries[part].T[..., None, None]
            if buffers is None or len(buffers[0]) != mine.shape[1]:
                shape = (mine.shape[1], *self.colors.shape[1:])
                buffers = self.colors.new_empty(shape), self.colors.new_empty(shape)
            squared = _squared(self.colors[:, None], mine, buffers)
            torch.amin(squared, 2, out=nearest[part])
            torch.amax(squared, 2, out=farthest[part])
        return nearest, farthest

    def masks(self, queries: Tensor, cut: Tensor, nearest: Tensor, farthest: Tensor) -> Tensor:
        """Where squared distances are at most the cut, (Q,), by the cells' extremes: (Q, H, W)."""
        inside = (farthest <= cut[:, None])[..., None].repeat(1, 1, CELL * CELL)
        query, cell = ((nearest <= cut[:, None]) & (farthest > cut[:, None])).nonzero().T
        for part in parts(len(query), CELL * CELL, queries.device):
            mine, there = query[part], cell[part]
            squared = _squared(self.colors[:, there], queries[mine].T[..., None])
            inside[mine, there] = squared <= cut[mine, None]
        return self._pixels(inside.view(-1, *self.grid, CELL, CELL))

    def _pixels(self, squares: Tensor) -> Tensor:
        rows, columns = self.grid
        maps = squares.transpose(2, 3).reshape(-1, rows * CELL, columns * CELL)
        return maps[:, : self.size[0], : self.size[1]].contiguous()


def _bands(color_map: Tensor) -> Iterator[tuple[slice, slice]]:
    """Rows of a map, a whole number of cells high, and the numbers of their cells; one band for a map that is small."""
    height, width = color_map.shape[1:]
    rows = max(LARGE // (width * CELL), 1) * CELL
    columns = -(-width // CELL)
    for top in range(0, height, rows):
        bottom = min(top + rows, height)
        yield slice(top, bottom), slice(top // CELL * columns, -(-bottom // CELL) * columns)


def _extremes(color_map: Tensor, queries: Tensor) -> tuple[Tensor, Tensor]:
    """Smallest and largest squared distance of every cell of a map to every query, (Q, cells) each."""
    found = [_Cells.of(color_map[:, rows]).extremes(queries) for rows, _ in _bands(color_map)]
    return found[0] if len(found) == 1 else tuple(torch.cat(one, 1) for one in zip(*found, strict=True))


def _plain_masks(color_map: Tensor, queries: Tensor, cut: Tensor) -> Tensor:
    """As :func:`_cut_masks`, without cells, which pay for many queries only."""
    masks = torch.empty(len(queries), *color_map.shape[1:], dtype=torch.bool, device=color_map.device)
    for rows, _ in _bands(color_map):
        band = color_map[:, rows]
        buffers = torch.empty_like(band[0]), torch.empty_like(band[0])
        for mask, query, limit in zip(masks, queries, cut, strict=True):
            torch.le(_squared(band, query, buffers), limit, out=mask[rows])
    return masks


def _cut_masks(
    color_map: Tensor, queries: Tensor, cut: Tensor, nearest: Tensor | None = None, farthest: Tensor | None = None
) -> Tensor:
    """Where squared distances are at most the cut, (Q,); extremes of the cells where they are known: (Q, H, W) bool."""
    found = []
    for rows, numbers in _bands(color_map):
        cells = _Cells.of(color_map[:, rows])
        ends = cells.extremes(queries) if nearest is None else (nearest[:, numbers], farthest[:, numbers])
        found.append(cells.masks(queries, cut, *ends))
    return found[0] if len(found) == 1 else torch.cat(found, 1)


def _squared(colors: Tensor, queries: Tensor, buffers: tuple[Tensor, Tensor] | None = None) -> Tensor:
    """Squared distances of broadcast (3, ...) colours and queries; one channel after the other.

    The second of the buffers, if given, is what is returned.
    """
    difference, squared = buffers or (None, None)
    difference = torch.sub(colors[0], queries[0], out=difference)
    squared = torch.mul(difference, difference, out=squared)
    for channel in (1, 2):
        torch.sub(colors[channel], queries[channel], out=difference)
        squared.addcmul_(difference, difference)
    return squared


def _stretched(likeness: Tensor, low: Tensor, high: Tensor) -> Tensor:
    """Integers in [0, 255] for similarities, in place; low and high are those of the map."""
    return likeness.sub_(low).div_(high - low + EPS).mul_(255).floor_()


def _cut(nearest: Tensor, farthest: Tensor, level: float, rule: str) -> Tensor:
    """The largest squared distance whose similarity level exceeds a level, -1 where there is none.

    Bisection over the floating-point numbers, whose bits are in the order of their values; exact, since no step from a
    squared distance to its level ever rounds against the order.

    Args:
        nearest: Smallest squared distance of a query in the map, (Q,).
        farthest: Largest.
        level: In [0, 255].
        rule: Of the similarity.

    Returns:
        (Q,).
    """
    low, high = similarity(farthest.sqrt(), rule), similarity(nearest.sqrt(), rule)

    def exceeds(squared: Tensor) -> Tensor:
        return _stretched(similarity(squared.sqrt(), rule), low, high) > level

    # The formula, solved for the distance, is right but for rounding: the search starts there.
    least = low + (math.floor(level) + 1) / 255 * (high - low + EPS)
    guess = (1 / least - (EPS if rule == 'reference' else 0)).square()
    integer = torch.int64 if nearest.dtype == torch.float64 else torch.int32
    inside, outside = nearest.view(integer), farthest.view(integer)  # level(farthest) is 0
    for shift in (1 - 1e-5, 1 + 1e-5):
        middle = (guess * shift).clamp(nearest, farthest)
        hit = exceeds(middle)
        inside, outside = (
            torch.where(hit, middle.view(integer), inside),
            torch.where(hit, outside, middle.view(integer)),
        )
    while (outside - inside > 1).any():
        middle = inside + (outside - inside) // 2
        hit = exceeds(middle.view(nearest.dtype))
        inside, outside = torch.where(hit, middle, inside), torch.where(hit, outside, middle)
    return torch.where(exceeds(nearest), inside.view(nearest.dtype), -1.0)
