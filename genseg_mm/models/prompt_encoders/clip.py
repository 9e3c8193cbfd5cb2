"""CLIP text encoders: texts -> token embeddings and a pooled vector."""

import torch
from torch import nn

from genseg_mm.models.prompt_encoders.prompt_encoder import PromptEmbeddings, PromptEncoder, outputs_of
from genseg_mm.registry import MODELS


@MODELS.register_module()
class CLIPPromptEncoder(PromptEncoder):
    """Text encoder of a CLIP: SD3's prompts in part, and the pooled vectors of SD3 and Flux.

    Of a fixed length whose padding is read, as these families were trained; the mask is True everywhere.

    Args:
        encoder: Config of the encoder. Pretrained: ``dict(type='transformers.CLIPTextModel.from_pretrained', ...)``,
            whose pooled vector is the state of the end token (Flux), or ``CLIPTextModelWithProjection``, where it is
            projected (SD3). From scratch: keyword arguments of ``transformers.CLIPTextConfig``; ``projection_dim``
            among them gives one with projection.
        tokenizer: Folder / hub id.
        hidden_layer: Which hidden state: -1 the last, after the final norm; -2 the output of the last layer but one
            (SD3; every further layer down is one ``clip_skip``).
        keep: 'all', or 'pooled': no token embeddings (Flux).
        max_length: Length in tokens, start and end included; longer prompts are cut.
        trainable: See :class:`PromptEncoder`; as ``tokenizer_kwargs``.

    Raises:
        ValueError: As :class:`PromptEncoder`, or if there is no such hidden state or ``keep`` is unknown.
    """

    def __init__(
        self,
        encoder: dict,
        tokenizer: str,
        hidden_layer: int = -2,
        keep: str = 'all',
        max_length: int = 77,
        trainable: bool | None = None,
        tokenizer_kwargs: dict | None = None,
        init_cfg: dict | None = None,
    ) -> None:
        if keep not in ('all', 'pooled'):
            raise ValueError(f"keep must be 'all' or 'pooled', but got {keep!r}")
        super().__init__(encoder, tokenizer, max_length, 'max_length', trainable, tokenizer_kwargs, init_cfg)
        config = self.encoder.config
        if max_length > config.max_position_embeddings:
            raise ValueError(
                f'max_length must be at most {config.max_position_embeddings}, the positions of the encoder, but got '
                f'{max_length}'
            )
        if keep == 'all' and not -config.num_hidden_layers <= hidden_layer <= -1:
            raise ValueError(f'hidden_layer must be in -{config.num_hidden_layers}..-1, but got {hidden_layer}')
        self.hidden_layer, self.keep = hidden_layer, keep

    @staticmethod
    def from_scratch(settings: dict) -> nn.Module:
        """A CLIP text encoder, with a projection if ``settings`` has its width."""
        from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

        kind = CLIPTextModelWithProjection if 'projection_dim' in settings else CLIPTextModel
        return kind(CLIPTextConfig(**settings))

    def encode(self, texts: list[str], device: torch.device) -> PromptEmbeddings:
        """See :meth:`PromptEncoder.encode`."""
        tokens = self.tokenizer(
            texts, padding='max_length', truncation=True, max_length=self.max_length, return_tensors='pt'
        )
        inner = []
        if self.keep == 'all' and self.hidden_layer != -1:
            text_model = getattr(self.encoder, 'text_model', self.encoder)
            inner = [text_model.encoder.layers[self.hidden_layer]]
        with outputs_of(inner) as outputs:
            output = self.encoder(input_ids=tokens.input_ids.to(device))
        pooled = output.text_embeds if hasattr(output, 'text_embeds') else output.pooler_output  # (N, P)
        states = outputs[0] if inner else output.last_hidden_state  # (N, L, D)
        if self.keep == 'pooled':
            states = states[:, :0]
        return PromptEmbeddings(states, torch.ones(states.shape[:2], dtype=torch.bool, device=device), pooled)
