"""Instance-coloring loss of gen2seg (arXiv 2505.15263, Sec. 3.2): one uniform colour per instance.

Cost is instances x pixels, memory is not: the pairwise part runs in tiles that are thrown away.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from genseg_mm.functional.inverse_distance import InverseDistanceSum, differentiable_once, inverse_distance_sum

# The public code of the paper stops after this many counted terms; the paper names no limit.
REFERENCE_MAX_INSTANCES = 1251
# The public code weights the separation of an instance by 10 / sqrt(pixels), the paper by 1 / sqrt.
REFERENCE_SEPARATION_FACTOR = 10.0


class InstanceColoringTerms(NamedTuple):
    """The three terms, scalars with all weights and means applied; their sum is the loss."""

    variance: Tensor
    separation: Tensor
    means: Tensor


class _Segments(NamedTuple):
    """Pixels grouped by (image, id), numbered over the batch by image, then by id."""

    index: Tensor  # (N, P) segment of every pixel
    size: Tensor  # (S,) float64, pixels
    image: Tensor  # (S,) image of the segment
    foreground: Tensor  # (S,) bool, id is not 0
    counted: Tensor  # (S,) bool, has terms of its own in the loss
    spans: list[tuple[int, int]]  # counted segments of each image: [first, last)
    instance_spans: list[tuple[int, int]]  # the same without the background


def instance_coloring_loss(
    colors: Tensor,
    ids: Tensor,
    ignore_background: Tensor | Sequence[bool] | None = None,
    formula: str = 'reference',
    separation_weight: float = 300.0,
    mean_weight: float = 300.0,
    max_instances: int | None = None,
    tile_size: int | None = None,
    compiled: bool = False,
) -> InstanceColoringTerms:
    """Pulls pixels to the mean colour of their instance and instances apart (gen2seg, Sec. 3.2).

    With S_i the pixels of instance i, T_i all other pixels of the image, mu_i the mean colour (of the background: 0), n
    the number of instances, h the Huber loss with delta 1, an image scores ::

        variance    sum_i 1/|S_i| sum_{j in S_i} h(p_j - mu_i)         background included
        separation  sum_i 1/(sqrt|S_i| |T_i|) sum_{j in T_i} 1/(1 + |p_j - mu_i|^2)
        means       1/(n(n+1)) sum_{i<j} 1/(1 + |mu_i - mu_j|^2)       background included

    ``formula='paper'``: h is summed over channels; the loss is
    variance + separation_weight * separation + mean_weight * means. ``formula='reference'`` (the code that trained the
    released weights): h is averaged over channels, separation is ten times as large, means are an average over the
    pairs, and the image's sum is divided by its number of counted terms (instances, and the background unless ignored;
    at least 1), of which there are at most 1251. Both are averaged over the batch.

    An ignored background has no variance and no mean of its own, but its pixels stay in every T_i; the paper's
    normaliser stays n(n+1). A background without a pixel counts nowhere. Instances beyond ``max_instances`` have no
    terms, but their pixels stay in every T_i, too. An instance that fills its image has no separation. Gradients flow
    through the means; there is no double backward.

    Args:
        colors: Predicted colours, (N, 3, H, W), floating point, in [0, 255]. Computed in float32 whatever autocast
            says; float64 stays.
        ids: Instance ids, (N, H, W), any integers >= 0, sparse or not; 0 is background.
        ignore_background: Per image, (N,) bool: True where the background is unlabelled (Virtual KITTI 2 labels cars
            only). None: nowhere.
        formula: 'reference' or 'paper'.
        separation_weight: Weight of the separation term.
        mean_weight: Weight of the means term.
        max_instances: Most counted terms of an image, in order of id (a counted background is one of them, the first).
            None: 1251 in the reference, no limit in the paper.
        tile_size: (instance, pixel) pairs computed at once. None: by device.
        compiled: Compute the pairs in a kernel of torch.compile, several times as fast, after some seconds of
            compilation in every process. Where it fails, a warning says so, and the loss goes on in tiles. tile_size
            has no say then.

    Returns:
        The three terms: NaN if colors has NaN, zeros connected to the graph where nothing counts.

    Raises:
        ValueError: If an argument has a wrong shape, type, device or value.
        RuntimeError: In a backward pass with create_graph.
    """
    ignored = _check_arguments(colors, ids, ignore_background, formula, max_instances, tile_size)
    if max_instances is None and formula == 'reference':
        max_instances = REFERENCE_MAX_INSTANCES
    with torch.autocast(device_type=colors.device.type, enabled=False):
        dtype = torch.promote_types(colors.dtype, torch.float32)
        pixels = colors.to(dtype).flatten(2)  # (N, 3, P)
        segments = _group_pixels(ids.flatten(1).long(), ignored, max_instances)
        weights = _term_weights(segments, pixels.shape, formula)
        variance, separation, means = PixelTerms.apply(
            pixels,
            segments.index,
            segments.size,
            segments.foreground,
            *weights[:2],
            segments.instance_spans,
            tile_size,
            compiled,
        )
        terms = (
            variance,
            separation_weight * separation,
            mean_weight * _mean_repulsion(means, segments, weights[2], tile_size),
        )
        return InstanceColoringTerms(*(term.to(dtype) for term in terms))


def _check_arguments(
    colors: Tensor,
    ids: Tensor,
    ignore_background: Tensor | Sequence[bool] | None,
    formula: str,
    max_instances: int | None,
    tile_size: int | None,
) -> list[bool]:
    """Refuse wrong arguments; returns ignore_background as a list."""
    if colors.ndim != 4 or colors.shape[1] != 3 or colors.numel() == 0:
        raise ValueError(f'colors: expected (N, 3, H, W), not empty, but got {tuple(colors.shape)}')
    if not colors.is_floating_point():
        raise ValueError(f'colors: expected floating point in [0, 255], but got {colors.dtype}')
    shape = (colors.shape[0], *colors.shape[2:])
    if ids.shape != shape:
        raise ValueError(f'ids: expected {shape} as in colors, but got {tuple(ids.shape)}')
    if ids.is_floating_point() or ids.is_complex() or ids.dtype == torch.bool:
        raise ValueError(f'ids: expected an integer type, but got {ids.dtype}')
    if ids.device != colors.device:
        raise ValueError(f'ids: expected on {colors.device} as colors, but got {ids.device}')
    if formula not in ('reference', 'paper'):
        raise ValueError(f"formula: expected 'reference' or 'paper', but got {formula!r}")
    for name, value in (('max_instances', max_instances), ('tile_size', tile_size)):
        if value is not None and value < 1:
            raise ValueError(f'{name}: expected at least 1 or None, but got {value}')
    if ignore_background is None:
        return [False] * len(colors)
    ignored = torch.as_tensor(ignore_background)
    if ignored.dtype != torch.bool or ignored.shape != (len(colors),):
        raise ValueError(
            f'ignore_background: expected {len(colors)} bools, one per image, '
            f'but got {ignored.dtype} {tuple(ignored.shape)}'
        )
    return ignored.tolist()


def _group_pixels(ids: Tensor, ignored: list[bool], max_instances: int | None) -> _Segments:
    """Segments of a batch of id maps, (N, P) int64, without a sort over the pixels."""
    low, high = (int(value) for value in ids.aminmax())
    if low < 0:
        raise ValueError(
            f'ids: expected 0 (background) or positive ids, but got {low}; '
            'map pixels without a label to 0 and see ignore_background'
        )
    num_images = len(ids)
    if (high + 1) * num_images > torch.iinfo(torch.int64).max:
        ids = torch.unique(ids, return_inverse=True)[1] + int(low > 0)  # the order and 0 stay
        high = int(ids.max())
    images = torch.arange(num_images, device=ids.device)[:, None]
    # Neighbours mostly share an id, so sorting the runs of equal keys costs next to nothing.
    runs, run, lengths = torch.unique_consecutive(ids + images * (high + 1), return_inverse=True, return_counts=True)
    keys, segment = torch.unique(runs, return_inverse=True)
    index = segment.index_select(0, run.flatten()).view_as(ids)
    image = keys // (high + 1)
    foreground = keys % (high + 1) != 0

    has_background = torch.zeros(num_images, dtype=torch.bool, device=ids.device)
    has_background[image[~foreground]] = True
    ends = torch.bincount(image, minlength=num_images).cumsum(0).tolist()
    counted = torch.zeros_like(foreground)
    spans, instance_spans = [], []
    for start, end, background, skip in zip([0, *ends[:-1]], ends, has_background.tolist(), ignored, strict=True):
        first = start + (background and skip)
        last = end if max_instances is None else min(end, first + max_instances)
        counted[first:last] = True
        spans.append((first, last))
        instance_spans.append((min(start + background, last), last))
    size = torch.zeros_like(keys).index_add_(0, segment, lengths).double()
    return _Segments(index, size, image, foreground, counted, spans, instance_spans)


def _term_weights(segments: _Segments, shape: torch.Size, formula: str) -> tuple[Tensor, ...]:
    """Factors of the plain sums, float64: variance (S,), separation (S,), means (N,)."""
    num_images, channels, num_pixels = shape
    size = segments.size
    others = num_pixels - size
    num_terms = size.new_tensor([last - first for first, last in segments.spans])  # (N,)
    num_instances = size.new_tensor([last - first for first, last in segments.instance_spans])
    variance = segments.counted / size
    separation = (segments.foreground & segments.counted & (others > 0)) / (size.sqrt() * others.clamp(min=1))
    if formula == 'paper':
        means = 1 / (num_instances * (num_instances + 1)).clamp(min=1)
    else:
        divisor = num_terms.clamp(min=1)
        variance = variance / (channels * divisor[segments.image])
        separation = separation * REFERENCE_SEPARATION_FACTOR / divisor[segments.image]
        means = 1 / ((num_terms * (num_terms - 1) / 2).clamp(min=1) * divisor)
    return variance / num_images, separation / num_images, means / num_images


def _mean_repulsion(means: Tensor, segments: _Segments, weight: Tensor, tile_size: int | None) -> Tensor:
    """Closeness of the counted means of an image to one another, summed over the batch."""
    sums = []
    for first, last in segments.spans:
        centres = means[first:last]
        own, ones = torch.arange(len(centres), device=means.device), torch.ones_like(centres[:, 0])
        both_orders = InverseDistanceSum.apply(
            centres.T[None], centres, own[None], ones, [(0, len(centres))], tile_size
        )
        sums.append(both_orders / 2)
    return (torch.stack(sums) * weight).sum()


# What reads every pixel is one autograd function, so that the colours get one gradient and not the sum of three.

# A segment has this many partial sums, for neighbouring pixels to add to different addresses:
# a core need not wait for its last addition, nor a GPU's lanes for each other.
PARTIAL_SUMS = {'cpu': 8, 'cuda': 32}


class PixelTerms(torch.autograd.Function):
    """Means of the segments, variance around them and their closeness to the other pixels.

    With values (N, C, P) of the pixels, index (N, P) the segment of every pixel, and for the segments size,
    variance_weight and separation_weight, (S,) float64::

        mean_s      (S, C) float64; zero where s is not in foreground, (S,) bool
        variance    sum_s variance_weight_s sum_{j in s} h(value_j - mean_s), h Huber with delta 1,
                    summed over channels
        separation  sum_s separation_weight_s sum_{j of the image, not in s} 1/(1+|value_j-mean_s|^2)
                    over the segments first <= s < last, (first, last) = spans[image]

    All are float64; the gradient by the values has their type.
    """

    @staticmethod
    def forward(
        ctx: Any,
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
        ctx: Any, variance: Tensor | None, separation: Tensor | None, means: Tensor | None
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
