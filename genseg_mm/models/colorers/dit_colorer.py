"""Any DiT of :mod:`genseg_mm.models.dit_families` as a one-step, deterministic instance colorer."""

import os
from pathlib import Path
from typing import Any

import torch
from mmengine.model import BaseModule
from torch import Tensor, nn
from torch.nn import functional as F

from genseg_mm.checkpoint import load_weights_only
from genseg_mm.files.tensors import write_tensors
from genseg_mm.functional.flow_matching import data_from_velocity
from genseg_mm.models.pretrained_parts import frozen_pass, without_autocast
from genseg_mm.models.prompt_encoders import PromptEmbeddings
from genseg_mm.network_sizes import NATIVE, resize_to
from genseg_mm.registry import MODELS

PREDICTIONS = ('velocity', 'data')
PROMPT_FILE = 'prompt.safetensors'


@MODELS.register_module()
class DiTColorer(BaseModule):
    """gen2seg's colorer on a rectified-flow DiT: image latents in, one step, colour map out (ours).

    The paper (arXiv 2505.15263, Section 3) took Stable Diffusion 2's UNet. The same with a DiT: the autoencoder encodes
    the image, the transformer gets these latents z alone where a noisy latent belongs, without noise, at one fixed
    noise level s and under one fixed prompt, and what it says of the clean latents is decoded to the map. Autoencoder
    and prompt encoder are frozen; the prompt is embedded once, kept with the weights, and its encoder dropped.

    On the path ``noisy = (1 - s) data + s noise`` the transformer predicts the velocity v = noise - data, so
    ``data = z - s v``: the image stands in the place of the noise, and at s = 1 the path leads from the image to its
    map (as GenMask's ``start='image'``). That is ``prediction='velocity'``: the clean estimate of released weights
    keeps its meaning, and a model from scratch, whose output is zero at first, starts with the image as its map.
    (Stable Diffusion's training takes the noisy latent as zero instead; its v is minus the data at the last timestep,
    while a rectified flow's velocity holds the input, too.) ``'data'`` takes the output itself as the map's latents, as
    Stable Diffusion's ``sample`` prediction; from scratch it learns far sooner, since a velocity has to take the
    image's texture away first (numbers: configs/gen2seg/README.md).

    The arguments ``codec``, ``prompt_encoder`` and ``backbone`` are those of :class:`~genseg_mm.models.GenMask`, so the
    parts of its configs fit as they are. Families that take an image as extra channels keep their released input layer:
    the image comes in the place of the noisy latent.

    Args:
        backbone: Config of :class:`~genseg_mm.models.DiTBackbone`: family, transformer, lora.
        codec: Config of :class:`~genseg_mm.models.LatentCodec`.
        prompt_encoder: Config of a prompt encoder, for the embedding of ``prompt``. It is not kept.
        prompt: The prompt of all images; empty by default.
        prompt_embedding: File that :meth:`save_prompt` wrote, in place of a prompt encoder. With neither, a transformer
            from scratch gets one token of zeros.
        sigma: Noise level that the transformer is told, in (0, 1]; 1 (default) corresponds to Stable Diffusion's last
            timestep.
        prediction: ``'velocity'`` (default) or ``'data'``.
        gradient_checkpointing: Recompute activations of the transformer, and of the autoencoder's decoder where it
            can, in the backward pass instead of keeping them.

    Raises:
        FileNotFoundError: If there is no such file or folder.
        ValueError: If an argument is wrong, the parts do not fit each other, or a released transformer has no prompt.
    """

    def __init__(
        self,
        backbone: dict[str, Any],
        codec: dict[str, Any],
        prompt_encoder: dict[str, Any] | None = None,
        prompt: str = '',
        prompt_embedding: str | None = None,
        sigma: float = 1.0,
        prediction: str = 'velocity',
        gradient_checkpointing: bool = False,
    ) -> None:
        super().__init__()
        if not 0 < sigma <= 1:
            raise ValueError(f'sigma of DiTColorer must lie in (0, 1], but got {sigma}')
        if prediction not in PREDICTIONS:
            raise ValueError(f'prediction must be one of {", ".join(PREDICTIONS)}, but got {prediction!r}')
        if prompt_encoder is not None and prompt_embedding is not None:
            raise ValueError('DiTColorer takes prompt_encoder or prompt_embedding, but got both')
        self.sigma, self.prediction = sigma, prediction
        self.codec = MODELS.build(codec)
        self.backbone = MODELS.build({'takes_images': False, **backbone})
        if self.backbone.latent_channels != self.codec.latent_channels:
            raise ValueError(
                f'the transformer takes latents of {self.backbone.latent_channels} channels, but the codec gives '
                f'{self.codec.latent_channels}: they do not belong together'
            )
        if prediction == 'data' and not self.backbone.has_source:
            # The zeros of a training from scratch would be one flat colour, at which the coloring loss has no slope.
            nn.init.normal_(self.backbone.output_layer.weight, std=0.02)
        self._keep_prompt(self._embedded(prompt_encoder, prompt, prompt_embedding))
        if gradient_checkpointing:
            self.backbone.transformer.enable_gradient_checkpointing()
            if getattr(self.codec.autoencoder, '_supports_gradient_checkpointing', False):  # not Wan's, Qwen-Image's
                self.codec.autoencoder.enable_gradient_checkpointing()

    def init_weights(self) -> None:
        """Does nothing: diffusers has initialised or loaded the parts."""

    @property
    def multiples(self) -> tuple[int, int]:
        """Height and width in pixels of one token."""
        rows, columns = self.backbone.patch_size
        return rows * self.codec.downsample, columns * self.codec.downsample

    @property
    def prompt(self) -> PromptEmbeddings:
        """The embedded prompt: states (1, L, D), mask (1, L), pooled (1, P) or None."""
        return PromptEmbeddings(self.prompt_states, self.prompt_mask, self.prompt_pooled)

    def network_resize(self, size: int | tuple[int, int] | None = None) -> dict[str, Any]:
        """How a picture is brought to the size that the network works at, as ``NetworkResize`` takes it.

        As the released Stable Diffusion pipeline of gen2seg does: bilinear with antialiasing and without rounding, then
        padded, here to whole tokens.

        Args:
            size: The longer side, 0 for the own size of a picture, (height, width); None: the own size.
        """
        return resize_to(NATIVE if size is None else size, self.multiples, pad=True, whole=False)

    def forward(self, images: Tensor) -> Tensor:
        """Colours images.

        Args:
            images: RGB in [-1, 1], (N, 3, H, W), of any size: sides that are no multiples of a token's are padded by
                repeating the last row and column, and the map is cut to H x W.

        Returns:
            Decoded maps, about [-1, 1] (not cut off there), (N, 3, H, W), float32.
        """
        height, width = images.shape[-2:]
        bottom, right = (-side % step for side, step in zip((height, width), self.multiples, strict=True))
        latents = self.codec.encode(F.pad(images, (0, right, 0, bottom), mode='replicate'))  # (N, C, h, w)
        sigma = latents.new_full((latents.shape[0],), self.sigma)  # (N,)
        prompt = PromptEmbeddings(
            *(None if part is None else part.expand(latents.shape[0], *part.shape[1:]) for part in self.prompt)
        )
        output = self.backbone(latents, sigma, prompt)  # (N, C, h, w)
        clean = output if self.prediction == 'data' else data_from_velocity(latents, output, sigma)
        # In the autoencoder's own precision: 8 bits of bfloat16 are about one level of colour.
        with without_autocast(images.device):
            return self.codec.decode(clean.float(), clamp=False)[..., :height, :width]  # (N, 3, H, W)

    def save_pretrained(self, folder: str | Path) -> None:
        """Writes what the training made and the prompt, for ``pretrained_model_name_or_path`` and ``prompt_embedding``.

        ``transformer/`` is a diffusers folder; with LoRA it is ``lora/``, the adapters as a folder of peft, for
        ``DiTBackbone.load_lora``. ``prompt.safetensors`` is the embedded prompt. All else is that of the release.
        """
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        if getattr(self.backbone.transformer, 'peft_config', None):
            self.backbone.save_lora(folder / 'lora')
        else:
            self.backbone.transformer.save_pretrained(str(folder / 'transformer'), safe_serialization=True)
        self.save_prompt(folder / PROMPT_FILE)

    def save_prompt(self, path: str | Path) -> None:
        """Writes the embedded prompt: ``states`` (1, L, D), ``mask`` (1, L), ``pooled`` (1, P), as safetensors."""
        parts = {name: part for name, part in self.prompt._asdict().items() if part is not None}
        write_tensors(path, {name: part.cpu().contiguous() for name, part in parts.items()})

    def _embedded(self, encoder: dict[str, Any] | None, text: str, file: str | None) -> PromptEmbeddings:
        width = self.backbone.prompt_dims
        if encoder is not None:
            module = MODELS.build(encoder).eval()
            if any(own.is_meta for own in module.parameters()):
                raise ValueError(
                    'prompt_encoder of DiTColorer has no weights here, as where FSDP2 shards a model: give '
                    'prompt_embedding=FILE in its place, which DiTColorer.save_prompt writes'
                )
            with frozen_pass(torch.device('cpu')):
                prompt = module([text], None)
        elif file is not None:
            prompt = _read_prompt(Path(os.path.expanduser(file)))
        elif self.backbone.has_source:
            raise ValueError(
                'a released transformer needs the prompt that all images get: expected prompt_encoder (a config), or '
                'prompt_embedding (a file of DiTColorer.save_prompt), but got neither'
            )
        else:
            prompt = PromptEmbeddings(torch.zeros(1, 1, width), torch.ones(1, 1, dtype=torch.bool))
        if prompt.states.shape[-1] != width:
            source = file or 'the prompt encoder'
            raise ValueError(
                f'the transformer takes prompts of width {width}, but got {prompt.states.shape[-1]} from {source}: set '
                f'prompt_dims={prompt.states.shape[-1]} in the backbone for a fresh text projection'
            )
        return prompt

    def _keep_prompt(self, prompt: PromptEmbeddings) -> None:
        for name, part in prompt._asdict().items():
            part = None if part is None else part.detach().clone()
            self.register_buffer(f'prompt_{name}', part)


def _read_prompt(path: Path) -> PromptEmbeddings:
    if not path.is_file():
        raise FileNotFoundError(f'prompt_embedding {path}: no such file; DiTColorer.save_prompt writes one')
    parts = load_weights_only(str(path))
    states, mask = parts.get('states'), parts.get('mask')
    fits = states is not None and mask is not None and states.ndim == 3 and mask.shape == states.shape[:2]
    if not fits or len(states) != 1 or not set(parts) <= set(PromptEmbeddings._fields):
        shapes = {name: tuple(part.shape) for name, part in parts.items()}
        raise ValueError(
            f'{path}: expected states (1, L, D), mask (1, L) and perhaps pooled (1, P), but got {shapes}; write it '
            'with DiTColorer.save_prompt'
        )
    return PromptEmbeddings(states, mask.bool(), parts.get('pooled'))
