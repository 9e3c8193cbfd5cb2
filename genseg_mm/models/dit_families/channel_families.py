"""DiT families without a token route: image latents as extra input channels, zero where a sample has no image."""

import torch
from torch import Tensor, nn

from genseg_mm.models.dit_families.family import DiTFamily, DiTInputs, pooled_or_zeros, register_family


class ChannelFamily(DiTFamily):
    """A family that takes the latents of the image as further channels of its input."""

    def prepare_input(self, transformer: nn.Module, layer: str, family: str) -> list[str]:
        """Widens the patch embedding, see :func:`widen_input`, unless there are no images (``takes_images``).

        Raises:
            ValueError: If the transformer's channels are not those of a released model.
        """
        if self.takes_images:
            return widen_input(transformer, layer, family)
        config = transformer.config
        if config.in_channels != config.out_channels:
            raise ValueError(
                f'family {family} expects in_channels = out_channels where no image comes beside the noisy latents, '
                f'but got in_channels={config.in_channels}, out_channels={config.out_channels}'
            )
        return []

    def input_channels(self, inputs: DiTInputs) -> Tensor:
        """The noisy latents, (N, C, H, W), and beside them those of the image, (N, 2C, H, W)."""
        return with_image_channels(inputs) if self.takes_images else inputs.noisy


@register_family('sana')
class SanaFamily(ChannelFamily):
    """Sana and Sana 1.5 (arXiv 2410.10629): image latents as extra input channels; text mask supported."""

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
        return self.prepare_input(transformer, 'patch_embed.proj', 'sana')

    def velocity(self, transformer: nn.Module, inputs: DiTInputs) -> Tensor:
        """See :meth:`DiTFamily.velocity`."""
        return transformer(
            hidden_states=self.input_channels(inputs),  # (N, 2C, H, W), or (N, C, H, W)
            encoder_hidden_states=inputs.prompt.states,
            encoder_attention_mask=inputs.prompt.mask.long(),
            timestep=inputs.sigma * 1000 * transformer.config.timestep_scale,
            return_dict=False,
        )[0]


@register_family('sd3')
class SD3Family(ChannelFamily):
    """Stable Diffusion 3 and 3.5 (arXiv 2403.03206): image latents as extra input channels; no text mask.

    Pooled prompt vectors are zeros where the encoder has none.
    """

    transformer_class = 'SD3Transformer2DModel'
    needs_fixed_length_text = True
    text_projection = ('context_embedder',)
    text_width_key = 'joint_attention_dim'

    def prepare(self, transformer: nn.Module) -> list[str]:
        """Widens the patch embedding of a released model."""
        return self.prepare_input(transformer, 'pos_embed.proj', 'sd3')

    def velocity(self, transformer: nn.Module, inputs: DiTInputs) -> Tensor:
        """See :meth:`DiTFamily.velocity`."""
        config = transformer.config
        limit = config.pos_embed_max_size * config.patch_size
        size = tuple(inputs.noisy.shape[-2:])
        if max(size) > limit:
            raise ValueError(
                f'this SD3 has positions for latents up to {limit} x {limit}, but got {size}; choose a smaller image '
                'size'
            )
        return transformer(
            hidden_states=self.input_channels(inputs),  # (N, 2C, H, W), or (N, C, H, W)
            encoder_hidden_states=inputs.prompt.states,
            pooled_projections=pooled_or_zeros(inputs.prompt, config.pooled_projection_dim),
            timestep=inputs.sigma * 1000,
            return_dict=False,
        )[0]


PIXELS_PER_LATENT = 8  # of the autoencoder that PixArt's resolution embedding was trained with


@register_family('pixart')
class PixArtFamily(ChannelFamily):
    """PixArt-alpha and -Sigma (arXiv 2310.00426, 2403.04692): image latents as extra channels; text mask supported.

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
        return new + self.prepare_input(transformer, 'pos_embed.proj', 'pixart')

    def velocity(self, transformer: nn.Module, inputs: DiTInputs) -> Tensor:
        """See :meth:`DiTFamily.velocity`."""
        num, _, height, width = inputs.noisy.shape
        conditions = dict(resolution=None, aspect_ratio=None)
        if transformer.use_additional_conditions:
            size = inputs.noisy.new_tensor([height, width]) * PIXELS_PER_LATENT
            conditions = dict(resolution=size.expand(num, 2), aspect_ratio=(size[0] / size[1]).expand(num, 1))
        return transformer(
            hidden_states=self.input_channels(inputs),  # (N, 2C, H, W), or (N, C, H, W)
            encoder_hidden_states=inputs.prompt.states,
            encoder_attention_mask=inputs.prompt.mask.long(),
            timestep=inputs.sigma * 1000,
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


def with_image_channels(inputs: DiTInputs) -> Tensor:
    """Noisy latents and the image's side by side, (N, 2C, H, W); zero where a sample has no image."""
    condition = torch.where(inputs.has_image[:, None, None, None], inputs.image, 0)
    return torch.cat([inputs.noisy, condition.to(inputs.noisy.dtype)], 1)


def widen_input(transformer: nn.Module, layer: str, family: str) -> list[str]:
    """Widens the patch embedding of a released model from C to 2C channels; the new ones start at zero.

    So the model starts as the released one, whatever the image. A transformer of 2C channels is left as it is.

    Args:
        transformer: diffusers model whose config has ``in_channels`` and ``out_channels`` = C.
        layer: Name of the convolution that embeds the patches.
        family: Name for the message.

    Returns:
        Names of the new layers: ``[layer]``, or nothing.

    Raises:
        ValueError: If the transformer has neither C nor 2C input channels.
    """
    config = transformer.config
    if config.in_channels == 2 * config.out_channels:
        return []
    if config.in_channels != config.out_channels:
        raise ValueError(
            f'family {family} expects in_channels = out_channels (a released model, widened here) or twice that, '
            f'but got in_channels={config.in_channels}, out_channels={config.out_channels}'
        )
    old = transformer.get_submodule(layer)
    new = nn.Conv2d(
        2 * old.in_channels,
        old.out_channels,
        old.kernel_size,
        old.stride,
        bias=old.bias is not None,
        dtype=old.weight.dtype,
        device=old.weight.device,
    )
    with torch.no_grad():
        new.weight.zero_()
        new.weight[:, : old.in_channels] = old.weight
        if old.bias is not None:
            new.bias.copy_(old.bias)
    transformer.set_submodule(layer, new)
    transformer.register_to_config(in_channels=2 * config.in_channels)
    return [layer]
