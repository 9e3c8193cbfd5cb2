"""Wan 2.1 and 2.2 (arXiv 2503.20314): the paper's family."""

import torch
from torch import Tensor, nn

from genseg_mm.models.dit_families.token_condition import TokenFamily
from genseg_mm.models.prompt_encoders import PromptEmbeddings


class WanFamily(TokenFamily):
    """Wan 2.x: the image latent is frame 0 at timestep 0 of its own, the noisy latent is frame 1 (GenMask's model).

    The paper concatenates the image's latent with the noise and gives it the time embedding of t = 0; a
    second frame with a timestep per token does so without a new parameter (the frame is our reading). Samples
    without an image are single frames, so a mixed batch takes two forwards. Wan has no text mask: padding is
    zeroed and its length is fixed. Wan2.1 1.3B and 14B have 16 latent channels, Wan2.2 5B has 48 (and an
    autoencoder of 16x). Of Wan2.2 14B's two transformers, take the one of high noise: masks live near sigma = 1.
    """

    transformer_class = 'WanTransformer3DModel'
    needs_fixed_length_text = True
    text_projection = ('condition_embedder.text_embedder',)
    text_width_key = 'text_dim'

    def prepare(self, transformer: nn.Module) -> list[str]:
        """Checks that it is a text-to-video model; it is used as it is."""
        config = transformer.config
        out_channels = config.out_channels or config.in_channels
        if config.in_channels != out_channels or config.image_dim is not None:
            raise ValueError(
                'family wan expects a text-to-video model (in_channels = out_channels, no image_dim), but got '
                f'in_channels={config.in_channels}, out_channels={out_channels}, image_dim={config.image_dim}: '
                'image-to-video models take their image another way; use a T2V or TI2V model'
            )
        if config.patch_size[0] != 1:
            raise ValueError(f'family wan expects patches of one frame, but got patch_size={tuple(config.patch_size)}')
        return []

    def latent_channels(self, transformer: nn.Module) -> int:
        """Channels C of the latents."""
        return transformer.config.in_channels

    def patch_size(self, transformer: nn.Module) -> tuple[int, int]:
        """Height and width in latent cells of one token."""
        return tuple(transformer.config.patch_size[1:])

    def velocity_of_one_kind(
        self, transformer: nn.Module, noisy: Tensor, sigma: Tensor, prompt: PromptEmbeddings, image: Tensor | None
    ) -> Tensor:
        """See :meth:`TokenFamily.velocity_of_one_kind`."""
        timestep, frames = sigma * 1000, noisy[:, :, None]  # (N,), (N, C, 1, H, W)
        if image is not None:
            frames = torch.stack([image, noisy], 2)  # (N, C, 2, H, W)
            rows, columns = self.patch_size(transformer)
            tokens = (noisy.shape[-2] // rows) * (noisy.shape[-1] // columns)
            timestep = timestep[:, None].repeat_interleave(tokens, 1)  # (N, tokens)
            timestep = torch.cat([torch.zeros_like(timestep), timestep], 1)  # (N, 2 tokens)
        return transformer(
            hidden_states=frames, timestep=timestep, encoder_hidden_states=prompt.states, return_dict=False
        )[0][:, :, -1]
