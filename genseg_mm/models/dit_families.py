"""Adapters of diffusers' DiT families to one call.

A family knows how its transformer takes the image latents, the timestep and the text, and nothing else. Timesteps stay
float32: bf16(0.998) is 0.996, and masks live near sigma = 1.
"""

import torch
from torch import Tensor, nn

from genseg_mm.models.prompt_encoders import PromptEmbeddings


class SanaFamily:
    """Sana: image latents as extra input channels, zero where a sample has none; text mask supported."""

    transformer_class = 'SanaTransformer2DModel'
    needs_fixed_length_text = False

    def prepare(self, transformer: nn.Module) -> None:
        """Widens the patch embedding of a released model from C to 2 C channels; the new ones start at zero."""
        config = transformer.config
        if config.in_channels == 2 * config.out_channels:
            return
        if config.in_channels != config.out_channels:
            raise ValueError(
                'family sana expects in_channels = out_channels (a released model, widened here) or twice that, '
                f'but got in_channels={config.in_channels}, out_channels={config.out_channels}'
            )
        old = transformer.patch_embed.proj
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
        transformer.patch_embed.proj = new
        transformer.register_to_config(in_channels=2 * config.in_channels)

    def velocity(
        self,
        transformer: nn.Module,
        noisy: Tensor,
        sigma: Tensor,
        prompt: PromptEmbeddings,
        image_latents: Tensor,
        has_image: Tensor,
    ) -> Tensor:
        """See :meth:`DiTBackbone.forward`."""
        condition = image_latents * has_image[:, None, None, None]
        return transformer(
            hidden_states=torch.cat([noisy, condition], 1),  # (N, 2C, H, W)
            encoder_hidden_states=prompt.states,
            encoder_attention_mask=prompt.mask.long(),
            timestep=sigma * 1000 * transformer.config.timestep_scale,
            return_dict=False,
        )[0]


class WanFamily:
    """Wan 2.x: the image latent is frame 0 at timestep 0 of its own, the noisy latent is frame 1 (GenMask's model).

    The paper concatenates the image's latent with the noise and gives it the time embedding of t = 0; a
    second frame with a timestep per token does so without a new parameter (the frame is our reading). Samples
    without an image are single frames, so a mixed batch takes two forwards. Wan has no text mask: padding is
    zeroed and its length is fixed.
    """

    transformer_class = 'WanTransformer3DModel'
    needs_fixed_length_text = True

    def prepare(self, transformer: nn.Module) -> None:
        """Nothing to change: the released model is used as it is."""

    def velocity(
        self,
        transformer: nn.Module,
        noisy: Tensor,
        sigma: Tensor,
        prompt: PromptEmbeddings,
        image_latents: Tensor,
        has_image: Tensor,
    ) -> Tensor:
        """See :meth:`DiTBackbone.forward`."""
        if has_image.all():
            return self._conditioned(transformer, noisy, sigma, prompt, image_latents)
        if not has_image.any():
            return self._unconditioned(transformer, noisy, sigma, prompt)
        with_image = self._conditioned(
            transformer,
            noisy[has_image],
            sigma[has_image],
            prompt.select(has_image),
            image_latents[has_image],
        )
        velocity = torch.empty_like(noisy, dtype=with_image.dtype)
        velocity[has_image] = with_image
        velocity[~has_image] = self._unconditioned(
            transformer, noisy[~has_image], sigma[~has_image], prompt.select(~has_image)
        )
        return velocity

    @staticmethod
    def _conditioned(
        transformer: nn.Module,
        noisy: Tensor,
        sigma: Tensor,
        prompt: PromptEmbeddings,
        image_latents: Tensor,
    ) -> Tensor:
        frames = torch.stack([image_latents, noisy], 2)  # (N, C, 2, H, W)
        _, patch_height, patch_width = transformer.config.patch_size
        tokens = (noisy.shape[-2] // patch_height) * (noisy.shape[-1] // patch_width)
        timestep = (sigma * 1000)[:, None].repeat_interleave(tokens, 1)  # (N, tokens)
        timestep = torch.cat([torch.zeros_like(timestep), timestep], 1)  # (N, 2 tokens)
        return transformer(
            hidden_states=frames,
            timestep=timestep,
            encoder_hidden_states=prompt.states,
            return_dict=False,
        )[0][:, :, 1]

    @staticmethod
    def _unconditioned(
        transformer: nn.Module, noisy: Tensor, sigma: Tensor, prompt: PromptEmbeddings
    ) -> Tensor:
        return transformer(
            hidden_states=noisy[:, :, None],
            timestep=sigma * 1000,
            encoder_hidden_states=prompt.states,
            return_dict=False,
        )[0][:, :, 0]


FAMILIES = {'sana': SanaFamily, 'wan': WanFamily}
