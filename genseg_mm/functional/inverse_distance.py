"""Sum of 1 / (1 + d^2) over all pairs of a few centres and many points, in tiles.

The instance-coloring loss calls it for means against pixels and for means against means.
"""

from collections.abc import Callable
from functools import wraps

import torch
from torch import Tensor

from genseg_mm.functional.fused_inverse_distance import accumulate_fused, compiled_sums

# Most centres of a tile: many share the work per point, and rows of points stay long.
TILE_ROWS = 256


def differentiable_once(backward: Callable) -> Callable:
    """Refuses create_graph: the gradients come from the forward pass and know no second derivative.

    torch's ``once_differentiable`` would let a gradient penalty through and leave out this part.
    """

    @wraps(backward)
    def checked(ctx, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
        if torch.is_grad_enabled():
            raise RuntimeError(
                'the instance-coloring loss has first derivatives only: '
                'call backward() or torch.autograd.grad() without create_graph=True'
            )
        return backward(ctx, *grads)

    return checked


@torch.no_grad()
def inverse_distance_sum(
    points: Tensor,
    centres: Tensor,
    own: Tensor,
    weight: Tensor,
    spans: list[tuple[int, int]],
    tile_size: int | None = None,
    compiled: bool = False,
    with_grad: bool = True,
) -> tuple[Tensor, Tensor | None, Tensor | None]:
    """sum_i weight_i sum_{j: own_j != i} 1 / (1 + |point_j - centre_i|^2), and both gradients.

    Image b has points[b] and centres first <= i < last = spans[b]. Value and gradients come from
    one pass over the pairs, of which nothing is stored; autograd sees nothing of it.

    Args:
        points: (N, C, P), floating point.
        centres: (S, C) float64.
        own: (N, P), the centre that a point belongs to (any other number: none).
        weight: (S,) float64.
        spans: First and last (exclusive) centre of every image.
        tile_size: Pairs computed at once without ``compiled``. None: by device.
        compiled: Compute the pairs in a kernel of torch.compile; where that fails, a warning says
            so and the tiles do it.
        with_grad: Whether to return the gradients, else None.

    Returns:
        Value, float64 scalar; gradients of the points, (N, C, P), and the centres, (S, C).
    """
    sums = compiled_sums(points.device.type, points.dtype) if compiled else None
    tile_size = tile_size or _default_tile_size(points.device)
    points_grad = torch.empty_like(points) if with_grad else None
    centres_grad = torch.zeros_like(centres) if with_grad else None
    value = weight.new_zeros(())
    for b, (first, last) in enumerate(spans):
        if first < last:
            span = slice(first, last)
            image = points[b], centres[span], own[b] - first, weight[span]
            grads = (points_grad[b], centres_grad[span]) if with_grad else (None, None)
            if sums is None:
                value += _accumulate(*image, *grads, tile_size)
            else:
                value += accumulate_fused(sums, *image, *grads)
        elif with_grad:
            points_grad[b] = 0
    return value, points_grad, centres_grad


class InverseDistanceSum(torch.autograd.Function):
    """The value of :func:`inverse_distance_sum` with its gradients by points and centres."""

    @staticmethod
    def forward(
        ctx,
        points: Tensor,
        centres: Tensor,
        own: Tensor,
        weight: Tensor,
        spans: list[tuple[int, int]],
        tile_size: int | None,
    ) -> Tensor:
        value, *grads = inverse_distance_sum(
            points, centres, own, weight, spans, tile_size, with_grad=any(ctx.needs_input_grad)
        )
        ctx.save_for_backward(*grads)
        return value

    @staticmethod
    @differentiable_once
    def backward(ctx, grad: Tensor) -> tuple[Tensor | None, ...]:
        points_grad, centres_grad = ctx.saved_tensors
        return grad * points_grad, grad * centres_grad, None, None, None, None


def _default_tile_size(device: torch.device) -> int:
    """Tiles that stay in the cores' shared cache, or that fill a GPU."""
    if device.type == 'cpu':
        return (1 << 18) * min(max(torch.get_num_threads(), 2), 16)
    return 1 << 23


def _accumulate(
    points: Tensor,
    centres: Tensor,
    own: Tensor,
    weight: Tensor,
    points_grad: Tensor | None,
    centres_grad: Tensor | None,
    tile_size: int,
) -> Tensor:
    """Value for points (C, P) and centres (n, C) of one image; fills the gradients if given."""
    channels, num_points = points.shape
    # Distances do not see the shift; the sums for the gradients cancel less around the middle.
    origin = centres.mean(0).to(points.dtype)[:, None]
    centres = torch.cat([centres.T - origin, centres.new_ones(1, len(centres))])  # (C + 1, n)
    rounded, scaled = centres.to(points.dtype), (centres * weight).to(points.dtype)
    sums = torch.zeros_like(weight)  # sum_j k_ij
    to_centres = torch.zeros_like(centres)  # sum_j k_ij^2 (point_j, 1)
    exact_matmul = points.device.type == 'cpu' and torch.get_float32_matmul_precision() == 'highest'
    weighted_sums = _sums_by_matmul if exact_matmul else _sums_by_products
    rows = min(len(weight), TILE_ROWS)
    columns = min(num_points, -(-tile_size // rows))
    buffers = points.new_empty((rows + 2) * columns), points.new_empty(rows * columns)
    for left in range(0, num_points, columns):
        span = slice(left, left + columns)
        shifted = points.new_ones(channels + 1, len(own[span]))
        torch.sub(points[:, span], origin, out=shifted[:channels])
        to_points = torch.zeros_like(shifted)  # sum_i weight_i k_ij^2 (centre_i, 1)
        for top in range(0, len(weight), rows):
            block = slice(top, top + rows)
            kernel, scratch = _kernel(shifted[:channels], rounded[:channels, block], own[span] - (top - 1), *buffers)
            sums[block] += kernel.sum(1)
            if points_grad is not None:
                kernel.square_()
                to_points += weighted_sums(kernel, scaled[:, block], 0, scratch)
                to_centres[:, block] += weighted_sums(kernel, shifted, 1, scratch)
        if points_grad is not None:
            gradient = to_points[:-1].addcmul_(shifted[:-1], to_points[-1], value=-1)
            torch.mul(gradient, 2, out=points_grad[:, span])
    if centres_grad is not None:
        centres_grad.copy_(2 * (weight * (to_centres[:-1] - centres[:-1] * to_centres[-1])).T)
    return weight @ sums


def _kernel(points: Tensor, centres: Tensor, own: Tensor, buffer: Tensor, scratch: Tensor) -> tuple[Tensor, Tensor]:
    """1 / (1 + |point_j - centre_i|^2), (n, P), zero where own_j is i + 1; also the scratch.

    ``own``, (P,), is overwritten.
    """
    rows, columns = centres.shape[1], points.shape[1]
    padded = buffer[: (rows + 2) * columns].view(rows + 2, columns)
    scratch = scratch[: rows * columns].view(rows, columns)
    kernel, base = padded[1:-1], points.new_ones(1, 1)
    # By differences: |p|^2 - 2pc + |c|^2 as a matmul loses the gradient's digits.
    for point, centre in zip(points, centres, strict=True):
        torch.sub(centre[:, None], point, out=scratch)
        base = torch.addcmul(base, scratch, scratch, out=kernel)
    kernel.reciprocal_()
    # The first and the last row take the points that belong to no centre of this tile.
    padded.scatter_(0, own.clamp_(0, rows + 1)[None], 0.0)
    return kernel, scratch


def _sums_by_matmul(kernel: Tensor, vectors: Tensor, dim: int, scratch: Tensor) -> Tensor:
    """Sums over dim of the kernel, (n, P), times each of a few vectors along dim."""
    return vectors @ (kernel if dim == 0 else kernel.T)


def _sums_by_products(kernel: Tensor, vectors: Tensor, dim: int, scratch: Tensor) -> Tensor:
    """The same where a matmul may round its operands to TF32 (GPUs) or bfloat16 (CPUs, if torch's
    float32_matmul_precision allows it): the gradient is a difference of such sums and would lose
    most of its digits.
    """
    columns = vectors.unsqueeze(2 - dim)
    return torch.stack([torch.mul(kernel, column, out=scratch).sum(dim) for column in columns])
