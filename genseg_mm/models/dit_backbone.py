"""One call for every diffusers DiT family."""

import logging
from pathlib import Path

import torch
from mmengine.logging import print_log
from mmengine.model import BaseModule
from torch import Tensor, nn

from genseg_mm.models.dit_families import FAMILIES, DiTInputs
from genseg_mm.models.dit_families.family import replace_text_projection
from genseg_mm.models.dit_lora import add_lora, load_lora, save_lora
from genseg_mm.models.pretrained_parts import build_part, is_pretrained_config
from genseg_mm.models.prompt_encoders import PromptEmbeddings
from genseg_mm.registry import MODELS


@MODELS.register_module()
class DiTBackbone(BaseModule):
    """Diffusion transformer that predicts the velocity of noisy latents (GenMask's shared model of both tasks).

    Args:
        family: A key of :data:`~genseg_mm.models.dit_families.FAMILIES`, such as 'wan': how image latents, timestep
            and text enter.
        transformer: Config of the diffusers model. Pretrained:
            ``dict(type='diffusers.WanTransformer3DModel.from_pretrained', pretrained_model_name_or_path=...,
            subfolder='transformer', torch_dtype='bfloat16')``. From scratch: keyword arguments of the family's class
            without a type.
        gradient_checkpointing: Recomputes activations in the backward pass to save memory.
        prompt_dims: Width of the prompt encoder's states. Where the transformer takes another one, its text
            projection is replaced by a fresh one of this width (the paper reads Qwen2.5-VL states with Wan).
        lora: Freezes the transformer and trains low-rank adapters: keyword arguments of ``peft.LoraConfig``, such as
            ``dict(r=16, lora_alpha=16)``; default layers: the projections of every attention. Layers that are not
            the released ones any more (a widened input, a fresh text projection) are trained whole.
        embedded_guidance: Guidance scale that a guidance-distilled Flux takes as an input; default 1.
        takes_images: False for a model that gets no image beside the noisy latents. Families that take it as extra
            channels then keep their released input layer.

    Raises:
        ValueError: If the family is unknown, its transformer is of another class or kind, or it has no guidance input.
    """

    def __init__(
        self,
        family: str,
        transformer: dict,
        gradient_checkpointing: bool = False,
        prompt_dims: int | None = None,
        lora: dict | None = None,
        embedded_guidance: float | None = None,
        takes_images: bool = True,
        init_cfg: dict | None = None,
    ) -> None:
        super().__init__(init_cfg)
        if family not in FAMILIES:
            raise ValueError(f'family must be one of {sorted(FAMILIES)}, but got {family!r}')
        self.family = FAMILIES[family]()
        self.family.takes_images = takes_images
        expected = self.family.transformer_class
        transformer = _with_dtype({'type': f'diffusers.{expected}', **transformer})
        self.has_source = is_pretrained_config(transformer)
        self.transformer: nn.Module = build_part(transformer)
        if type(self.transformer).__name__ != expected:
            raise ValueError(f'family {family!r} expects a {expected}, but got a {type(self.transformer).__name__}')
        # Layers that are not the released ones any more.
        self.new_layers: list[str] = self.family.prepare(self.transformer)
        if self.has_source and self.new_layers:
            print_log(
                f'{expected}: {", ".join(self.new_layers)} widened for the latents of the image; the new channels '
                'start at zero',
                'current',
            )
        if not self.has_source:
            self.family.start_from_scratch(self.transformer)
            self._zero_output()
        if prompt_dims is not None and prompt_dims != self.prompt_dims:
            self._replace_text_projection(prompt_dims)
        if embedded_guidance is not None:
            if not getattr(self.transformer.config, 'guidance_embeds', False):
                raise ValueError(
                    f'embedded_guidance={embedded_guidance} needs a guidance-distilled transformer (guidance_embeds), '
                    f'but this {expected} takes no guidance; leave it out'
                )
            self.family.embedded_guidance = embedded_guidance
        if lora is not None:
            add_lora(self.transformer, lora, self.new_layers, self.has_source)
        if gradient_checkpointing:
            self.transformer.enable_gradient_checkpointing()
        self._warn_of_coarse_training()

    def _zero_output(self) -> None:
        """Starts a training from scratch at the velocity 0."""
        nn.init.zeros_(self.output_layer.weight)
        if self.output_layer.bias is not None:
            nn.init.zeros_(self.output_layer.bias)

    def _replace_text_projection(self, prompt_dims: int) -> None:
        names, key = self.family.text_projection, self.family.text_width_key
        print_log(
            f'{type(self.transformer).__name__}: fresh {", ".join(names)} for prompts of width {prompt_dims} in place '
            f'of {self.prompt_dims}; train it before the model follows any text',
            'current',
        )
        replace_text_projection(self.transformer, names, prompt_dims)
        self.transformer.register_to_config(**{key: prompt_dims})
        self.new_layers += names

    def _warn_of_coarse_training(self) -> None:
        trained = [own for own in self.transformer.parameters() if own.requires_grad]
        coarse = [own for own in trained if own.dtype in (torch.bfloat16, torch.float16)]
        if coarse:
            print_log(
                f'{len(coarse)} of {len(trained)} trained tensors are {coarse[0].dtype}, which rounds small optimizer '
                "steps away: leave torch_dtype out and use optim_wrapper=dict(type='genseg_mm.AutocastOptimWrapper')",
                'current',
                logging.WARNING,
            )

    @property
    def latent_channels(self) -> int:
        """Channels C of the latents that it denoises."""
        return self.family.latent_channels(self.transformer)

    @property
    def patch_size(self) -> tuple[int, int]:
        """Height and width in latent cells of one token."""
        return self.family.patch_size(self.transformer)

    @property
    def prompt_dims(self) -> int:
        """Width D of the text states that it takes."""
        return self.transformer.config[self.family.text_width_key]

    @property
    def output_layer(self) -> nn.Linear:
        """The transformer's last layer, zero at the start of a training from scratch."""
        return self.family.output_layer(self.transformer)

    def init_weights(self) -> None:
        """Keeps the weights that diffusers gave."""
        self._is_init = True

    def compiled_parts(self) -> list[nn.Module]:
        """What ``--compile`` of an evaluation compiles."""
        return [self.transformer]

    def save_lora(self, folder: str | Path) -> None:
        """Writes the adapters alone as a folder of peft, see :func:`~genseg_mm.models.dit_lora.save_lora`."""
        save_lora(self.transformer, folder, self.new_layers)

    def load_lora(self, folder: str | Path) -> None:
        """Reads such a folder, see :func:`~genseg_mm.models.dit_lora.load_lora`."""
        load_lora(self.transformer, folder, self.new_layers, self.has_source)

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
            prompt: Text states (N, L, D) and mask (N, L), for some families a pooled vector (N, P).
            image_latents: Latents of the input image, (N, C, H, W); None if no sample has one.
            has_image: Which samples are conditioned on an image, (N,) bool. Default: all, if
                ``image_latents`` is given.

        Returns:
            Velocity, noise - data, (N, C, H, W), float32.

        Raises:
            ValueError: If the latents' channels or size or the prompts' width do not fit the transformer, or if there
                are image latents and ``takes_images`` is False.
        """
        self._check(noisy, prompt)
        if image_latents is not None and not self.family.takes_images:
            raise ValueError('this DiTBackbone has takes_images=False: expected no image_latents, but got some')
        alike = False if image_latents is None else True if has_image is None else None
        if image_latents is None:
            image_latents = torch.zeros_like(noisy)
            has_image = torch.zeros(noisy.shape[0], dtype=torch.bool, device=_device_with_values(noisy))
        elif has_image is None:
            has_image = torch.ones(noisy.shape[0], dtype=torch.bool, device=_device_with_values(noisy))
        dtype = self.transformer.dtype
        states = prompt.states.to(dtype)
        if self.family.needs_fixed_length_text:
            states = states.masked_fill(~prompt.mask[..., None], 0)
        pooled = None if prompt.pooled is None else prompt.pooled.to(dtype)
        prompt = PromptEmbeddings(states, prompt.mask, pooled)
        inputs = DiTInputs(noisy.to(dtype), sigma.float(), prompt, image_latents.to(dtype), has_image, alike)
        return self.family.velocity(self.transformer, inputs).float()

    def _check(self, noisy: Tensor, prompt: PromptEmbeddings) -> None:
        if noisy.shape[1] != self.latent_channels:
            raise ValueError(
                f'expected latents of {self.latent_channels} channels, but got {noisy.shape[1]}: '
                'the codec and the transformer do not belong together'
            )
        size, patch = tuple(noisy.shape[-2:]), self.patch_size
        if size[0] % patch[0] or size[1] % patch[1]:
            raise ValueError(
                f'latent size must be a multiple of the patch {patch}, but got {size}; choose another image size'
            )
        width = prompt.states.shape[-1]
        if width != self.prompt_dims:
            raise ValueError(
                f'the transformer takes text states of width {self.prompt_dims}, but got {width} from the prompt '
                f'encoder: set prompt_dims={width} in DiTBackbone'
            )


def _device_with_values(tensor: Tensor) -> torch.device | str:
    """Of a tensor; the CPU where it is on the meta device, since families ask which samples have an image."""
    return 'cpu' if tensor.is_meta else tensor.device


def _with_dtype(transformer: dict) -> dict:
    """Reads dtypes written as text, which diffusers would take for float32 with no more than a warning."""
    transformer = dict(transformer)
    for key in ('torch_dtype', 'dtype'):
        name = transformer.get(key)
        if isinstance(name, str):
            dtype = getattr(torch, name.removeprefix('torch.'), None)
            if not isinstance(dtype, torch.dtype):
                raise ValueError(f"transformer.{key} must name a dtype, such as 'bfloat16', but got {name!r}")
            transformer[key] = dtype
    return transformer
