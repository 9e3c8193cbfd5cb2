"""A ViT-MAE, encoder and decoder, as instance colorer; its position embeddings done right."""

import json
import math
from pathlib import Path
from typing import Any

import torch
from mmengine.model import BaseModule
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F

from genseg_mm.models.base import check_patches
from genseg_mm.models.colorers.released_folder import find_mae, read_preprocessor
from genseg_mm.models.pretrained_parts import load_part
from genseg_mm.network_sizes import resize_to
from genseg_mm.registry import MODELS

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


@MODELS.register_module()
class MAEColorer(BaseModule):
    """transformers' ViT-MAE as a colorer: encoder and decoder, nothing masked (gen2seg, Section 3).

    Exactly one of ``config`` and ``pretrained`` is given. The layers are called one after the other
    here, because the library's own ``forward`` shuffles the patches at mask ratio 0 too, divides 0
    by 0 for its loss, and interpolates the decoder's positions along the raster index, which is
    wrong for every other grid. A model built from a config gets the 2-D sine-cosine positions that
    the library leaves at zero.

    Args:
        config: Keyword arguments of ``transformers.ViTMAEConfig``; trained from scratch.
        pretrained: Folder or hub id of a ``ViTMAEForPreTraining``, such as
            ``facebook/vit-mae-huge`` or gen2seg's released weights. Always loaded at its own image
            size: other sizes interpolate the positions.
        mean: Subtracted from RGB in [0, 1]. None: as the folder's ``preprocessor_config.json`` says; ImageNet's where
            it says nothing, or there is none.
        std: Divides after that; None as above.
        gradient_checkpointing: Recompute activations in the backward pass instead of keeping them.

    Raises:
        FileNotFoundError: If there is no such folder, or it lacks a file.
        ValueError: If not exactly one of config and pretrained is given, if a width cannot hold
            sine-cosine positions, if the model is not for square RGB images, or if the folder holds
            another model, lacks weights or is damaged.
    """

    def __init__(
        self,
        config: dict[str, Any] | None = None,
        pretrained: str | None = None,
        mean: tuple[float, float, float] | None = None,
        std: tuple[float, float, float] | None = None,
        gradient_checkpointing: bool = False,
    ) -> None:
        super().__init__()
        if (config is None) == (pretrained is None):
            raise ValueError(
                'MAEColorer needs either config (trained from scratch) or pretrained '
                f'(folder or hub id), but got {"both" if config is not None else "neither"}'
            )
        self.mae = _fresh_mae(config) if pretrained is None else _pretrained_mae(pretrained)
        _check_square_rgb(self.mae.config)
        if gradient_checkpointing:
            # The method's name changed during transformers 5.
            name = 'activation_checkpointing_enable'
            enable = getattr(self.mae, name, self.mae.gradient_checkpointing_enable)
            enable({'use_reentrant': False})
        decoder = self.mae.decoder
        # Takes no part in a map, so DDP would look for its gradient in vain.
        decoder.mask_token.requires_grad_(False)
        # Fixed in the paper's code; loading a folder would make the encoder's trainable.
        self.mae.vit.embeddings.position_embeddings.requires_grad_(False)
        decoder.decoder_pos_embed.requires_grad_(False)
        self.patch_size = self.mae.config.patch_size
        stated = {} if pretrained is None else read_preprocessor(pretrained)
        mean = stated.get('mean', IMAGENET_MEAN) if mean is None else mean
        std = stated.get('std', IMAGENET_STD) if std is None else std
        self.is_released = pretrained is not None
        self.side = stated.get('size', self.mae.config.image_size)
        if self.side % self.patch_size:
            said = f'{pretrained}: the size of preprocessor_config.json' if 'size' in stated else 'image_size'
            raise ValueError(f'{said} must be a multiple of the patch size {self.patch_size}, but got {self.side}')
        self.register_buffer('mean', torch.tensor(mean).view(1, 3, 1, 1), persistent=False)
        self.register_buffer('std', torch.tensor(std).view(1, 3, 1, 1), persistent=False)

    def init_weights(self) -> None:
        """Does nothing: transformers' method of this name would overwrite pretrained weights."""

    def network_resize(self, size: int | tuple[int, int] | None = None) -> dict[str, Any]:
        """How a picture is brought to the size that the network works at, as ``NetworkResize`` takes it.

        Released weights as in the public script: to a square, bicubic (PIL, with antialiasing). Others: bilinear.

        Args:
            size: None: the side of ``preprocessor_config.json``, else of the model; the longer side, 0 for the own size
                of a picture, (height, width).
        """
        size = (self.side, self.side) if size is None else size
        return resize_to(size, self.patch_size, method='bicubic' if self.is_released else 'bilinear')

    def forward(self, images: Tensor) -> Tensor:
        """Colours images.

        Args:
            images: RGB in [-1, 1], (N, 3, H, W); H and W multiples of the patch size, any aspect.

        Returns:
            Raw maps, (N, 3, H, W).

        Raises:
            ValueError: If the size is no multiple of the patch size.
        """
        check_patches(images, self.patch_size, type(self).__name__)
        height, width = (side // self.patch_size for side in images.shape[-2:])
        encoder, decoder = self.mae.vit, self.mae.decoder
        embeddings = encoder.embeddings
        positions = resize_positions(embeddings.position_embeddings, height, width)
        pixels = ((images + 1) / 2 - self.mean) / self.std
        tokens = embeddings.patch_embeddings(pixels)  # (N, hw, D), raster order
        tokens = torch.cat([embeddings.cls_token.expand(tokens.shape[0], -1, -1), tokens], dim=1)
        tokens = tokens + positions  # (N, 1 + hw, D)
        for layer in encoder.layers:
            tokens = layer(tokens)
        tokens = decoder.decoder_embed(encoder.layernorm(tokens))  # (N, 1 + hw, E)
        tokens = tokens + resize_positions(decoder.decoder_pos_embed, height, width)
        for layer in decoder.decoder_layers:
            tokens = layer(tokens)
        patches = decoder.decoder_pred(decoder.decoder_norm(tokens))[:, 1:]  # (N, hw, p^2 3)
        return self.mae.unpatchify(patches, tuple(images.shape[-2:]))  # (N, 3, H, W)

    def compiled_parts(self) -> list[nn.Module]:
        """What ``--compile`` of an evaluation compiles: layers, which are alike, so that few kernels are made."""
        return [*self.mae.vit.layers, *self.mae.decoder.decoder_layers]

    def save_pretrained(self, folder: str) -> None:
        """Writes a ``ViTMAEForPreTraining`` folder, the format of gen2seg's released weights.

        ``preprocessor_config.json`` holds mean, std and size.
        """
        self.mae.save_pretrained(folder)
        settings = dict(
            image_processor_type='ViTImageProcessor',
            do_resize=True,
            do_rescale=True,
            do_normalize=True,
            image_mean=[round(float(own), 6) for own in self.mean.flatten()],
            image_std=[round(float(own), 6) for own in self.std.flatten()],
            resample=int(Image.Resampling.BICUBIC),
            rescale_factor=1 / 255,
            size=dict(height=self.side, width=self.side),
        )
        Path(folder, 'preprocessor_config.json').write_text(json.dumps(settings, indent=2) + '\n')


def sincos_positions(dim: int, height: int, width: int) -> Tensor:
    """2-D sine-cosine positions in ViT-MAE's layout: sin x, cos x, sin y, cos y of every patch.

    The first row is the class token's: zero.

    Args:
        dim: Width of the tokens, a multiple of 4.
        height: Rows of patches.
        width: Columns of patches.

    Returns:
        Positions, (1, 1 + height * width, dim), float32, raster order.

    Raises:
        ValueError: If dim is no multiple of 4.
    """
    if dim % 4:
        raise ValueError(f'hidden_size and decoder_hidden_size must be multiples of 4, but got {dim}')
    frequencies = 10000.0 ** -(torch.arange(dim // 4, dtype=torch.float64) / (dim // 4))
    rows, columns = torch.meshgrid(
        torch.arange(height, dtype=torch.float64), torch.arange(width, dtype=torch.float64), indexing='ij'
    )
    parts = []
    for position in (columns, rows):
        angles = position.reshape(-1, 1) * frequencies  # (hw, dim / 4)
        parts += [angles.sin(), angles.cos()]
    patches = torch.cat(parts, dim=1)
    return torch.cat([patches.new_zeros(1, dim), patches])[None].float()


def resize_positions(positions: Tensor, height: int, width: int) -> Tensor:
    """Position embeddings for another grid, by 2-D bicubic interpolation; the class token's stays.

    Args:
        positions: (1, 1 + side ** 2, D).
        height: Rows of the wanted grid.
        width: Columns of the wanted grid.

    Returns:
        (1, 1 + height * width, D); the input itself if the grid is the same.
    """
    side = math.isqrt(positions.shape[1] - 1)
    # An exported graph has to serve all sizes: there, the grid's own is interpolated, too, which changes nothing.
    if not torch.compiler.is_exporting() and (height, width) == (side, side):
        return positions
    dim = positions.shape[-1]
    grid = positions[:, 1:].view(1, side, side, dim).permute(0, 3, 1, 2)  # (1, D, side, side)
    grid = F.interpolate(grid.float(), size=(height, width), mode='bicubic', align_corners=False)
    patches = grid.permute(0, 2, 3, 1).reshape(1, height * width, dim).to(positions.dtype)
    return torch.cat([positions[:, :1], patches], dim=1)


def _fresh_mae(config: dict[str, Any]) -> nn.Module:
    from transformers import ViTMAEConfig, ViTMAEForPreTraining

    mae = ViTMAEForPreTraining(ViTMAEConfig(**{**config, 'mask_ratio': 0.0}))
    side = mae.config.image_size // mae.config.patch_size
    embeddings = mae.vit.embeddings
    for table in (embeddings.position_embeddings, mae.decoder.decoder_pos_embed):
        table.data.copy_(sincos_positions(table.shape[-1], side, side))
    # As in the MAE paper. The library leaves the class token at zero and draws all weights at one
    # scale, whatever the width.
    for module in mae.modules():
        if isinstance(module, nn.Linear):
            nn.init.xavier_uniform_(module.weight)
    nn.init.xavier_uniform_(embeddings.patch_embeddings.projection.weight.data.flatten(1))
    nn.init.normal_(embeddings.cls_token, std=mae.config.initializer_range)
    return mae


def _pretrained_mae(source: str) -> nn.Module:
    from transformers import ViTMAEForPreTraining

    source = find_mae(source)
    # The library would take the precision of the file, and training half precision fails.
    return load_part(ViTMAEForPreTraining.from_pretrained, source, dtype=torch.float32)


def _check_square_rgb(config: Any) -> None:
    if not isinstance(config.image_size, int) or config.num_channels != 3:
        raise ValueError(
            'MAEColorer needs a ViT-MAE of square RGB images (image_size a number, num_channels 3), '
            f'but got image_size {config.image_size!r} and num_channels {config.num_channels}; '
            'images of other sizes are fine'
        )
