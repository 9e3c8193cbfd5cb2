"""Parts of ``GenMask.generate``: classifier-free guidance in one forward pass, checks, pictures as bytes."""

from collections.abc import Callable, Sequence
from numbers import Real

import torch
from torch import Tensor, nn

from genseg_mm.files import check_texts
from genseg_mm.functional.flow_matching import guided_velocity
from genseg_mm.models.prompt_encoders import PromptEmbeddings
from genseg_mm.network_sizes import check_network_size

SETTINGS = ('image_size', 'num_steps', 'guidance_scale', 'negative_text', 'shift')


def guided_velocity_fn(
    backbone: nn.Module, prompt: PromptEmbeddings, guidance_scale: float
) -> Callable[[Tensor, Tensor], Tensor]:
    """Velocity of pictures under guidance, one forward pass per call.

    Args:
        backbone: A ``DiTBackbone``.
        prompt: Of N texts; with guidance 2 N, their negative prompts after them.
        guidance_scale: See :func:`guided_velocity`; at least 0. 1 is no guidance, and takes N prompts.

    Returns:
        ``(noisy (N, C, h, w), sigma (N,)) -> velocity (N, C, h, w)``.

    Raises:
        ValueError: If guidance_scale is negative or not finite.
    """
    check_guidance(guidance_scale)

    def velocity_fn(noisy: Tensor, sigma: Tensor) -> Tensor:
        if guidance_scale == 1:
            return backbone(noisy, sigma, prompt)
        both = backbone(noisy.repeat(2, 1, 1, 1), sigma.repeat(2), prompt)  # (2N, C, h, w)
        return guided_velocity(*both.chunk(2), guidance_scale)

    return velocity_fn


def check_guidance(guidance_scale: float) -> None:
    """Raises ValueError if the scale is no number, negative or not finite."""
    if not isinstance(guidance_scale, Real) or not 0 <= guidance_scale < float('inf'):
        raise ValueError(f'guidance_scale must be a number of at least 0, but got {guidance_scale!r}')


def latent_size(image_size: Sequence[int], downsample: int, patch_size: tuple[int, int]) -> tuple[int, int]:
    """Height and width of the latents of a picture.

    Args:
        image_size: Height and width in pixels.
        downsample: Pixels per latent cell along one side.
        patch_size: Latent cells per token.

    Raises:
        ValueError: If a side is no multiple of a token's pixels, or the size beyond every picture's.
    """
    factors = [downsample * side for side in patch_size]
    sides = tuple(image_size) if isinstance(image_size, Sequence) else ()
    if len(sides) != 2 or any(
        not isinstance(side, int) or side < 1 or side % factor for side, factor in zip(sides, factors, strict=True)
    ):
        raise ValueError(
            f'image_size must be (height, width), multiples of {factors[0]} and {factors[1]} pixels for this model, '
            f'but got {image_size!r}'
        )
    check_network_size(*sides)
    return tuple(side // downsample for side in sides)


def checked_texts(texts: Sequence[str]) -> list[str]:
    """Texts as a list; ValueError if they are no list of at least one string."""
    is_list = isinstance(texts, (list, tuple)) and len(texts) > 0
    if not is_list or not all(isinstance(text, str) for text in texts):
        raise ValueError(f'generation needs texts, a list of at least one string, but got {texts!r}')
    check_texts(texts, 'generation')
    return list(texts)


def checked_settings(settings: dict | None) -> dict:
    """Settings of ``GenMask.generate`` in a config; ValueError if there are others among them."""
    settings = dict(settings or {})
    unknown = set(settings) - set(SETTINGS)
    if unknown:
        raise ValueError(f'generation knows {SETTINGS}, but got {sorted(unknown)}')
    return settings


def pictures_to_bytes(pictures: Tensor) -> Tensor:
    """Pictures in [-1, 1] as uint8 in [0, 255], rounded, same shape."""
    return ((pictures + 1) * 127.5).round().clamp(0, 255).to(torch.uint8)
