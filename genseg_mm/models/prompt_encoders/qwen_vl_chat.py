"""Texts and images -> token sequences in Qwen-VL's chat template."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

_TEXT_MARK = 'THE-TEXT-GOES-HERE'


class ChatBatch(NamedTuple):
    """Token sequences of one length, on the CPU.

    Attributes:
        input_ids: (N, L) int64.
        attention_mask: 1 at tokens, 0 at padding, (N, L) int64.
        mm_token_type_ids: 1 at image tokens, (N, L) int64.
    """

    input_ids: Tensor
    attention_mask: Tensor
    mm_token_type_ids: Tensor


class QwenVLChat:
    """The tokenizer's chat template around (image, text), as tokens: prefix, image, text, suffix.

    The template is rendered once and cut at the user's words, so that prefix and suffix are known to the token
    whatever the template says. Words are never read as special tokens.

    Args:
        tokenizer: Folder / hub id of a tokenizer with a chat template.
        config: The model's config, whose special token ids are used.
        system_prompt: System message; None leaves it to the template.
        **kwargs: Of the tokenizer's ``from_pretrained``, e.g. ``subfolder='tokenizer'``.

    Attributes:
        prefix: Ids before the user's message: system message and the user's header.
        suffix: Ids after it: its end, and the header of the answer.
        padding: Id that fills up; never attended to.

    Raises:
        ValueError: If there is no chat template, or the tokenizer is another model's.
    """

    def __init__(self, tokenizer: str, config: object, system_prompt: str | None = None, **kwargs) -> None:
        from transformers import AutoTokenizer

        self.tokenizer = AutoTokenizer.from_pretrained(tokenizer, **kwargs)
        if self.tokenizer.chat_template is None:
            raise ValueError(
                f'the tokenizer of {tokenizer!r} has no chat template: expected that of a Qwen-VL Instruct model'
            )
        image_token = self.tokenizer.convert_tokens_to_ids('<|image_pad|>')
        if image_token != config.image_token_id:
            raise ValueError(
                f"{tokenizer!r}: expected '<|image_pad|>' to be token {config.image_token_id} as in the model, but got "
                f'{image_token}: they do not belong together'
            )
        self.image_token_id = config.image_token_id
        self._around_image = (config.vision_start_token_id, config.vision_end_token_id)
        self.padding = self.tokenizer.pad_token_id
        if self.padding is None:
            self.padding = config.vision_end_token_id
        messages = [dict(role='user', content=_TEXT_MARK)]
        if system_prompt is not None:
            messages.insert(0, dict(role='system', content=system_prompt))
        rendered = self.tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
        if rendered.count(_TEXT_MARK) != 1:
            raise ValueError(
                f"the chat template of {tokenizer!r} must show the user's words once, but got {rendered!r}"
            )
        before, after = rendered.split(_TEXT_MARK)
        self.prefix, self.suffix = self._ids(before), self._ids(after)

    def _ids(self, text: str, **kwargs) -> list[int]:
        return self.tokenizer(text, add_special_tokens=False, **kwargs).input_ids

    def words(self, text: str) -> list[int]:
        """Ids of the user's words; special tokens in them are mere text."""
        return self._ids(text, split_special_tokens=True)

    def image(self, num_tokens: int) -> list[int]:
        """Ids of an image of ``num_tokens`` tokens, between its start and its end."""
        start, end = self._around_image
        return [start, *[self.image_token_id] * num_tokens, end]

    def batch(self, sequences: Sequence[list[int]], side: str = 'right') -> ChatBatch:
        """Pads sequences to the longest, on their 'right' or 'left'."""
        length = max(map(len, sequences))
        ids = torch.full((len(sequences), length), self.padding)
        attention = torch.zeros_like(ids)
        for row, sequence in enumerate(sequences):
            place = slice(len(sequence)) if side == 'right' else slice(length - len(sequence), None)
            ids[row, place] = torch.tensor(sequence)
            attention[row, place] = 1
        is_image = (ids == self.image_token_id) & attention.bool()
        return ChatBatch(ids, attention, is_image.long())
