"""T5 text encoders: texts -> token embeddings."""

import html
import logging
from collections.abc import Callable

import torch
from mmengine.logging import print_log
from torch import nn

from genseg_mm.models.prompt_encoders.prompt_encoder import PromptEmbeddings
from genseg_mm.models.prompt_encoders.text import TextPromptEncoder
from genseg_mm.registry import MODELS


@MODELS.register_module()
class T5PromptEncoder(TextPromptEncoder):
    """T5 family text encoder (T5, umT5, ByT5): PixArt's prompts, and in part SD3's and Flux's.

    Args:
        encoder: Config of the encoder. Pretrained: ``dict(type='transformers.UMT5EncoderModel.from_pretrained',
            pretrained_model_name_or_path=...)``, or ``T5EncoderModel`` for T5 and ByT5. From scratch: keyword arguments
            of ``transformers.T5Config`` without a type.
        tokenizer: 'byt5' for bytes (needs no files), or the folder / hub id of a tokenizer.
        max_length: Longest prompt in tokens, the end token included; longer ones are cut.
        padding: See :class:`PromptEncoder`; as all arguments below.
        reads_padding: Attends to the padding and keeps its states, with the fixed length that needs, as SD3 and Flux
            were trained. The mask is True everywhere then.
        lowercase: Prompts in small letters without space around them, as PixArt was trained.
        clean: Prompts without HTML entities and with single spaces, and where ftfy is installed without its wrong
            characters and typographic quotes, as diffusers' pipeline of Wan cleans them.

    Raises:
        ValueError: As :class:`PromptEncoder`, or if ``reads_padding`` comes without a fixed length.
    """

    safetensors_only = False  # ByT5 was released as a .bin, which is read without running it

    def __init__(
        self,
        encoder: dict,
        tokenizer: str = 'byt5',
        max_length: int = 64,
        padding: str = 'longest',
        trainable: bool | None = None,
        tokenizer_kwargs: dict | None = None,
        reads_padding: bool = False,
        lowercase: bool = False,
        clean: bool = False,
        init_cfg: dict | None = None,
    ) -> None:
        super().__init__(
            encoder, tokenizer, max_length, padding, trainable, tokenizer_kwargs, reads_padding, init_cfg=init_cfg
        )
        self.lowercase = lowercase
        self.clean, self.repair = clean, _text_repair() if clean else None
        self.repairs = self.repair is not None  # told to a cache

    @staticmethod
    def from_scratch(settings: dict) -> nn.Module:
        """A T5 encoder of the ByT5 tokenizer's vocabulary."""
        from transformers import T5Config, T5EncoderModel

        defaults = dict(
            vocab_size=384,  # the ByT5 tokenizer's
            dropout_rate=0.0,
            feed_forward_proj='gated-gelu',
            is_encoder_decoder=False,
            use_cache=False,
        )
        return T5EncoderModel(T5Config(**{**defaults, **settings}))

    def encode(self, texts: list[str], device: torch.device) -> PromptEmbeddings:
        """See :meth:`PromptEncoder.encode`."""
        if self.clean:
            texts = [self._cleaned(text) for text in texts]
        if self.lowercase:
            texts = [text.lower().strip() for text in texts]
        return super().encode(texts, device)

    def _cleaned(self, text: str) -> str:
        text = self.repair(text) if self.repair else text
        return ' '.join(html.unescape(html.unescape(text)).split())


def _text_repair() -> Callable[[str], str] | None:
    try:
        import ftfy
    except ImportError:
        print_log(
            'clean=True: ftfy is not installed, so wrong characters and typographic quotes of prompts stay as they are '
            '(pip install ftfy)',
            'current',
            logging.WARNING,
        )
        return None
    return ftfy.fix_text
