"""FLUX.1 and FLUX.1 Kontext (arXiv 2506.15742)."""

import torch
from torch import Tensor, nn

from genseg_mm.models.dit_families.text_inputs import pooled_or_zeros
from genseg_mm.models.dit_families.token_condition import TokenFamily, float32_timestep, pack, unpack
from genseg_mm.models.prompt_encoders import PromptEmbeddings


class FluxFamily(TokenFamily):
    """Flux: the image's latents are extra tokens whose first position is 1 (as in Kontext); no text mask.

    Guidance-distilled releases (dev, Kontext) take a guidance scale as an input: ``embedded_guidance``, 1 for
    training and masks; pictures of dev want about 3.5.
    """

    transformer_class = 'FluxTransformer2DModel'
    needs_fixed_length_text = True
    text_projection = ('context_embedder',)
    text_width_key = 'joint_attention_dim'
    embedded_guidance = 1.0

    def prepare(self, transformer: nn.Module) -> list[str]:
        """Checks the packing; the released model is used as it is."""
        config = transformer.config
        channels = transformer.out_channels
        if config.patch_size != 1 or config.in_channels != channels or channels % 4:
            raise ValueError(
                'family flux expects latents packed 2 x 2 (patch_size=1, in_channels = out_channels = 4 C), but got '
                f'patch_size={config.patch_size}, in_channels={config.in_channels}, out_channels={channels}: the Fill, '
                'Canny and Depth models take their image another way; use FLUX.1 dev, schnell or Kontext'
            )
        return []

    def latent_channels(self, transformer: nn.Module) -> int:
        """Channels C of the latents."""
        return transformer.out_channels // 4

    def patch_size(self, transformer: nn.Module) -> tuple[int, int]:
        """Height and width in latent cells of one token."""
        return 2, 2

    def velocity_of_one_kind(
        self, transformer: nn.Module, noisy: Tensor, sigma: Tensor, prompt: PromptEmbeddings, image: Tensor | None
    ) -> Tensor:
        """See :meth:`TokenFamily.velocity_of_one_kind`."""
        height, width = noisy.shape[-2:]
        ids = _token_ids(height // 2, width // 2).to(noisy.device)  # (L, 3)
        images = [noisy] if image is None else [noisy, image]
        tokens = torch.cat([pack(latents) for latents in images], 1)  # (N, L or 2L, 4C)
        offsets = ids.new_tensor([[0, 0, 0], [1, 0, 0]])[: len(images), None]
        guidance = None
        if transformer.config.guidance_embeds:
            guidance = torch.full_like(sigma, self.embedded_guidance)
        with float32_timestep(transformer.time_text_embed, sigma * 1000):
            velocity = transformer(
                hidden_states=tokens,
                encoder_hidden_states=prompt.states,
                pooled_projections=pooled_or_zeros(prompt, transformer.config.pooled_projection_dim),
                timestep=sigma,
                guidance=guidance,
                img_ids=(ids + offsets).flatten(0, 1),
                txt_ids=ids.new_zeros(prompt.states.shape[1], 3),
                return_dict=False,
            )[0]
        return unpack(velocity[:, : len(ids)], height, width)


def _token_ids(rows: int, columns: int) -> Tensor:
    """(image, row, column) of every token, (rows columns, 3) float32; image 0."""
    row, column = torch.meshgrid(torch.arange(rows), torch.arange(columns), indexing='ij')
    return torch.stack([torch.zeros_like(row), row, column], -1).reshape(-1, 3).float()
