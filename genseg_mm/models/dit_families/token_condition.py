"""Image latents as extra tokens or frames: packing, and batches in which only some samples have an image."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from genseg_mm.models.dit_families.family import DiTFamily
from genseg_mm.models.prompt_encoders import PromptEmbeddings


class TokenFamily(DiTFamily):
    """A family whose sequences are longer for samples with an image, so that the two kinds run apart.

    A mixed batch takes two forwards, a pure one takes one. Where parameters are sharded (FSDP), every rank must run
    the same number: give all ranks the same mix of tasks, as ``RatioInfiniteSampler`` does.
    """

    def velocity(
        self,
        transformer: nn.Module,
        noisy: Tensor,
        sigma: Tensor,
        prompt: PromptEmbeddings,
        image_latents: Tensor,
        has_image: Tensor,
    ) -> Tensor:
        """See :meth:`DiTFamily.velocity`."""
        if has_image.all():
            return self.velocity_of_one_kind(transformer, noisy, sigma, prompt, image_latents)
        if not has_image.any():
            return self.velocity_of_one_kind(transformer, noisy, sigma, prompt, None)
        parts = [
            self.velocity_of_one_kind(
                transformer,
                noisy[chosen],
                sigma[chosen],
                prompt.select(chosen),
                image_latents[chosen] if with_image else None,
            )
            for with_image, chosen in ((True, has_image), (False, ~has_image))
        ]
        result = torch.empty_like(noisy, dtype=parts[0].dtype)
        result[has_image], result[~has_image] = parts
        return result

    def velocity_of_one_kind(
        self, transformer: nn.Module, noisy: Tensor, sigma: Tensor, prompt: PromptEmbeddings, image: Tensor | None
    ) -> Tensor:
        """As :meth:`velocity`, for samples that all have an image, latents (N, C, H, W), or that have none."""
        raise NotImplementedError


def pack(latents: Tensor) -> Tensor:
    """Latents (N, C, H, W) as tokens of 2 x 2 cells, (N, H/2 W/2, 4C), channels first (as Flux and Qwen-Image)."""
    num, channels, height, width = latents.shape
    cells = latents.view(num, channels, height // 2, 2, width // 2, 2)
    return cells.permute(0, 2, 4, 1, 3, 5).reshape(num, -1, 4 * channels)


def unpack(tokens: Tensor, height: int, width: int) -> Tensor:
    """Inverse of :func:`pack`: (N, H/2 W/2, 4C) -> (N, C, H, W)."""
    num, _, packed = tokens.shape
    cells = tokens.view(num, height // 2, width // 2, packed // 4, 2, 2)
    return cells.permute(0, 3, 1, 4, 2, 5).reshape(num, packed // 4, height, width)


@contextmanager
def float32_timestep(embedder: nn.Module, timestep: Tensor) -> Iterator[None]:
    """Hands the timestep to its embedder in float32.

    Flux and Qwen-Image cast it to the dtype of their hidden states first, which in bfloat16 cannot tell 0.998 from
    0.996.

    Args:
        embedder: Module whose first argument is the timestep.
        timestep: What it should get, float32.
    """
    handle = embedder.register_forward_pre_hook(lambda _, args: (timestep, *args[1:]))
    try:
        yield
    finally:
        handle.remove()
