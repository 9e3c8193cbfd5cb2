"""The parts of the instance-coloring loss that read every pixel, in one autograd function.

One function, so that the colours get one gradient and not the sum of three.
"""

import torch
from torch import Tensor

from genseg_mm.functional.inverse_distance import differentiable_once, inverse_distance_sum

# A segment has this many partial sums, for neighbouring pixels to add to different addresses:
# a core need not wait for its last addition, nor a GPU's lanes for each other.
PARTIAL_SUMS = {'cpu': 8, 'cuda': 32}


class PixelTerms(torch.autograd.Function):
    """Means of the segments, variance around them and their closeness to the other pixels.

    With values (N, C, P) of the pixels, index (N, P) the segment of every pixel, and for the
    segments size, variance_weight and separation_weight, (S,) float64::

        mean_s      (S, C) float64; zero where s is not in foreground, (S,) bool
        variance    sum_s variance_weight_s sum_{j in s} h(value_j - mean_s), h Huber with delta 1,
                    summed over channels
        separation  sum_s separation_weight_s sum_{j of the image, not in s} 1/(1+|value_j-mean_s|^2)
                    over the segments first <= s < last, (first, last) = spans[image]

    All are float64; the gradient by the values has their type.
    """

    @staticmethod
    def forward(
        ctx,
        values: Tensor,
        index: Tensor,
        size: Tensor,
        foreground: Tensor,
        variance_weight: Tensor,
        separation_weight: Tensor,
        spans: list[tuple[int, int]],
        tile_size: int | None,
        compiled: bool,
    ) -> tuple[Tensor, Tensor, Tensor]:
        ctx.set_materialize_grads(False)
        with_grad = ctx.needs_input_grad[0]
        factors = (foreground / size)[:, None]  # of a segment's sum, and of a mean's gradient
        sums = SegmentSums(values, len(size))
        for image, segment in zip(values, index, strict=True):
            sums.add(image, segment)
        means = sums.total() * factors
        variance = _variance(values, means, index, variance_weight, with_grad)
        separation = inverse_distance_sum(
            values, means, index, separation_weight, spans, tile_size, compiled, with_grad
        )
        if with_grad:
            ctx.save_for_backward(index, factors, *variance[1:], *separation[1:])
        return variance[0], separation[0], means

    @staticmethod
    @differentiable_once
    def backward(
        ctx, variance: Tensor | None, separation: Tensor | None, means: Tensor | None
    ) -> tuple[Tensor | None, ...]:
        index, factors, *grads = ctx.saved_tensors
        terms = [
            (factor, *pair) for factor, pair in ((variance, grads[:2]), (separation, grads[2:])) if factor is not None
        ]
        by_means = torch.zeros_like(grads[1]) if means is None else means
        for factor, _, means_part in terms:
            by_means = by_means + factor * means_part
        shares = _columns(by_means * factors, grads[0].dtype)
        values_grad = torch.empty_like(grads[0])
        for b, image in enumerate(values_grad):
            torch.index_select(shares, 1, index[b], out=image)
            for factor, values_part, _ in terms:
                image.addcmul_(values_part[b], factor.to(image.dtype))
        return values_grad, *[None] * 8


class SegmentSums:
    """Sums of pixels over segments, in float64: float32 sums lose four digits here.

    Args:
        values: Images like those to come, (N, C, P).
        num_segments: Number of segments, S.
    """

    def __init__(self, values: Tensor, num_segments: int) -> None:
        number = PARTIAL_SUMS.get(values.device.type, 1)
        self.lanes = torch.arange(number, device=values.device).repeat(-(-values.shape[2] // number))
        self.sums = values.new_zeros(values.shape[1], num_segments, number, dtype=torch.float64)

    def add(self, image: Tensor, segment: Tensor) -> None:
        """Adds the pixels of an image (C, P), which belong to the segments (P,)."""
        slots = torch.add(self.lanes[: len(segment)], segment, alpha=self.sums.shape[2])
        self.sums.view(len(image), -1).scatter_add_(1, slots.expand_as(image), image.double())

    def total(self) -> Tensor:
        """The sums, (S, C) float64."""
        return self.sums.sum(2).T


def _columns(table: Tensor, dtype: torch.dtype) -> Tensor:
    """A table of the segments, (S, C), as (C, S) for index_select."""
    return table.T.to(dtype).contiguous()


def _variance(
    values: Tensor, means: Tensor, index: Tensor, weight: Tensor, with_grad: bool
) -> tuple[Tensor, Tensor | None, Tensor | None]:
    """Weighted Huber losses of the values around their segment's mean, summed; both gradients."""
    columns, pixel_weights = _columns(means, values.dtype), weight.to(values.dtype)
    total = weight.new_zeros(())
    values_grad = torch.empty_like(values)
    slopes = SegmentSums(values, len(weight))
    for image, segment, slope in zip(values, index, values_grad, strict=True):
        torch.index_select(columns, 1, segment, out=slope)
        residual = image - slope
        torch.clamp(residual, -1, 1, out=slope)
        # r^2 / 2 where the slope is r, |r| - 1/2 where it is the sign of r.
        losses = residual.sub_(slope, alpha=0.5).mul_(slope).sum(0)
        pixel_weight = pixel_weights.index_select(0, segment)
        total += losses.mul_(pixel_weight).sum()
        if with_grad:
            slopes.add(slope, segment)
            slope.mul_(pixel_weight)
    if not with_grad:
        return total, None, None
    return total, values_grad, slopes.total() * -weight[:, None]
