"""Prompts and automatic instances on colour maps: what every model that gives a colour map shares."""

import inspect
from typing import Any

import torch
from mmengine.structures import InstanceData
from torch import Tensor

from genseg_mm.functional.color_grouping import group_colors, instance_scores
from genseg_mm.functional.point_prompting import check_color_map, masks_from_points, prompt_settings
from genseg_mm.functional.similarity_masks import LARGE, any_along, lengths, true_places


class MapPrompting:
    """The part of a model that reads instances off a colour map.

    Attributes:
        prompting: Settings of :func:`genseg_mm.functional.point_prompting.masks_from_points`.
        automatic: Settings of :func:`automatic_instances`; None: samples without prompts get no instances.
    """

    prompting: dict[str, Any]
    automatic: dict[str, Any] | None

    def prompt(
        self, colors: Tensor, points: Any = None, point_labels: Any = None, boxes: Any = None, **prompting: Any
    ) -> InstanceData:
        """Masks of one colour map for points, boxes or both.

        Args:
            colors: Colours in [0, 255], (3, H, W).
            points: (K, P, 2) or (K, 2) as (x, y) in pixels of the map; array or tensor.
            point_labels: (K, P), 1 positive, 0 negative, -1 no point; all positive by default.
            boxes: (K, 4) xyxy in pixels of the map, right and bottom exclusive.
            prompting: Settings of
                :func:`genseg_mm.functional.point_prompting.masks_from_points` that replace those of
                the model.

        Returns:
            ``masks`` (K, H, W) bool, ``scores`` (K,) in [0, 1]: 1 / (1 + d) with d the mean
            distance of a mask's colours to their mean, 0 for an empty mask; ``labels`` (K,) zeros;
            ``bboxes`` (K, 4) xyxy. The metainfo ``prompted`` holds the prompts and all settings, so
            that a metric need not make the same masks again.

        Raises:
            ValueError: If a prompt or setting is wrong.
        """

        def tensor(values: Any, dtype: torch.dtype | None = None) -> Tensor | None:
            return None if values is None else torch.as_tensor(values, dtype=dtype).to(colors.device)

        settings = prompt_settings(**{**self.prompting, **prompting})
        masks = masks_from_points(
            colors, tensor(points, torch.float32), tensor(point_labels), tensor(boxes, torch.float32), **settings
        )
        instances = as_instances(masks, flatness(colors, masks))
        prompts = dict(points=points, point_labels=point_labels, boxes=boxes)
        instances.set_metainfo(dict(prompted=dict(prompts, settings=settings)))
        return instances

    def automatic_instances(self, colors: Tensor, size: tuple[int, int] | None = None, **settings: Any) -> InstanceData:
        """Instances of one colour map without prompts.

        Args:
            colors: Colours in [0, 255], (3, h, w); best as the network gave them, because ``min_area`` and edges are
                measured in pixels of this map.
            size: (H, W) that the masks are brought to; None: the map's own.
            settings: Of the function :func:`automatic_instances`; they replace those of the model.

        Returns:
            ``masks`` (K, H, W) bool, ``scores`` (K,) in [0, 1), descending, ``labels`` (K,) zeros,
            ``bboxes`` (K, 4) xyxy.

        Raises:
            ValueError: If a setting is wrong.
        """
        settings = settings_of({**(self.automatic or {}), **settings})
        return automatic_instances(colors, size=size, **settings)


@torch.no_grad()
def automatic_instances(
    color_map: Tensor,
    background: float = 30.0,
    bandwidth: float = 12.0,
    min_area: int = 20,
    min_flatness: float = 0.1,
    split_components: bool = True,
    max_instances: int = 100,
    size: tuple[int, int] | None = None,
) -> InstanceData:
    """Groups a colour map into instances, the most certain first.

    The defaults were chosen on the tiny UNet's maps of 64 x 64 pixels by class-agnostic AP. A map
    at 480 x 640 whose colours are noisier may want a larger bandwidth, and a larger smallest area.

    Args:
        color_map: (3, H, W), uint8 or floating point, finite, in [0, 255].
        background: Largest distance to black of the background.
        bandwidth: Of the mean shift, in units of colour; see
            :func:`genseg_mm.functional.color_grouping.group_colors`.
        min_area: Smallest connected part, in pixels; smaller ones are dropped.
        min_flatness: Smallest share of flat pixels of a part, about; what is all edge, as the seams
            between instances are, is dropped.
        split_components: Every connected part is an instance; otherwise every colour is one, in
            however many parts.
        max_instances: The number of instances to keep, by score.
        size: (height, width) that the masks are brought to, each pixel as the map's nearest; None: the map's own.

    Returns:
        ``masks`` (K, H, W) bool, which do not overlap; ``scores`` (K,) in [0, 1), descending, see
        :func:`genseg_mm.functional.color_grouping.instance_scores`; ``labels`` (K,) zeros;
        ``bboxes`` (K, 4) xyxy.

    Raises:
        ValueError: If the map is not one, or a setting is out of range.
    """
    if not max_instances >= 1:
        raise ValueError(f'max_instances: expected at least 1, but got {max_instances}')
    color_map = check_color_map(color_map)
    ids = group_colors(color_map, background, bandwidth, min_area, min_flatness, split_components)
    scores, order = instance_scores(color_map, ids).sort(descending=True, stable=True)
    masks = ids == order[:max_instances, None, None] + 1
    if size is not None and tuple(size) != tuple(ids.shape):
        rows, columns = (
            ((torch.arange(new, device=ids.device) + 0.5) * (old / new)).long().clamp(max=old - 1)
            for new, old in zip(size, ids.shape, strict=True)
        )
        masks = masks[:, rows][:, :, columns]
    return as_instances(masks, scores[:max_instances])


def as_instances(masks: Tensor, scores: Tensor) -> InstanceData:
    """Masks, (K, H, W) bool, and scores with the labels (zeros, called 'object') and boxes that mmdet expects."""
    return InstanceData(
        masks=masks,
        scores=scores,
        labels=torch.zeros(len(masks), dtype=torch.long, device=masks.device),
        bboxes=boxes_of(masks),
        label_names=['object'] * len(masks),  # mmdet's visualiser writes these
    )


def flatness(colors: Tensor, masks: Tensor) -> Tensor:
    """How flat the colour of each mask is: 1 / (1 + mean distance to the mean colour).

    An empty mask scores 0.

    Args:
        colors: Colours in [0, 255], (3, H, W).
        masks: (K, H, W) bool.

    Returns:
        (K,) in [0, 1].
    """
    masks, pixels = masks.flatten(1), colors.flatten(1)  # (K, H W), (3, H W)
    scores = colors.new_zeros(len(masks))
    for number, mask in enumerate(masks):
        scores[number] = _mask_flatness(pixels, mask)
    return scores


def _mask_flatness(pixels: Tensor, mask: Tensor) -> Tensor | float:
    """As :func:`flatness` of one mask, (H W), band by band, so that memory does not grow with the mask."""
    held = []
    for pixel, inside in zip(pixels.split(LARGE, 1), mask.split(LARGE), strict=True):
        places = true_places(inside)
        held.append([channel.index_select(0, places) for channel in pixel])
    area = sum(len(channels[0]) for channels in held)
    if not area:
        return 0.0
    mean = sum(torch.stack([channel.sum(dtype=torch.float64) for channel in channels]) for channels in held) / area
    spread = sum(
        lengths([channel.double() - own for channel, own in zip(channels, mean, strict=True)]).sum()
        for channels in held
    )
    return 1 / (1 + spread / area)


def boxes_of(masks: Tensor) -> Tensor:
    """Tight boxes of (K, H, W) bool masks, (K, 4) xyxy, right and bottom exclusive.

    An empty mask has a box of zeros.
    """
    (left, right), (top, bottom) = _extent(any_along(masks, 1)), _extent(any_along(masks, 2))
    return torch.stack([left, top, right, bottom], 1).float()


def _extent(held: Tensor) -> tuple[Tensor, Tensor]:
    """First and one past the last true place of every row of (K, N) bool; zeros without any."""
    places = torch.arange(held.shape[1], device=held.device)
    end = torch.where(held, places + 1, 0).amax(1)
    start = torch.where(held, places, held.shape[1]).amin(1)
    return torch.minimum(start, end), end


def settings_of(automatic: Any) -> dict[str, Any] | None:
    """The settings in a config's ``automatic``: a dict, True for the defaults, None for none.

    Raises:
        ValueError: If it is something else, or names a setting that does not exist.
    """
    if automatic is None or automatic is False:
        return None
    if automatic is not True and not isinstance(automatic, dict):
        raise ValueError(f'automatic: expected settings, True or None, but got {automatic!r}')
    settings = {} if automatic is True else dict(automatic)
    parameters = inspect.signature(automatic_instances).parameters
    known = [name for name in parameters if name not in ('color_map', 'size')]  # a call's own
    unknown = sorted(set(settings) - set(known))
    if unknown:
        raise ValueError(f'automatic: expected settings out of {", ".join(known)}, but got {", ".join(unknown)}')
    return settings
