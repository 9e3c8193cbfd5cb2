"""Z-Image (arXiv 2511.22699)."""

import torch
from torch import Tensor, nn

from genseg_mm.models.dit_families.token_condition import TokenFamily
from genseg_mm.models.prompt_encoders import PromptEmbeddings


class ZImageFamily(TokenFamily):
    """Z-Image: its time runs from noise (0) to data (1) and its output is data - noise; text of any length.

    The image's latents are extra tokens at time 1, in the call that diffusers' omni pipeline makes (image, prompt,
    target). Samples without an image are the plain text-to-image call.
    """

    transformer_class = 'ZImageTransformer2DModel'
    text_projection = ('cap_embedder',)
    text_width_key = 'cap_feat_dim'

    def prepare(self, transformer: nn.Module) -> list[str]:
        """Checks the patches; the released model is used as it is."""
        if 1 not in transformer.config.all_f_patch_size:
            raise ValueError(
                f'family z_image expects patches of one frame, but got {transformer.config.all_f_patch_size}'
            )
        return []

    def start_from_scratch(self, transformer: nn.Module) -> None:
        """Draws the padding tokens, which diffusers leaves at zero.

        There the normalisation behind them has a slope of 1 / sqrt(eps), and their gradient drowns all others.
        """
        for token in (transformer.x_pad_token, transformer.cap_pad_token):
            nn.init.normal_(token, std=0.02)

    def latent_channels(self, transformer: nn.Module) -> int:
        """Channels C of the latents."""
        return transformer.config.in_channels

    def patch_size(self, transformer: nn.Module) -> tuple[int, int]:
        """Height and width in latent cells of one token."""
        config = transformer.config
        return (config.all_patch_size[list(config.all_f_patch_size).index(1)],) * 2

    def output_layer(self, transformer: nn.Module) -> nn.Linear:
        """The last layer."""
        return transformer.all_final_layer[f'{self.patch_size(transformer)[0]}-1'].linear

    def velocity_of_one_kind(
        self, transformer: nn.Module, noisy: Tensor, sigma: Tensor, prompt: PromptEmbeddings, image: Tensor | None
    ) -> Tensor:
        """See :meth:`TokenFamily.velocity_of_one_kind`."""
        frames = list(noisy[:, :, None])  # N of (C, 1, H, W)
        texts = _real_tokens(prompt)
        inputs = dict(x=frames, cap_feats=texts)
        if image is not None:
            inputs = dict(
                x=[list(pair) for pair in zip(image[:, :, None], frames, strict=True)],
                cap_feats=[[text[:0], text] for text in texts],
                image_noise_mask=[[0, 1]] * len(noisy),
                siglip_feats=[None] * len(noisy),
            )
        backward = transformer(
            t=1 - sigma, patch_size=self.patch_size(transformer)[0], f_patch_size=1, return_dict=False, **inputs
        )[0]
        return -torch.stack(backward)[:, :, 0]


def _real_tokens(prompt: PromptEmbeddings) -> list[Tensor]:
    """Each prompt's tokens without padding, (L_i, D); one zero token for a prompt that has none."""
    tokens = [states[mask] for states, mask in zip(prompt.states, prompt.mask, strict=True)]
    return [own if len(own) else own.new_zeros(1, own.shape[-1]) for own in tokens]
