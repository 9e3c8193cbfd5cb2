"""bfloat16 under autocast on CPUs without its arithmetic: computed in float32 and rounded, not emulated.

Torch emulates it: products take 6 times as long as in float32, 3-D convolutions 20 times and
more. Types are the same at every place.
"""

import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

OPERATORS = (
    'linear', 'matmul', 'bmm', 'addmm', 'baddbmm', 'mm', 'conv1d', 'conv2d', 'conv2d.padding', 'conv3d',
    'conv3d.padding', 'conv_transpose2d.input', 'conv_transpose3d.input', 'scaled_dot_product_attention',
)  # fmt: skip
_library: list[torch.library.Library] = []


def has_arithmetic() -> bool:
    """Whether this CPU has instructions for products of bfloat16."""
    return torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()


def compute_in_float32() -> None:
    """From here on in this process, where autocast is on for bfloat16."""
    if _library:
        return
    _library.append(torch.library.Library('aten', 'IMPL'))
    with warnings.catch_warnings():
        warnings.filterwarnings('ignore', 'Warning only once for all operators')  # of what is meant
        for name in OPERATORS:
            packet, _, overload = name.partition('.')
            operator = getattr(getattr(torch.ops.aten, packet), overload or 'default')
            _library[0].impl(name, _rounded(operator), 'AutocastCPU', allow_override=True)


def _rounded(operator: Callable[..., Tensor]) -> Callable[..., Tensor]:
    def compute(*args: Any, **kwargs: Any) -> Tensor:
        dtype = torch.get_autocast_dtype('cpu')
        with torch.autocast('cpu', enabled=False):
            made = operator(*(_as_autocast(own, dtype) for own in args), **kwargs)
        return made.to(dtype) if made.dtype == torch.float32 else made

    return compute


def _as_autocast(value: Any, dtype: torch.dtype) -> Any:
    """A tensor with the values that autocast would round it to."""
    if not isinstance(value, Tensor) or not value.is_floating_point() or value.dtype == torch.float64:
        return value
    return value.to(dtype).float()
