"""Identities of the straight path, in float64."""

import pytest
import torch

from genseg_mm.functional.flow_matching import (
    data_from_velocity,
    euler_solve,
    guided_velocity,
    noisy_latents,
    sigma_schedule,
    velocity_target,
)


@pytest.fixture
def pair():
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(3, 2, 4, 4, generator=generator, dtype=torch.float64) for _ in range(2)]


def test_path_ends_at_data_and_noise(pair):
    data, noise = pair
    torch.testing.assert_close(noisy_latents(data, noise, torch.zeros(3)), data, rtol=0, atol=0)
    torch.testing.assert_close(noisy_latents(data, noise, torch.ones(3)), noise, rtol=0, atol=0)


def test_path_by_hand():
    data, noise = torch.full((1, 1, 1, 1), 2.0), torch.full((1, 1, 1, 1), -1.0)
    noisy = noisy_latents(data, noise, torch.tensor([0.25]))
    assert noisy.item() == 0.75 * 2 - 0.25
    assert velocity_target(data, noise).item() == -3.0  # noise - data: points to the noise


def test_velocity_is_the_derivative_by_sigma(pair):
    data, noise = pair
    sigma = torch.tensor([0.2, 0.5, 0.7], dtype=torch.float64)
    step = 1e-6
    slope = (noisy_latents(data, noise, sigma + step) - noisy_latents(data, noise, sigma)) / step
    torch.testing.assert_close(slope, velocity_target(data, noise), rtol=0, atol=1e-8)


@pytest.mark.parametrize('num_steps', [1, 2, 7])
def test_exact_velocity_gives_the_data_back(pair, num_steps):
    data, noise = pair
    solved = euler_solve(lambda noisy, sigma: velocity_target(data, noise), noise, num_steps)
    torch.testing.assert_close(solved, data, rtol=0, atol=1e-6 if num_steps > 1 else 1e-12)
    sigma = torch.tensor([0.1, 0.5, 1.0], dtype=torch.float64)
    noisy = noisy_latents(data, noise, sigma)
    estimate = data_from_velocity(noisy, velocity_target(data, noise), sigma)
    torch.testing.assert_close(estimate, data, rtol=0, atol=1e-12)


def test_euler_calls_at_falling_sigma_from_pure_noise():
    seen = []

    def velocity_fn(noisy, sigma):
        seen.append(sigma.tolist())
        return torch.zeros_like(noisy)

    euler_solve(velocity_fn, torch.zeros(2, 1, 1, 1), 4)
    assert seen == [[1.0, 1.0], [0.75, 0.75], [0.5, 0.5], [0.25, 0.25]]


def test_wrong_input_says_what_came(pair):
    data, noise = pair
    with pytest.raises(ValueError, match=r'\[0, 1\], but got \[0.5, 1.5\]'):
        noisy_latents(data, noise, torch.tensor([0.5, 1.5, 1.0]))
    with pytest.raises(ValueError, match=r'shape \(3,\), but got shape \(2,\)'):
        noisy_latents(data, noise, torch.tensor([0.5, 1.0]))
    with pytest.raises(ValueError, match='at least 1, but got 0'):
        euler_solve(lambda noisy, sigma: noisy, noise, 0)


@pytest.mark.parametrize('num_steps', [1, 3, 28])
@pytest.mark.parametrize('shift', [1.0, 3.0])
def test_constant_velocity_is_solved_exactly_whatever_the_steps(num_steps, shift):
    noise = torch.tensor([1.0, -2.0]).reshape(2, 1, 1, 1)
    solved = euler_solve(lambda noisy, sigma: torch.full_like(noisy, 0.75), noise, num_steps, shift)
    torch.testing.assert_close(solved.flatten(), torch.tensor([0.25, -2.75]), rtol=0, atol=5e-6)


def test_euler_by_hand_on_a_velocity_that_depends_on_both():
    # v = noisy + sigma from 1: two equal steps 1 - 0.5 * (1 + 1) = 0, then 0 - 0.5 * (0 + 0.5) = -0.25.
    def velocity_fn(noisy, sigma):
        return noisy + sigma.reshape(-1, 1, 1, 1)

    assert euler_solve(velocity_fn, torch.ones(1, 1, 1, 1), 2).item() == -0.25
    # Shift 3 moves 0.5 to 0.75: 1 - 0.25 * 2 = 0.5, then 0.5 - 0.75 * (0.5 + 0.75) = -0.4375.
    assert euler_solve(velocity_fn, torch.ones(1, 1, 1, 1), 2, shift=3.0).item() == -0.4375


def test_schedule_by_hand():
    assert sigma_schedule(4).tolist() == [1.0, 0.75, 0.5, 0.25, 0.0]
    # 3 s / (1 + 2 s): 0.75 -> 0.9, 0.5 -> 0.75, 0.25 -> 0.5
    expected = torch.tensor([1.0, 0.9, 0.75, 0.5, 0.0])
    torch.testing.assert_close(sigma_schedule(4, shift=3.0), expected, rtol=0, atol=1e-7)
    for num_steps in (0, -1, 2.0):
        with pytest.raises(ValueError, match=f'at least 1, but got {num_steps}'):
            sigma_schedule(num_steps)
    for shift in (0.0, -1.0, float('nan'), float('inf')):
        with pytest.raises(ValueError, match=f'shift must be above 0, but got {shift}'):
            sigma_schedule(2, shift)


def test_guidance_by_hand():
    conditional, unconditional = torch.tensor([2.0, -1.0]), torch.tensor([1.0, 1.0])
    guided = [guided_velocity(conditional, unconditional, scale).tolist() for scale in (0, 1, 5)]
    assert guided == [[1.0, 1.0], [2.0, -1.0], [6.0, -9.0]]


def test_a_path_from_an_image_is_the_same_path_without_chance():
    """Image in the place of noise: the ends, the velocity image - mask, and one step or several to the mask."""
    mask, image = torch.full((1, 2, 4, 4), -1.0, dtype=torch.float64), torch.rand(1, 2, 4, 4, dtype=torch.float64)
    sigma = torch.tensor([1.0], dtype=torch.float64)
    assert torch.equal(noisy_latents(mask, image, sigma), image) and torch.equal(
        noisy_latents(mask, image, 0 * sigma), mask
    )
    assert torch.equal(velocity_target(mask, image), image - mask)
    for num_steps in (1, 4):
        solved = euler_solve(lambda noisy, sigma: image - mask, image, num_steps)
        torch.testing.assert_close(solved, mask, rtol=0, atol=1e-12)
