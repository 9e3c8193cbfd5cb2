"""One picture of a point-prompt metric: its sample, the points tried, the IoUs, and one row per prompt."""

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from genseg_mm.evaluation.sample_results import picture_names
from genseg_mm.finite import check_finite
from genseg_mm.functional.point_prompting import color_distances, query_colors
from genseg_mm.point_choices import as_points, deepest_pixel, picture_name, random_pixels, spread_pixels

# ---- what a point-prompt metric reads from a data sample, with the errors that say what is missing


class PointSample(NamedTuple):
    """One picture with K prompts."""

    picture: str
    colors: Tensor  # (3, H, W) float32
    ids: Tensor  # (H, W) int64
    points: Tensor  # (K, P, 2) float32; (K, 0, 2) where the sample has none
    point_ids: Tensor  # (K,); all ids of the map where the sample has none
    own_ids: np.ndarray  # (K,) int64
    areas: np.ndarray | None  # (K,) float64, nan where none is stated
    allowed: Tensor | None  # (H, W) bool


def read_sample(sample: Mapping[str, Any], needs_points: bool = True) -> PointSample:
    """Reads a data sample.

    Args:
        sample: A data sample as a dictionary.
        needs_points: Whether the pipeline's points are used.

    Raises:
        ValueError: If something is missing or has the wrong size.
    """
    where = sample.get('img_path') or f'sample {sample.get("sample_idx", "?")}'
    needed = [('gt_instance_map', 'LoadInstanceMap')]
    if needs_points:
        needed += [('points', 'PointPrompt'), ('point_ids', 'PointPrompt')]
    for key, cause in needed:
        if sample.get(key) is None:
            raise ValueError(
                f'PointPromptMetric expects {key}, but got a sample without ({where}); '
                f'add dict(type="genseg_mm.{cause}") to the test pipeline'
            )
    colors = _colors(sample, where)
    size = tuple(colors.shape[-2:])
    ids = sample['gt_instance_map']['data'][0].to(colors.device)
    if ids.shape != size:
        raise ValueError(
            'PointPromptMetric expects gt_instance_map of the original size '
            f'{size}, but got {tuple(ids.shape)} ({where}); '
            'load it after Resize in the test pipeline'
        )
    if sample.get('point_ids') is None:
        point_ids = ids[ids > 0].unique()
    else:
        point_ids = torch.as_tensor(sample['point_ids'], device=colors.device)
    num = len(point_ids)
    own_ids = sample.get('point_keys')
    own_ids = point_ids.cpu().numpy() if own_ids is None else np.asarray(own_ids)
    areas = sample.get('point_areas')
    points = torch.zeros(num, 0, 2, device=colors.device)
    if sample.get('points') is not None:
        points = torch.as_tensor(sample['points'], dtype=torch.float32, device=colors.device)
        points = points[:, None] if points.ndim == 2 else points
    for name, values in (('points', points), ('point_keys', own_ids), ('point_areas', areas)):
        if values is not None and len(values) != num:
            raise ValueError(
                f'PointPromptMetric expects one of {name} for each of the {num} point_ids, '
                f'but got {len(values)} ({where})'
            )
    allowed = sample.get('pred_foreground')
    allowed = None if allowed is None else allowed['data'][0].to(colors.device, torch.bool)
    if allowed is not None and allowed.shape != size:
        raise ValueError(
            f'PointPromptMetric expects pred_foreground of the size {size} of the colour map, '
            f'but got {tuple(allowed.shape)} ({where})'
        )
    return PointSample(
        picture_name(sample),
        colors,
        ids,
        points,
        point_ids,
        own_ids.astype(np.int64),
        None if areas is None else np.asarray(areas, np.float64),
        allowed,
    )


def masks_of_model(sample: Mapping[str, Any], settings: Mapping[str, Any]) -> Tensor | None:
    """The model's masks, (K, H, W) bool, if they are those of the sample's points by the settings.

    Gen2Seg writes into its ``pred_instances`` what they were prompted with: ``prompted``, a dictionary
    of ``points``, ``point_labels``, ``boxes`` and ``settings``.

    Args:
        sample: A data sample as a dictionary.
        settings: What :func:`genseg_mm.functional.point_prompting.prompt_settings` gives.

    Returns:
        None if the model made no masks, made other ones, or does not say.
    """
    instances = sample.get('pred_instances')
    said = None if instances is None else instances.get('prompted')
    if said is None or said['boxes'] is not None or said['settings'] != settings:
        return None
    masks = instances.get('masks')
    if not isinstance(masks, Tensor) or len(masks) != len(sample['point_ids']):
        return None
    for key in ('points', 'point_labels'):
        mine, theirs = sample.get(key), said[key]
        if (mine is None) != (theirs is None):
            return None
        if mine is not None and not np.array_equal(_array(mine), _array(theirs)):
            return None
    return masks


def _array(values: Any) -> np.ndarray:
    return np.asarray(values.cpu() if isinstance(values, Tensor) else values)


def _colors(sample: Mapping[str, Any], where: str) -> Tensor:
    prediction = sample.get('pred_color_map') or sample.get('seg_logits')
    if prediction is None or len(prediction['data']) != 3:
        came = 'neither' if prediction is None else f'{len(prediction["data"])} channels'
        raise ValueError(
            f'PointPromptMetric expects pred_color_map, or seg_logits of 3 channels, but got {came} ({where})'
        )
    colors = prediction['data'].float()
    check_finite(colors, 'colours', f'PointPromptMetric ({where})')
    return colors


BANDS = ('small', 'medium', 'large')
COCO_BOUNDS = (32**2, 96**2)  # areas; the bounds themselves are medium


class PromptTable(NamedTuple):
    """All instances of all pictures in the order of the dataset, one row each."""

    index: np.ndarray  # (N,) number of the picture
    subset: np.ndarray  # (N,) text
    band: np.ndarray  # (N,) text, one of BANDS
    own_id: np.ndarray  # (N,) int64
    ious: dict[str, np.ndarray]  # choice and map -> (N, R) float64

    @classmethod
    def of(
        cls, entries: Sequence[dict[str, Any]], names: Sequence[str], bounds: tuple[float, float] = COCO_BOUNDS
    ) -> 'PromptTable':
        """Puts the entries below one another; at least one is needed. The areas ``bounds`` part the bands."""
        counts = [len(entry['own_ids']) for entry in entries]
        subsets = np.array([entry['subset'] for entry in entries], dtype=object)
        return cls(
            index=np.repeat(np.arange(len(entries)), counts),
            subset=np.repeat(subsets, counts),
            band=size_band(np.concatenate([entry['areas'] for entry in entries]), bounds),
            own_id=np.concatenate([entry['own_ids'] for entry in entries]),
            ious=dict(zip(names, np.concatenate([entry['ious'] for entry in entries], axis=1), strict=True)),
        )

    def means(self, columns: Mapping[str, int], held_out: np.ndarray, size_bands: bool) -> dict[str, float]:
        """Mean IoU in percent by subset, and over all that is held out, for each map.

        The sums are rounded once (math.fsum), so that no order matters.

        Args:
            columns: The radius of each map.
            held_out: Rows of the overall means, (N,) bool.
            size_bands: Also the means of the small, medium and large instances.
        """
        bands = ('', *BANDS) if size_bands else ('',)
        metrics = {}
        for subset, rows in self._parts(held_out):
            for band in bands:
                chosen = rows if not band else rows & (self.band == band)
                if not chosen.any():
                    continue
                for name, ious in self.ious.items():
                    choice, _, kind = name.rpartition('/')
                    key = '_'.join(filter(None, (subset, choice, band, kind)))
                    metrics[key] = percent(ious[chosen, columns[name]])
        return metrics

    def _parts(self, held_out: np.ndarray) -> Iterator[tuple[str, np.ndarray]]:
        subsets = list(dict.fromkeys(self.subset.tolist()))
        for subset in subsets:
            yield subset, self.subset == subset
        if '' not in subsets and held_out.any():
            yield '', held_out


def percent(ious: np.ndarray) -> float:
    """100 times the mean of (N,), N above 0, rounded independently of the order."""
    return 100 * math.fsum(ious.tolist()) / len(ious)


def checked_bounds(size_bands: bool | Sequence[float]) -> tuple[float, float] | None:
    """The areas that part small, medium and large, for a metric's setting; None for no bands.

    Raises:
        ValueError: If it is neither True or False nor two positive sides in order.
    """
    if isinstance(size_bands, bool):
        return COCO_BOUNDS if size_bands else None
    is_pair = isinstance(size_bands, Sequence) and len(size_bands) == 2
    if (
        not is_pair
        or not all(isinstance(own, (int, float)) for own in size_bands)
        or not 0 < size_bands[0] < size_bands[1]
    ):
        raise ValueError(
            f'size_bands must be True, False or two sides in pixels, the smaller first, but got {size_bands!r}'
        )
    return size_bands[0] ** 2, size_bands[1] ** 2


def size_band(areas: np.ndarray, bounds: tuple[float, float] = COCO_BOUNDS) -> np.ndarray:
    """'small', 'medium' or 'large' for areas in pixels of the original picture."""
    low, high = bounds
    return np.array(BANDS, dtype=object)[(areas >= low).astype(int) + (areas > high)]


def write_prompts(
    path: str,
    entries: Sequence[dict[str, Any]],
    table: PromptTable,
    columns: Mapping[str, int],
    choices: Sequence[str],
    held_out: np.ndarray,
) -> None:
    """Writes one row per prompt, IoU of the model and of the controls where they were measured.

    Args:
        path: Of the file, see :class:`genseg_mm.evaluation.sample_results.SampleResults`.
        entries: One per picture.
        table: The entries as a table.
        columns: The radius of each map.
        choices: The point choices; the first one's rows come first.
        held_out: Rows to write, (N,) bool: a radius was not chosen on them.
    """
    from genseg_mm.evaluation.sample_results import SampleResults

    rows = np.flatnonzero(held_out)
    names = _item_names(entries, table, rows)
    items, values = [], {}
    for place, choice in enumerate(choices):
        items += [f'{name} {choice}' if place else name for name in names]
        prefix = '' if place == 0 else f'{choice}/'
        for name in table.ious:
            head, _, kind = name.rpartition('/')
            if prefix == (f'{head}/' if head else ''):
                column = 'iou' if kind == 'mIoU' else kind
                values.setdefault(column, []).append(table.ious[name][rows, columns[name]])
    num = len(choices)
    SampleResults(
        items=items,
        index=np.tile(table.index[rows], num),
        values={key: np.concatenate(parts) for key, parts in values.items()},
        groups=dict(
            subset=table.subset[rows].tolist() * num,
            size=table.band[rows].tolist() * num,
            choice=[choice for choice in choices for _ in rows],
        ),
        aggregates={'mIoU' if num == 1 else 'mIoU_of_all_choices': ('mean', 'iou')},
    ).save(path)


def _item_names(entries: Sequence[dict], table: PromptTable, rows: np.ndarray) -> list[str]:
    """'subset/picture#id 3'."""
    numbers, place = np.unique(table.index[rows], return_inverse=True)
    names = picture_names([entries[number] for number in numbers.tolist()])
    ids = table.own_id[rows].tolist()
    return [f'{names[own]}#id {number}' for own, number in zip(place.tolist(), ids, strict=True)]


# ---- IoU of masks with the instances that were prompted, by counting as few pixels as possible


def mask_ious(masks: Tensor, truth: list[Tensor], allowed: Tensor | None = None) -> np.ndarray:
    """IoU of masks with instances.

    Args:
        masks: (K, H, W) bool.
        truth: Flat places of the pixels of each mask's instance, K tensors.
        allowed: Pixels that a mask may have, (H, W) bool; what lies outside is cut off.

    Returns:
        (K,) float64; 0 where mask and instance are empty.
    """
    ious = np.zeros(len(masks))
    for row, (mask, pixels) in enumerate(zip(masks, truth, strict=True)):
        mask = (mask if allowed is None else mask & allowed).flatten()
        ious[row] = _iou(_count(mask), _count(mask[pixels]), len(pixels))
    return ious


def radius_ious(
    colors: Tensor, points: Tensor, truth: list[Tensor], radii: Tensor, sigma: float, allowed: Tensor | None = None
) -> np.ndarray:
    """IoU of the masks of colours nearer than each radius to the colour at a prompt's points.

    Args:
        colors: (3, H, W) float32.
        points: (K, P, 2) as (x, y); the nearest of a prompt's P colours counts.
        truth: As in :func:`mask_ious`.
        radii: (R,) float32, on the map's device or a CPU.
        sigma: Of the Gaussian around a point; 0 takes the colour of the nearest pixel.
        allowed: As in :func:`mask_ious`.

    Returns:
        (K, R) float64.
    """
    num_prompts, num_points = points.shape[:2]
    ious = np.zeros((num_prompts, len(radii)))
    if num_prompts == 0:
        return ious
    queries = _queries(colors, points.reshape(-1, 2), sigma).unflatten(0, (num_prompts, num_points))
    for row, (query, pixels) in enumerate(zip(queries, truth, strict=True)):
        # One prompt at a time: its distances stay in the processor's cache for all radii.
        distances = color_distances(colors, query)
        distances = distances[0] if num_points == 1 else distances.amin(0)
        if allowed is not None:
            distances = distances.masked_fill(~allowed, torch.inf)
        distances = distances.flatten()
        areas = _counts_below(distances, radii)
        overlaps = _counts_below(distances[pixels], radii)
        ious[row] = [_iou(area, overlap, len(pixels)) for area, overlap in zip(areas, overlaps, strict=True)]
    return ious


def _counts_below(numbers: Tensor, bounds: Tensor) -> list[int]:
    """How many of (N,) float32 numbers are below each of (R,) float32 bounds."""
    if numbers.device.type != 'cpu':
        return [int((numbers < bound).count_nonzero()) for bound in bounds]
    plain = numbers.numpy()  # on a CPU, numpy compares and counts ten times faster than torch
    below = np.empty(plain.shape, bool)
    return [int(np.count_nonzero(np.less(plain, bound, out=below))) for bound in bounds.numpy()]


def truth_pixels(ids: Tensor, point_ids: Tensor) -> list[Tensor]:
    """Flat places of the pixels of each instance, K tensors; ids (H, W), point_ids (K,)."""
    flat = ids.flatten()
    if flat.device.type != 'cpu':
        return [(flat == own).nonzero()[:, 0] for own in point_ids]
    flat = flat.numpy()  # its search is some ten times faster than torch's
    return [torch.from_numpy(np.flatnonzero(flat == own)) for own in point_ids.tolist()]


def num_without_prompt(ids: Tensor, point_ids: Tensor) -> int:
    """Number of ids above 0 in a map, (H, W), that are not among the prompted ones, (K,)."""
    flat = ids.flatten()
    if flat.numel() and flat.min() >= 0 and flat.max() <= flat.numel():
        present = flat.bincount().nonzero()[:, 0]  # far faster than to sort all pixels
    else:
        present = flat.unique()
    return int((~torch.isin(present[present > 0], point_ids)).sum())


def _queries(colors: Tensor, points: Tensor, sigma: float) -> Tensor:
    if sigma > 0:
        return query_colors(colors, points, sigma)
    height, width = colors.shape[-2:]
    columns = points[:, 0].round().long().clamp(0, width - 1)
    rows = points[:, 1].round().long().clamp(0, height - 1)
    return colors[:, rows, columns].T


def _count(mask: Tensor) -> int:
    if mask.device.type == 'cpu':
        return int(np.count_nonzero(mask.numpy()))
    return int(mask.count_nonzero())


def _iou(area: int, overlap: int, true_area: int) -> float:
    return overlap / max(area + true_area - overlap, 1)


# ---- the points that a metric prompts with: the pipeline's, or those it draws itself

CHOICES = ('given', 'random', 'deepest', 'all')


class Prompts(NamedTuple):
    """Q prompts of P points for K instances."""

    points: Tensor  # (Q, P, 2) float32, (x, y)
    labels: Tensor | None  # (Q, P)
    owners: np.ndarray | None  # (Q,) instance of each prompt, ascending; None: one prompt each


def check_choices(point_choice: str | Sequence[str]) -> tuple[str, ...]:
    """One or several choices as a tuple, or a ValueError."""
    choices = (point_choice,) if isinstance(point_choice, str) else tuple(point_choice)
    if not choices or len(set(choices)) < len(choices) or not set(choices) <= set(CHOICES):
        raise ValueError(f'point_choice must be one or several of {CHOICES}, each once, but got {point_choice!r}')
    return choices


def choose_points(
    choice: str, data_sample: Mapping, sample: PointSample, truth: list[Tensor], seed: int, num_all: int
) -> Prompts:
    """The prompts of a sample's instances.

    Args:
        choice: One of ``CHOICES``.
        data_sample: For the labels of the pipeline's points.
        sample: What was read from it.
        truth: Flat places of the pixels of each instance, K tensors.
        seed: Of the random choice.
        num_all: Largest number of points of an instance in the choice 'all'.

    Raises:
        ValueError: If a point is to be drawn in an instance without pixels.
    """
    if choice == 'given':
        labels = data_sample.get('point_labels')
        labels = None if labels is None else torch.as_tensor(labels).to(sample.points.device)
        return Prompts(sample.points, labels, None)
    picture, width = sample.picture, sample.ids.shape[1]
    places, owners = [], []
    for row, (pixels, own) in enumerate(zip(truth, sample.own_ids.tolist(), strict=True)):
        pixels = pixels.cpu().numpy()
        if not len(pixels):
            raise ValueError(
                f'{picture}: expected every one of point_ids in gt_instance_map, but the instance {own} has no pixel '
                f'to draw the point choice {choice!r} from'
            )
        if choice == 'deepest':
            drawn = [deepest_pixel(pixels, width)]
        elif choice == 'random':
            drawn = random_pixels(pixels, 1, seed, picture, own)
        else:
            drawn = spread_pixels(pixels, width, num_all)
        places.extend(drawn)
        owners.extend([row] * len(drawn))
    points = torch.from_numpy(as_points(np.asarray(places, np.int64), width))[:, None]
    return Prompts(points.to(sample.points.device), None, np.asarray(owners) if choice == 'all' else None)


def mean_of_owners(ious: np.ndarray, owners: np.ndarray | None, num: int) -> np.ndarray:
    """Means of an instance's prompts, (Q, R) -> (num, R), rounded correctly."""
    if owners is None:
        return ious
    means = np.zeros((num, ious.shape[1]))
    for row in range(num):
        own = ious[owners == row]
        means[row] = [math.fsum(column) / len(own) for column in own.T.tolist()]
    return means
