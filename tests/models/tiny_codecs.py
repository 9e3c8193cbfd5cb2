"""Tiny codecs: every real autoencoder class, and one whose latents are the pixels, to work losses out by hand."""

from pathlib import Path

import torch
from safetensors.torch import save_file

from genseg_mm.models.latent_codec import LatentCodec

AUTOENCODERS = {
    'kl': dict(
        type='diffusers.AutoencoderKL',
        block_out_channels=(8, 16),
        down_block_types=('DownEncoderBlock2D',) * 2,
        up_block_types=('UpDecoderBlock2D',) * 2,
        norm_num_groups=4,
        latent_channels=4,
        scaling_factor=0.5,
        shift_factor=0.25,
    ),
    'tiny': dict(
        type='diffusers.AutoencoderTiny',
        encoder_block_out_channels=(8, 8, 8),
        decoder_block_out_channels=(8, 8, 8),
        num_encoder_blocks=(1, 1, 1),
        num_decoder_blocks=(1, 1, 1),
    ),
    'wan': dict(
        type='diffusers.AutoencoderKLWan',
        base_dim=8,
        z_dim=4,
        dim_mult=[1, 2, 2],
        num_res_blocks=1,
        temperal_downsample=[False, True],
        latents_mean=[0.5, -0.5, 0.0, 1.0],
        latents_std=[2.0, 1.0, 0.5, 4.0],
    ),
    'qwen_image': dict(
        type='diffusers.AutoencoderKLQwenImage',
        base_dim=8,
        z_dim=4,
        dim_mult=[1, 2, 2],
        num_res_blocks=1,
        temperal_downsample=[False, True],
        latents_mean=[0.5, -0.5, 0.0, 1.0],
        latents_std=[2.0, 1.0, 0.5, 4.0],
    ),
    # Stable Diffusion 3 and Flux: 16 channels, a shift, no convolutions around the latents.
    'kl_sd3': dict(
        type='diffusers.AutoencoderKL',
        block_out_channels=(8, 8, 8, 8),
        down_block_types=('DownEncoderBlock2D',) * 4,
        up_block_types=('UpDecoderBlock2D',) * 4,
        layers_per_block=1,
        norm_num_groups=4,
        latent_channels=16,
        use_quant_conv=False,
        use_post_quant_conv=False,
        scaling_factor=1.5305,
        shift_factor=0.0609,
    ),
    'dc': dict(  # Sana
        type='diffusers.AutoencoderDC',
        latent_channels=8,
        attention_head_dim=8,
        encoder_block_types=('ResBlock', 'ResBlock', 'EfficientViTBlock'),
        decoder_block_types=('ResBlock', 'ResBlock', 'EfficientViTBlock'),
        encoder_block_out_channels=(8, 16, 32),
        decoder_block_out_channels=(8, 16, 32),
        encoder_layers_per_block=(1, 1, 1),
        decoder_layers_per_block=(1, 1, 1),
        encoder_qkv_multiscales=((), (), (5,)),
        decoder_qkv_multiscales=((), (), (5,)),
        scaling_factor=0.41407,
    ),
    'wan22': dict(  # the 5B model's: patches of 2 pixels first, residual blocks
        type='diffusers.AutoencoderKLWan',
        base_dim=8,
        decoder_base_dim=8,
        z_dim=6,
        dim_mult=[1, 1, 2, 2],
        num_res_blocks=1,
        temperal_downsample=[False, True, True],
        is_residual=True,
        in_channels=12,
        out_channels=12,
        patch_size=2,
        scale_factor_spatial=16,
        latents_mean=[0.5, -0.5, 0.0, 1.0, 0.0, 0.25],
        latents_std=[2.0, 1.0, 0.5, 4.0, 1.0, 0.5],
    ),
    'flux2': dict(
        type='diffusers.AutoencoderKLFlux2',
        block_out_channels=(8, 8),
        decoder_block_out_channels=(4, 8),
        down_block_types=('DownEncoderBlock2D',) * 2,
        up_block_types=('UpDecoderBlock2D',) * 2,
        layers_per_block=1,
        norm_num_groups=4,
        latent_channels=3,
        batch_norm_eps=0.25,
    ),
    'patch': dict(type='genseg_mm.PatchCodec'),
}


def pixel_codec(folder: Path, scale: float = 1.0) -> LatentCodec:
    """2 x 2 pixels per cell, 12 channels: latents are scale times the unshuffled pixels."""
    path = Path(folder) / f'pixels_{scale:g}.safetensors'
    state = dict(mean=torch.zeros(12), basis=torch.eye(12), scaling_factor=torch.tensor([scale]))
    save_file(state, path)
    return LatentCodec(dict(type='genseg_mm.PatchCodec', weights=str(path)))


def linear_codec(folder: Path, channels: int = 4) -> dict:
    """Config of the cheapest codec: random components of 4 x 4 pixels, for what is about the other parts of a model."""
    path = Path(folder) / f'linear_{channels}.safetensors'
    basis = torch.linalg.qr(torch.randn(48, channels, generator=torch.Generator().manual_seed(0)))[0].T.contiguous()
    save_file(dict(mean=torch.full((48,), 0.5), basis=basis, scaling_factor=torch.ones(1)), path)
    return dict(type='genseg_mm.LatentCodec', autoencoder=dict(type='genseg_mm.PatchCodec', weights=str(path)))


def grey_weight() -> torch.Tensor:
    """Weight (4, 12) of the linear layer that takes the mean over RGB of each pixel of such a cell."""
    return torch.eye(4).repeat(1, 3) / 3
