"""Sum of 1 / (1 + d^2) over all pairs of a few centres and many points, in tiles.

The instance-coloring loss calls it for means against pixels and for means against means.
"""

import warnings
from collections.abc import Callable
from functools import cache, wraps
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

# Most centres of a tile: many share the work per point, and rows of points stay long.
TILE_ROWS = 256


def differentiable_once(backward: Callable) -> Callable:
    """Refuses create_graph: the gradients come from the forward pass and know no second derivative.

    torch's ``once_differentiable`` would let a gradient penalty through and leave out this part.
    """

    @wraps(backward)
    def checked(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
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
    """``sum_i weight_i sum_{j: own_j != i} 1 / (1 + |point_j - centre_i|^2)``, and both gradients.

    Image b has points[b] and centres first <= i < last = spans[b]. Value and gradients come from one pass over the
    pairs, of which nothing is stored; autograd sees nothing of it.

    Args:
        points: (N, C, P), floating point.
        centres: (S, C) float64.
        own: (N, P), the centre that a point belongs to (any other number: none).
        weight: (S,) float64.
        spans: First and last (exclusive) centre of every image.
        tile_size: Pairs computed at once without ``compiled``. None: by device.
        compiled: Compute the pairs in a kernel of torch.compile; where that fails, a warning says so and the tiles do
            it.
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
        ctx: Any,
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
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
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
    """``1 / (1 + |point_j - centre_i|^2)``, (n, P), zero where own_j is i + 1; also the scratch.

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
    """The same where a matmul may round its operands.

    TF32 on GPUs, or bfloat16 on CPUs, if torch's float32_matmul_precision allows it: the gradient is a difference of
    such sums and would lose most of its digits.
    """
    columns = vectors.unsqueeze(2 - dim)
    return torch.stack([torch.mul(kernel, column, out=scratch).sum(dim) for column in columns])


# With ``compiled``: the eager tiles write every pair to memory a dozen times; torch.compile makes two loops of them,
# one for each side's gradient, which keep the pairs in registers and compute them anew. It costs seconds once per
# process (and a C++ compiler on a CPU), so it is for training, by the caller's choice.

# Points that are added up in the points' type; sums of such rows go on in float64.
ROW = 4096
# Padding of rows: so far away that every term with it is zero (1e50 overflows float32: 1 / inf).
FAR = 1e25
# The compiler would store what many sums read, here all pairs. With these limits it does not.
OPTIONS = {
    'realize_reads_threshold': 1000,
    'realize_opcount_threshold': 10000,
    'realize_acc_reads_threshold': 1000,
    'compile_threads': 1,  # two small loops are not worth a pool of compiler processes per rank
}


def _sums(points: Tensor, own: Tensor, centres: Tensor, weight: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Sums over the pairs of points (C, R, ROW) and centres (n, C); own is (R, ROW) int32.

    Returns the gradient of the points, half of it and negative, (C, R, ROW), and for each row of points the closeness
    of the centres, (n, R), and half of its gradient by the centres, (C, n, R).
    """
    centres, weight = centres[..., None, None], weight[:, None, None]
    number = torch.arange(len(centres), dtype=own.dtype, device=own.device)[:, None, None]
    differences = [point - centre for point, centre in zip(points, centres.unbind(1), strict=True)]
    squares = 1
    for difference in differences:
        squares = squares + difference * difference
    kernel = torch.where(own == number, 0.0, 1 / squares)
    square = kernel * kernel
    weighted = square * weight
    return (
        torch.stack([(weighted * difference).sum(0) for difference in differences]),
        kernel.sum(2),
        torch.stack([(square * difference).sum(2) for difference in differences]),
    )


@cache
def compiled_sums(device_type: str, dtype: torch.dtype) -> Callable | None:
    """The compiled sums for a type of device and of points; None, with a warning, if that fails.

    All sizes share one compilation. The first call tries it on sizes like in training, since the compiler adapts the
    loops to the first sizes it sees; they differ, for it takes equal sizes for one and the same.
    """
    points = torch.zeros(3, 64, ROW, dtype=dtype, device=device_type)
    own = torch.zeros(64, ROW, dtype=torch.int32, device=device_type)
    try:
        compiled = torch.compile(_sums, dynamic=True, fullgraph=True, options=OPTIONS)
        with torch.no_grad():
            compiled(points, own, points.new_zeros(50, 3), points.new_zeros(50))
    except (RuntimeError, ImportError, OSError) as error:  # torch's own are RuntimeErrors
        reason = str(error).strip().splitlines() or ['no message']
        warnings.warn(
            f'torch.compile failed for the instance-coloring loss ({device_type}, {dtype}), which '
            f'goes on without it, to the same values but slower: {type(error).__name__}: '
            f'{reason[0][:300]} (on a CPU it needs a C++ compiler, see CXX; on a GPU Triton)',
            stacklevel=2,
        )
        return None
    return compiled


def accumulate_fused(
    sums: Callable,
    points: Tensor,
    centres: Tensor,
    own: Tensor,
    weight: Tensor,
    points_grad: Tensor | None,
    centres_grad: Tensor | None,
) -> Tensor:
    """Value for points (C, P) and centres (n, C) float64 of one image, own (P,) from 0; fills the gradients if given.

    ``sums`` comes from :func:`compiled_sums`.
    """
    (channels, num_points), num_centres = points.shape, len(centres)
    # A size of 1 would be compiled apart.
    rows = max(-(-num_points // ROW), 2)
    missing = rows * ROW - num_points
    # Distances do not see the shift; the centres lose less to rounding around their middle.
    origin = centres.mean(0).to(points.dtype)
    points, centres, own = points - origin[:, None], centres - origin, own.int()
    if missing:
        points, own = F.pad(points, (0, missing), value=FAR), F.pad(own, (0, missing), value=-1)
    # Other strides would be compiled apart, and badly: vectors along the centres.
    rounded, rounded_weight = centres.to(points.dtype).contiguous(), weight.to(points.dtype)
    if num_centres == 1:
        rounded, rounded_weight = F.pad(rounded, (0, 0, 0, 1)), F.pad(rounded_weight, (0, 1))
    to_points, closeness, to_centres = sums(
        points.view(channels, rows, ROW), own.view(rows, ROW), rounded, rounded_weight
    )
    if points_grad is not None:
        torch.mul(to_points.view(channels, -1)[:, :num_points], -2, out=points_grad)
    if centres_grad is not None:
        total = to_centres[:, :num_centres].sum(2, dtype=torch.float64)
        centres_grad.copy_(2 * weight[:, None] * total.T)
    return weight @ closeness[:num_centres].sum(1, dtype=torch.float64)
