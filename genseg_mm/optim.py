"""Optimizer wrappers."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from mmengine.optim import OptimWrapper
from torch import nn

from genseg_mm.registry import OPTIM_WRAPPERS


@OPTIM_WRAPPERS.register_module()
class AutocastOptimWrapper(OptimWrapper):
    """Mixed precision in bfloat16 on any device, CPU included, without loss scaling.

    MMEngine's ``AmpOptimWrapper`` refuses to run without an accelerator and scales the loss, which
    bfloat16 (the exponent range of float32) does not need. Parameters, gradients and the optimizer
    state stay float32.

    Args:
        dtype: 'bfloat16'.
        **kwargs: As for MMEngine's ``OptimWrapper``.

    Raises:
        ValueError: For another dtype.
    """

    def __init__(self, dtype: str = 'bfloat16', **kwargs) -> None:
        if dtype not in ('bfloat16', torch.bfloat16):
            raise ValueError(
                f"AutocastOptimWrapper supports dtype='bfloat16' only, but got {dtype!r}; float16 "
                "needs loss scaling: use type='AmpOptimWrapper' on a GPU"
            )
        super().__init__(**kwargs)

    @contextmanager
    def optim_context(self, model: nn.Module) -> Iterator[None]:
        """Autocast around the forward pass, on the device that the parameters are on."""
        device = next(model.parameters()).device.type
        with super().optim_context(model), torch.autocast(device, dtype=torch.bfloat16):
            yield
