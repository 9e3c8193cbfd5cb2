"""Tiny random folders of whole text-to-image pipelines, with their own text encoders and byte-level tokenizers."""

from pathlib import Path

import torch
from tiny_models import TRANSFORMERS
from tiny_qwen_vl import tiny_tokenizer
from tiny_released import write_tokenizer
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

# Text-to-image models as they are released, before the input is widened for images.
RELEASED = {
    **TRANSFORMERS,
    'sana': {**TRANSFORMERS['sana'], 'in_channels': 20},
    'sd3': {**TRANSFORMERS['sd3'], 'in_channels': 4},
    'pixart': {**TRANSFORMERS['pixart'], 'in_channels': 4, 'out_channels': 8},
}
PIPELINES = dict(
    sana='SanaPipeline',
    sd3='StableDiffusion3Pipeline',
    flux='FluxPipeline',
    flux_kontext='FluxKontextPipeline',
    pixart='PixArtSigmaPipeline',
    z_image='ZImagePipeline',
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


def t5() -> torch.nn.Module:
    from transformers import T5Config, T5EncoderModel

    torch.manual_seed(3)
    sizes = dict(d_model=32, d_kv=8, d_ff=64, num_layers=2, num_heads=4, feed_forward_proj='gated-gelu')
    return T5EncoderModel(T5Config(vocab_size=258, **sizes))


def decoder(kind: str, vocab_size: int) -> torch.nn.Module:
    from transformers import AutoConfig, AutoModel

    torch.manual_seed(4)
    sizes = dict(hidden_size=32, intermediate_size=48, num_hidden_layers=3, num_attention_heads=4, head_dim=8)
    config = AutoConfig.for_model(kind, vocab_size=vocab_size, num_key_value_heads=2, pad_token_id=0, **sizes)
    return AutoModel.from_config(config)


def _encoders(family: str, folder: Path) -> dict:
    """Text encoders and tokenizers under the names of the family's pipeline."""
    if family == 'sana':
        tokenizer = byte_tokenizer('<bos>', side='left')
        return dict(text_encoder=decoder('gemma2', len(tokenizer)), tokenizer=tokenizer)
    if family == 'z_image':
        tokenizer = tiny_tokenizer()
        tokenizer.chat_template = CHAT_TEMPLATE
        return dict(text_encoder=decoder('qwen3', len(tokenizer)), tokenizer=tokenizer)
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


def make_pipeline(family: str, folder: Path, shift: float = 3.0, **transformer):
    """Writes the whole pipeline into ``folder`` and returns it; weights are large enough that every input shows."""
    import diffusers

    from genseg_mm.models.dit_families import FAMILIES

    torch.manual_seed(0)
    vae = (
        diffusers.AutoencoderDC(**DC)
        if family == 'sana'
        else diffusers.AutoencoderKL(**KL, scaling_factor=0.7, shift_factor=None if family == 'pixart' else 0.3)
    )
    network = getattr(diffusers, FAMILIES[family].transformer_class)(**{**RELEASED[family], **transformer})
    parts = _encoders(family, folder.parent / f'{folder.name}_tokenizers')
    with torch.no_grad():
        for part in (network, *parts.values()):
            for parameter in part.parameters() if isinstance(part, torch.nn.Module) else ():
                if parameter.ndim > 1:
                    parameter.normal_(std=0.1)
    scheduler = diffusers.FlowMatchEulerDiscreteScheduler(shift=shift)
    pipeline = getattr(diffusers, PIPELINES[family])(vae=vae, transformer=network, scheduler=scheduler, **parts)
    pipeline.save_pretrained(str(folder))
    # What PixArt's pipeline asks of the schedulers of its own path.
    scheduler.init_noise_sigma, scheduler.scale_model_input = 1.0, lambda latents, _: latents
    pipeline.set_progress_bar_config(disable=True)
    for part in pipeline.components.values():
        if isinstance(part, torch.nn.Module):
            part.eval()
    return pipeline
