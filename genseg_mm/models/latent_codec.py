"""Images <-> standardised latents, for every diffusers autoencoder."""

import hashlib

import torch
from mmengine.model import BaseModule
from torch import Tensor, nn

from genseg_mm.models.base import FrozenPartsMixin, freeze, frozen_pass, is_pretrained_config
from genseg_mm.models.pretrained_parts import build_part
from genseg_mm.registry import MODELS


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
        mean, std = _option(config, 'latents_mean'), _option(config, 'latents_std')
        if mean is None or std is None:
            # Diffusers maps latents to (z - shift) * scaling.
            mean = [_option(config, 'shift_factor') or 0.0]
            std = [1 / (_option(config, 'scaling_factor') or 1.0)]
        for name, value in (('latents_mean', mean), ('latents_std', std)):
            value = torch.as_tensor(value, dtype=torch.float32).reshape(1, -1, 1, 1)
            self.register_buffer(name, value, persistent=False)
        self.downsample = _spatial_factor(self.autoencoder)

    def init_weights(self) -> None:
        """Keeps the autoencoder as it was built."""
        self._is_init = True

    @property
    def latent_channels(self) -> int:
        """Channels C of the latents."""
        config = self.autoencoder.config
        channels = _option(config, 'latent_channels') or _option(config, 'z_dim')
        return int(channels or self.latents_mean.shape[1])

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
        """Encodes images.

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
        with frozen_pass(images.device):
            latents = [self._encode(part) for part in self._parts(images)]
        return (torch.cat(latents).float() - self.latents_mean) / self.latents_std

    def decode(self, latents: Tensor, clamp: bool = True) -> Tensor:
        """Decodes standardised latents to images; gradients flow to the latents.

        Args:
            latents: (N, C, h, w).
            clamp: Wan's and Qwen's autoencoders cut their output off at -1 and 1, where nothing is left of a gradient.
                False takes it as it was before, for a loss in pixel space; others have no such cut.

        Returns:
            RGB in about [-1, 1], (N, 3, H, W), float32.
        """
        latents = latents.float() * self.latents_std + self.latents_mean
        decode = self._decode if clamp or not self.is_video else self._decode_unclamped
        return torch.cat([decode(part) for part in self._parts(latents)]).float()

    def _parts(self, batch: Tensor) -> tuple[Tensor, ...]:
        dtype = next((p.dtype for p in self.autoencoder.parameters()), batch.dtype)
        return batch.to(dtype).split(self.max_batch or max(len(batch), 1))

    def _encode(self, images: Tensor) -> Tensor:
        encoded = self.autoencoder.encode(images[:, :, None] if self.is_video else images)
        if hasattr(encoded, 'latent_dist'):
            latents = encoded.latent_dist.mode()
        else:
            latents = encoded.latents if hasattr(encoded, 'latents') else encoded.latent
        return latents[:, :, 0] if self.is_video else latents

    def _decode(self, latents: Tensor) -> Tensor:
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
            images = nn.functional.pixel_shuffle(images.flatten(1, 3), patch_size)
        return images.reshape(clamped.shape)


def _option(config: object, name: str) -> object:
    return getattr(config, name, None)


def _spatial_factor(autoencoder: nn.Module) -> int:
    """Pixels per latent cell along one side, from the number of stages.

    (The config's ``scale_factor_spatial`` does not follow them.)
    """
    config = autoencoder.config
    patch_size = _option(config, 'patch_size') or 1
    if not isinstance(patch_size, int):
        raise ValueError(
            f'{type(autoencoder).__name__} leaves patches and standardisation of its latents to the pipeline '
            f'(patch_size {patch_size}), which LatentCodec does not know; expected an autoencoder whose config has both'
        )
    for name in ('block_out_channels', 'encoder_block_out_channels', 'dim_mult'):
        if stages := _option(config, name):
            return 2 ** (len(stages) - 1) * patch_size
    if _option(config, 'patch_size'):
        return patch_size
    raise ValueError(
        f'cannot tell the downsampling of {type(autoencoder).__name__}: expected an autoencoder whose config has '
        "'block_out_channels', 'encoder_block_out_channels', 'dim_mult' or 'patch_size'"
    )
