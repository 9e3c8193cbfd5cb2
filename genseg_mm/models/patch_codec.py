"""Closed-form autoencoder: principal components of image and mask patches, for the tiny models."""

from pathlib import Path
from types import SimpleNamespace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from genseg_mm.checkpoint import load_weights_only
from genseg_mm.registry import MODELS

SHIPPED_WEIGHTS = Path(__file__).parents[1] / 'weights'


@MODELS.register_module()
class PatchCodec(nn.Module):
    """Linear autoencoder with diffusers' interface: non-overlapping patches onto their first principal components.

    The components are orthonormal, so that the mean squared error of latents is that of the pixels within
    their span, and one ``scaling_factor`` gives the latents of images unit variance. Encoding costs one
    strided convolution.

    Args:
        weights: Safetensors file with ``mean`` (3 p p,), ``basis`` (C, 3 p p), ``scaling_factor`` (1,), as
            ``tools/fit_patch_codec.py`` writes it; a bare name is looked up among the shipped weights.

    Raises:
        FileNotFoundError: If the file does not exist.
        ValueError: If a tensor is missing or has another shape.
    """

    has_source = True  # always built from a file, so checkpoints need not hold it

    def __init__(self, weights: str = 'patch_codec_shapes.safetensors') -> None:
        super().__init__()
        path = Path(weights)
        if not path.is_file() and path.name == weights:
            path = SHIPPED_WEIGHTS / weights
        if not path.is_file():
            raise FileNotFoundError(f'no codec weights at {path}; make them with tools/fit_patch_codec.py')
        state = load_weights_only(str(path))
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
