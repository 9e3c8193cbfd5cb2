"""Stable Diffusion 3 and 3.5 (arXiv 2403.03206)."""

from torch import Tensor, nn

from genseg_mm.models.dit_families.channel_condition import widen_input, with_image_channels
from genseg_mm.models.dit_families.family import DiTFamily
from genseg_mm.models.dit_families.text_inputs import pooled_or_zeros
from genseg_mm.models.prompt_encoders import PromptEmbeddings


class SD3Family(DiTFamily):
    """SD3: image latents as extra input channels; no text mask; pooled prompt vectors, zeros if there are none."""

    transformer_class = 'SD3Transformer2DModel'
    needs_fixed_length_text = True
    text_projection = ('context_embedder',)
    text_width_key = 'joint_attention_dim'

    def prepare(self, transformer: nn.Module) -> list[str]:
        """Widens the patch embedding of a released model."""
        return widen_input(transformer, 'pos_embed.proj', 'sd3')

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
        config = transformer.config
        limit = config.pos_embed_max_size * config.patch_size
        if max(noisy.shape[-2:]) > limit:
            raise ValueError(
                f'this SD3 has positions for latents up to {limit} x {limit}, but got {tuple(noisy.shape[-2:])}; '
                'choose a smaller image size'
            )
        return transformer(
            hidden_states=with_image_channels(noisy, image_latents, has_image),  # (N, 2C, H, W)
            encoder_hidden_states=prompt.states,
            pooled_projections=pooled_or_zeros(prompt, config.pooled_projection_dim),
            timestep=sigma * 1000,
            return_dict=False,
        )[0]
