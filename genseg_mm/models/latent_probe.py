"""Masks from latents by a linear map: the VAE decoder left out."""

from pathlib import Path

import torch
import torch.nn.functional as F
from mmengine.model import BaseModule
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from genseg_mm.files.tensors import write_tensors
from genseg_mm.functional.latent_statistics import METHODS, fit_linear_map
from genseg_mm.models.latent_codec import LatentCodec, find_weights
from genseg_mm.registry import MODELS


@MODELS.register_module()
class LatentProbe(BaseModule):
    """Linear map of each latent cell to the pixels it stands for (GenMask: mask latents are linearly separable).

    Each cell's C numbers give d * d numbers, one per pixel: 16 * 64 multiplications per cell for Wan's VAE, whose
    decoder takes millions. Also the trainable layer of GenMask's ablation 'BCE with a linear layer'.

    Args:
        latent_channels: Channels C of the latents; may be left out with ``weights``.
        cell_size: Side d in pixels of a cell, the codec's ``downsample``; may be left out with ``weights``.
        weights: Safetensors file written by :meth:`save` (``tools/fit_latent_probe.py``); a bare name is looked up
            among the shipped weights. Default: random weights, to be trained.

    Raises:
        FileNotFoundError: If the file does not exist.
        ValueError: If the file holds something else, or the sizes do not fit.
    """

    def __init__(
        self,
        latent_channels: int | None = None,
        cell_size: int | None = None,
        weights: str | None = None,
        init_cfg: dict | None = None,
    ) -> None:
        super().__init__(init_cfg)
        self.method, self.fingerprint, self.source = 'logistic', None, None
        state = None
        if weights is not None:
            self.source = find_weights(weights, 'weights of a probe', 'tools/fit_latent_probe.py')
            state = self._read(latent_channels, cell_size)
            size, latent_channels = state['weight'].shape
            cell_size = round(size**0.5)
        for name, value in (('latent_channels', latent_channels), ('cell_size', cell_size)):
            if not isinstance(value, int) or value < 1:
                raise ValueError(
                    f'LatentProbe: {name} must be a positive number where no weights are given, but got {value!r}'
                )
        self.latent_channels, self.cell_size = latent_channels, cell_size
        self.linear = nn.Linear(latent_channels, cell_size**2)
        if state is not None:
            self.linear.load_state_dict(state)

    def init_weights(self) -> None:
        """Keeps the weights it was built with."""
        self._is_init = True

    def forward(self, latents: Tensor) -> Tensor:
        """Mask logits, positive inside the mask.

        Args:
            latents: Standardised, (N, C, h, w).

        Returns:
            (N, 1, d h, d w) float32: log-odds, or values that aim at -1 and 1 after a least-squares fit.

        Raises:
            ValueError: If the latents have another number of channels.
        """
        if latents.ndim != 4 or latents.shape[1] != self.latent_channels:
            raise ValueError(
                f'LatentProbe expects latents (N, {self.latent_channels}, h, w), but got {tuple(latents.shape)}'
            )
        weight = self.linear.weight[:, :, None, None]
        logits = F.conv2d(latents.to(weight.dtype), weight, self.linear.bias)  # (N, d d, h, w)
        return F.pixel_shuffle(logits, self.cell_size).float()

    def grey(self, latents: Tensor) -> Tensor:
        """The mask as a grey picture in [-1, 1], (N, 1, d h, d w): 1 inside for sure, as a VAE would decode it."""
        logits = self(latents)
        return (logits / 2).tanh() if self.method == 'logistic' else logits.clamp(-1, 1)

    def fit(
        self,
        latents: Tensor,
        masks: Tensor,
        method: str = 'least_squares',
        ridge: float = 0.001,
        max_cells: int = 200_000,
    ) -> 'LatentProbe':
        """Fits the map to masks and their latents.

        Args:
            latents: Standardised latents of the masks drawn as images, (N, C, h, w).
            masks: Bool or {0, 1}, (N, d h, d w).
            method: 'least_squares' (closed form) or 'logistic' (L-BFGS).
            ridge: See :func:`~genseg_mm.functional.latent_statistics.fit_linear_map`. Never 0 for generated latents:
                some channels hardly vary over masks, and their weights grow until the least noise in them counts.
            max_cells: Of more cells, so many evenly spread ones are used; bounds memory.

        Returns:
            Itself.

        Raises:
            ValueError: If shapes disagree or the method is unknown.
        """
        count, channels, height, width = latents.shape
        expected = (count, height * self.cell_size, width * self.cell_size)
        if channels != self.latent_channels or tuple(masks.shape) != expected:
            raise ValueError(
                f'expected latents (N, {self.latent_channels}, h, w) and masks (N, {self.cell_size} h, '
                f'{self.cell_size} w), but got {tuple(latents.shape)} and {tuple(masks.shape)}'
            )
        cells = latents.movedim(1, -1).flatten(0, -2)  # (n, C)
        labels = masks[:, None].to(torch.uint8)
        labels = F.pixel_unshuffle(labels, self.cell_size).movedim(1, -1).flatten(0, -2)  # (n, d d)
        if len(cells) > max_cells:
            chosen = torch.linspace(0, len(cells) - 1, max_cells, dtype=torch.float64).long()
            cells, labels = cells[chosen], labels[chosen]
        weight, bias = fit_linear_map(cells, labels, method, ridge)
        self.linear.load_state_dict(dict(weight=weight, bias=bias))
        self.method = method
        return self

    def save(self, path: str | Path, codec: LatentCodec) -> None:
        """Writes the weights, and which codec's latents they read, to a safetensors file."""
        state = {name: value.detach().float().contiguous() for name, value in self.linear.state_dict().items()}
        write_tensors(path, state, dict(method=self.method, codec=codec.fingerprint()))

    def check_codec(self, codec: LatentCodec) -> None:
        """Checks that the probe reads the latents of this codec.

        Raises:
            ValueError: If channels or cell size differ, or the probe was fitted on another codec.
        """
        name = self.source or 'the probe'
        own, its = (self.latent_channels, self.cell_size), (codec.latent_channels, codec.downsample)
        if own != its:
            raise ValueError(
                f'{name} reads latents of {own[0]} channels and cells of {own[1]} pixels, but the codec has '
                f'{its[0]} and {its[1]}; fit one with tools/fit_latent_probe.py'
            )
        if self.fingerprint is None:  # trained with the model, on its own codec
            return
        found = codec.fingerprint()
        if found != self.fingerprint:
            raise ValueError(
                f'{name} was fitted on another codec: expected {self.fingerprint[:12]}, but got {found[:12]}; '
                'fit one with tools/fit_latent_probe.py'
            )

    def _read(self, latent_channels: int | None, cell_size: int | None) -> dict[str, Tensor]:
        path = self.source
        try:
            with safe_open(path, 'pt') as file:
                meta = file.metadata() or {}
                state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        except SafetensorError as error:
            raise ValueError(f'{path} is no safetensors file: {error}') from error
        if set(state) != {'weight', 'bias'} or meta.get('method') not in METHODS or 'codec' not in meta:
            raise ValueError(
                f"{path}: expected a LatentProbe ('weight', 'bias', metadata 'method' and 'codec'), but got "
                f'{sorted(state)} with metadata {sorted(meta)}'
            )
        weight, bias = state['weight'], state['bias']
        side = round(len(weight) ** 0.5)
        if weight.ndim != 2 or side**2 != len(weight) or bias.shape != weight.shape[:1]:
            raise ValueError(
                f'{path}: expected weight (d d, C) and bias (d d,), but got {tuple(weight.shape)} and '
                f'{tuple(bias.shape)}'
            )
        asked = (latent_channels or weight.shape[1], cell_size or side)
        if asked != (weight.shape[1], side):
            raise ValueError(
                f'{path} has {weight.shape[1]} channels and cells of {side} pixels, but the config asks for '
                f'latent_channels={asked[0]}, cell_size={asked[1]}'
            )
        self.method, self.fingerprint = meta['method'], meta['codec']
        return state
