"""Adapters of diffusers' DiT families to one call.

See :class:`~genseg_mm.models.dit_families.family.DiTFamily` for what a family knows. A new one is a subclass under
``@register_family('name')``, in any module that ``custom_imports`` of a config names.

| family | image condition | timestep passed | prediction |
|---|---|---|---|
| wan | extra latent frame at timestep 0 | sigma x 1000, per token | velocity |
| qwen_image, qwen_image_edit | extra tokens, timestep 0 with ``zero_cond_t`` | sigma | velocity |
| flux, flux_kontext | extra tokens with ``ids[..., 0] = 1`` | sigma | velocity |
| flux2 | extra tokens with ``ids[..., 0] = 10`` | sigma | velocity |
| z_image | extra tokens at timestep 1 (its clean end) | 1 - sigma | velocity, sign flipped |
| sd3, sana | extra channels | sigma x 1000 | velocity |
| pixart | extra channels | sigma x 1000 | released weights predict noise: only a start |

Timesteps stay float32: bf16(0.998) is 0.996, and masks live near sigma = 1.
"""

from genseg_mm.models.dit_families.channel_families import PixArtFamily, SanaFamily, SD3Family
from genseg_mm.models.dit_families.family import FAMILIES, DiTFamily, DiTInputs, register_family
from genseg_mm.models.dit_families.token_families import (
    Flux2Family,
    FluxFamily,
    QwenImageFamily,
    TokenFamily,
    WanFamily,
    ZImageFamily,
)

__all__ = [
    'FAMILIES',
    'DiTFamily',
    'DiTInputs',
    'Flux2Family',
    'FluxFamily',
    'PixArtFamily',
    'QwenImageFamily',
    'SD3Family',
    'SanaFamily',
    'TokenFamily',
    'WanFamily',
    'ZImageFamily',
    'register_family',
]
