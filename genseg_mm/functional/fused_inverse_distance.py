"""The pairs of the inverse distance sum in one compiled kernel, which keeps them in registers.

The eager tiles write every pair to memory a dozen times. Here torch.compile makes two loops of
them, one for each side's gradient; both compute the pairs anew. It costs seconds once per process
(and a C++ compiler on a CPU), so it is for training, by the caller's choice.
"""

import functools
import warnings
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

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

    Returns the gradient of the points, half of it and negative, (C, R, ROW), and for each row of
    points the closeness of the centres, (n, R), and half of its gradient by the centres, (C, n, R).
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


@functools.cache
def compiled_sums(device_type: str, dtype: torch.dtype) -> Callable | None:
    """The compiled sums for a type of device and of points; None, with a warning, if that fails.

    All sizes share one compilation. The first call tries it on sizes like in training, since the
    compiler adapts the loops to the first sizes it sees; they differ, for it takes equal sizes for
    one and the same.
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
    """Value for points (C, P) and centres (n, C) float64 of one image, own (P,) from 0; fills the
    gradients if given. ``sums`` comes from :func:`compiled_sums`.
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
