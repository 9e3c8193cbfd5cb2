"""Tiny random Qwen2.5-VL and Qwen3-VL with an offline byte-level tokenizer, saved as a released folder is."""

from pathlib import Path

import torch
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import AutoConfig, AutoModelForImageTextToText, PreTrainedTokenizerFast, Qwen2VLImageProcessorPil

CLASSES = {'qwen2_5_vl': 'Qwen2_5_VLForConditionalGeneration', 'qwen3_vl': 'Qwen3VLForConditionalGeneration'}
SPECIAL_TOKENS = (
    '<|endoftext|>',
    '<|im_start|>',
    '<|im_end|>',
    '<|vision_start|>',
    '<|vision_end|>',
    '<|image_pad|>',
    '<|video_pad|>',
)
# Qwen's chat format for string contents; a user message without a system message gets none.
CHAT_TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    '{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}'
)
_WORDS = (
    "system user assistant Describe the key features of the picture, and what the user's words refer to. "
    'the red circle a large blue square the leftmost shape left right object in one short phrase'
)
_PIECES = r"'s|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+"


def tiny_tokenizer() -> PreTrainedTokenizerFast:
    """Byte-level BPE of 340 entries, the special tokens last, with a chat template."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(_PIECES), 'isolated'),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=333,
        min_frequency=1,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator([_WORDS], trainer)
    tokenizer.add_special_tokens(list(SPECIAL_TOKENS))
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token='<|endoftext|>', eos_token='<|im_end|>', chat_template=CHAT_TEMPLATE
    )


def tiny_qwen_vl_settings(kind: str, tokenizer: PreTrainedTokenizerFast) -> dict:
    """Keyword arguments of the model's config: width 32, 3 layers, patches of 4, 8 pixels per image token."""
    ids = {token: tokenizer.convert_tokens_to_ids(token) for token in SPECIAL_TOKENS}
    vision = dict(
        depth=2,
        hidden_size=32,
        intermediate_size=48,
        num_heads=2,
        patch_size=4,
        spatial_merge_size=2,
        temporal_patch_size=2,
        out_hidden_size=32,
    )
    rope = dict(rope_type='default', rope_theta=1000.0, mrope_section=[2, 1, 1])
    if kind == 'qwen2_5_vl':
        vision.update(window_size=16, fullatt_block_indexes=[1])
    else:
        vision.update(num_position_embeddings=16, deepstack_visual_indexes=[0])
        rope['mrope_interleaved'] = True
    text = dict(
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=8,
        max_position_embeddings=512,
        rope_parameters=rope,
        bos_token_id=ids['<|endoftext|>'],
        eos_token_id=ids['<|im_end|>'],
        pad_token_id=ids['<|endoftext|>'],
    )
    return dict(
        model_type=kind,
        text_config=text,
        vision_config=vision,
        image_token_id=ids['<|image_pad|>'],
        video_token_id=ids['<|video_pad|>'],
        vision_start_token_id=ids['<|vision_start|>'],
        vision_end_token_id=ids['<|vision_end|>'],
    )


def tiny_image_processor(**settings) -> Qwen2VLImageProcessorPil:
    defaults = dict(patch_size=4, merge_size=2, min_pixels=64, max_pixels=1024)
    return Qwen2VLImageProcessorPil(**{**defaults, **settings})


def save_tiny_qwen_vl(folder: str | Path, kind: str = 'qwen2_5_vl', seed: int = 0) -> str:
    """Writes model, tokenizer and image processor into a folder; deterministic by seed.

    Weights are drawn larger than the library does, so that every input shows in the output.
    """
    tokenizer = tiny_tokenizer()
    settings = tiny_qwen_vl_settings(kind, tokenizer)
    torch.manual_seed(seed)
    config = AutoConfig.for_model(**settings)
    model = AutoModelForImageTextToText.from_config(config)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.normal_(std=0.25)
    for part in (model, tokenizer, tiny_image_processor()):
        part.save_pretrained(folder)
    return str(folder)


def pretrained(folder: str, kind: str = 'qwen2_5_vl', **kwargs) -> dict:
    """Config of the saved model, as a user writes it."""
    return dict(type=f'transformers.{CLASSES[kind]}.from_pretrained', pretrained_model_name_or_path=folder, **kwargs)
