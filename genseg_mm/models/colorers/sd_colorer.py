"""Stable Diffusion as a one-step, deterministic instance colorer (gen2seg, Section 3)."""

from pathlib import Path
from typing import Any

import torch
from mmengine.model import BaseModule
from torch import Tensor, nn

from genseg_mm.models.colorers.released_folder import (
    copy_frozen_parts,
    default_processing_resolution,
    empty_prompt,
    find_pipeline,
    part_from_pretrained,
    read_scheduler,
)
from genseg_mm.models.latent_codec import LatentCodec
from genseg_mm.models.pretrained_parts import reading
from genseg_mm.network_sizes import NATIVE, resize_to
from genseg_mm.registry import MODELS

PREDICTION_TYPES = ('v_prediction', 'epsilon', 'sample')
# parity -> (latent that the step starts from, tokens of the empty prompt: None is the full length)
PARITIES = {'released': ('image', 2), 'training': ('zero', None)}
SD2_SCHEDULER = dict(
    num_train_timesteps=1000,
    beta_start=0.00085,
    beta_end=0.012,
    beta_schedule='scaled_linear',
    prediction_type='v_prediction',
)


@MODELS.register_module()
class SDColorer(BaseModule):
    """Stable Diffusion's UNet as a colorer: the image latent alone in, one step, decoded.

    The VAE encodes the image (mode of the posterior, times ``scaling_factor``), the UNet gets this
    latent without noise at the fixed last timestep with the embedding of the empty prompt, and its
    output is turned into a clean latent, which the VAE decodes. VAE and text encoder are frozen;
    the prompt is embedded once and the text encoder dropped. Exactly one of ``pretrained`` and
    ``config`` is given.

    The public code trains one graph and infers with another. Training steps from a zero latent
    (v-prediction: -sqrt(1 - abar) v) and pads the prompt to 77 tokens; inference steps from the
    image latent (+ sqrt(abar) latent, where sqrt(abar) is 0.068 in Stable Diffusion) and does not
    pad (2 tokens). ``parity`` chooses.

    Args:
        pretrained: Folder or hub id of a Stable Diffusion pipeline (``model_index.json``, ``unet``,
            ``vae``, ``text_encoder``, ``tokenizer``, ``scheduler``), such as gen2seg's released
            weights or Stable Diffusion 2. Its VAE is then left out of checkpoints.
        config: From scratch: ``unet`` (keyword arguments of ``diffusers.UNet2DConditionModel``),
            ``vae`` (of ``diffusers.AutoencoderKL``, or with a ``type`` any config that
            :class:`~genseg_mm.models.latent_codec.LatentCodec` takes) and optionally ``scheduler``
            (of ``diffusers.DDIMScheduler``, over Stable Diffusion 2's settings). The prompt's
            embedding is zero.
        parity: ``'released'`` for the inference graph of the released weights, ``'training'`` for
            the one they were trained with, or None for training in train mode and released in eval
            mode, as in the public code.
        prediction_type: ``'v_prediction'``, ``'epsilon'`` or ``'sample'``, in place of the
            scheduler's.
        timestep: The fixed timestep; by default the last, ``num_train_timesteps - 1``.
        gradient_checkpointing: Recompute activations of UNet and VAE decoder in the backward pass
            instead of keeping them.

    Raises:
        FileNotFoundError: If the folder or one of its files does not exist.
        ValueError: If an argument is wrong, or the folder's parts are damaged or do not fit.
    """

    def __init__(
        self,
        pretrained: str | None = None,
        config: dict[str, Any] | None = None,
        parity: str | None = None,
        prediction_type: str | None = None,
        timestep: int | None = None,
        gradient_checkpointing: bool = False,
    ) -> None:
        super().__init__()
        if (config is None) == (pretrained is None):
            raise ValueError(
                'SDColorer needs either config (trained from scratch) or pretrained '
                f'(folder or hub id), but got {"both" if config is not None else "neither"}'
            )
        _check_choice('parity', parity, PARITIES)
        self.parity = parity
        self.source = None if pretrained is None else find_pipeline(pretrained)
        if self.source is not None:
            self.unet, self.codec, text, scheduler = _pretrained_parts(self.source)
        else:
            self.unet, self.codec, text, scheduler = _fresh_parts(config)
        self.resolution = NATIVE if self.source is None else default_processing_resolution(self.source)
        self._check_parts(text)
        self.register_buffer('text', text, persistent=False)  # (1, L, D)
        self.prediction_type = prediction_type or scheduler.get('prediction_type', 'epsilon')
        _check_choice('prediction_type', self.prediction_type, PREDICTION_TYPES)
        self.timestep, self.alpha_bar = _noise_level(scheduler, timestep)
        if self.alpha_bar == 0 and self.prediction_type == 'epsilon':
            raise ValueError(
                f'epsilon prediction has no estimate at timestep {self.timestep}, whose signal is '
                'zero (rescale_betas_zero_snr); choose an earlier timestep'
            )
        if gradient_checkpointing:
            self.unet.enable_gradient_checkpointing()
            if hasattr(self.codec.autoencoder, 'enable_gradient_checkpointing'):  # not PatchCodec
                self.codec.autoencoder.enable_gradient_checkpointing()

    def init_weights(self) -> None:
        """Does nothing: diffusers has initialised or loaded the parts."""

    def network_resize(self, size: int | tuple[int, int] | None = None) -> dict[str, Any]:
        """How a picture is brought to the size that the network works at, as ``NetworkResize`` takes it.

        As the released pipeline does: the longer side to the folder's resolution, up or down, bilinear with
        antialiasing and without rounding, then padded to multiples of the VAE's cell.

        Args:
            size: The longer side, 0 for the own size of a picture, (height, width); None: the folder's
                ``default_processing_resolution`` (``model_index.json``), 768 where it has none; the own size for a
                model from a config.
        """
        return resize_to(self.resolution if size is None else size, self.codec.downsample, pad=True, whole=False)

    def graph(self) -> tuple[str, int]:
        """Latent that the step starts from (``'image'``, ``'zero'``) and tokens of the prompt, as set now."""
        parity = self.parity or ('training' if self.training else 'released')
        step_from, num_text_tokens = PARITIES[parity]
        return step_from, num_text_tokens or self.text.shape[1]

    def forward(self, images: Tensor) -> Tensor:
        """Colours images.

        Args:
            images: RGB in [-1, 1], (N, 3, H, W); H and W multiples of the VAE's cell (8 pixels in
                Stable Diffusion).

        Returns:
            Decoded maps, about [-1, 1], (N, 3, H, W), float32.

        Raises:
            ValueError: If the size is no such multiple.
        """
        step_from, num_text_tokens = self.graph()
        latents = self.codec.encode(images)  # (N, C, h, w)
        timesteps = torch.full((latents.shape[0],), self.timestep, device=latents.device)
        text = self.text[:, :num_text_tokens].expand(latents.shape[0], -1, -1)  # (N, L, D)
        output = self.unet(latents, timesteps, encoder_hidden_states=text).sample
        start = latents if step_from == 'image' else torch.zeros_like(latents)
        clean = clean_latents(output.float(), start, self.alpha_bar, self.prediction_type)
        return self.codec.decode(clean)  # (N, 3, H, W)

    def compiled_parts(self) -> list[nn.Module]:
        """What ``--compile`` of an evaluation compiles, beside the autoencoder."""
        return [self.unet]

    def save_pretrained(self, folder: str | Path) -> None:
        """Writes a pipeline folder that ``diffusers.StableDiffusionPipeline.from_pretrained`` opens.

        The UNet as it is now (safetensors); VAE, text encoder, tokenizer and scheduler are the
        files of the folder that this colorer was built from.

        Raises:
            FileNotFoundError: If that folder is gone.
            ValueError: If the colorer was built from a config: it never had a text encoder.
        """
        if self.source is None:
            raise ValueError(
                'this SDColorer was built from a config, without text encoder and tokenizer, so it makes no whole '
                'pipeline; build it with pretrained=FOLDER, or write its UNet alone: colorer.unet.save_pretrained'
            )
        folder = Path(folder)
        copy_frozen_parts(self.source, folder)
        self.unet.save_pretrained(str(folder / 'unet'), safe_serialization=True)

    def _check_parts(self, text: Tensor) -> None:
        unet = self.unet.config
        channels = getattr(self.codec.autoencoder.config, 'latent_channels', unet.in_channels)
        if not unet.in_channels == unet.out_channels == channels:
            raise ValueError(
                f'the UNet must take and give the {channels} channels of the VAE, but got in_channels '
                f'{unet.in_channels} and out_channels {unet.out_channels} (inpainting and depth models do not fit)'
            )
        if unet.cross_attention_dim != text.shape[-1]:
            raise ValueError(
                f'the UNet takes prompts of width {unet.cross_attention_dim}, but the text encoder '
                f'gives {text.shape[-1]}'
            )


def clean_latents(output: Tensor, start: Tensor, alpha_bar: float, prediction_type: str) -> Tensor:
    """The clean latent that a network's output stands for, given the noisy latent it is said of.

    With a = ``alpha_bar`` and z = ``start``, from z = sqrt(a) clean + sqrt(1 - a) noise and
    v = sqrt(a) noise - sqrt(1 - a) clean: v-prediction gives sqrt(a) z - sqrt(1 - a) v, epsilon
    (z - sqrt(1 - a) eps) / sqrt(a), sample the output itself (DDIM, arXiv 2010.02502, Eq. 9; v:
    arXiv 2202.00512, Appendix D). Not clipped.

    Args:
        output: Of the network, (N, C, h, w).
        start: Noisy latent, same shape; zero in gen2seg's training.
        alpha_bar: Product of the alphas up to the timestep, in [0, 1].
        prediction_type: ``'v_prediction'``, ``'epsilon'`` or ``'sample'``.

    Returns:
        (N, C, h, w).
    """
    signal, noise = alpha_bar**0.5, (1 - alpha_bar) ** 0.5
    if prediction_type == 'v_prediction':
        return signal * start - noise * output
    if prediction_type == 'epsilon':
        return (start - noise * output) / signal
    return output


def _pretrained_parts(folder: Path) -> tuple:
    from diffusers import AutoencoderKL, UNet2DConditionModel

    codec = dict(type=part_from_pretrained, owner=AutoencoderKL, folder=folder, name='vae')
    return (
        part_from_pretrained(UNet2DConditionModel, folder, 'unet'),
        LatentCodec(codec),
        empty_prompt(folder),
        read_scheduler(folder),
    )


def _fresh_parts(config: dict[str, Any]) -> tuple:
    from diffusers import UNet2DConditionModel

    if not {'unet', 'vae'} <= config.keys() <= {'unet', 'vae', 'scheduler'}:
        raise ValueError(
            'config of SDColorer holds unet, vae and optionally scheduler, but got '
            f'{", ".join(sorted(config)) or "nothing"}'
        )
    unet = UNet2DConditionModel(**config['unet'])
    codec = LatentCodec({'type': 'diffusers.AutoencoderKL', **config['vae']})
    text = torch.zeros(1, 77, unet.config.cross_attention_dim)  # of CLIP's length
    return unet, codec, text, {**SD2_SCHEDULER, **config.get('scheduler', {})}


def _noise_level(scheduler: dict[str, Any], timestep: int | None) -> tuple[int, float]:
    """The fixed timestep and its alpha_bar, by diffusers in float32."""
    from diffusers import DDIMScheduler

    with reading('the scheduler of SDColorer'):
        alphas_bar = DDIMScheduler.from_config(scheduler).alphas_cumprod
    timestep = len(alphas_bar) - 1 if timestep is None else timestep
    if not 0 <= timestep < len(alphas_bar):
        raise ValueError(f'timestep must be 0 ... {len(alphas_bar) - 1}, but got {timestep}')
    return timestep, float(alphas_bar[timestep])


def _check_choice(name: str, value: str | None, choices: Any) -> None:
    if value is not None and value not in choices:
        raise ValueError(f'{name} must be one of {", ".join(choices)}, but got {value!r}')
