"""Images <-> standardised latents: for every diffusers autoencoder, and for the closed-form one of the tiny models."""

import hashlib
import itertools
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace

import torch
import torch.nn.functional as F
from mmengine.model import BaseModule
from torch import Tensor, nn

from genseg_mm.checkpoint import load_weights_only
from genseg_mm.models.picture_memory import PictureMemory
from genseg_mm.models.pretrained_parts import FrozenPartsMixin, build_part, freeze, frozen_pass, is_pretrained_config
from genseg_mm.registry import MODELS

SHIPPED_WEIGHTS = Path(__file__).parents[1] / 'weights'


@MODELS.register_module()
class LatentCodec(FrozenPartsMixin, BaseModule):
    """Frozen autoencoder whose latents are standardised.

    2D autoencoders (AutoencoderKL, AutoencoderTiny, AutoencoderDC, our PatchCodec) and video autoencoders used with one
    frame (AutoencoderKLWan of Wan2.1 and 2.2, AutoencoderKLQwenImage). Latents are standardised by the autoencoder's
    ``latents_mean`` and ``latents_std`` where it has them, else by ``shift_factor`` and ``scaling_factor``. The mode of
    the posterior is taken.

    Args:
        autoencoder: Config, e.g. ``dict(type='diffusers.AutoencoderKLWan.from_pretrained', ...)``.
        max_batch: Most images that go through the autoencoder at once; bounds memory, changes nothing else.
    """

    frozen_parts = ('autoencoder',)

    def __init__(self, autoencoder: dict, max_batch: int | None = None, init_cfg: dict | None = None) -> None:
        super().__init__(init_cfg)
        module = build_part(autoencoder)
        has_source = is_pretrained_config(autoencoder) or getattr(module, 'has_source', False)
        self.autoencoder = freeze(module, has_source)
        self.max_batch = max_batch
        self.is_video = any(isinstance(module, nn.Conv3d) for module in self.autoencoder.modules())
        config = self.autoencoder.config
        self.packing = _packing(self.autoencoder)
        mean, std = _option(config, 'latents_mean'), _option(config, 'latents_std')
        if self.packing > 1:
            statistics = self.autoencoder.bn
            mean = statistics.running_mean
            std = (statistics.running_var.float() + config.batch_norm_eps).sqrt()
        elif mean is None or std is None:
            # Diffusers maps latents to (z - shift) * scaling.
            mean = [_option(config, 'shift_factor') or 0.0]
            std = [1 / (_option(config, 'scaling_factor') or 1.0)]
        for name, value in (('latents_mean', mean), ('latents_std', std)):
            value = torch.as_tensor(value, dtype=torch.float32).reshape(1, -1, 1, 1)
            self.register_buffer(name, value, persistent=False)
        self.downsample = _spatial_factor(self.autoencoder)
        self._memory = PictureMemory()

    def init_weights(self) -> None:
        """Keeps the autoencoder as it was built."""
        self._is_init = True

    @property
    def latent_channels(self) -> int:
        """Channels C of the latents."""
        config = self.autoencoder.config
        channels = _option(config, 'latent_channels') or _option(config, 'z_dim')
        return int(channels or self.latents_mean.shape[1]) * self.packing**2

    def compiled_parts(self) -> list[nn.Module]:
        """What ``--compile`` of an evaluation compiles: encoder and decoder, where it has them."""
        parts = (getattr(self.autoencoder, name, None) for name in ('encoder', 'decoder'))
        return [part for part in parts if isinstance(part, nn.Module)]

    def fingerprint(self) -> str:
        """Hash of all that its latents depend on: class, weights, standardisation.

        The weights are hashed as bfloat16, so that loading them in a lower precision leaves it as it is.
        """
        digest = hashlib.sha256(type(self.autoencoder).__name__.encode())
        state = {**self.autoencoder.state_dict(), '_mean': self.latents_mean, '_std': self.latents_std}
        for name in sorted(state):
            value = state[name].detach().to(torch.bfloat16).contiguous().cpu()
            digest.update(f'{name}{tuple(value.shape)}'.encode())
            digest.update(value.view(torch.uint8).numpy().tobytes())
        return digest.hexdigest()

    def encode(self, images: Tensor) -> Tensor:
        """Encodes images; in eval mode each picture once, however often it comes in a batch or in the next one.

        Args:
            images: RGB in [-1, 1], (N, 3, H, W); H and W multiples of ``downsample``.

        Returns:
            Standardised latents, (N, C, H / downsample, W / downsample), float32, without gradient
            and in the autoencoder's own precision, whatever autocast says.

        Raises:
            ValueError: If the size is not a multiple of ``downsample``.
        """
        height, width = images.shape[-2:]
        if height % self.downsample or width % self.downsample:
            raise ValueError(
                f'image height and width must be multiples of {self.downsample} for this autoencoder, '
                f'but got {(height, width)}; set another Resize scale or pad_size_divisor={self.downsample}'
            )
        self.fetch_frozen_parts()
        with frozen_pass(images.device):
            if self.training or images.device.type == 'meta' or torch.compiler.is_exporting():
                return self._encode_all(images)
            return torch.stack(self._memory.encode(images, self._encode_all, self.autoencoder))

    def _encode_all(self, images: Tensor) -> Tensor:
        latents = torch.cat([self._encode(part) for part in self._parts(images)])
        return (latents.float() - self.latents_mean) / self.latents_std

    def decode(self, latents: Tensor, clamp: bool = True) -> Tensor:
        """Decodes standardised latents to images; gradients flow to the latents.

        Where none are asked for, it runs in the autoencoder's own precision, whatever autocast says.

        Args:
            latents: (N, C, h, w).
            clamp: Wan's and Qwen's autoencoders cut their output off at -1 and 1, where nothing is left of a gradient.
                False takes it as it was before, for a loss in pixel space; others have no such cut.

        Returns:
            RGB in about [-1, 1], (N, 3, H, W), float32.
        """
        self.fetch_frozen_parts()
        latents = latents.float() * self.latents_std + self.latents_mean
        decode = self._decode if clamp or not self.is_video else self._decode_unclamped
        with nullcontext() if torch.is_grad_enabled() else frozen_pass(latents.device):
            return torch.cat([decode(part) for part in self._parts(latents)]).float()

    def _parts(self, batch: Tensor) -> tuple[Tensor, ...]:
        weights = itertools.chain(self.autoencoder.parameters(), self.autoencoder.buffers())  # PatchCodec has buffers
        batch = batch.to(next((own.dtype for own in weights if own.is_floating_point()), batch.dtype))
        return (batch,) if self.max_batch is None else batch.split(self.max_batch)

    def _encode(self, images: Tensor) -> Tensor:
        encoded = self.autoencoder.encode(images[:, :, None] if self.is_video else images)
        if hasattr(encoded, 'latent_dist'):
            latents = encoded.latent_dist.mode()
        else:
            latents = encoded.latents if hasattr(encoded, 'latents') else encoded.latent
        latents = latents[:, :, 0] if self.is_video else latents
        return F.pixel_unshuffle(latents, self.packing)

    def _decode(self, latents: Tensor) -> Tensor:
        latents = F.pixel_shuffle(latents, self.packing)
        if self.is_video:
            return self.autoencoder.decode(latents[:, :, None]).sample[:, :, 0]
        return self.autoencoder.decode(latents).sample

    def _decode_unclamped(self, latents: Tensor) -> Tensor:
        seen: list[Tensor] = []
        hook = self.autoencoder.decoder.register_forward_hook(lambda _module, _args, output: seen.append(output))
        try:
            clamped = self._decode(latents)
        finally:
            hook.remove()
        if len(seen) != 1:
            raise ValueError(
                f'expected one call of the decoder for one frame, but got {len(seen)}; turn slicing and tiling off'
            )
        images = seen[0][:, :, 0]
        patch_size = _option(self.autoencoder.config, 'patch_size') or 1
        if patch_size > 1:
            # Wan2.2 orders a pixel's place in a patch as (column, row).
            images = images.unflatten(1, (-1, patch_size, patch_size)).transpose(2, 3)
            images = F.pixel_shuffle(images.flatten(1, 3), patch_size)
        return images.reshape(clamped.shape)


def find_weights(weights: str | Path, what: str, tool: str) -> Path:
    """A file of weights; a bare name is looked up among the shipped ones.

    Raises:
        FileNotFoundError: If there is none; the message names ``what`` and the tool that makes it.
    """
    path = Path(weights)
    if not path.is_file() and path.name == str(weights):
        path = SHIPPED_WEIGHTS / weights
    if not path.is_file():
        raise FileNotFoundError(f'no {what} at {path}: make them with {tool}')
    return path


def _option(config: object, name: str) -> object:
    return getattr(config, name, None)


def _packing(autoencoder: nn.Module) -> int:
    """Side of the cells that become one, with a channel for each: 2 for FLUX.2, whose pipelines do it, else 1."""
    patch_size = _option(autoencoder.config, 'patch_size') or 1
    if isinstance(patch_size, int):
        return 1
    if patch_size[0] != patch_size[1] or not isinstance(_option(autoencoder, 'bn'), nn.BatchNorm2d):
        raise ValueError(
            f'{type(autoencoder).__name__} leaves patches and standardisation of its latents to the pipeline '
            f'(patch_size {tuple(patch_size)}): expected square patches and running statistics, as FLUX.2 has them'
        )
    return patch_size[0]


def _spatial_factor(autoencoder: nn.Module) -> int:
    """Pixels per latent cell along one side, from the number of stages.

    (The config's ``scale_factor_spatial`` does not follow them.)
    """
    config = autoencoder.config
    packing = _packing(autoencoder)
    patch_size = packing if packing > 1 else _option(config, 'patch_size') or 1
    for name in ('block_out_channels', 'encoder_block_out_channels', 'dim_mult'):
        if stages := _option(config, name):
            return 2 ** (len(stages) - 1) * patch_size
    if _option(config, 'patch_size'):
        return patch_size
    raise ValueError(
        f'cannot tell the downsampling of {type(autoencoder).__name__}: expected an autoencoder whose config has '
        "'block_out_channels', 'encoder_block_out_channels', 'dim_mult' or 'patch_size'"
    )


@MODELS.register_module()
class PatchCodec(nn.Module):
    """Closed-form autoencoder of the tiny models: non-overlapping patches onto their first principal components.

    Or, with a ``patch_size``, the patches themselves: pixels moved to channels, and nothing lost on the way.

    It has diffusers' interface. The components are orthonormal, so that the mean squared error of latents is that of
    the pixels within their span, and one ``scaling_factor`` gives the latents of images unit variance. Encoding costs
    one strided convolution.

    Args:
        weights: Safetensors file with ``mean`` (3 p p,), ``basis`` (C, 3 p p), ``scaling_factor`` (1,), as
            ``tools/fit_patch_codec.py`` writes it; a bare name is looked up among the shipped weights.
        patch_size: Side p of patches that are kept whole, 3 p p channels, in place of weights.

    Raises:
        FileNotFoundError: If the file does not exist.
        ValueError: If a tensor is missing or has another shape.
    """

    has_source = True  # always built from a file or number, so checkpoints need not hold it

    def __init__(self, weights: str = 'patch_codec_shapes.safetensors', patch_size: int | None = None) -> None:
        super().__init__()
        path = find_weights(weights, 'codec weights', 'tools/fit_patch_codec.py') if patch_size is None else None
        state = _whole_patches(patch_size) if path is None else load_weights_only(str(path))
        if set(state) != {'mean', 'basis', 'scaling_factor'}:
            raise ValueError(f"{path}: expected tensors 'mean', 'basis', 'scaling_factor', but got {sorted(state)}")
        if state['basis'].ndim != 2 or state['scaling_factor'].numel() != 1:
            raise ValueError(
                f'{path}: expected basis (C, 3 p p) and one scaling_factor, but got '
                f'{tuple(state["basis"].shape)} and {tuple(state["scaling_factor"].shape)}'
            )
        channels, size = state['basis'].shape
        patch_size = round((size / 3) ** 0.5)
        if 3 * patch_size**2 != size or state['mean'].shape != (size,):
            raise ValueError(
                f'{path}: expected basis (C, 3 p p) and mean (3 p p,), but got '
                f'{tuple(state["basis"].shape)} and {tuple(state["mean"].shape)}'
            )
        self.register_buffer('mean', state['mean'])
        self.register_buffer('basis', state['basis'])
        self.config = SimpleNamespace(
            patch_size=patch_size,
            latent_channels=channels,
            scaling_factor=float(state['scaling_factor']),
            shift_factor=0.0,
        )

    def encode(self, images: Tensor) -> SimpleNamespace:
        """Encodes images (N, 3, H, W) in [-1, 1]; ``.latents`` is (N, C, H / p, W / p)."""
        patches = F.pixel_unshuffle(images, self.config.patch_size)  # (N, 3 p p, h, w)
        patches = patches - self.mean[:, None, None]
        return SimpleNamespace(latents=torch.einsum('cd,ndhw->nchw', self.basis, patches))

    def decode(self, latents: Tensor) -> SimpleNamespace:
        """Decodes latents (N, C, h, w); ``.sample`` is (N, 3, p h, p w)."""
        patches = torch.einsum('cd,nchw->ndhw', self.basis, latents) + self.mean[:, None, None]
        return SimpleNamespace(sample=F.pixel_shuffle(patches, self.config.patch_size))


def _whole_patches(patch_size: int) -> dict[str, Tensor]:
    if not isinstance(patch_size, int) or patch_size < 1:
        raise ValueError(f'patch_size must be a whole number of at least 1, but got {patch_size!r}')
    size = 3 * patch_size**2
    return {'mean': torch.zeros(size), 'basis': torch.eye(size), 'scaling_factor': torch.ones(1)}


def fit_patch_codec(images: Tensor, masks: Tensor, latent_channels: int = 20, patch_size: int = 8) -> dict[str, Tensor]:
    """Principal components of the patches of images and masks, equally weighted.

    Args:
        images: RGB in [-1, 1], (N, 3, H, W).
        masks: The same for masks drawn as black-and-white RGB images, (M, 3, H, W).
        latent_channels: Number C of components kept.
        patch_size: Side p of a patch.

    Returns:
        ``mean`` (3 p p,), ``basis`` (C, 3 p p) with orthonormal rows, ``scaling_factor`` (1,).
    """
    patches = [
        F.pixel_unshuffle(kind.double(), patch_size).movedim(1, -1).flatten(0, -2)  # (n, 3 p p)
        for kind in (images, masks)
    ]
    mean = sum(kind.mean(0) for kind in patches) / 2
    second_moment = sum((kind - mean).T @ (kind - mean) / len(kind) for kind in patches) / 2
    _, vectors = torch.linalg.eigh(second_moment)
    basis = vectors.flip(1)[:, :latent_channels].T
    basis = basis * basis.gather(1, basis.abs().argmax(1, keepdim=True)).sign()
    std = ((patches[0] - mean) @ basis.T).pow(2).mean().sqrt()
    return {'mean': mean.float(), 'basis': basis.float().contiguous(), 'scaling_factor': (1 / std).float()[None]}
