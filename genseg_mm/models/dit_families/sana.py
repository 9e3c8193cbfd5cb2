"""Sana (arXiv 2410.10629)."""

from torch import Tensor, nn

from genseg_mm.models.dit_families.channel_condition import widen_input, with_image_channels
from genseg_mm.models.dit_families.family import DiTFamily
from genseg_mm.models.prompt_encoders import PromptEmbeddings


class SanaFamily(DiTFamily):
    """Sana and Sana 1.5: image latents as extra input channels, zero where a sample has none; text mask supported."""

    transformer_class = 'SanaTransformer2DModel'
    text_projection = ('caption_projection',)
    text_width_key = 'caption_channels'

    def prepare(self, transformer: nn.Module) -> list[str]:
        """Widens the patch embedding of a released model."""
        if transformer.config.guidance_embeds:
            raise ValueError(
                'family sana expects a rectified-flow model, but got one with guidance_embeds=True (Sana Sprint, '
                'distilled on another path); use a plain Sana'
            )
        return widen_input(transformer, 'patch_embed.proj', 'sana')

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
        return transformer(
            hidden_states=with_image_channels(noisy, image_latents, has_image),  # (N, 2C, H, W)
            encoder_hidden_states=prompt.states,
            encoder_attention_mask=prompt.mask.long(),
            timestep=sigma * 1000 * transformer.config.timestep_scale,
            return_dict=False,
        )[0]
