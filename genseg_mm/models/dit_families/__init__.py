"""Adapters of diffusers' DiT families to one call, one file per family.

See :class:`~genseg_mm.models.dit_families.family.DiTFamily` for what a family knows.

| family | image condition | timestep passed | prediction |
|---|---|---|---|
| wan | extra latent frame at timestep 0 | sigma x 1000, per token | velocity |
| qwen_image, qwen_image_edit | extra tokens, timestep 0 with ``zero_cond_t`` | sigma | velocity |
| flux, flux_kontext | extra tokens with ``ids[..., 0] = 1`` | sigma | velocity |
| z_image | extra tokens at timestep 1 (its clean end) | 1 - sigma | velocity, sign flipped |
| sd3, sana | extra channels | sigma x 1000 | velocity |
| pixart | extra channels | sigma x 1000 | released weights predict noise: only a start |

Timesteps stay float32: bf16(0.998) is 0.996, and masks live near sigma = 1.
"""

from genseg_mm.models.dit_families.flux import FluxFamily
from genseg_mm.models.dit_families.pixart import PixArtFamily
from genseg_mm.models.dit_families.qwen_image import QwenImageFamily
from genseg_mm.models.dit_families.sana import SanaFamily
from genseg_mm.models.dit_families.sd3 import SD3Family
from genseg_mm.models.dit_families.wan import WanFamily
from genseg_mm.models.dit_families.z_image import ZImageFamily

FAMILIES = dict(
    flux=FluxFamily,
    flux_kontext=FluxFamily,
    pixart=PixArtFamily,
    qwen_image=QwenImageFamily,
    qwen_image_edit=QwenImageFamily,
    sana=SanaFamily,
    sd3=SD3Family,
    wan=WanFamily,
    z_image=ZImageFamily,
)

__all__ = [
    'FAMILIES',
    'FluxFamily',
    'PixArtFamily',
    'QwenImageFamily',
    'SD3Family',
    'SanaFamily',
    'WanFamily',
    'ZImageFamily',
]
