"""PixArt-alpha and PixArt-Sigma (arXiv 2310.00426, 2403.04692)."""

import torch
from torch import Tensor, nn

from genseg_mm.models.dit_families.channel_condition import widen_input, with_image_channels
from genseg_mm.models.dit_families.family import DiTFamily
from genseg_mm.models.prompt_encoders import PromptEmbeddings

PIXELS_PER_LATENT = 8  # of the autoencoder that PixArt's resolution embedding was trained with


class PixArtFamily(DiTFamily):
    """PixArt: image latents as extra input channels; text mask supported.

    The released models predict noise and its variance on a DDPM path. The variance half of their output layer is cut
    off, and the rest is a start for training a velocity, no velocity model by itself.
    """

    transformer_class = 'PixArtTransformer2DModel'
    text_projection = ('caption_projection',)
    text_width_key = 'caption_channels'

    def prepare(self, transformer: nn.Module) -> list[str]:
        """Cuts the learned variance off a released model and widens its patch embedding."""
        if transformer.caption_projection is None:
            raise ValueError('family pixart expects a text-to-image model, but got caption_channels=None')
        new = []
        config = transformer.config
        if config.out_channels == 2 * config.in_channels:
            _cut_variance(transformer)
            new.append('proj_out')
        return new + widen_input(transformer, 'pos_embed.proj', 'pixart')

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
        num, _, height, width = noisy.shape
        conditions = dict(resolution=None, aspect_ratio=None)
        if transformer.use_additional_conditions:
            size = noisy.new_tensor([height, width]) * PIXELS_PER_LATENT
            conditions = dict(resolution=size.expand(num, 2), aspect_ratio=(size[0] / size[1]).expand(num, 1))
        return transformer(
            hidden_states=with_image_channels(noisy, image_latents, has_image),  # (N, 2C, H, W)
            encoder_hidden_states=prompt.states,
            encoder_attention_mask=prompt.mask.long(),
            timestep=sigma * 1000,
            added_cond_kwargs=conditions,
            return_dict=False,
        )[0]


def _cut_variance(transformer: nn.Module) -> None:
    """Keeps the C channels of the prediction out of the output layer's 2C."""
    config = transformer.config
    channels = config.in_channels
    old = transformer.proj_out
    new = nn.Linear(old.in_features, old.out_features // 2, dtype=old.weight.dtype, device=old.weight.device)
    with torch.no_grad():
        # Rows are ordered (row in patch, column in patch, channel).
        new.weight.copy_(old.weight.unflatten(0, (-1, 2 * channels))[:, :channels].flatten(0, 1))
        new.bias.copy_(old.bias.unflatten(0, (-1, 2 * channels))[:, :channels].flatten())
    transformer.proj_out, transformer.out_channels = new, channels
    transformer.register_to_config(out_channels=channels)
