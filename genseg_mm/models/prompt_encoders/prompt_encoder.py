"""What all prompt encoders share: what they return, and how their transformer and tokenizer are built and frozen."""

import os
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from huggingface_hub import is_offline_mode, try_to_load_from_cache
from mmengine.model import BaseModule
from torch import Tensor, nn

from genseg_mm.files import check_texts
from genseg_mm.models.pretrained_parts import (
    FrozenPartsMixin,
    build_part,
    check_subfolder,
    freeze,
    frozen_pass,
    is_pretrained_config,
    reading,
)

PADDINGS = ('longest', 'max_length')


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
        """The prompts at ``chosen`` ((N,) bool, or indices)."""
        pooled = None if self.pooled is None else self.pooled[chosen]
        return PromptEmbeddings(self.states[chosen], self.mask[chosen], pooled)

    def padded(self, length: int) -> 'PromptEmbeddings':
        """The prompts with zeros behind them, up to ``length`` tokens."""
        missing = length - self.mask.shape[1]
        return PromptEmbeddings(F.pad(self.states, (0, 0, 0, missing)), F.pad(self.mask, (0, missing)), self.pooled)

    def and_then(self, other: 'PromptEmbeddings') -> 'PromptEmbeddings':
        """These prompts and the other ones of the same encoder as one batch, padded to the longer of both."""
        length = max(self.mask.shape[1], other.mask.shape[1])
        pairs = zip(self.padded(length), other.padded(length), strict=True)
        return PromptEmbeddings(*(None if own is None else torch.cat([own, theirs]) for own, theirs in pairs))


class PromptEncoder(FrozenPartsMixin, BaseModule):
    """A transformer of transformers with its tokenizer that turns texts into embeddings.

    A subclass says how texts become tokens and which hidden states are taken, :meth:`encode`, and what a transformer
    from scratch is, :meth:`from_scratch`. It is frozen and left out of checkpoints where it comes from a released
    folder.

    Args:
        encoder: Config of the transformer. Pretrained: ``dict(type='transformers.T5EncoderModel.from_pretrained',
            pretrained_model_name_or_path=..., subfolder='text_encoder', dtype='bfloat16')``. From scratch: what
            :meth:`from_scratch` takes, without a type.
        tokenizer: Folder / hub id of the tokenizer, 'byt5' for bytes (needs no files); None if the subclass has its
            own way.
        max_length: Most tokens of a prompt; longer ones are cut.
        padding: 'longest' pads to the longest prompt of the batch, 'max_length' to a fixed length, which
            families without a text mask (Wan, SD3, Flux) need.
        trainable: Trains the transformer jointly. Default: frozen if pretrained, trained if built from scratch.
        tokenizer_kwargs: Keyword arguments of the tokenizer's ``from_pretrained``, e.g.
            ``dict(subfolder='tokenizer')``.

    Raises:
        FileNotFoundError: If a local folder lacks the subfolder of the transformer or of the tokenizer.
        ValueError: If padding is unknown, a folder is damaged or of another model, or the tokenizer has more tokens
            than the transformer.
    """

    looks_at_images = False

    def __init__(
        self,
        encoder: dict,
        tokenizer: str | None,
        max_length: int,
        padding: str = 'longest',
        trainable: bool | None = None,
        tokenizer_kwargs: dict | None = None,
        init_cfg: dict | None = None,
    ) -> None:
        super().__init__(init_cfg)
        if padding not in PADDINGS:
            raise ValueError(f"padding must be 'longest' or 'max_length', but got {padding!r}")
        self.max_length, self.padding = max_length, padding
        pretrained = 'type' in encoder and is_pretrained_config(encoder)
        self.encoder = self.build(encoder)
        if tokenizer is not None:
            self.tokenizer = load_tokenizer(tokenizer, **(tokenizer_kwargs or {}))
            known = self.encoder.config.get_text_config().vocab_size
            if len(self.tokenizer) > known:
                raise ValueError(
                    f'tokenizer {tokenizer!r} has {len(self.tokenizer)} tokens, but the encoder knows {known}: they do '
                    'not belong together'
                )
        self.trainable = not pretrained if trainable is None else trainable
        if not self.trainable:
            freeze(self.encoder, has_source=pretrained)
            self.frozen_parts = ('encoder',)

    @classmethod
    def build(cls, encoder: dict) -> nn.Module:
        """The transformer from its config."""
        return build_part(encoder) if 'type' in encoder else cls.from_scratch(encoder)

    @staticmethod
    def from_scratch(settings: dict) -> nn.Module:
        """A transformer with random weights, of ``settings['model_type']``."""
        from transformers import AutoConfig, AutoModel

        if 'model_type' not in settings:
            raise ValueError(f"encoder: expected a config with 'type' or 'model_type', but got {settings}")
        return AutoModel.from_config(AutoConfig.for_model(**settings))

    def encode(self, texts: list[str], device: torch.device) -> PromptEmbeddings:
        """Embeddings of N texts on the device of the transformer."""
        raise NotImplementedError

    @property
    def embed_dims(self) -> int:
        """Width D of the token embeddings."""
        return self.encoder.config.get_text_config().hidden_size

    @property
    def device(self) -> torch.device:
        """Where the transformer is."""
        return next(self.encoder.parameters()).device

    def running(self) -> AbstractContextManager:
        """How the transformer runs: with a graph if it is trained, else in its own precision whatever autocast says.

        One that waits in the memory of the host comes to where the others are first.
        """
        self.fetch_frozen_parts()
        return nullcontext() if self.trainable else frozen_pass(self.device)

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
            Embeddings (N, L, D), zero at padding, their mask (N, L), and where the encoder has it a pooled vector
            (N, P).

        Raises:
            ValueError: If a text holds half of a character, which no tokenizer takes.
        """
        check_texts(texts, 'prompts')
        with self.running():
            return self.encode(list(texts), self.device)

    def negative(self, texts: Sequence[str]) -> PromptEmbeddings:
        """Prompts to guide away from; as any other unless the encoder's template says otherwise."""
        return self(texts)


def load_tokenizer(source: str, **kwargs: Any) -> Any:
    """A tokenizer of transformers from a folder or hub id; 'byt5' needs no files.

    Args:
        source: Folder, hub id or 'byt5'.
        kwargs: Of ``from_pretrained``.

    Raises:
        FileNotFoundError: If a local folder lacks the subfolder.
        ValueError: If what is there cannot be read.
    """
    from transformers import AutoTokenizer, ByT5Tokenizer

    if source == 'byt5':
        return ByT5Tokenizer()
    place = check_subfolder(source, kwargs.get('subfolder'))
    with reading(f'the tokenizer of {place}'):
        settings = dict(trust_remote_code=False) | kwargs  # else a terminal is asked whether to run the folder's code
        return AutoTokenizer.from_pretrained(_of_cache(str(Path(os.path.expanduser(source))), kwargs), **settings)


def _of_cache(source: str, kwargs: dict) -> str:
    """The folder of a hub id in the cache, where there is no network.

    There transformers misses a config.json beside the tokenizer, which no pipeline's subfolder has, although a folder
    may go without.
    """
    if Path(source).is_dir() or not is_offline_mode():
        return source
    file = '/'.join(filter(None, (kwargs.get('subfolder'), 'tokenizer_config.json')))
    places = {key: kwargs[key] for key in ('cache_dir', 'revision') if key in kwargs}
    found = try_to_load_from_cache(source, file, **places)
    return found.removesuffix(f'/{file}') if isinstance(found, str) else source


@contextmanager
def outputs_of(layers: Sequence[nn.Module]) -> Iterator[list[Tensor]]:
    """What layers give in a pass within it, in their order.

    transformers' own ``output_hidden_states`` knows a model by the name of its class, which FSDP2 changes: a sharded
    model gives none.

    Args:
        layers: Each called once, giving states (N, L, D) or a tuple that begins with them.
    """
    outputs: list[Tensor] = []

    def keep(_: nn.Module, __: Any, output: Any) -> None:
        outputs.append(output[0] if isinstance(output, tuple) else output)

    handles = [layer.register_forward_hook(keep) for layer in layers]
    try:
        yield outputs
    finally:
        for handle in handles:
            handle.remove()


def keep_layers(language_model: nn.Module, hidden_layer: int | Sequence[int]) -> list[int]:
    """Drops the layers of a decoder behind those whose outputs are taken, and with them the norm of the last one.

    Args:
        language_model: With ``layers`` and ``norm``, such as ``transformers.Qwen3Model``; changed in place.
        hidden_layer: -1 the last, after the final norm; k > 0 the output of layer k, counted from 1; -2 that of the
            last layer but one. One, or several.

    Returns:
        The layers, counted from 1.

    Raises:
        ValueError: If there is no such layer.
    """
    num_layers = len(language_model.layers)
    asked = [hidden_layer] if isinstance(hidden_layer, int) else list(hidden_layer)
    layers = [layer + num_layers + 1 if layer < 0 else layer for layer in asked]
    if not layers or not all(1 <= layer <= num_layers for layer in layers):
        raise ValueError(f'hidden_layer must be in 1..{num_layers} or -{num_layers}..-1, but got {hidden_layer}')
    if max(layers) < num_layers:
        language_model.layers = language_model.layers[: max(layers)]
        language_model.norm = nn.Identity()  # it belongs to the last layer's output
    return layers
