"""A diffusers UNet from scratch as instance colorer, without an autoencoder."""

from typing import Any

import torch
from mmengine.model import BaseModule
from torch import Tensor, nn
from torch.nn import functional as F

from genseg_mm.models.base import check_patches
from genseg_mm.network_sizes import NATIVE, resize_to
from genseg_mm.registry import MODELS

TIMESTEP = 999  # the last of Stable Diffusion's


@MODELS.register_module()
class UNetColorer(BaseModule):
    """diffusers' conditional UNet as a one-step colorer on a fixed invertible latent.

    The graph is that of gen2seg's Stable Diffusion colorer (image latent alone as input, fixed last
    timestep, a constant prompt of one zero token, one step) with ``pixel_unshuffle`` / ``pixel_shuffle`` in place of
    the VAE: nothing is lost on the way and nothing has to be downloaded, so that it trains from
    scratch.

    Args:
        config: Keyword arguments of ``diffusers.UNet2DConditionModel``, less ``in_channels`` and
            ``out_channels``, which follow from the patch size.
        patch_size: Side of the patches that become latent channels; 1 works on pixels.
        gradient_checkpointing: Recompute activations in the backward pass instead of keeping them.

    Raises:
        ValueError: If the config sets the channels.
    """

    def __init__(
        self,
        config: dict[str, Any],
        patch_size: int = 2,
        gradient_checkpointing: bool = False,
    ) -> None:
        super().__init__()
        from diffusers import UNet2DConditionModel

        channels = 3 * patch_size**2
        for key in ('in_channels', 'out_channels'):
            if config.get(key, channels) != channels:
                raise ValueError(
                    f'{key} of UNetColorer must be 3 * patch_size ** 2 = {channels}, '
                    f'but got {config[key]}; leave it out of the config'
                )
        self.unet = UNet2DConditionModel(**{**config, 'in_channels': channels, 'out_channels': channels})
        if gradient_checkpointing:
            self.unet.enable_gradient_checkpointing()
        self.patch_size = patch_size
        text_dim = self.unet.config.cross_attention_dim
        self.register_buffer('text', torch.zeros(1, 1, text_dim), persistent=False)

    def init_weights(self) -> None:
        """Does nothing: diffusers has initialised the UNet."""

    def network_resize(self, size: int | tuple[int, int] | None = None) -> dict[str, Any]:
        """How a picture is brought to the size that the network works at, as ``NetworkResize`` takes it.

        The UNet itself takes latents that do not halve evenly.

        Args:
            size: The longer side, up or down, 0 for the own size of a picture, (height, width); None: the size that the
                config's ``sample_size`` (in patches, one number or height and width) says it is trained at, else the
                picture's own.
        """
        if size is None:
            trained = self.unet.config.sample_size
            if trained is None:
                size = NATIVE
            elif isinstance(trained, int):
                size = trained * self.patch_size
            else:
                size = tuple(side * self.patch_size for side in trained)
        return resize_to(size, self.patch_size)

    def forward(self, images: Tensor) -> Tensor:
        """Colours images.

        Args:
            images: RGB in [-1, 1], (N, 3, H, W); H and W multiples of the patch size.

        Returns:
            Raw maps, (N, 3, H, W).

        Raises:
            ValueError: If the size is no multiple of the patch size.
        """
        check_patches(images, self.patch_size, type(self).__name__)
        latents = F.pixel_unshuffle(images, self.patch_size)  # (N, 3 p^2, H/p, W/p)
        timesteps = torch.full((latents.shape[0],), TIMESTEP, device=latents.device)
        text = self.text.to(latents.dtype).expand(latents.shape[0], -1, -1)  # (N, L, D)
        output = self.unet(latents, timesteps, encoder_hidden_states=text).sample
        return F.pixel_shuffle(output, self.patch_size)  # (N, 3, H, W)

    def compiled_parts(self) -> list[nn.Module]:
        """What ``--compile`` of an evaluation compiles."""
        return [self.unet]

    def save_pretrained(self, folder: str) -> None:
        """Writes the UNet as a diffusers folder."""
        self.unet.save_pretrained(folder)
