"""Decoder language models as text encoders: Gemma 2 (Sana), Qwen3 (Z-Image, FLUX.2 klein)."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from genseg_mm.files import check_texts
from genseg_mm.models.prompt_encoders.prompt_encoder import PromptEmbeddings, PromptEncoder, keep_layers, outputs_of
from genseg_mm.registry import MODELS


@MODELS.register_module()
class LanguageModelPromptEncoder(PromptEncoder):
    """Hidden states of a decoder language model that reads the prompt, without its head.

    Sana takes the last state of Gemma 2 (``instruction='sana'``, ``lowercase=True``, ``max_length=300``), Z-Image the
    last but one of Qwen3 in its chat template (``chat=dict(enable_thinking=True)``, ``hidden_layer=-2``). Such a model
    looks back only, so padding behind a prompt changes nothing.

    Args:
        encoder: Config of the model. Pretrained: ``dict(type='transformers.Gemma2Model.from_pretrained',
            pretrained_model_name_or_path=..., subfolder='text_encoder', dtype='bfloat16')``. From scratch: keyword
            arguments of the transformers config, with ``model_type`` such as 'gemma2' or 'qwen3'.
        tokenizer: Folder / hub id.
        hidden_layer: Which hidden state: -1 the last, after the final norm; k > 0 the output of layer k, counted from
            1; -2 that of the last layer but one. Several stand side by side. Layers behind all of them are dropped.
        max_length: Most tokens that are kept, the template's included; longer prompts are cut at their end.
        padding: See :class:`PromptEncoder`; as ``trainable`` and ``tokenizer_kwargs``.
        chat: Keyword arguments of the tokenizer's chat template, in which the prompt is the user's message and the
            answer begins, e.g. ``dict(enable_thinking=False)``; None takes the prompt as it is.
        instruction: Text that stands before every prompt but empty and negative ones. Its states are dropped but for
            those of the first and last token (Sana: arXiv 2410.10629, Sec. 2.3). 'sana' is what the SanaPipeline of
            the installed diffusers puts there.
        reads_padding: Keeps the states of a fixed length's padding, as FLUX.2 was trained. The mask is True everywhere
            then.
        lowercase: Prompts in small letters without space around them, as Sana was trained.

    Raises:
        ValueError: As :class:`PromptEncoder`, or if the model is no decoder with layers, the tokenizer has no chat
            template, or there is no such hidden state.
    """

    def __init__(
        self,
        encoder: dict,
        tokenizer: str,
        hidden_layer: int | Sequence[int] = -1,
        max_length: int = 512,
        padding: str = 'longest',
        chat: dict | None = None,
        instruction: str | None = None,
        reads_padding: bool = False,
        lowercase: bool = False,
        trainable: bool | None = None,
        tokenizer_kwargs: dict | None = None,
        init_cfg: dict | None = None,
    ) -> None:
        if reads_padding and padding == 'longest':
            raise ValueError(
                "reads_padding=True needs padding='max_length', or a prompt depends on its batch, but got 'longest'"
            )
        super().__init__(encoder, tokenizer, max_length, padding, trainable, tokenizer_kwargs, init_cfg)
        self.hidden_layers = keep_layers(self.encoder, hidden_layer)
        self.chat, self.reads_padding, self.lowercase = chat, reads_padding, lowercase
        if chat is not None and self.tokenizer.chat_template is None:
            raise ValueError(f'chat={chat} needs a chat template, but the tokenizer of {tokenizer!r} has none')
        self.instruction = _sana_instruction() if instruction == 'sana' else instruction
        self.num_instruction_tokens = len(self.tokenizer(self.instruction).input_ids) if self.instruction else 0

    @classmethod
    def build(cls, encoder: dict) -> nn.Module:
        """The model without its head."""
        model = super().build(encoder)
        model = model.model if hasattr(model, 'lm_head') else model
        if not (hasattr(model, 'layers') and hasattr(model, 'norm')):
            raise ValueError(
                f'expected a decoder language model such as transformers.Gemma2Model, but got a {type(model).__name__}'
            )
        return model

    @property
    def embed_dims(self) -> int:
        """Width D of the token embeddings."""
        return len(self.hidden_layers) * super().embed_dims

    def encode(self, texts: list[str], device: torch.device) -> PromptEmbeddings:
        """See :meth:`PromptEncoder.encode`."""
        return self._encode([self._tokens(text, bool(text)) for text in texts], device)

    def negative(self, texts: Sequence[str]) -> PromptEmbeddings:
        """Prompts to guide away from: without the instruction."""
        check_texts(texts, 'negative prompts')
        with self.running():
            return self._encode([self._tokens(text, False) for text in texts], self.device)

    def _tokens(self, text: str, instructed: bool) -> tuple[list[int], int]:
        """Tokens of a prompt, and how many of them after the first one are dropped."""
        if self.lowercase:
            text = text.lower().strip()
        if self.chat is not None:
            message = [dict(role='user', content=text)]
            text = self.tokenizer.apply_chat_template(message, tokenize=False, add_generation_prompt=True, **self.chat)
        if not instructed or not self.instruction:
            return self._ids(text, self.max_length), 0
        dropped = self.num_instruction_tokens - 2
        return self._ids(self.instruction + text, self.max_length + dropped), dropped

    def _ids(self, text: str, max_length: int) -> list[int]:
        return self.tokenizer(text, truncation=True, max_length=max_length).input_ids

    def _encode(self, rows: Sequence[tuple[list[int], int]], device: torch.device) -> PromptEmbeddings:
        longest = max(len(ids) for ids, _ in rows)
        ids = torch.full((len(rows), self.max_length if self.reads_padding else longest), self._padding_id())
        mask, kept = torch.zeros_like(ids), torch.zeros_like(ids, dtype=torch.bool)
        for row, (own, dropped) in enumerate(rows):
            ids[row, : len(own)] = torch.tensor(own)
            mask[row, : len(own)] = 1
            kept[row, : len(own)] = True
            kept[row, 1 : 1 + dropped] = False
        states = self._states(ids.to(device), mask.to(device))  # (N, L, D)
        if self.reads_padding:
            return PromptEmbeddings(states, torch.ones_like(ids, dtype=torch.bool, device=device))
        counts = kept.sum(1)
        length = self.max_length if self.padding == 'max_length' else int(counts.max())
        real = (torch.arange(length) < counts[:, None]).to(device)
        output = states.new_zeros(len(rows), length, states.shape[-1])
        output[real] = states[kept.to(device)]
        return PromptEmbeddings(output, real)

    def _states(self, ids: Tensor, mask: Tensor) -> Tensor:
        layers = self.encoder.layers
        numbers = sorted(set(self.hidden_layers))  # up to that of the last one, see keep_layers
        inner = [layers[number - 1] for number in numbers[:-1]]
        with outputs_of(inner) as outputs:
            output = self.encoder(input_ids=ids, attention_mask=mask, use_cache=False)
        states = dict(zip(numbers, [*outputs, output.last_hidden_state], strict=True))
        return torch.cat([states[number] for number in self.hidden_layers], -1)

    def _padding_id(self) -> int:
        padding = self.tokenizer.pad_token_id
        return 0 if padding is None else padding


def _sana_instruction() -> str:
    from inspect import signature

    from diffusers import SanaPipeline

    return '\n'.join(signature(SanaPipeline.__call__).parameters['complex_human_instruction'].default)
