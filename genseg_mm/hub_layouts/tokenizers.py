"""Tokenizers with the special tokens, vocabulary size and files of released ones, whose words are bytes or characters.

Most of a released vocabulary is fillers here, so texts become more tokens than they would.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

_QWEN25 = [
    '<|endoftext|>', '<|im_start|>', '<|im_end|>', '<|object_ref_start|>', '<|object_ref_end|>', '<|box_start|>',
    '<|box_end|>', '<|quad_start|>', '<|quad_end|>', '<|vision_start|>', '<|vision_end|>', '<|vision_pad|>',
    '<|image_pad|>', '<|video_pad|>', '<tool_call>', '</tool_call>', '<|fim_prefix|>', '<|fim_middle|>',
    '<|fim_suffix|>', '<|fim_pad|>', '<|repo_name|>', '<|file_sep|>',
]  # fmt: skip
_QWEN3 = [*_QWEN25, '<tool_response>', '</tool_response>', '<think>', '</think>']
_QWEN_WORDS = 151643
_QWEN_SPECIAL = 14  # of the added tokens, the first ones; the others are ordinary text
# What the released templates say of messages of texts and images; tools and calls are left out.
_QWEN_VL_TEMPLATE = (
    '{% for message in messages %}'
    "{% if loop.first and message['role'] != 'system' %}<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n"
    "{% endif %}<|im_start|>{{ message['role'] }}\n"
    "{% if message['content'] is string %}{{ message['content'] }}{% else %}{% for part in message['content'] %}"
    "{% if 'image' in part or part['type'] == 'image' %}<|vision_start|><|image_pad|><|vision_end|>"
    "{% elif 'text' in part %}{{ part['text'] }}{% endif %}{% endfor %}{% endif %}<|im_end|>\n{% endfor %}"
    '{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}'
)
_QWEN3_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n{% endfor %}"
    '{% if add_generation_prompt %}<|im_start|>assistant\n'
    '{% if enable_thinking is defined and enable_thinking is false %}<think>\n\n</think>\n\n{% endif %}{% endif %}'
)
_GEMMA_TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}<start_of_turn>{{ message['role'] }}\n{{ message['content'] }}"
    '<end_of_turn>\n{% endfor %}{% if add_generation_prompt %}<start_of_turn>model\n{% endif %}'
)


def write_tokenizer(kind: str, folder: Path, settings: dict[str, Any]) -> None:
    """Writes the files of a tokenizer.

    Args:
        kind: Of ``KINDS``.
        folder: That exists.
        settings: Of ``tokenizer_config.json``, beside those of the kind.

    Raises:
        ValueError: If the kind is unknown.
    """
    if kind not in KINDS:
        raise ValueError(f'a tokenizer must be one of {sorted(KINDS)}, but got {kind!r}')
    KINDS[kind](folder, settings)


def _bytes() -> list[str]:
    """The byte-level alphabet, in its order."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in printable]
    return [chr(byte) for byte in printable] + [chr(256 + number) for number in range(len(others))]


def _filled(words: list[str], count: int) -> dict[str, int]:
    words = [*words, *(f'~filler{number}' for number in range(len(words), count))]
    return {word: number for number, word in enumerate(words)}


def _write(folder: Path, name: str, value: Any) -> None:
    (folder / name).write_text(json.dumps(value, ensure_ascii=False) + '\n', encoding='utf-8')


def _added(word: str, number: int, special: bool = True) -> dict[str, Any]:
    return dict(
        id=number, content=word, single_word=False, lstrip=False, rstrip=False, normalized=False, special=special
    )  # fmt: skip


def _qwen(added: list[str], template: str) -> Callable[[Path, dict], None]:
    def write(folder: Path, settings: dict[str, Any]) -> None:
        _write(folder, 'vocab.json', _filled(_bytes(), _QWEN_WORDS))
        (folder / 'merges.txt').write_text('#version: 0.2\n')
        decoder = {}
        for number, word in enumerate(added):
            token = _added(word, _QWEN_WORDS + number, number < _QWEN_SPECIAL)
            decoder[str(token.pop('id'))] = token
        own = dict(
            add_bos_token=False, add_prefix_space=False, added_tokens_decoder=decoder,
            additional_special_tokens=added[1:_QWEN_SPECIAL - 1], bos_token=None, chat_template=template,
            clean_up_tokenization_spaces=False, eos_token='<|im_end|>', errors='replace', model_max_length=131072,
            pad_token='<|endoftext|>', split_special_tokens=False, tokenizer_class='Qwen2Tokenizer', unk_token=None,
        )  # fmt: skip
        _write(folder, 'tokenizer_config.json', {**own, **settings})

    return write


def _clip(folder: Path, settings: dict[str, Any]) -> None:
    letters = _bytes()
    start, end = '<|startoftext|>', '<|endoftext|>'
    words = _filled([*letters, *(f'{letter}</w>' for letter in letters)], 49406)
    _write(folder, 'vocab.json', {**words, start: 49406, end: 49407})
    (folder / 'merges.txt').write_text('#version: 0.2\n')
    own = dict(
        add_prefix_space=False, bos_token=start, do_lower_case=True, eos_token=end, errors='replace',
        model_max_length=77, pad_token=end, tokenizer_class='CLIPTokenizer', unk_token=end,
    )  # fmt: skip
    _write(folder, 'tokenizer_config.json', {**own, **settings})
    tokens = {key: {**own, **settings}[key] for key in ('bos_token', 'eos_token', 'pad_token', 'unk_token')}
    _write(folder, 'special_tokens_map.json', tokens)


def _sentencepiece(special: list[str], words: int, extra: int) -> Callable[[Path, dict], None]:
    """T5's: unigrams, here one character each, and the numbered extra tokens at the end, counted down."""

    def write(folder: Path, settings: dict[str, Any]) -> None:
        letters = ['▁', *map(chr, range(33, 127))]
        pieces = [*special, *letters, *(f'▁~filler{number}' for number in range(words - len(special) - len(letters)))]
        vocab = [[piece, 0.0 if place < len(special) else -10.0] for place, piece in enumerate(pieces)]
        extras = [f'<extra_id_{number}>' for number in reversed(range(extra))]
        vocab += [[word, 0.0] for word in extras]
        names = [*special, *extras]
        numbers = [*range(len(special)), *range(words, words + extra)]
        tokenizer = dict(
            version='1.0', truncation=None, padding=None,
            added_tokens=[_added(word, number) for word, number in zip(names, numbers, strict=True)],
            normalizer=None,
            pre_tokenizer=dict(type='Metaspace', replacement='▁', prepend_scheme='always', split=True),
            post_processor=_ending('</s>', special.index('</s>')),
            decoder=dict(type='Metaspace', replacement='▁', prepend_scheme='always', split=True),
            model=dict(type='Unigram', unk_id=special.index('<unk>'), vocab=vocab, byte_fallback=False),
        )  # fmt: skip
        _write(folder, 'tokenizer.json', tokenizer)
        own = dict(
            additional_special_tokens=extras[::-1], clean_up_tokenization_spaces=True, eos_token='</s>',
            extra_ids=extra, model_max_length=512, pad_token='<pad>', tokenizer_class='T5Tokenizer', unk_token='<unk>',
        )  # fmt: skip
        _write(folder, 'tokenizer_config.json', {**own, **settings})

    return write


def _ending(word: str, number: int) -> dict[str, Any]:
    end, text = dict(SpecialToken=dict(id=word, type_id=0)), dict(Sequence=dict(id='A', type_id=0))
    pair = dict(Sequence=dict(id='B', type_id=0))
    tokens = {word: dict(id=word, ids=[number], tokens=[word])}
    return dict(type='TemplateProcessing', single=[text, end], pair=[text, end, pair, end], special_tokens=tokens)


def _gemma(folder: Path, settings: dict[str, Any]) -> None:
    special = ['<pad>', '<eos>', '<bos>', '<unk>', '<mask>', '<2mass>', '[@BOS@]']
    unused = [f'<unused{number}>' for number in range(99)]
    words = [*special, *unused, '<start_of_turn>', '<end_of_turn>']
    words += [f'~filler{number}' for number in range(len(words), 217)]
    words += [f'<0x{byte:02X}>' for byte in range(256)]
    words += ['▁', *map(chr, range(33, 127))]
    start, text = dict(SpecialToken=dict(id='<bos>', type_id=0)), dict(Sequence=dict(id='A', type_id=0))
    pair = dict(Sequence=dict(id='B', type_id=1))
    names = [*special, '<start_of_turn>', '<end_of_turn>']
    tokenizer = dict(
        version='1.0', truncation=None, padding=None,
        added_tokens=[_added(word, words.index(word)) for word in names],
        normalizer=dict(type='Replace', pattern=dict(String=' '), content='▁'),
        pre_tokenizer=None,
        post_processor=dict(
            type='TemplateProcessing', single=[start, text],
            pair=[start, text, dict(SpecialToken=dict(id='<bos>', type_id=1)), pair],
            special_tokens={'<bos>': dict(id='<bos>', ids=[2], tokens=['<bos>'])},
        ),
        decoder=dict(type='Replace', pattern=dict(String='▁'), content=' '),
        model=dict(
            type='BPE', dropout=None, unk_token='<unk>', continuing_subword_prefix=None, end_of_word_suffix=None,
            fuse_unk=True, byte_fallback=True, ignore_merges=False, vocab=_filled(words, 256000), merges=[],
        ),
    )  # fmt: skip
    _write(folder, 'tokenizer.json', tokenizer)
    own = dict(
        add_bos_token=True, add_eos_token=False, additional_special_tokens=['<start_of_turn>', '<end_of_turn>'],
        bos_token='<bos>', chat_template=_GEMMA_TEMPLATE, clean_up_tokenization_spaces=False, eos_token='<eos>',
        model_max_length=1000000000000000019884624838656, pad_token='<pad>', padding_side='left',
        tokenizer_class='GemmaTokenizer', unk_token='<unk>',
    )  # fmt: skip
    _write(folder, 'tokenizer_config.json', {**own, **settings})


KINDS: dict[str, Callable[[Path, dict], None]] = {
    'qwen2.5-vl': _qwen(_QWEN25, _QWEN_VL_TEMPLATE),
    'qwen3': _qwen(_QWEN3, _QWEN3_TEMPLATE),
    'clip': _clip,
    't5': _sentencepiece(['<pad>', '</s>', '<unk>'], 32000, 100),
    'umt5': _sentencepiece(['<pad>', '</s>', '<s>', '<unk>'], 256000, 300),
    'gemma': _gemma,
}
