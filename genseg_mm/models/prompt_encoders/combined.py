"""Several text encoders as one."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from mmengine.model import BaseModule
from torch import Tensor, nn

from genseg_mm.models.prompt_encoders.prompt_encoder import PromptEmbeddings
from genseg_mm.registry import MODELS


@MODELS.register_module()
class CombinedPromptEncoder(BaseModule):
    """Text encoders whose states stand side by side or behind each other; their pooled vectors stand side by side.

    SD3 reads CLIP-L's beside CLIP-G's, zeros up to the width of T5, and T5's behind them: ``parts=[[clip_l, clip_g],
    t5]``. Flux reads T5's, and CLIP-L's pooled vector: ``parts=[clip_l, t5]`` with ``keep='pooled'`` in CLIP-L.

    Args:
        parts: Configs of prompt encoders of fixed lengths in the order of their states; a list in place of one holds
            those that stand side by side.
        width: Zeros fill up narrower states to it. Default: the widest part's.
        length: Zeros stand behind the states up to it, as for an SD3 without its T5 (333).

    Raises:
        ValueError: If a part looks at images or has no fixed length, parts side by side differ in length, or states do
            not fit width or length.
    """

    looks_at_images = False
    padding = 'max_length'

    def __init__(
        self,
        parts: Sequence[dict | Sequence[dict]],
        width: int | None = None,
        length: int | None = None,
        init_cfg: dict | None = None,
    ) -> None:
        super().__init__(init_cfg)
        rows = [row if isinstance(row, (list, tuple)) else [row] for row in parts]
        if not rows or not all(rows):
            raise ValueError(f'parts must be prompt encoders, or lists of them, but got {parts}')
        self.rows = nn.ModuleList(nn.ModuleList(MODELS.build(part) for part in row) for row in rows)
        for part in self._encoders():
            if part.looks_at_images or part.padding != 'max_length':
                raise ValueError(
                    f"{type(part).__name__}: expected padding='max_length' and no look at images in a combination, but "
                    f'got padding={part.padding!r}, looks_at_images={part.looks_at_images}'
                )
        widest = max(sum(part.embed_dims for part in row) for row in self.rows)
        lengths = [{0 if _no_states(part) else part.max_length for part in row} for row in self.rows]
        if any(len(own) > 1 for own in lengths):
            raise ValueError(f'parts side by side must have one max_length, but got {lengths}')
        if width is not None and width < widest:
            raise ValueError(f'width must be at least {widest}, that of the widest part, but got {width}')
        if length is not None and length < sum(map(sum, lengths)):
            raise ValueError(f'length must be at least {sum(map(sum, lengths))}, that of the parts, but got {length}')
        self.embed_dims, self.length = width or widest, length

    def _encoders(self) -> list[nn.Module]:
        return [part for row in self.rows for part in row]

    @property
    def trainable(self) -> bool:
        """Whether a part is trained."""
        return any(part.trainable for part in self._encoders())

    def init_weights(self) -> None:
        """Keeps the weights of the parts."""
        self._is_init = True

    def forward(
        self, texts: Sequence[str], images: Tensor | None = None, has_image: Tensor | None = None
    ) -> PromptEmbeddings:
        """Encodes prompts, see :meth:`PromptEncoder.forward`."""
        return self._combined([[part(texts) for part in row] for row in self.rows])

    def negative(self, texts: Sequence[str]) -> PromptEmbeddings:
        """Prompts to guide away from, see :meth:`PromptEncoder.negative`."""
        return self._combined([[part.negative(texts) for part in row] for row in self.rows])

    def _combined(self, rows: list[list[PromptEmbeddings]]) -> PromptEmbeddings:
        beside = [torch.cat([own.states for own in row], -1) for row in rows]
        states = torch.cat([F.pad(own, (0, self.embed_dims - own.shape[-1])) for own in beside], 1)  # (N, L, D)
        mask = torch.cat([row[0].mask for row in rows], 1)  # (N, L)
        pooled = [own.pooled for row in rows for own in row if own.pooled is not None]
        prompt = PromptEmbeddings(states, mask, torch.cat(pooled, -1) if pooled else None)
        return prompt if self.length is None else prompt.padded(self.length)


def _no_states(part: nn.Module) -> bool:
    return getattr(part, 'keep', 'all') == 'pooled'
