"""How a model is evaluated: in which precision (that of its training, unless asked), compiled, channels last.

All evaluations pass here: the test loop, benchmarks and the inferencer. Four keys of a config say it,
``evaluation_dtype``, ``evaluation_codec_dtype``, ``evaluation_compile`` and ``evaluation_channels_last``; switches of
the tools set them.
"""

import copy
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from mmengine.config import Config
from torch import nn

from genseg_mm.registry import class_name

DTYPES = dict(float32=None, bfloat16=torch.bfloat16, float16=torch.float16)
SWITCH_NAMES = ('precision', 'codec_precision', 'compile', 'channels_last')  # of tools, and arguments of inferencers
SWITCHES = dict(fp32='float32', bf16='bfloat16', fp16='float16')


def evaluation_dtype(cfg: Mapping) -> torch.dtype | None:
    """Precision of validation, test, benchmarks and inferencer, None for that of the weights.

    By default that of the training: a network whose activations were rounded in each of its updates is measured as it
    was trained, and costs in a validation what it does in training. Frozen parts keep the precision that they were
    loaded in, as in training; autoencoders have a key of their own.

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


@contextmanager
def evaluation_autocast(cfg: Mapping, device: torch.device | str) -> Iterator[None]:
    """Around the passes of a model: autocast in the precision of :func:`evaluation_dtype`, or nothing.

    Args:
        cfg: A whole config.
        device: That the model is on.

    Raises:
        ValueError: If the model was to be compiled, and cannot be.
    """
    dtype = evaluation_dtype(cfg)
    try:
        with nullcontext() if dtype is None else torch.autocast(torch.device(device).type, dtype):
            yield
    except Exception as error:
        if not cfg.get('evaluation_compile') or not _of_compiler(error):
            raise
        raise ValueError(f'--compile: this model cannot be compiled here ({_first_line(error)})') from error


def set_evaluation(
    cfg: Mapping,
    precision: str | None = None,
    compile: bool | dict = False,
    channels_last: bool = False,
    codec_precision: str | None = None,
) -> None:
    """Writes the switches of tools and inferencer into a config, in place; what is not asked for stays.

    Args:
        cfg: A whole config.
        precision: 'fp32', 'bf16' or 'fp16'.
        compile: True, or arguments of ``torch.compile``.
        channels_last: Whether weights of 2-D convolutions lie with their channels last.
        codec_precision: Of frozen autoencoders, named as the precision.

    Raises:
        ValueError: If a precision is another one.
    """
    for name, asked, key in (
        ('precision', precision, 'evaluation_dtype'),
        ('codec_precision', codec_precision, 'evaluation_codec_dtype'),
    ):
        if asked is None:
            continue
        if asked not in SWITCHES:
            raise ValueError(f'{name}: expected one of {", ".join(SWITCHES)}, but got {asked!r}')
        cfg[key] = SWITCHES[asked]
    if compile:
        cfg['evaluation_compile'] = compile
    if channels_last:
        cfg['evaluation_channels_last'] = True


def switched(cfg: Config, *switches: Any) -> Config:
    """The config with the switches of :func:`set_evaluation`, a copy where one is set."""
    if not any(switches):
        return cfg
    cfg = copy.deepcopy(cfg)
    set_evaluation(cfg, *switches)
    return cfg


def evaluation_settings(cfg: Mapping) -> dict[str, Any]:
    """What of :func:`set_evaluation` a config asks for beyond the precision of training, as plain data; often nothing.

    Raises:
        ValueError: If a value is of another kind.
    """
    compiled, channels_last = cfg.get('evaluation_compile') or False, cfg.get('evaluation_channels_last') or False
    if not isinstance(compiled, bool | Mapping):
        raise ValueError(f'evaluation_compile: expected True, False or a dict for torch.compile, but got {compiled!r}')
    if not isinstance(channels_last, bool):
        raise ValueError(f'evaluation_channels_last: expected True or False, but got {channels_last!r}')
    codec_dtype = cfg.get('evaluation_codec_dtype')
    if codec_dtype is not None:
        _dtype(codec_dtype, 'evaluation_codec_dtype')
        codec_dtype = str(codec_dtype).removeprefix('torch.')
    asked = dict(
        evaluation_dtype=cfg.get('evaluation_dtype'),
        evaluation_codec_dtype=codec_dtype,
        evaluation_compile=compiled,
        evaluation_channels_last=channels_last,
    )
    return {key: own for key, own in asked.items() if own}


def prepare_evaluation(model: nn.Module, cfg: Mapping, device: torch.device) -> None:
    """Makes a model what its config asks for in evaluations; before the first pass, and once, however often called.

    Networks name what of them is compiled by ``compiled_parts()``: what is called as a whole and holds nearly all of
    the time. Weights and results keep their names, and their types but for autoencoders of another precision.

    Args:
        model: With its weights, on its device; may be wrapped.
        cfg: A whole config.
        device: That it runs on.

    Raises:
        ValueError: If the device or the model cannot.
    """
    settings = evaluation_settings(cfg)
    is_bf16 = 'bfloat16' in (settings.get('evaluation_codec_dtype'), str(evaluation_dtype(cfg)).removeprefix('torch.'))
    if is_bf16 and device.type == 'cuda' and not torch.cuda.is_bf16_supported(including_emulation=False):
        raise ValueError(
            f'--precision bf16: {torch.cuda.get_device_name(device)} has no bfloat16; use --precision fp16 or fp32'
        )
    if next(model.parameters(), None) is None:  # a control of a benchmark
        return
    if codec_dtype := settings.get('evaluation_codec_dtype'):
        _set_codec_dtype(model, getattr(torch, codec_dtype))
    if settings.get('evaluation_channels_last'):
        _put_channels_last(model)
    if options := settings.get('evaluation_compile'):
        _compile(model, {} if options is True else dict(options), device)


def _set_codec_dtype(model: nn.Module, dtype: torch.dtype) -> None:
    codecs = [own for own in model.modules() if isinstance(getattr(own, 'autoencoder', None), nn.Module)]
    if not codecs:
        raise ValueError(f'--codec-precision: expected a model with an autoencoder, but {_kind(model)} has none')
    for own in codecs:
        own.autoencoder.to(dtype)


def _put_channels_last(model: nn.Module) -> None:
    layers = [own for own in model.modules() if isinstance(own, nn.Conv2d)]
    if not any(own.kernel_size != own.stride for own in layers):  # a ViT's patches are a product of matrices
        raise ValueError(
            f'--channels-last: expected a model with 2-D convolutions, but {_kind(model)} has none but of patches'
        )
    for own in layers:
        own.weight.data = own.weight.data.contiguous(memory_format=torch.channels_last)


def _compile(model: nn.Module, options: dict[str, Any], device: torch.device) -> None:
    parts = [part for own in model.modules() if hasattr(own, 'compiled_parts') for part in own.compiled_parts()]
    if not parts:
        raise ValueError(f'--compile: expected a Gen2Seg with a colorer, or a GenMask, but got a {_kind(model)}')
    try:
        torch.compile(lambda x: x.sin() + x.cos(), **options)(torch.ones(8, device=device))
    except Exception as error:  # of whatever package: no C++ compiler, no Triton, a backend that is not there
        needed = 'a C++ compiler (g++)' if device.type == 'cpu' else 'Triton and a C compiler'
        raise ValueError(
            f'--compile: torch.compile makes no kernel for {device} here; it needs {needed} ({_first_line(error)})'
        ) from error
    for part in parts:
        if part._compiled_call_impl is None:
            part.compile(**options)


def _of_compiler(error: Exception) -> bool:
    return any(kind.__module__.startswith(('torch._dynamo', 'torch._inductor')) for kind in type(error).__mro__)


def _first_line(error: Exception) -> str:
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)[:200]


def _kind(model: nn.Module) -> str:
    return type(getattr(model, 'module', model)).__name__


def _dtype(name: Any, key: str) -> torch.dtype | None:
    name = str(name).removeprefix('torch.')
    if name not in DTYPES:
        raise ValueError(f'{key}: expected one of {", ".join(DTYPES)}, but got {name!r}')
    return DTYPES[name]
