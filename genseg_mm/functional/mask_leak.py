"""How far from pure noise a mask shows through its own noise, and the width of the timestep law that follows.

GenMask predicts a mask from pure noise, where only text and picture tell which one. Away from it the noisy latents
``s data + (1 - s) noise``, s = 1 - sigma the distance from pure noise, show the mask itself, and a network may learn to
read it there in place of the text. What a reader without text and picture recovers of masks is the leak.

The reader here is the best linear one, in closed form. Close to pure noise none is better: the posterior mean of
anything is linear in the noisy latents there, to first order in s. Further away learnt readers are ahead of it.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from genseg_mm.functional.flow_matching import noisy_latents
from genseg_mm.functional.latent_statistics import best_threshold

# Distances from pure noise at which a leak is measured, 8 in a decade.
DISTANCES = tuple(float(f'{10 ** (power / 8):.3g}') for power in range(-32, 0))
# A mask leaks where a reader is that share of the way from what it guesses of pure noise to all of it.
TOLERANCE = 0.05
MAX_PIXELS = 4096  # of a mask that are read, evenly spread

Reader = Callable[[Tensor, float], Tensor]


class LinearReader(NamedTuple):
    """Best linear map from noisy latents to what it was fitted on, at any noise level.

    Attributes:
        latent_mean: (D,).
        basis: Orthonormal rows, (K, D): the directions in which clean latents vary.
        variances: Of clean latents along them, (K,).
        target_mean: (P,).
        covariances: Of targets and latents along the basis, (P, K).
    """

    latent_mean: Tensor
    basis: Tensor
    variances: Tensor
    target_mean: Tensor
    covariances: Tensor

    def __call__(self, noisy: Tensor, distance: float) -> Tensor:
        """Targets (n, P) from noisy latents (n, D) at a distance s from pure noise, in [0, 1)."""
        along = (noisy - distance * self.latent_mean) @ self.basis.T  # (n, K)
        gain = distance / (distance**2 * self.variances + (1 - distance) ** 2)
        return self.target_mean + (along * gain) @ self.covariances.T


def fit_linear_reader(latents: Tensor, targets: Tensor) -> LinearReader:
    """Fits the best linear reader.

    Args:
        latents: Clean, (n, D).
        targets: What is to be read off them, (n, P).

    Raises:
        ValueError: If there are fewer than two, or their numbers differ.
    """
    if len(latents) != len(targets) or len(latents) < 2:
        raise ValueError(f'expected as many targets as latents, at least 2, but got {len(targets)} and {len(latents)}')
    latents, targets = latents.double(), targets.double()
    mean, target_mean = latents.mean(0), targets.mean(0)
    centred = latents - mean
    # Two matrices have the same spectrum: the smaller one is taken.
    few = len(latents) < latents.shape[1]
    values, vectors = torch.linalg.eigh(centred @ centred.T if few else centred.T @ centred)
    kept = values > 1e-9 * values[-1].clamp(min=1e-30)
    vectors = vectors[:, kept]
    basis = (centred.T @ (vectors / values[kept].sqrt())).T if few else vectors.T  # (K, D)
    along = centred @ basis.T  # (n, K)
    covariances = (targets - target_mean).T @ along / len(latents)
    parts = mean, basis, along.square().mean(0), target_mean, covariances
    return LinearReader(*(part.float() for part in parts))


class MaskLeak(NamedTuple):
    """What a reader recovers of masks at some noise levels.

    Attributes:
        distances: From pure noise, s = 1 - sigma, rising.
        iou: Overall IoU at each, in [0, 1].
        floor: Overall IoU of what the same reader makes of pure noise.
    """

    distances: tuple[float, ...]
    iou: tuple[float, ...]
    floor: float

    def shares(self) -> list[float]:
        """How far each is on the way from the floor to overall IoU 1."""
        return [(iou - self.floor) / (1 - self.floor) if self.floor < 1 else 0.0 for iou in self.iou]

    def first_distance(self, tolerance: float = TOLERANCE) -> float:
        """Smallest distance from pure noise at which masks leak, between two measured ones on a log scale.

        Raises:
            ValueError: If they leak at all of them, or at none.
        """
        shares = self.shares()
        over = next((place for place, share in enumerate(shares) if share > tolerance), None)
        if over is None or over == 0:
            raise ValueError(
                f'expected a leak above {tolerance:g} somewhere between the distances {self.distances[0]:g} and '
                f'{self.distances[-1]:g} from pure noise, but got {shares[0]:.3f} at the first and {shares[-1]:.3f} at '
                'the last: no width of the timestep law follows from these masks'
            )
        low, high = shares[over - 1], shares[over]
        weight = (tolerance - low) / (high - low)
        ends = [math.log(self.distances[place]) for place in (over - 1, over)]
        return math.exp(ends[0] + weight * (ends[1] - ends[0]))


def held_out_iou(scores: Tensor, masks: Tensor) -> float:
    """Overall IoU of scores above a threshold; each half of the masks takes the best one of the other half.

    Args:
        scores: (n, P).
        masks: Bool, (n, P).
    """
    half = len(scores) // 2
    halves = slice(None, half), slice(half, None)
    common = union = 0.0
    for own, other in (halves, halves[::-1]):
        found = scores[own] > best_threshold(scores[other], masks[other])
        common += float((found & masks[own]).sum())
        union += float((found | masks[own]).sum())
    return common / union if union else 1.0


def leaks(
    reader: Reader, latents: Tensor, masks: Tensor, distances: Sequence[float] = (0.0, *DISTANCES), seed: int = 0
) -> Iterator[float]:
    """Overall IoU of what a reader recovers at each distance from pure noise, one after the other.

    Args:
        reader: ``(noisy latents (n, C, h, w), distance) -> scores (n, P)``, the higher the likelier in the mask.
        latents: Clean, of masks that the reader was not fitted on, (n, C, h, w), n at least 2.
        masks: Bool, (n, P).
        distances: In [0, 1); 0 is pure noise, the floor.
        seed: Of the noise, the same at all distances.
    """
    noise = torch.randn(latents.shape, generator=torch.Generator().manual_seed(seed)).to(latents)
    for distance in distances:
        sigma = torch.full((len(latents),), 1 - distance, dtype=torch.float64)
        noisy = noisy_latents(latents.double(), noise.double(), sigma.to(latents.device)).float()
        yield held_out_iou(reader(noisy, distance), masks)


def thinned(masks: Tensor) -> Tensor:
    """At most ``MAX_PIXELS`` pixels of each mask (N, H, W), evenly spread, (N, P)."""
    step = math.ceil((masks.shape[1] * masks.shape[2] / MAX_PIXELS) ** 0.5)
    return masks[:, ::step, ::step].flatten(1)


def encode_masks(encode: Callable[[Tensor], Tensor], masks: Tensor) -> Tensor:
    """Latents of masks (N, H, W) bool, drawn in white on black, float32.

    Args:
        encode: RGB in [-1, 1], (N, 3, H, W) -> latents, (N, C, h, w).
        masks: The masks.
    """
    white = masks.float() * 2 - 1
    return encode(white[:, None].expand(-1, 3, -1, -1)).float()


def linear_leak(latents: Tensor, masks: Tensor, until: float | None = None, seed: int = 0) -> MaskLeak:
    """The leak to the best linear reader of all latents of a mask together.

    Args:
        latents: Clean, (N, C, h, w), N at least 6: two thirds fit the reader, it is measured on the others.
        masks: Bool, (N, H, W).
        until: Nothing further away is measured once the leak is above this.
        seed: Of the noise.

    Raises:
        ValueError: If there are fewer than 6.
    """
    if len(masks) < 6:
        raise ValueError(f'expected at least 6 masks to measure a leak, but got {len(masks)}')
    num_fit = len(masks) * 2 // 3
    pixels = thinned(masks)
    linear = fit_linear_reader(latents[:num_fit].flatten(1), pixels[:num_fit])
    found = leaks(lambda noisy, distance: linear(noisy.flatten(1), distance), latents[num_fit:], pixels[num_fit:],
                  seed=seed)  # fmt: skip
    floor = next(found)
    iou: list[float] = []
    for value in found:
        iou.append(value)
        if until is not None and floor < 1 and (value - floor) / (1 - floor) > until:
            break
    return MaskLeak(DISTANCES[: len(iou)], tuple(iou), floor)


def long_tail_width(distance: float, leaked_share: float) -> float:
    """Width a of GenMask's long-tail law with at most a share of its draws beyond a distance from pure noise.

    P(s > distance) = a^2 / (a^2 + distance^2), and less where s > 1 is drawn again. Two significant digits, down.

    Args:
        distance: Positive.
        leaked_share: In (0, 1).

    Raises:
        ValueError: If an argument is out of range.
    """
    if not 0 < leaked_share < 1 or not distance > 0:
        raise ValueError(
            f'expected a positive distance and leaked_share in (0, 1), but got {distance} and {leaked_share}'
        )
    width = distance * math.sqrt(leaked_share / (1 - leaked_share))
    step = 10.0 ** (math.floor(math.log10(width)) - 1)
    return float(f'{math.floor(width / step + 1e-9) * step:.1e}')
