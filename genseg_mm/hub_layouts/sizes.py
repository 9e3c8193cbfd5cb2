"""A released model's config with fewer layers, and with small widths: the same kinds of blocks, the same interfaces.

All text widths are divided by one number, so that what fits together in a release (a text encoder's states and a
transformer's input, two encoders side by side, three layers of one) still does.
"""

import copy
from typing import Any

TEXT_DIVISOR = 32

# Numbers of layers, of whatever library.
_LAYERS = (
    'num_layers', 'num_single_layers', 'num_decoder_layers', 'num_hidden_layers', 'decoder_num_hidden_layers', 'depth',
    'n_layers', 'n_refiner_layers',
)  # fmt: skip
# Numbers of layers in each stage: one shows them all.
_STAGES = ('layers_per_block', 'num_res_blocks', 'encoder_layers_per_block', 'decoder_layers_per_block')
# Widths that two models of a pipeline share.
_TEXT = (
    'text_dim', 'joint_attention_dim', 'pooled_projection_dim', 'caption_channels', 'cap_feat_dim', 'projection_dim',
)  # fmt: skip


def with_layers(config: dict[str, Any], layers: int) -> dict[str, Any]:
    """The config with at most so many layers of each kind.

    Args:
        config: Of a diffusers or transformers model.
        layers: Of each kind; stages of autoencoders and UNets keep one each.
    """
    config = copy.deepcopy(config)
    for key in _LAYERS:
        if isinstance(config.get(key), int):
            config[key] = min(config[key], layers)
    for key in _STAGES:
        if isinstance(config.get(key), int):
            config[key] = 1
        elif isinstance(config.get(key), list):
            config[key] = [1] * len(config[key])
    if config.get('dual_attention_layers'):  # SD3.5: of two kinds, and the last block differs
        config.update(dual_attention_layers=[0], num_layers=max(config['num_layers'], 2))
    if config.get('model_type') == 'clip_text_model':  # diffusers takes what its last layer but one gives
        config['num_hidden_layers'] = max(config['num_hidden_layers'], 2)
    if isinstance(config.get('fullatt_block_indexes'), list):
        config['fullatt_block_indexes'] = [config['depth'] - 1]
    if isinstance(config.get('deepstack_visual_indexes'), list):
        config['deepstack_visual_indexes'] = [config['depth'] - 1]
    if isinstance(config.get('layer_types'), list):
        config['layer_types'] = config['layer_types'][: config['num_hidden_layers']]
    for key in ('text_config', 'vision_config'):
        if isinstance(config.get(key), dict):
            config[key] = with_layers(config[key], layers)
    return config


def with_small_widths(kind: str, config: dict[str, Any]) -> dict[str, Any]:
    """The config of a model of this class at small widths; vocabularies, channels and patches stay.

    Args:
        kind: Dotted class, such as ``diffusers.FluxTransformer2DModel``.
        config: Its config.

    Raises:
        ValueError: If the class is not known here.
    """
    name = kind.rpartition('.')[2]
    if name not in _SMALL:
        raise ValueError(f'{kind} has no small widths: expected one of {sorted(_SMALL)}; add it to {__name__}')
    config = copy.deepcopy(config)
    for key in _TEXT:
        if isinstance(config.get(key), int):
            config[key] //= TEXT_DIVISOR
    small = _SMALL[name]
    config.update(small(config) if callable(small) else small)
    return config


def _dit(config: dict[str, Any]) -> dict[str, Any]:
    """Two heads of 16."""
    axes = dict(axes_dims_rope=[4] * 4 if len(config['axes_dims_rope']) == 4 else [4, 6, 6])
    return dict(num_attention_heads=2, attention_head_dim=16, **axes)


def _language_model(config: dict[str, Any]) -> dict[str, Any]:
    """Heads of 16 across the width."""
    width = config['hidden_size'] // TEXT_DIVISOR
    small = dict(hidden_size=width, intermediate_size=2 * width, num_key_value_heads=1)
    if 'head_dim' in config:
        small.update(head_dim=16, num_attention_heads=2)
    else:
        small.update(num_attention_heads=width // 16)
    if 'query_pre_attn_scalar' in config:
        small.update(query_pre_attn_scalar=16)
    if config.get('rope_scaling'):
        small.update(rope_scaling=dict(config['rope_scaling'], mrope_section=[2, 3, 3]))
    if 'vision_config' in config:
        vision = dict(hidden_size=32, intermediate_size=48, num_heads=2, out_hidden_size=width)
        small.update(vision_config=dict(config['vision_config'], **vision))
    return small


def _t5(config: dict[str, Any]) -> dict[str, Any]:
    return dict(d_model=config['d_model'] // TEXT_DIVISOR, d_kv=16, d_ff=64, num_heads=2)


def _clip(config: dict[str, Any]) -> dict[str, Any]:
    return dict(hidden_size=config['hidden_size'] // TEXT_DIVISOR, intermediate_size=48, num_attention_heads=2)


def _stages(config: dict[str, Any]) -> dict[str, Any]:
    return dict(block_out_channels=[32] * len(config['block_out_channels']))


_SMALL: dict[str, Any] = dict(
    WanTransformer3DModel=dict(num_attention_heads=2, attention_head_dim=16, ffn_dim=64, freq_dim=32),
    QwenImageTransformer2DModel=_dit,
    FluxTransformer2DModel=lambda config: _dit(dict(axes_dims_rope=[16, 56, 56]) | config),
    Flux2Transformer2DModel=lambda config: dict(_dit(config), timestep_guidance_channels=32),
    SD3Transformer2DModel=dict(num_attention_heads=2, attention_head_dim=16, caption_projection_dim=32),
    PixArtTransformer2DModel=dict(num_attention_heads=2, attention_head_dim=16, cross_attention_dim=32),
    SanaTransformer2DModel=dict(
        num_attention_heads=2, attention_head_dim=16, num_cross_attention_heads=2, cross_attention_head_dim=16,
        cross_attention_dim=32,
    ),
    ZImageTransformer2DModel=dict(dim=32, n_heads=2, n_kv_heads=2, axes_dims=[4, 6, 6]),
    UNet2DConditionModel=lambda config: dict(
        _stages(config), attention_head_dim=[2] * len(config['block_out_channels']),
        cross_attention_dim=config['cross_attention_dim'] // TEXT_DIVISOR,
    ),
    AutoencoderKL=_stages,
    AutoencoderKLFlux2=_stages,
    AutoencoderKLWan=lambda config: dict(
        base_dim=8, **(dict(decoder_base_dim=8) if 'decoder_base_dim' in config else {})
    ),
    AutoencoderKLQwenImage=dict(base_dim=8),
    AutoencoderDC=lambda config: dict(
        encoder_block_out_channels=[32] * len(config['encoder_block_out_channels']),
        decoder_block_out_channels=[32] * len(config['decoder_block_out_channels']),
    ),
    UMT5EncoderModel=_t5,
    T5EncoderModel=_t5,
    CLIPTextModel=_clip,
    CLIPTextModelWithProjection=_clip,
    Gemma2Model=_language_model,
    Qwen3Model=_language_model,
    Qwen3ForCausalLM=_language_model,
    Qwen2_5_VLForConditionalGeneration=_language_model,
    ViTMAEForPreTraining=dict(
        hidden_size=32, intermediate_size=48, num_attention_heads=2, decoder_hidden_size=16,
        decoder_intermediate_size=32, decoder_num_attention_heads=2,
    ),
)  # fmt: skip
