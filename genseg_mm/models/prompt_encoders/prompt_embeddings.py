"""What every prompt encoder returns."""

from typing import NamedTuple

from torch import Tensor


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
