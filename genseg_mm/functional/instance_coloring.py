"""Instance-coloring loss of gen2seg (arXiv 2505.15263, Sec. 3.2): one uniform colour per instance.

Cost is instances x pixels, memory is not: the pairwise part runs in tiles that are thrown away.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from genseg_mm.functional.inverse_distance import InverseDistanceSum
from genseg_mm.functional.pixel_terms import PixelTerms

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

    With S_i the pixels of instance i, T_i all other pixels of the image, mu_i the mean colour (of
    the background: 0), n the number of instances, h the Huber loss with delta 1, an image scores ::

        variance    sum_i 1/|S_i| sum_{j in S_i} h(p_j - mu_i)         background included
        separation  sum_i 1/(sqrt|S_i| |T_i|) sum_{j in T_i} 1/(1 + |p_j - mu_i|^2)
        means       1/(n(n+1)) sum_{i<j} 1/(1 + |mu_i - mu_j|^2)       background included

    ``formula='paper'``: h is summed over channels; the loss is variance + separation_weight *
    separation + mean_weight * means. ``formula='reference'`` (the code that trained the released
    weights): h is averaged over channels, separation is ten times as large, means are an average
    over the pairs, and the image's sum is divided by its number of counted terms (instances, and
    the background unless ignored; at least 1), of which there are at most 1251. Both are averaged
    over the batch.

    An ignored background has no variance and no mean of its own, but its pixels stay in every T_i;
    the paper's normaliser stays n(n+1). A background without a pixel counts nowhere. Instances
    beyond ``max_instances`` have no terms, but their pixels stay in every T_i, too. An instance
    that fills its image has no separation. Gradients flow through the means; there is no double
    backward.

    Args:
        colors: Predicted colours, (N, 3, H, W), floating point, in [0, 255]. Computed in float32
            whatever autocast says; float64 stays.
        ids: Instance ids, (N, H, W), any integers >= 0, sparse or not; 0 is background.
        ignore_background: Per image, (N,) bool: True where the background is unlabelled (Virtual
            KITTI 2 labels cars only). None: nowhere.
        formula: 'reference' or 'paper'.
        separation_weight: Weight of the separation term.
        mean_weight: Weight of the means term.
        max_instances: Most counted terms of an image, in order of id (a counted background is one
            of them, the first). None: 1251 in the reference, no limit in the paper.
        tile_size: (instance, pixel) pairs computed at once. None: by device.
        compiled: Compute the pairs in a kernel of torch.compile, several times as fast, after some
            seconds of compilation in every process. Where it fails, a warning says so, and the
            loss goes on in tiles. tile_size has no say then.

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
