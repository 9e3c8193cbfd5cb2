"""In which precision a model is evaluated: that of its training, which its config says."""

from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch

from genseg_mm.registry import class_name

DTYPES = dict(float32=None, bfloat16=torch.bfloat16, float16=torch.float16)


def evaluation_dtype(cfg: Mapping) -> torch.dtype | None:
    """Precision of validation, test, benchmarks and inferencer, None for that of the weights.

    By default that of the training: a network whose activations were rounded in each of its updates is measured as it
    was trained, and costs in a validation what it does in training. Frozen parts keep the precision that they were
    loaded in, as in training.

    Args:
        cfg: A whole config; ``optim_wrapper`` counts, or ``evaluation_dtype`` ('float32', 'bfloat16' or 'float16') in
            its place.

    Raises:
        ValueError: If ``evaluation_dtype`` is something else.
    """
    asked = cfg.get('evaluation_dtype')
    if asked is not None:
        return _dtype(asked, 'evaluation_dtype')
    wrapper = cfg.get('optim_wrapper')
    kind = class_name(wrapper.get('type')) if isinstance(wrapper, Mapping) else ''
    if kind == 'AutocastOptimWrapper':
        return torch.bfloat16
    if kind == 'AmpOptimWrapper':
        return _dtype(wrapper.get('dtype') or 'float16', 'optim_wrapper.dtype')
    return None


def evaluation_autocast(cfg: Mapping, device: torch.device | str) -> AbstractContextManager:
    """Autocast in the precision of :func:`evaluation_dtype`, or nothing.

    Args:
        cfg: A whole config.
        device: That the model is on.
    """
    dtype = evaluation_dtype(cfg)
    return nullcontext() if dtype is None else torch.autocast(torch.device(device).type, dtype)


def _dtype(name: Any, key: str) -> torch.dtype | None:
    name = str(name).removeprefix('torch.')
    if name not in DTYPES:
        raise ValueError(f'{key}: expected one of {", ".join(DTYPES)}, but got {name!r}')
    return DTYPES[name]
