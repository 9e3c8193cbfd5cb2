"""One call for every diffusers DiT family."""

import torch
from mmengine.model import BaseModule
from torch import Tensor, nn

from genseg_mm.models.base import is_pretrained_config
from genseg_mm.models.dit_families import FAMILIES
from genseg_mm.models.prompt_encoders import PromptEmbeddings
from genseg_mm.registry import MODELS


@MODELS.register_module()
class DiTBackbone(BaseModule):
    """Diffusion transformer that predicts the velocity of noisy latents (GenMask's shared model of both tasks).

    Args:
        family: 'sana' or 'wan': how image latents, timestep and text enter (see ``dit_families.py``).
        transformer: Config of the diffusers model. Pretrained:
            ``dict(type='diffusers.WanTransformer3DModel.from_pretrained', pretrained_model_name_or_path=...,
            subfolder=...)``. From scratch: keyword arguments of the family's class without a type.
        zero_init_output: Starts the output layer at zero. Default: only from scratch, never on a loaded model.
        gradient_checkpointing: Recomputes activations in the backward pass to save memory.

    Raises:
        ValueError: If the family is unknown or its transformer is of another class.
    """

    def __init__(
        self,
        family: str,
        transformer: dict,
        zero_init_output: bool | None = None,
        gradient_checkpointing: bool = False,
        init_cfg: dict | None = None,
    ) -> None:
        super().__init__(init_cfg)
        if family not in FAMILIES:
            raise ValueError(f'family must be one of {sorted(FAMILIES)}, but got {family!r}')
        self.family = FAMILIES[family]()
        expected = self.family.transformer_class
        transformer = {'type': f'diffusers.{expected}', **transformer}
        self.transformer: nn.Module = MODELS.build(transformer)
        if type(self.transformer).__name__ != expected:
            raise ValueError(
                f'family {family!r} expects a {expected}, but got a {type(self.transformer).__name__}'
            )
        self.family.prepare(self.transformer)
        if zero_init_output is None:
            zero_init_output = not is_pretrained_config(transformer)
        if zero_init_output:
            nn.init.zeros_(self.transformer.proj_out.weight)
            nn.init.zeros_(self.transformer.proj_out.bias)
        if gradient_checkpointing:
            self.transformer.enable_gradient_checkpointing()

    @property
    def latent_channels(self) -> int:
        """Channels C of the latents that it denoises."""
        return self.transformer.config.out_channels

    @property
    def patch_size(self) -> tuple[int, int]:
        """Height and width in latent cells of one token."""
        size = self.transformer.config.patch_size
        return (size, size) if isinstance(size, int) else tuple(size[-2:])

    def init_weights(self) -> None:
        """Keeps the weights that diffusers gave."""
        self._is_init = True

    def forward(
        self,
        noisy: Tensor,
        sigma: Tensor,
        prompt: PromptEmbeddings,
        image_latents: Tensor | None = None,
        has_image: Tensor | None = None,
    ) -> Tensor:
        """Predicts the velocity.

        Args:
            noisy: Latents on the path, (N, C, H, W).
            sigma: Noise level, (N,) float32 in [0, 1]; 1 is pure noise.
            prompt: Text states (N, L, D) and mask (N, L).
            image_latents: Latents of the input image, (N, C, H, W); None if no sample has one.
            has_image: Which samples are conditioned on an image, (N,) bool. Default: all, if
                ``image_latents`` is given.

        Returns:
            Velocity, (N, C, H, W), float32.

        Raises:
            ValueError: If the latents' channels or size do not fit the transformer.
        """
        height, width = noisy.shape[-2:]
        patch_height, patch_width = self.patch_size
        if noisy.shape[1] != self.latent_channels:
            raise ValueError(
                f'expected latents of {self.latent_channels} channels, but got {noisy.shape[1]}: '
                'the codec and the transformer do not belong together'
            )
        if height % patch_height or width % patch_width:
            raise ValueError(
                f'latent size must be a multiple of the patch {self.patch_size}, but got {(height, width)}; '
                'choose another image size'
            )
        if image_latents is None:
            image_latents = torch.zeros_like(noisy)
            has_image = torch.zeros(len(noisy), dtype=torch.bool, device=noisy.device)
        elif has_image is None:
            has_image = torch.ones(len(noisy), dtype=torch.bool, device=noisy.device)
        velocity = self.family.velocity(
            self.transformer, noisy, sigma.float(), prompt, image_latents, has_image
        )
        return velocity.float()
