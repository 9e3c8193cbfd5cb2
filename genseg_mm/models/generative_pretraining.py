"""Generative pretraining of a colorer on unlabelled images: where gen2seg says its generalisation comes from."""

from collections.abc import Sequence
from typing import Any

import torch
from mmengine.structures import BaseDataElement
from torch import Generator, Tensor
from torch.nn import functional as F

from genseg_mm.models.base import GenSegModel, draw_noise, training_generators
from genseg_mm.models.colorers import MAEColorer, UNetColorer
from genseg_mm.registry import MODELS


@MODELS.register_module()
class GenerativePretraining(GenSegModel):
    """Trains the network of a colorer to generate images, before it is trained to colour instances.

    The ViT-MAE of a :class:`~genseg_mm.models.MAEColorer` reconstructs masked patches (arXiv 2111.06377); the UNet of a
    :class:`~genseg_mm.models.UNetColorer` denoises its latents (v-prediction, arXiv 2202.00512, on Stable Diffusion's
    schedule). Checkpoints have the keys of :class:`~genseg_mm.models.Gen2Seg`, so ``load_from`` of a gen2seg config
    takes them as they are. Where public weights exist (``facebook/vit-mae-*``, Stable Diffusion) nobody needs this; it
    is for domains without any, and for testing the paper's thesis.

    Args:
        colorer: Config of a ``MAEColorer`` or ``UNetColorer``.
        mask_ratio: Share of hidden patches (ViT-MAE only).
        data_preprocessor: Config of the data preprocessor.
        init_cfg: MMEngine's.

    Raises:
        ValueError: If the colorer is of another type, or the mask ratio leaves (0, 1).
    """

    def __init__(
        self,
        colorer: dict[str, Any],
        mask_ratio: float = 0.75,
        data_preprocessor: dict[str, Any] | None = None,
        init_cfg: dict[str, Any] | None = None,
    ) -> None:
        super().__init__(data_preprocessor, init_cfg)
        if not 0 < mask_ratio < 1:
            raise ValueError(f'mask_ratio must lie in (0, 1), but got {mask_ratio}')
        self.colorer = MODELS.build(colorer)
        if isinstance(self.colorer, MAEColorer):
            self.colorer.mae.config.mask_ratio = mask_ratio
            self.colorer.mae.decoder.mask_token.requires_grad_(True)
        elif isinstance(self.colorer, UNetColorer):
            self.register_buffer('alphas_cumprod', _stable_diffusion_alphas(), persistent=False)
        else:
            raise ValueError(
                f'GenerativePretraining knows MAEColorer and UNetColorer, but got {type(self.colorer).__name__}'
            )

    def forward(
        self, inputs: Tensor, data_samples: list[BaseDataElement] | None = None, mode: str = 'tensor'
    ) -> Tensor | dict[str, Tensor]:
        """MMEngine's modes, of which pretraining has ``'loss'`` only.

        Args:
            inputs: RGB in [-1, 1], (N, 3, H, W).
            data_samples: Not read: the images are their own target.
            mode: ``'loss'``.

        Returns:
            ``loss_reconstruction`` (ViT-MAE) or ``loss_denoising`` (UNet).

        Raises:
            ValueError: For another mode.
        """
        if mode != 'loss':
            raise ValueError(f"GenerativePretraining has no mode but 'loss', but got {mode!r}")
        generators = training_generators(len(inputs))
        if isinstance(self.colorer, MAEColorer):
            return {'loss_reconstruction': self._reconstruction(inputs, generators)}
        return {'loss_denoising': self._denoising(inputs, generators)}

    def _reconstruction(self, images: Tensor, generators: Sequence[Generator]) -> Tensor:
        """Mean squared error over the masked patches; of normalised pixels if the config says ``norm_pix_loss``."""
        colorer = self.colorer
        config = colorer.mae.config
        if images.shape[-2:] != (config.image_size, config.image_size):
            raise ValueError(
                f'pretraining of a ViT-MAE runs at its own size {config.image_size}x{config.image_size}, '
                f'but got images of {tuple(images.shape[-2:])}'
            )
        num_patches = (config.image_size // config.patch_size) ** 2
        order = torch.stack([torch.rand(num_patches, generator=own) for own in generators])
        pixels = ((images + 1) / 2 - colorer.mean) / colorer.std
        return colorer.mae(pixel_values=pixels, noise=order.to(images)).loss

    def _denoising(self, images: Tensor, generators: Sequence[Generator]) -> Tensor:
        """Mean squared error of v = sqrt(abar) noise - sqrt(1 - abar) latents, timesteps uniform."""
        colorer = self.colorer
        latents = F.pixel_unshuffle(images, colorer.patch_size)  # (N, 3 p^2, H/p, W/p)
        steps = len(self.alphas_cumprod)
        timesteps = torch.cat([torch.randint(steps, (1,), generator=own) for own in generators])
        timesteps = timesteps.to(images.device)
        noise = draw_noise(latents.shape[1:], generators).to(latents)
        alpha = self.alphas_cumprod[timesteps].view(-1, 1, 1, 1)
        noisy = alpha.sqrt() * latents + (1 - alpha).sqrt() * noise
        velocity = alpha.sqrt() * noise - (1 - alpha).sqrt() * latents
        text = colorer.text.to(latents.dtype).expand(len(latents), -1, -1)
        predicted = colorer.unet(noisy, timesteps, encoder_hidden_states=text).sample
        return F.mse_loss(predicted.float(), velocity)


def _stable_diffusion_alphas() -> Tensor:
    """Cumulated signal shares of Stable Diffusion's schedule, (1000,), float32."""
    betas = torch.linspace(0.00085**0.5, 0.012**0.5, 1000, dtype=torch.float64) ** 2
    return (1 - betas).cumprod(0).float()
