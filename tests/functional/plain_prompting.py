"""Prompting as the formulas read: loops over pixels in float64; small maps for the tests."""

import numpy as np
import torch


def reflect_101(position, size):
    while size > 1 and not 0 <= position < size:
        position = -position if position < 0 else 2 * (size - 1) - position
    return position if size > 1 else 0


def plain_filter(guide, src, diameter=9, sigma_color=75.0, sigma_space=75.0):
    """One 8-bit map, (H, W), guided by (3, H, W): pixel by pixel."""
    height, width = src.shape
    radius, guide = diameter // 2, guide.astype(np.float64)
    out = np.zeros_like(src)
    for y in range(height):
        for x in range(width):
            total = norm = 0.0
            for dy in range(-radius, radius + 1):
                for dx in range(-radius, radius + 1):
                    if dy**2 + dx**2 > radius**2:
                        continue
                    v, u = reflect_101(y + dy, height), reflect_101(x + dx, width)
                    distance = np.abs(guide[:, v, u] - guide[:, y, x]).sum()
                    weight = np.exp(-(distance**2) / (2 * sigma_color**2))
                    weight *= np.exp(-(dy**2 + dx**2) / (2 * sigma_space**2))
                    total += weight * src[v, u]
                    norm += weight
            out[y, x] = np.rint(total / norm)
    return out


def plain_query(color_map, point, sigma=0.01):
    """Gaussian over the whole map on linspace(0, 1) grids."""
    height, width = color_map.shape[1:]
    x = np.linspace(0, 1, width)[None] - point[0] / (width - 1)
    y = np.linspace(0, 1, height)[:, None] - point[1] / (height - 1)
    heat = np.exp(-(x**2 + y**2) / (2 * sigma**2))
    return (color_map * heat).sum((1, 2)) / (heat.sum() + 1e-6)


def plain_levels(color_map, query, rule):
    distance = np.sqrt(((color_map - query[:, None, None]) ** 2).sum(0))
    similarity = 1 / (distance + 1e-6) if rule == 'reference' else 1 / np.maximum(distance, 1)
    low, high = similarity.min(), similarity.max()
    return ((similarity - low) / (high - low + 1e-6) * 255).astype(np.uint8)


def plain_mask(color_map, points, labels, rule='reference', smooth=True):
    """One prompt: (P, 2) points with (P,) labels. The reference reads an 8-bit picture of the map."""
    if rule == 'reference':
        color_map = color_map.astype(np.uint8).astype(np.float64)
    queries = [plain_query(color_map, point) for point in points]
    value = np.zeros(color_map.shape[1:], np.uint8)
    nearest = {0: np.full(value.shape, np.inf), 1: np.full(value.shape, np.inf)}
    for query, label in zip(queries, labels, strict=True):
        distance = np.sqrt(((color_map - query[:, None, None]) ** 2).sum(0))
        nearest[label] = np.minimum(nearest[label], distance)
        if label:
            levels = plain_levels(color_map, query, rule)
            value = np.maximum(value, plain_filter(color_map, levels) if smooth else levels)
    return (value > 3) & ~(nearest[0] < nearest[1])


def patches(height=22, width=27, seed=0, noise=12.0):
    """Noisy patches of five colours, (3, H, W) float64 in [0, 255], and every pixel's patch."""
    rng = np.random.default_rng(seed)
    seeds, colors = rng.uniform(0, 1, (5, 2)) * [height, width], rng.uniform(0, 255, (5, 3))
    y, x = np.mgrid[:height, :width]
    patch = ((y[..., None] - seeds[:, 0]) ** 2 + (x[..., None] - seeds[:, 1]) ** 2).argmin(-1)
    color_map = colors[patch].transpose(2, 0, 1) + rng.normal(0, noise, (3, height, width))
    return color_map.clip(0, 255), patch


POINTS = torch.tensor([[3.0, 4.0], [20.0, 2.0], [25.5, 20.25], [0.0, 21.0], [12.0, 11.0]])


def grey_row(*values):
    """One row of colours (value, 0, 0)."""
    row = torch.zeros(3, 1, len(values))
    row[0, 0] = torch.tensor(values)
    return row
