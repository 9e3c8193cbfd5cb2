"""Qwen-Image and Qwen-Image-Edit (arXiv 2508.02324)."""

import torch
from torch import Tensor, nn

from genseg_mm.models.dit_families.token_condition import TokenFamily, float32_timestep, pack, unpack
from genseg_mm.models.prompt_encoders import PromptEmbeddings


class QwenImageFamily(TokenFamily):
    """Qwen-Image(-Edit): the image's latents are extra tokens behind the noisy ones; text mask supported.

    With ``zero_cond_t`` in the config (Qwen-Image-Edit-2511) the image's tokens get timestep 0 of their own; it has no
    parameter, so ``transformer=dict(..., zero_cond_t=True)`` turns it on for the other releases. The text
    stream of the last block leads nowhere: it is frozen, or distributed training would wait for its gradient.
    """

    transformer_class = 'QwenImageTransformer2DModel'
    text_projection = ('txt_norm', 'txt_in')
    text_width_key = 'joint_attention_dim'

    def prepare(self, transformer: nn.Module) -> list[str]:
        """Checks the packing and freezes what gets no gradient."""
        config = transformer.config
        channels = transformer.out_channels
        if config.patch_size != 2 or config.in_channels != 4 * channels:
            raise ValueError(
                'family qwen_image expects latents packed 2 x 2 (patch_size=2, in_channels = 4 out_channels), but got '
                f'patch_size={config.patch_size}, in_channels={config.in_channels}, out_channels={channels}'
            )
        unfit = [key for key in ('guidance_embeds', 'use_additional_t_cond', 'use_layer3d_rope') if config.get(key)]
        if unfit:
            raise ValueError(
                f'family qwen_image expects Qwen-Image or Qwen-Image-Edit, but got {", ".join(unfit)}=True (as in '
                'Qwen-Image-Layered)'
            )
        last = transformer.transformer_blocks[-1]
        for unused in (last.attn.to_add_out, last.txt_mlp):
            unused.requires_grad_(False)
        return []

    def latent_channels(self, transformer: nn.Module) -> int:
        """Channels C of the latents."""
        return transformer.out_channels

    def patch_size(self, transformer: nn.Module) -> tuple[int, int]:
        """Height and width in latent cells of one token."""
        return 2, 2

    def velocity_of_one_kind(
        self, transformer: nn.Module, noisy: Tensor, sigma: Tensor, prompt: PromptEmbeddings, image: Tensor | None
    ) -> Tensor:
        """See :meth:`TokenFamily.velocity_of_one_kind`."""
        height, width = noisy.shape[-2:]
        images = [noisy] if image is None else [noisy, image]
        tokens = torch.cat([pack(latents) for latents in images], 1)  # (N, L or 2L, 4C)
        timestep = torch.cat([sigma, sigma * 0]) if transformer.zero_cond_t else sigma
        with float32_timestep(transformer.time_text_embed, timestep):
            velocity = transformer(
                hidden_states=tokens,
                encoder_hidden_states=prompt.states,
                encoder_hidden_states_mask=prompt.mask,
                timestep=sigma,
                img_shapes=[[(1, height // 2, width // 2)] * len(images)] * len(noisy),
                return_dict=False,
            )[0]
        return unpack(velocity[:, : tokens.shape[1] // len(images)], height, width)
