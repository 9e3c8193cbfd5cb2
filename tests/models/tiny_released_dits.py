"""Tiny random folders of whole text-to-image pipelines, with their own text encoders and byte-level tokenizers."""

from pathlib import Path

import numpy as np
import torch
from tiny_models import TRANSFORMERS
from tiny_qwen_vl import tiny_qwen_vl_settings, tiny_tokenizer
from tiny_released import write_tokenizer
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

# Text-to-image models as they are released, before the input is widened for images.
RELEASED = {
    **TRANSFORMERS,
    'sana': {**TRANSFORMERS['sana'], 'in_channels': 20},
    'sd3': {**TRANSFORMERS['sd3'], 'in_channels': 4},
    'pixart': {**TRANSFORMERS['pixart'], 'in_channels': 4, 'out_channels': 8},
    'flux2': {**TRANSFORMERS['flux2'], 'joint_attention_dim': 96},
}
PIPELINES = dict(
    sana='SanaPipeline',
    sd3='StableDiffusion3Pipeline',
    flux='FluxPipeline',
    flux_kontext='FluxKontextPipeline',
    pixart='PixArtSigmaPipeline',
    z_image='ZImagePipeline',
    flux2='Flux2KleinPipeline',
    qwen_image='QwenImagePipeline',
    wan='WanPipeline',
)
# Of Qwen3: the thinking is closed before the answer where it is off.
CHAT_TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    '{% if add_generation_prompt %}<|im_start|>assistant\n'
    '{% if enable_thinking is defined and enable_thinking is false %}<think>\n\n</think>\n\n{% endif %}{% endif %}'
)
KL = dict(
    block_out_channels=(8, 8, 8, 16),
    down_block_types=('DownEncoderBlock2D',) * 4,
    up_block_types=('UpDecoderBlock2D',) * 4,
    layers_per_block=1,
    norm_num_groups=4,
    latent_channels=4,
)
DC = dict(
    latent_channels=20,
    encoder_block_types='ResBlock',
    decoder_block_types='ResBlock',
    encoder_block_out_channels=(8,) * 6,
    decoder_block_out_channels=(8,) * 6,
    encoder_layers_per_block=(1,) * 6,
    decoder_layers_per_block=(1,) * 6,
    encoder_qkv_multiscales=((),) * 6,
    decoder_qkv_multiscales=((),) * 6,
    downsample_block_type='Conv',
    upsample_block_type='interpolate',
    encoder_out_shortcut=False,
    decoder_in_shortcut=False,
    scaling_factor=0.41407,
)


# Of Wan and Qwen-Image, 4 pixels per cell.
VIDEO = dict(
    base_dim=8,
    z_dim=4,
    dim_mult=[1, 2, 2],
    num_res_blocks=1,
    temperal_downsample=[False, True],
    latents_mean=[0.5, -0.5, 0.0, 1.0],
    latents_std=[2.0, 1.0, 0.5, 4.0],
)


def byte_tokenizer(start: str | None = None, end: str | None = None, side: str = 'right') -> PreTrainedTokenizerFast:
    """One token per byte, '<pad>' 256, between a start and an end token: T5's end, or Gemma's start."""
    tokenizer = Tokenizer(
        models.BPE(vocab={c: n for n, c in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}, merges=[])
    )
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    special = [token for token in ('<pad>', start, end) if token]
    tokenizer.add_special_tokens(special)
    around = ' '.join(filter(None, (start, '$A', end)))
    ids = [(token, tokenizer.token_to_id(token)) for token in (start, end) if token]
    tokenizer.post_processor = processors.TemplateProcessing(single=around, special_tokens=ids)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token='<pad>', bos_token=start, eos_token=end, padding_side=side
    )


def clip(width: int, projection: bool, seed: int) -> torch.nn.Module:
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

    config = CLIPTextConfig(
        vocab_size=514,
        hidden_size=width,
        intermediate_size=2 * width,
        num_hidden_layers=3,
        num_attention_heads=2,
        projection_dim=12,
        bos_token_id=512,
        eos_token_id=513,
        pad_token_id=0,
    )
    torch.manual_seed(seed)
    return (CLIPTextModelWithProjection if projection else CLIPTextModel)(config)


def t5(kind: str = 'T5') -> torch.nn.Module:
    import transformers

    torch.manual_seed(3)
    sizes = dict(d_model=32, d_kv=8, d_ff=64, num_layers=2, num_heads=4, feed_forward_proj='gated-gelu')
    config = getattr(transformers, f'{kind}Config')(vocab_size=258, **sizes)
    return getattr(transformers, f'{kind}EncoderModel')(config)


def decoder(kind: str, vocab_size: int, num_layers: int = 3, head: bool = False) -> torch.nn.Module:
    from transformers import AutoConfig, AutoModel, AutoModelForCausalLM

    torch.manual_seed(4)
    sizes = dict(hidden_size=32, intermediate_size=48, num_hidden_layers=num_layers, num_attention_heads=4, head_dim=8)
    config = AutoConfig.for_model(kind, vocab_size=vocab_size, num_key_value_heads=2, pad_token_id=0, **sizes)
    return (AutoModelForCausalLM if head else AutoModel).from_config(config)


def qwen_vl(tokenizer: PreTrainedTokenizerFast) -> torch.nn.Module:
    from transformers import AutoConfig, AutoModelForImageTextToText

    torch.manual_seed(5)
    config = AutoConfig.for_model(**tiny_qwen_vl_settings('qwen2_5_vl', tokenizer))
    return AutoModelForImageTextToText.from_config(config)


def _encoders(family: str, folder: Path) -> dict:
    """Text encoders and tokenizers under the names of the family's pipeline."""
    if family == 'sana':
        tokenizer = byte_tokenizer('<bos>', side='left')
        return dict(text_encoder=decoder('gemma2', len(tokenizer)), tokenizer=tokenizer)
    if family == 'z_image':
        tokenizer = tiny_tokenizer()
        tokenizer.chat_template = CHAT_TEMPLATE
        return dict(text_encoder=decoder('qwen3', len(tokenizer)), tokenizer=tokenizer)
    if family == 'flux2':  # it reads layers 9, 18 and 27
        tokenizer = tiny_tokenizer()
        tokenizer.chat_template = CHAT_TEMPLATE
        return dict(text_encoder=decoder('qwen3', len(tokenizer), 28, head=True), tokenizer=tokenizer)
    if family.startswith('qwen_image'):
        tokenizer = tiny_tokenizer()
        return dict(text_encoder=qwen_vl(tokenizer), tokenizer=tokenizer)
    if family == 'wan':
        return dict(text_encoder=t5('UMT5'), tokenizer=byte_tokenizer(end='</s>'))
    if family == 'pixart':
        return dict(text_encoder=t5(), tokenizer=byte_tokenizer(end='</s>'))
    from transformers import CLIPTokenizer

    write_tokenizer(folder / 'clip')
    of_clip = CLIPTokenizer.from_pretrained(str(folder / 'clip'))
    if family == 'sd3':
        return dict(
            text_encoder=clip(12, True, 1),
            tokenizer=of_clip,
            text_encoder_2=clip(16, True, 2),
            tokenizer_2=of_clip,
            text_encoder_3=t5(),
            tokenizer_3=byte_tokenizer(end='</s>'),
        )
    return dict(
        text_encoder=clip(24, False, 1),
        tokenizer=of_clip,
        text_encoder_2=t5(),
        tokenizer_2=byte_tokenizer(end='</s>'),
    )


def autoencoder(family: str) -> torch.nn.Module:
    import diffusers

    if family == 'sana':
        return diffusers.AutoencoderDC(**DC)
    if family == 'flux2':
        vae = diffusers.AutoencoderKLFlux2(**KL)
        vae.bn.running_mean.copy_(torch.linspace(-1, 1, 16))
        vae.bn.running_var.copy_(torch.linspace(0.5, 2, 16))
        return vae
    if family == 'wan':
        return diffusers.AutoencoderKLWan(**VIDEO, scale_factor_spatial=4, scale_factor_temporal=2)
    if family.startswith('qwen_image'):
        return diffusers.AutoencoderKLQwenImage(**VIDEO)
    return diffusers.AutoencoderKL(**KL, scaling_factor=0.7, shift_factor=None if family == 'pixart' else 0.3)


def make_pipeline(family: str, folder: Path, shift: float = 3.0, **transformer):
    """Writes the whole pipeline into ``folder`` and returns it; weights are large enough that every input shows."""
    import diffusers

    from genseg_mm.models.dit_families import FAMILIES

    torch.manual_seed(0)
    vae = autoencoder(family)
    network = getattr(diffusers, FAMILIES[family].transformer_class)(**{**RELEASED[family], **transformer})
    parts = _encoders(family, folder.parent / f'{folder.name}_tokenizers')
    with torch.no_grad():
        for part in (network, *parts.values()):
            for parameter in part.parameters() if isinstance(part, torch.nn.Module) else ():
                if parameter.ndim > 1:
                    parameter.normal_(std=0.1)
    scheduler = diffusers.FlowMatchEulerDiscreteScheduler(shift=shift)
    kind = PIPELINES[family.removesuffix('_edit')]
    pipeline = getattr(diffusers, kind)(vae=vae, transformer=network, scheduler=scheduler, **parts)
    pipeline.save_pretrained(str(folder))
    # What PixArt's pipeline asks of the schedulers of its own path.
    scheduler.init_noise_sigma, scheduler.scale_model_input = 1.0, lambda latents, _: latents
    if family == 'wan':  # its own scheduler takes other levels
        set_timesteps = scheduler.set_timesteps
        scheduler.set_timesteps = lambda steps, device: set_timesteps(sigmas=np.linspace(1, 1 / steps, steps))
    if family == 'qwen_image':  # as many tokens as its template has before the words; 34 with the released tokenizer
        before = pipeline.prompt_template_encode.split('{}')[0]
        pipeline.prompt_template_encode_start_idx = len(parts['tokenizer'](before).input_ids)
    pipeline.set_progress_bar_config(disable=True)
    for part in pipeline.components.values():
        if isinstance(part, torch.nn.Module):
            part.eval()
    return pipeline
