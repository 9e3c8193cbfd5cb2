"""Counting of floating point operations, by what torch really runs."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode, sdpa_flop_count

# What the counter cannot see, for the reports.
NOT_COUNTED = 'norms, activations, softmax, position codes, resizing, and what points and thresholds do with a map'


def _attention(query: torch.Size, key: torch.Size, value: torch.Size, *_: Any, **__: Any) -> int:
    return sdpa_flop_count(query, key, value)


@contextmanager
def count_flops() -> Iterator[FlopCounterMode]:
    """Torch's counter of products, convolutions and attention on any device, the meta device too.

    A multiplication and an addition are two operations (mmdet's and mmseg's get_flops count them as one). Torch's own
    counter passes the CPU's fused attention and the fused layers of ``nn.MultiheadAttention`` by; here they count.
    Causal masks save nothing.
    """
    own = {torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: _attention}
    fused = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with FlopCounterMode(display=False, custom_mapping=own) as counter:
            yield counter
    finally:
        torch.backends.mha.set_fastpath_enabled(fused)
