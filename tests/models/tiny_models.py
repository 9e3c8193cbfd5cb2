"""Tiny random models of the real diffusers and transformers classes (GenMask, colorers), and batches for them."""

import numpy as np
import torch
from tiny_codecs import AUTOENCODERS

from genseg_mm.datasets import PackGenSegInputs
from genseg_mm.registry import MODELS

TEXT = dict(d_model=32, d_kv=8, d_ff=64, num_layers=1, num_heads=4)

SANA = dict(
    in_channels=40,
    out_channels=20,
    num_layers=2,
    num_attention_heads=2,
    attention_head_dim=16,
    num_cross_attention_heads=2,
    cross_attention_head_dim=16,
    cross_attention_dim=32,
    caption_channels=32,
    sample_size=4,
    patch_size=2,
    interpolation_scale=1,
)

WAN = dict(
    patch_size=(1, 2, 2),
    num_attention_heads=2,
    attention_head_dim=16,
    in_channels=4,
    out_channels=4,
    text_dim=32,
    freq_dim=32,
    ffn_dim=64,
    num_layers=2,
    rope_max_seq_len=64,
)

QWEN_IMAGE = dict(
    patch_size=2,
    in_channels=16,  # 4 latent channels in packed 2 x 2 cells
    out_channels=4,
    num_layers=2,
    attention_head_dim=16,
    num_attention_heads=2,
    joint_attention_dim=32,
    axes_dims_rope=(4, 6, 6),
)

FLUX = dict(
    patch_size=1,
    in_channels=16,  # 4 latent channels in packed 2 x 2 cells
    num_layers=1,
    num_single_layers=1,
    attention_head_dim=16,
    num_attention_heads=2,
    joint_attention_dim=32,
    pooled_projection_dim=24,
    axes_dims_rope=(4, 6, 6),
)

FLUX2 = dict(
    patch_size=1,
    in_channels=16,
    num_layers=1,
    num_single_layers=1,
    attention_head_dim=16,
    num_attention_heads=2,
    joint_attention_dim=32,
    timestep_guidance_channels=32,
    axes_dims_rope=(4, 4, 4, 4),
    guidance_embeds=False,
)

SD3 = dict(
    sample_size=16,
    patch_size=2,
    in_channels=8,
    out_channels=4,
    num_layers=2,
    attention_head_dim=16,
    num_attention_heads=2,
    joint_attention_dim=32,
    caption_projection_dim=32,
    pooled_projection_dim=24,
    pos_embed_max_size=16,
    qk_norm='rms_norm',
)

PIXART = dict(
    num_attention_heads=2,
    attention_head_dim=16,
    in_channels=8,
    out_channels=4,
    num_layers=2,
    cross_attention_dim=32,
    sample_size=8,
    patch_size=2,
    caption_channels=32,
)

Z_IMAGE = dict(
    in_channels=4,
    dim=32,
    n_layers=1,
    n_refiner_layers=1,
    n_heads=2,
    n_kv_heads=2,
    cap_feat_dim=32,
    axes_dims=[4, 6, 6],
    axes_lens=[256, 32, 32],
)

# One tiny config per family of DiTBackbone; every one takes text of width 32.
TRANSFORMERS = dict(
    sana=SANA,
    wan=WAN,
    qwen_image=QWEN_IMAGE,
    qwen_image_edit=dict(QWEN_IMAGE, zero_cond_t=True),
    flux=FLUX,
    flux_kontext=dict(FLUX, guidance_embeds=True),
    flux2=FLUX2,
    sd3=SD3,
    pixart=PIXART,
    z_image=Z_IMAGE,
)
LATENT_CHANNELS = {family: {'sana': 20, 'flux2': 16}.get(family, 4) for family in TRANSFORMERS}
MASKED_TEXT = ('sana', 'qwen_image', 'qwen_image_edit', 'pixart', 'z_image')

WAN_VAE = dict(
    type='diffusers.AutoencoderKLWan',
    base_dim=8,
    z_dim=4,
    dim_mult=[1, 2, 2],
    num_res_blocks=1,
    temperal_downsample=[False, True],
    latents_mean=[0.0] * 4,
    latents_std=[1.0] * 4,
)

FLUX2_VAE = dict(
    type='diffusers.AutoencoderKLFlux2',
    block_out_channels=(8, 8, 8),
    down_block_types=('DownEncoderBlock2D',) * 3,
    up_block_types=('UpDecoderBlock2D',) * 3,
    layers_per_block=1,
    norm_num_groups=4,
    latent_channels=4,
)

MAE_COLORER = dict(
    type='genseg_mm.MAEColorer',
    config=dict(
        image_size=32,
        patch_size=4,
        hidden_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=64,
        decoder_hidden_size=32,
        decoder_num_hidden_layers=1,
        decoder_num_attention_heads=2,
        decoder_intermediate_size=64,
    ),
)

UNET_COLORER = dict(
    type='genseg_mm.UNetColorer',
    config=dict(
        block_out_channels=(8, 16),
        layers_per_block=1,
        down_block_types=('DownBlock2D', 'CrossAttnDownBlock2D'),
        up_block_types=('CrossAttnUpBlock2D', 'UpBlock2D'),
        norm_num_groups=4,
        attention_head_dim=4,
        cross_attention_dim=8,
    ),
)


SD_COLORER = dict(
    type='genseg_mm.SDColorer',
    config=dict(
        unet=dict(UNET_COLORER['config'], in_channels=4, out_channels=4),
        vae={key: own for key, own in AUTOENCODERS['kl'].items() if key != 'type'},
    ),
)


def genmask_config(family: str, **overrides) -> dict:
    """Config of a tiny GenMask of one family."""
    autoencoder = {'sana': dict(type='genseg_mm.PatchCodec'), 'flux2': FLUX2_VAE}.get(family, WAN_VAE)
    config = dict(
        type='genseg_mm.GenMask',
        codec=dict(type='genseg_mm.LatentCodec', autoencoder=autoencoder),
        prompt_encoder=dict(
            type='genseg_mm.T5PromptEncoder',
            encoder=TEXT,
            padding='longest' if family in MASKED_TEXT else 'max_length',
            max_length=24,
        ),
        backbone=dict(type='genseg_mm.DiTBackbone', family=family, transformer=TRANSFORMERS[family]),
    )
    return {**config, **overrides}


def dit_colorer_config(family: str, transformer: dict | None = None, **overrides) -> dict:
    """Config of a tiny DiTColorer of one family, on the codec of the tiny GenMask.

    Args:
        family: Of the backbone.
        transformer: In place of the tiny one from scratch.
        overrides: Of the colorer.
    """
    fresh = TRANSFORMERS[family]
    if 'out_channels' in fresh and fresh['in_channels'] == 2 * fresh['out_channels']:
        fresh = dict(fresh, in_channels=fresh['out_channels'])  # no image beside the noisy latents
    config = genmask_config(family)
    backbone = dict(config['backbone'], transformer=transformer or fresh)
    return dict(type='genseg_mm.DiTColorer', codec=config['codec'], backbone=backbone) | overrides


def build(family: str, seed: int = 0, **overrides):
    """A tiny GenMask whose output layer is not zero, so that every part shows in the output."""
    torch.manual_seed(seed)
    model = MODELS.build(genmask_config(family, **overrides))
    torch.nn.init.normal_(model.backbone.output_layer.weight, std=0.2)
    return model.eval()


def batch(tasks: list[str], size: int = 32, ori_size: int | None = None, seed: int = 0) -> dict:
    """What a dataloader gives: one sample per task, deterministic by (seed, position)."""
    packed = []
    for index, task in enumerate(tasks):
        rng = np.random.default_rng([seed, index])
        mask = np.zeros((size, size), np.uint8)
        top, left = rng.integers(size // 2, size=2)
        mask[top : top + size // 2, left : left + size // 2] = 1
        sample = dict(
            img=rng.integers(0, 256, (size, size, 3), dtype=np.uint8),
            gt_seg_map=mask,
            text=('the red circle', 'a large blue square', 'the leftmost shape')[index % 3],
            task=task,
            sample_idx=index,
            ori_shape=(ori_size or size,) * 2,
            img_shape=(size, size),
        )
        packed.append(PackGenSegInputs()(sample))
    return {key: [sample[key] for sample in packed] for key in ('inputs', 'data_samples')}
