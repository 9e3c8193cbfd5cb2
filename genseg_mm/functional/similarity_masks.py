"""Which pixels are like a query colour: distances, 8-bit similarities, and their masks at once."""

import math
from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from genseg_mm.functional.joint_bilateral import DIAMETER, filter_tiles, filtered_cells

EPS = 1e-6  # of the public code, in every denominator
CELL = 8  # side of the squares of pixels that are decided together; at least the filter's radius
FEW = 8  # queries on a large map that are answered pixel by pixel
LARGE = 1 << 20  # pixels of a map from which on it is worked on in bands and cells, to bound memory and time


def lengths(vectors: Tensor) -> Tensor:
    """Lengths of the vectors along the first of the axes, (3, ...) -> (...).

    ``vectors.norm(dim=0)`` is some 100 times slower on a CPU.
    """
    squared = vectors[0].square()
    for channel in vectors[1:]:
        squared.addcmul_(channel, channel)
    return squared.sqrt_()


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
    exceed the level. A square of pixels whose distances (with those within the filter's reach) lie all on one side of
    it is decided, because a mean lies between its extremes; only the rest is filtered.

    Args:
        color_map: (3, H, W), float32 or float64.
        queries: (Q, 3) of the same type.
        level: In [0, 255].
        rule: 'reference' or 'paper', see ``similarity_levels``.
        smooth: Apply the joint bilateral filter.

    Returns:
        (Q, H, W) bool.

    Raises:
        ValueError: If the rule is unknown.
    """
    check_rule(rule)
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
    if color_map[0].numel() > LARGE and undecided.sum() < 3 * math.prod(cells.grid):
        for part in undecided.nonzero().split(1024):
            query, top, left = part[:, 0], part[:, 1] * CELL, part[:, 2] * CELL
            found = filtered_cells(
                color_map,
                top,
                left,
                CELL,
                lambda colors, query=query: _stretched(
                    similarity(_squared(colors, queries[query].T[..., None, None]).sqrt_(), rule),
                    low[query],
                    high[query],
                ),
            )
            cells.write(masks, query, top, left, found.round_() > level)
        return masks
    radius = DIAMETER // 2
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
            window[maps] = tile.means(levels, radius).round_() > level
    return masks


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

    def write(self, masks: Tensor, query: Tensor, top: Tensor, left: Tensor, found: Tensor) -> None:
        """Writes cells (n, CELL, CELL) into masks (Q, H, W), less what lies beyond the map."""
        steps = torch.arange(CELL, device=masks.device)
        y, x = top[:, None] + steps, left[:, None] + steps  # (n, CELL)
        known = ((y < self.size[0])[:, :, None] & (x < self.size[1])[:, None]).nonzero()
        cell, row, column = known.unbind(1)
        masks[query[cell], y[cell, row], x[cell, column]] = found[cell, row, column]


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

    integer = torch.int64 if nearest.dtype == torch.float64 else torch.int32
    inside, outside = nearest.view(integer), farthest.view(integer)  # level(farthest) is 0
    for _ in range(torch.iinfo(integer).bits):
        middle = inside + (outside - inside) // 2
        hit = exceeds(middle.view(nearest.dtype))
        inside, outside = torch.where(hit, middle, inside), torch.where(hit, outside, middle)
    return torch.where(exceeds(nearest), inside.view(nearest.dtype), -1.0)
