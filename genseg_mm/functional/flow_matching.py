"""Rectified-flow path of GenMask; the direction of sigma is stated here once.

``noisy = (1 - sigma) * data + sigma * noise``: sigma 0 is clean data, sigma 1 is pure noise, as in diffusers. The
velocity is d noisy / d sigma = ``noise - data``, so from pure noise one step gives ``data = noise - velocity``. (The
paper writes the opposite sign, x = eps + v.)

What stands at sigma 1 need not be noise. From the latents of an image to those of its mask (FlowRVS, arXiv 2510.06139;
RLFSeg, arXiv 2605.04590) the equations are the same with the image's latents for ``noise``: velocity = image - mask,
and one step from the image gives the mask without a random number.
"""

from collections.abc import Callable
from itertools import pairwise

import torch
from torch import Tensor


def _per_sample(sigma: Tensor, like: Tensor) -> Tensor:
    """Reshapes (N,) noise levels so that they multiply (N, ...) latents; keeps float32 or better."""
    if sigma.ndim != 1 or sigma.shape[0] != like.shape[0]:
        raise ValueError(
            f'sigma must be one noise level per sample, shape ({like.shape[0]},), but got shape {tuple(sigma.shape)}'
        )
    return sigma.reshape(-1, *[1] * (like.ndim - 1))


def noisy_latents(data: Tensor, noise: Tensor, sigma: Tensor) -> Tensor:
    """Point on the straight path from data to noise (GenMask, Eq. 1).

    Args:
        data: Clean latents, (N, C, H, W), standardised.
        noise: Standard normal, or whatever else the path starts from, same shape.
        sigma: Noise level per sample, (N,), in [0, 1]; 0 is clean.

    Returns:
        Latents, (N, C, H, W).

    Raises:
        ValueError: If sigma leaves [0, 1] or shapes disagree.
    """
    if data.shape != noise.shape:
        raise ValueError(f'noise must have the shape of data, {tuple(data.shape)}, but got {tuple(noise.shape)}')
    low, high = sigma.aminmax()
    if not (low >= 0 and high <= 1):
        raise ValueError(f'sigma must lie in [0, 1], but got [{low:.4g}, {high:.4g}]')
    sigma = _per_sample(sigma, data)
    return (1 - sigma) * data + sigma * noise


def velocity_target(data: Tensor, noise: Tensor) -> Tensor:
    """Velocity of the path, ``noise - data`` (GenMask, Eq. 2 up to sign), same shape as both."""
    return noise - data


def data_from_velocity(noisy: Tensor, velocity: Tensor, sigma: Tensor) -> Tensor:
    """Estimate of the clean latents, ``noisy - sigma * velocity``; exact for the true velocity.

    Args:
        noisy: Latents on the path, (N, C, H, W).
        velocity: Predicted velocity, same shape.
        sigma: Noise level per sample, (N,), in [0, 1].

    Returns:
        Latents, (N, C, H, W).
    """
    return noisy - _per_sample(sigma, noisy) * velocity


def guided_velocity(conditional: Tensor, unconditional: Tensor, scale: float) -> Tensor:
    """Classifier-free guidance, ``unconditional + scale * (conditional - unconditional)``.

    As diffusers and the released DiTs count it (Ho and Salimans, arXiv 2207.12598, Eq. 6 with w = scale - 1): 1 is the
    conditional velocity alone, 0 the unconditional one.

    Args:
        conditional: Velocity under the prompt, (N, C, H, W).
        unconditional: Velocity under the empty or negative prompt, same shape.
        scale: Guidance scale.

    Returns:
        Velocity, (N, C, H, W).
    """
    return unconditional + scale * (conditional - unconditional)


def sigma_schedule(num_steps: int, shift: float = 1.0) -> Tensor:
    """Noise levels that the steps of :func:`euler_solve` start from and end at.

    Equal steps from 1 to 0, moved by ``sigma -> shift * sigma / (1 + (shift - 1) * sigma)`` (Stable Diffusion 3, arXiv
    2403.03206, Eq. 23): a shift above 1 spends more steps near pure noise, as large pictures need.

    Args:
        num_steps: Number of steps S, at least 1.
        shift: Above 0; 1 keeps the steps equal.

    Returns:
        Noise levels, (S + 1,) float32, falling from 1 to 0.

    Raises:
        ValueError: If an argument is out of range.
    """
    if not isinstance(num_steps, int) or num_steps < 1:
        raise ValueError(f'num_steps must be a whole number of at least 1, but got {num_steps!r}')
    if not 0 < shift < float('inf'):
        raise ValueError(f'shift must be above 0, but got {shift}')
    sigmas = torch.linspace(1, 0, num_steps + 1, dtype=torch.float32)
    return shift * sigmas / (1 + (shift - 1) * sigmas)


def euler_solve(
    velocity_fn: Callable[[Tensor, Tensor], Tensor], noise: Tensor, num_steps: int = 1, shift: float = 1.0
) -> Tensor:
    """Integrates from pure noise (sigma 1) to data (sigma 0) in Euler steps.

    One step is GenMask's inference: ``noise - velocity(noise, 1)``.

    Args:
        velocity_fn: ``(noisy (N, C, H, W), sigma (N,) float32) -> velocity (N, C, H, W)``.
        noise: Standard normal, or whatever else the path starts from, (N, C, H, W).
        num_steps: Number of steps, at least 1.
        shift: Of the noise levels, see :func:`sigma_schedule`; 1 makes equal steps.

    Returns:
        Latents, (N, C, H, W).

    Raises:
        ValueError: If num_steps or shift is out of range.
    """
    sigmas = sigma_schedule(num_steps, shift).to(noise.device)
    latents = noise
    for sigma, next_sigma in pairwise(sigmas):
        velocity = velocity_fn(latents, sigma.expand(noise.shape[0]))
        latents = latents - (sigma - next_sigma) * velocity
    return latents
