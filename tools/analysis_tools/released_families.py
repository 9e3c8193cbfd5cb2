"""The transformers of all DiT families: a tiny one of every family, and the released ones with their frozen parts.

Released configs are those of ``transformer/config.json``, ``vae/config.json`` and ``text_encoder*/config.json`` of the
named repositories on the Hugging Face hub; keys at the default of the class are left out. ``published`` is the number
of parameters that the model card gives, in billions; ``stride`` is image pixels per latent cell.
"""

_ROPE = dict(attention_head_dim=16, num_attention_heads=2, joint_attention_dim=32, axes_dims_rope=(4, 6, 6))
_QWEN_TINY = dict(patch_size=2, in_channels=16, out_channels=4, num_layers=2, **_ROPE)
_FLUX_TINY = dict(in_channels=16, num_layers=1, num_single_layers=1, pooled_projection_dim=24, **_ROPE)

# family -> transformer for latents of 4 channels (Sana: 20, FLUX.2: 16) and text states of width 32
TINY = dict(
    wan=dict(
        num_attention_heads=2, attention_head_dim=16, in_channels=4, out_channels=4, text_dim=32, freq_dim=32,
        ffn_dim=64, num_layers=2, rope_max_seq_len=64,
    ),
    qwen_image=_QWEN_TINY,
    qwen_image_edit=dict(_QWEN_TINY, zero_cond_t=True),
    flux=_FLUX_TINY,
    flux_kontext=dict(_FLUX_TINY, guidance_embeds=True),
    flux2=dict(
        in_channels=16, num_layers=1, num_single_layers=1, attention_head_dim=16, num_attention_heads=2,
        joint_attention_dim=32, axes_dims_rope=(4, 4, 4, 4), guidance_embeds=False,
    ),
    sd3=dict(
        sample_size=16, patch_size=2, in_channels=8, out_channels=4, num_layers=2, attention_head_dim=16,
        num_attention_heads=2, joint_attention_dim=32, caption_projection_dim=32, pooled_projection_dim=24,
        pos_embed_max_size=16, qk_norm='rms_norm',
    ),
    pixart=dict(
        num_attention_heads=2, attention_head_dim=16, in_channels=8, out_channels=4, num_layers=2,
        cross_attention_dim=32, sample_size=8, patch_size=2, caption_channels=32,
    ),
    sana=dict(
        in_channels=40, out_channels=20, num_layers=2, num_attention_heads=2, attention_head_dim=16,
        num_cross_attention_heads=2, cross_attention_head_dim=16, cross_attention_dim=32, caption_channels=32,
        sample_size=4, patch_size=2, interpolation_scale=1,
    ),
    z_image=dict(
        in_channels=4, dim=32, n_layers=1, n_refiner_layers=1, n_heads=2, n_kv_heads=2, cap_feat_dim=32,
        axes_dims=[4, 6, 6], axes_lens=[256, 32, 32],
    ),
)  # fmt: skip

_WAN = dict(attention_head_dim=128, text_dim=4096, freq_dim=256, cross_attn_norm=True, qk_norm='rms_norm_across_heads')
_QWEN = dict(
    patch_size=2, in_channels=64, out_channels=16, num_layers=60, attention_head_dim=128, num_attention_heads=24,
    joint_attention_dim=3584, axes_dims_rope=(16, 56, 56),
)  # fmt: skip
_FLUX = dict(
    patch_size=1, in_channels=64, num_layers=19, num_single_layers=38, attention_head_dim=128, num_attention_heads=24,
    joint_attention_dim=4096, pooled_projection_dim=768, guidance_embeds=True, axes_dims_rope=(16, 56, 56),
)  # fmt: skip

# name -> family, transformer, stride of its VAE, names of the frozen parts below (text encoders in the order of their
# subfolders text_encoder, text_encoder_2, text_encoder_3), where it is from
FULL = {
    'Wan2.1 1.3B': dict(
        family='wan',
        transformer=dict(_WAN, num_attention_heads=12, ffn_dim=8960, num_layers=30),
        published=1.3, stride=8, vae='wan2.1', encoders=['umt5-xxl'],
        source='Wan-AI/Wan2.1-T2V-1.3B-Diffusers',
    ),
    'Wan2.1 14B': dict(
        family='wan',
        transformer=dict(_WAN, num_attention_heads=40, ffn_dim=13824, num_layers=40),
        published=14, stride=8, vae='wan2.1', encoders=['umt5-xxl'],
        source='Wan-AI/Wan2.1-T2V-14B-Diffusers',
    ),
    'Wan2.2 5B': dict(
        family='wan',
        transformer=dict(_WAN, num_attention_heads=24, ffn_dim=14336, num_layers=30, in_channels=48, out_channels=48),
        published=5, stride=16, vae='wan2.2', encoders=['umt5-xxl'],
        source='Wan-AI/Wan2.2-TI2V-5B-Diffusers',
    ),
    'Qwen-Image': dict(
        family='qwen_image', transformer=_QWEN,
        published=20, stride=8, vae='wan2.1', encoders=['qwen2.5-vl-7b'],
        source='Qwen/Qwen-Image',
    ),
    'Qwen-Image-Edit': dict(
        family='qwen_image_edit', transformer=dict(_QWEN, zero_cond_t=True),
        published=20, stride=8, vae='wan2.1', encoders=['qwen2.5-vl-7b'],
        source='Qwen/Qwen-Image-Edit-2511',
    ),
    'FLUX.1-dev': dict(
        family='flux', transformer=_FLUX,
        published=12, stride=8, vae='flux', encoders=['clip-l', 't5-xxl'],
        source='black-forest-labs/FLUX.1-dev',
    ),
    'FLUX.1-Kontext-dev': dict(
        family='flux_kontext', transformer=_FLUX,
        published=12, stride=8, vae='flux', encoders=['clip-l', 't5-xxl'],
        source='black-forest-labs/FLUX.1-Kontext-dev',
    ),
    'FLUX.2 klein 4B': dict(
        family='flux2',
        transformer=dict(
            num_layers=5, num_single_layers=20, num_attention_heads=24, joint_attention_dim=7680,
            guidance_embeds=False,
        ),
        published=4, stride=16, vae='flux2', encoders=['qwen3-4b'],
        source='black-forest-labs/FLUX.2-klein-base-4B',
    ),
    'SD3.5 medium': dict(
        family='sd3',
        transformer=dict(
            sample_size=128, num_layers=24, num_attention_heads=24, caption_projection_dim=1536,
            pooled_projection_dim=2048, pos_embed_max_size=384, qk_norm='rms_norm',
            dual_attention_layers=tuple(range(13)),
        ),
        published=2.5, stride=8, vae='flux', encoders=['clip-l', 'clip-g', 't5-xxl'],
        source='stabilityai/stable-diffusion-3.5-medium',
    ),
    'SD3.5 large': dict(
        family='sd3',
        transformer=dict(
            sample_size=128, num_layers=38, num_attention_heads=38, caption_projection_dim=2432,
            pooled_projection_dim=2048, pos_embed_max_size=192, qk_norm='rms_norm',
        ),
        published=8.1, stride=8, vae='flux', encoders=['clip-l', 'clip-g', 't5-xxl'],
        source='stabilityai/stable-diffusion-3.5-large',
    ),
    'PixArt-Sigma 0.6B': dict(
        family='pixart',
        transformer=dict(sample_size=64, caption_channels=4096, out_channels=8, use_additional_conditions=False),
        published=0.6, stride=8, vae='sdxl', encoders=['t5-xxl'],
        source='PixArt-alpha/PixArt-Sigma-XL-2-512-MS',
    ),
    'Sana 1.6B': dict(
        family='sana', transformer=dict(sample_size=16, interpolation_scale=1),
        published=1.6, stride=32, vae='dc-ae', encoders=['gemma-2-2b'],
        source='Efficient-Large-Model/Sana_1600M_512px_diffusers',
    ),
    'Z-Image 6B': dict(
        family='z_image', transformer={},
        published=6, stride=8, vae='flux', encoders=['qwen3-4b'],
        source='Tongyi-MAI/Z-Image',
    ),
}  # fmt: skip

_SD_VAE = dict(
    down_block_types=('DownEncoderBlock2D',) * 4, up_block_types=('UpDecoderBlock2D',) * 4,
    block_out_channels=(128, 256, 512, 512), layers_per_block=2,
)  # fmt: skip
_T5_XXL = dict(d_model=4096, d_kv=64, d_ff=10240, num_layers=24, num_heads=64, feed_forward_proj='gated-gelu')

# frozen part -> class (config class of transformers), arguments, published parameters in billions, source
FROZEN = {
    'wan2.1': ('diffusers.AutoencoderKLWan', {}, 0.127, 'Wan-AI/Wan2.1-T2V-1.3B-Diffusers'),
    'wan2.2': (
        'diffusers.AutoencoderKLWan',
        dict(
            base_dim=160, decoder_base_dim=256, z_dim=48, is_residual=True, in_channels=12, out_channels=12,
            patch_size=2, scale_factor_spatial=16, latents_mean=[0.0] * 48, latents_std=[1.0] * 48,
        ),
        0.705, 'Wan-AI/Wan2.2-TI2V-5B-Diffusers',
    ),
    'flux': (
        'diffusers.AutoencoderKL',
        dict(_SD_VAE, latent_channels=16, use_quant_conv=False, use_post_quant_conv=False),
        0.084, 'black-forest-labs/FLUX.1-dev',
    ),
    'flux2': ('diffusers.AutoencoderKLFlux2', {}, 0.084, 'black-forest-labs/FLUX.2-klein-base-4B'),
    'sdxl': (
        'diffusers.AutoencoderKL', dict(_SD_VAE, latent_channels=4),
        0.084, 'PixArt-alpha/PixArt-Sigma-XL-2-512-MS',
    ),
    'dc-ae': (
        'diffusers.AutoencoderDC',
        dict(
            encoder_block_types=('ResBlock',) * 3 + ('EfficientViTBlock',) * 3,
            decoder_block_types=('ResBlock',) * 3 + ('EfficientViTBlock',) * 3,
            encoder_block_out_channels=(128, 256, 512, 512, 1024, 1024),
            decoder_block_out_channels=(128, 256, 512, 512, 1024, 1024),
            encoder_layers_per_block=(2, 2, 2, 3, 3, 3), decoder_layers_per_block=(3,) * 6,
            encoder_qkv_multiscales=((), (), (), (5,), (5,), (5,)),
            decoder_qkv_multiscales=((), (), (), (5,), (5,), (5,)),
            upsample_block_type='interpolate', downsample_block_type='Conv',
        ),
        0.312, 'Efficient-Large-Model/Sana_1600M_512px_diffusers',
    ),
    'umt5-xxl': ('transformers.UMT5EncoderModel', dict(_T5_XXL, vocab_size=256384), 5.68, 'google/umt5-xxl'),
    't5-xxl': ('transformers.T5EncoderModel', dict(_T5_XXL, vocab_size=32128), 4.76, 'google/t5-v1_1-xxl'),
    'clip-l': (
        'transformers.CLIPTextModel',
        dict(hidden_size=768, intermediate_size=3072, num_hidden_layers=12, num_attention_heads=12),
        0.123, 'openai/clip-vit-large-patch14',
    ),
    'clip-g': (
        'transformers.CLIPTextModelWithProjection',
        dict(
            hidden_size=1280, intermediate_size=5120, num_hidden_layers=32, num_attention_heads=20,
            projection_dim=1280,
        ),
        0.695, 'laion/CLIP-ViT-bigG-14-laion2B-39B-b160k',
    ),
    'gemma-2-2b': (
        'transformers.Gemma2Model',
        dict(
            vocab_size=256000, hidden_size=2304, intermediate_size=9216, num_hidden_layers=26, num_attention_heads=8,
            num_key_value_heads=4, head_dim=256,
        ),
        2.61, 'google/gemma-2-2b-it',
    ),
    'qwen3-4b': (
        'transformers.Qwen3Model',
        dict(
            vocab_size=151936, hidden_size=2560, intermediate_size=9728, num_hidden_layers=36, num_attention_heads=32,
            num_key_value_heads=8, head_dim=128,
        ),
        4.02, 'Qwen/Qwen3-4B',
    ),
    'qwen2.5-vl-7b': (
        'transformers.Qwen2_5_VLForConditionalGeneration',
        dict(
            text_config=dict(
                vocab_size=152064, hidden_size=3584, intermediate_size=18944, num_hidden_layers=28,
                num_attention_heads=28, num_key_value_heads=4,
            ),
            vision_config=dict(
                depth=32, hidden_size=1280, intermediate_size=3420, num_heads=16, out_hidden_size=3584,
            ),
        ),
        8.29, 'Qwen/Qwen2.5-VL-7B-Instruct',
    ),
}  # fmt: skip
