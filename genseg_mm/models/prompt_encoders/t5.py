"""What every prompt encoder returns, and T5 text encoders: texts -> token embeddings."""

from collections.abc import Sequence
from contextlib import nullcontext
from typing import NamedTuple

import torch
from mmengine.model import BaseModule
from torch import Tensor

from genseg_mm.files import check_texts
from genseg_mm.models.pretrained_parts import FrozenPartsMixin, build_part, freeze, frozen_pass, is_pretrained_config
from genseg_mm.registry import MODELS


class PromptEmbeddings(NamedTuple):
    """Encoded prompts.

    Attributes:
        states: Token embeddings, (N, L, D), zero at padding.
        mask: True where a token is real, (N, L) bool.
        pooled: One vector per prompt, (N, P), for families that want it (SD3, Flux); None where the encoder has none.
    """

    states: Tensor
    mask: Tensor
    pooled: Tensor | None = None

    def select(self, chosen: Tensor) -> 'PromptEmbeddings':
        """The prompts at ``chosen`` ((N,) bool)."""
        pooled = None if self.pooled is None else self.pooled[chosen]
        return PromptEmbeddings(self.states[chosen], self.mask[chosen], pooled)


@MODELS.register_module()
class T5PromptEncoder(FrozenPartsMixin, BaseModule):
    """T5 family text encoder (T5, umT5, ByT5).

    Args:
        encoder: Config of the encoder. Pretrained: ``dict(type='transformers.UMT5EncoderModel.from_pretrained',
            pretrained_model_name_or_path=...)``, or ``T5EncoderModel`` for T5 and ByT5. From scratch: keyword arguments
            of ``transformers.T5Config`` without a type.
        tokenizer: 'byt5' for bytes (needs no files), or the folder / hub id of a tokenizer.
        max_length: Longest prompt in tokens, the end token included; longer ones are cut.
        padding: 'longest' pads to the longest prompt of the batch, 'max_length' to a fixed length, which
            families without a text mask (Wan) need.
        trainable: Trains the encoder jointly. Default: frozen if pretrained, trained if built from scratch.
        tokenizer_kwargs: Keyword arguments of the tokenizer's ``from_pretrained``, e.g.
            ``dict(subfolder='tokenizer')``.

    Raises:
        ValueError: If padding is unknown, or the tokenizer has more tokens than the encoder.
    """

    looks_at_images = False

    def __init__(
        self,
        encoder: dict,
        tokenizer: str = 'byt5',
        max_length: int = 64,
        padding: str = 'longest',
        trainable: bool | None = None,
        tokenizer_kwargs: dict | None = None,
        init_cfg: dict | None = None,
    ) -> None:
        super().__init__(init_cfg)
        from transformers import AutoTokenizer, ByT5Tokenizer

        if padding not in ('longest', 'max_length'):
            raise ValueError(f"padding must be 'longest' or 'max_length', but got {padding!r}")
        pretrained = 'type' in encoder and is_pretrained_config(encoder)
        self.encoder = build_part(encoder) if 'type' in encoder else _t5_from_scratch(encoder)
        self.tokenizer = (
            ByT5Tokenizer()
            if tokenizer == 'byt5'
            else AutoTokenizer.from_pretrained(tokenizer, **(tokenizer_kwargs or {}))
        )
        if len(self.tokenizer) > self.encoder.config.vocab_size:
            raise ValueError(
                f'tokenizer {tokenizer!r} has {len(self.tokenizer)} tokens, but the encoder knows '
                f'{self.encoder.config.vocab_size}: they do not belong together'
            )
        self.max_length, self.padding = max_length, padding
        self.trainable = not pretrained if trainable is None else trainable
        if not self.trainable:
            freeze(self.encoder, has_source=pretrained)
            self.frozen_parts = ('encoder',)

    @property
    def embed_dims(self) -> int:
        """Width D of the token embeddings."""
        return self.encoder.config.d_model

    def init_weights(self) -> None:
        """Keeps the weights that transformers gave: its models have an ``init_weights`` of their own."""
        self._is_init = True

    def forward(
        self, texts: Sequence[str], images: Tensor | None = None, has_image: Tensor | None = None
    ) -> PromptEmbeddings:
        """Encodes prompts.

        Args:
            texts: N prompts.
            images: Unused; in the signature for encoders that also look at the image.
            has_image: Unused, likewise.

        Returns:
            Embeddings (N, L, D), zero at padding, and their mask (N, L).

        Raises:
            ValueError: If a text holds half of a character, which no tokenizer takes.
        """
        check_texts(texts, 'prompts')
        tokens = self.tokenizer(
            list(texts), padding=self.padding, truncation=True, max_length=self.max_length, return_tensors='pt'
        )
        device = next(self.encoder.parameters()).device
        ids, mask = tokens.input_ids.to(device), tokens.attention_mask.to(device)
        with nullcontext() if self.trainable else frozen_pass(device):
            states = self.encoder(input_ids=ids, attention_mask=mask).last_hidden_state  # (N, L, D)
        mask = mask.bool()
        return PromptEmbeddings(states * mask[..., None].to(states.dtype), mask)


def _t5_from_scratch(config: dict) -> torch.nn.Module:
    from transformers import T5Config, T5EncoderModel

    defaults = dict(
        vocab_size=384,  # the ByT5 tokenizer's
        dropout_rate=0.0,
        feed_forward_proj='gated-gelu',
        is_encoder_decoder=False,
        use_cache=False,
    )
    return T5EncoderModel(T5Config(**{**defaults, **config}))
