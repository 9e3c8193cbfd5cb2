"""Instance maps for benchmarks: cells around random seeds."""

import torch
from torch import Tensor


def voronoi_cells(height: int, width: int, num_cells: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """The nearest of random seeds, and how far it is.

    Returns:
        Number of the seed, (H, W) int64 from 0, and the distance to it in pixels, (H, W).
    """
    seeds = torch.rand(num_cells, 2, generator=generator) * torch.tensor([height, width])
    rows, columns = torch.arange(height)[:, None], torch.arange(width)
    cells = torch.zeros(height, width, dtype=torch.int64)
    nearest = torch.full((height, width), torch.inf)
    for number, (row, column) in enumerate(seeds):  # one by one: memory peaks are measured, too
        distance = torch.hypot(rows - row, columns - column)
        cells[distance < nearest] = number
        nearest = torch.minimum(nearest, distance)
    return cells, nearest
