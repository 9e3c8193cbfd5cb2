"""Z-Image (arXiv 2511.22699)."""

import torch
from torch import Tensor, nn

from genseg_mm.models.dit_families.token_condition import velocity_by_kind
from genseg_mm.models.prompt_encoders import PromptEmbeddings


class ZImageFamily:
    """Z-Image: its time runs from noise (0) to data (1) and its output is data - noise; text of any length.

    The image's latents are extra tokens at time 1, in the call that diffusers' omni pipeline makes (image, prompt,
    target). Samples without an image are the plain text-to-image call.
    """

    transformer_class = 'ZImageTransformer2DModel'
    needs_fixed_length_text = False
    text_projection = ('cap_embedder',)
    text_width_key = 'cap_feat_dim'

    def prepare(self, transformer: nn.Module) -> list[str]:
        """Checks the patches; the released model is used as it is."""
        if 1 not in transformer.config.all_f_patch_size:
            raise ValueError(
                f'family z_image expects patches of one frame, but got {transformer.config.all_f_patch_size}'
            )
        return []

    @staticmethod
    def latent_channels(transformer: nn.Module) -> int:
        """Channels C of the latents."""
        return transformer.config.in_channels

    @staticmethod
    def patch_size(transformer: nn.Module) -> tuple[int, int]:
        """Height and width in latent cells of one token."""
        config = transformer.config
        return (config.all_patch_size[list(config.all_f_patch_size).index(1)],) * 2

    def output_layer(self, transformer: nn.Module) -> nn.Linear:
        """The last layer."""
        return transformer.all_final_layer[f'{self.patch_size(transformer)[0]}-1'].linear

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

        def of_one_kind(
            noisy: Tensor, sigma: Tensor, prompt: PromptEmbeddings, image: Tensor | None
        ) -> Tensor:
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
                t=1 - sigma,
                patch_size=self.patch_size(transformer)[0],
                f_patch_size=1,
                return_dict=False,
                **inputs,
            )[0]
            return -torch.stack(backward)[:, :, 0]

        return velocity_by_kind(of_one_kind, noisy, sigma, prompt, image_latents, has_image)


def _real_tokens(prompt: PromptEmbeddings) -> list[Tensor]:
    """Each prompt's tokens without padding, (L_i, D); one zero token for a prompt that has none."""
    tokens = [states[mask] for states, mask in zip(prompt.states, prompt.mask, strict=True)]
    return [own if len(own) else own.new_zeros(1, own.shape[-1]) for own in tokens]
