"""The points that a metric prompts with: the pipeline's, or those it draws itself."""

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from genseg_mm.evaluation.point_prompts.point_prompt_samples import PointSample
from genseg_mm.point_choices import as_points, deepest_pixel, random_pixels, spread_pixels

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
