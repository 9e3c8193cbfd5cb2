"""LoRA adapters (arXiv 2106.09685) of a DiT, through peft: added, trained alone, saved and loaded alone."""

from collections.abc import Iterator, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from genseg_mm.checkpoint import load_weights_only
from genseg_mm.files.tensors import write_tensors
from genseg_mm.models.pretrained_parts import leave_out_of_checkpoints

# The projections of every attention layer, in every family; FLUX.2's single stream has them fused with its MLP's.
ATTENTION_LAYERS = ('to_q', 'to_k', 'to_v', 'to_out.0')
FUSED_LAYERS = ('attn.to_qkv_mlp_proj', 'attn.to_out')
ADAPTERS, NEW_LAYERS = 'adapter_model.safetensors', 'new_layers.safetensors'
PEFT_PREFIX = 'base_model.model.'


def add_lora(transformer: nn.Module, lora: dict, new_layers: Sequence[str], has_source: bool) -> None:
    """Freezes a transformer and adds adapters in place; the adapters and the new layers are trained.

    Adapters and new layers are float32 on bfloat16 weights too.

    Args:
        transformer: diffusers model.
        lora: Keyword arguments of ``peft.LoraConfig``; default rank 16, ``lora_alpha`` = rank, on the projections of
            every attention layer.
        new_layers: Names of layers that are not the released ones any more.
        has_source: Whether the transformer is built again from a released folder or hub id. Then the frozen weights
            are left out of checkpoints.

    Raises:
        ImportError: If peft is not installed.
        ValueError: If an argument is unknown or no layer has such a name.
    """
    peft = _import_peft()
    unknown = set(lora) - {field.name for field in fields(peft.LoraConfig)}
    if unknown:
        raise ValueError(f'lora takes the arguments of peft.LoraConfig, but got {sorted(unknown)}')
    rank = lora.get('r', 16)
    # Adapters of what the family has frozen would get no gradient, for which distributed training waits.
    excluded = [
        name
        for name, module in transformer.named_modules()
        if any(f'{name}.'.startswith(f'{layer}.') for layer in new_layers)
        or {own.requires_grad for own in module.parameters()} == {False}
    ]
    fused = [
        name
        for name, module in transformer.named_modules()
        if isinstance(module, nn.Linear) and name.endswith(FUSED_LAYERS)
    ]
    targets = [*ATTENTION_LAYERS, *fused]
    defaults = dict(r=rank, lora_alpha=rank, target_modules=targets, exclude_modules=excluded or None)
    _inject(transformer, peft.LoraConfig(**{**defaults, **lora}), new_layers, has_source)


def _inject(transformer: nn.Module, config: Any, new_layers: Sequence[str], has_source: bool) -> None:
    transformer.requires_grad_(False)
    _import_peft().inject_adapter_in_model(config, transformer)
    for name, parameter in transformer.named_parameters():
        if '.lora_' in name:
            parameter.data = parameter.data.float()
            parameter.requires_grad_(True)  # a config that was saved for inference freezes them
    for name in new_layers:
        _train_in_float32(transformer.get_submodule(name))
    if has_source:
        # By name: a moving average of the model requires no gradient of anything.
        frozen = {name for name, own in transformer.named_parameters() if not own.requires_grad}
        leave_out_of_checkpoints(transformer, frozen | dict(transformer.named_buffers()).keys())


def _train_in_float32(layer: nn.Module) -> None:
    """Has a layer trained in float32 between frozen ones of lower precision, as peft has its adapters."""
    layer.requires_grad_(True)
    dtype = next(layer.parameters()).dtype
    if dtype == torch.float32:
        return
    layer.float()
    layer.register_forward_pre_hook(
        lambda _, inputs: tuple(
            own.float() if isinstance(own, Tensor) and own.is_floating_point() else own for own in inputs
        )
    )
    layer.register_forward_hook(lambda _, inputs, output: output.to(dtype))


def save_lora(transformer: nn.Module, folder: str | Path, new_layers: Sequence[str]) -> None:
    """Writes the adapters alone, as peft does, and beside them the layers that are not the released ones.

    Args:
        transformer: diffusers model with adapters.
        folder: Gets ``adapter_config.json``, ``adapter_model.safetensors`` (both for ``peft.PeftModel`` or
            :func:`load_lora`) and, if there are new layers, ``new_layers.safetensors``.
        new_layers: Their names.

    Raises:
        ValueError: If there are no adapters.
    """
    peft = _import_peft()
    if not has_lora(transformer):
        raise ValueError('there are no adapters to save: build DiTBackbone with lora=dict(...)')
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    transformer.peft_config['default'].save_pretrained(str(folder))
    adapters = peft.get_peft_model_state_dict(transformer)
    write_tensors(folder / ADAPTERS, {f'{PEFT_PREFIX}{key}': own.contiguous() for key, own in adapters.items()})
    if new_layers:
        write_tensors(folder / NEW_LAYERS, dict(_state_of(transformer, new_layers)))


def load_lora(transformer: nn.Module, folder: str | Path, new_layers: Sequence[str], has_source: bool) -> None:
    """Reads what :func:`save_lora` wrote, and adds the adapters first if there are none.

    Args:
        transformer: diffusers model, built the same way.
        folder: Local folder.
        new_layers: Names of the layers that are not the released ones.
        has_source: See :func:`add_lora`.

    Raises:
        FileNotFoundError: If a file is missing.
        ValueError: If the adapters are for another transformer, or for other adapters than it has.
    """
    peft = _import_peft()
    folder = Path(folder)
    wanted = ['adapter_config.json', ADAPTERS, *([NEW_LAYERS] if new_layers else [])]
    for name in wanted:
        if not (folder / name).is_file():
            raise FileNotFoundError(f'{folder} has no {name}; expected a folder that DiTBackbone.save_lora wrote')
    saved = peft.LoraConfig.from_pretrained(str(folder))
    if not has_lora(transformer):
        _inject(transformer, saved, new_layers, has_source)
    own = transformer.peft_config['default']
    for key in ('lora_alpha', 'use_rslora'):  # what the shapes below do not tell
        if getattr(saved, key) != getattr(own, key):
            raise ValueError(
                f'{folder / "adapter_config.json"}: expected {key}={getattr(own, key)}, as in lora of DiTBackbone, but '
                f'got {getattr(saved, key)}; build it with the same lora, or with none'
            )
    adapters = {
        key.removeprefix(PEFT_PREFIX): value for key, value in load_weights_only(str(folder / ADAPTERS)).items()
    }
    _check_same(adapters, peft.get_peft_model_state_dict(transformer), folder / ADAPTERS)
    peft.set_peft_model_state_dict(transformer, adapters)
    if new_layers:
        layers = load_weights_only(str(folder / NEW_LAYERS))
        _check_same(layers, dict(_state_of(transformer, new_layers)), folder / NEW_LAYERS)
        transformer.load_state_dict(layers, strict=False)


def merge_lora(transformer: nn.Module) -> None:
    """Adds the adapters to the weights that they adapt, in place; the transformer is a plain one afterwards.

    Raises:
        ValueError: If there are no adapters, or they spoil a weight (NaN, infinity).
    """
    _import_peft()
    from peft.tuners.tuners_utils import BaseTunerLayer

    if not has_lora(transformer):
        raise ValueError('there are no adapters to merge: expected a DiTBackbone with lora=dict(...)')
    for name, layer in list(transformer.named_modules()):
        if isinstance(layer, BaseTunerLayer):
            layer.merge(safe_merge=True)
            owner, _, own = name.rpartition('.')
            setattr(transformer.get_submodule(owner), own, layer.get_base_layer())
    del transformer.peft_config


def _import_peft() -> Any:
    try:
        import peft
    except ImportError as error:
        raise ImportError('LoRA needs peft, which is not installed: pip install peft') from error
    return peft


def has_lora(transformer: nn.Module) -> bool:
    """Whether a transformer has adapters."""
    return 'default' in getattr(transformer, 'peft_config', {})


def _state_of(transformer: nn.Module, layers: Sequence[str]) -> Iterator[tuple[str, Tensor]]:
    for layer in layers:
        for name, value in transformer.get_submodule(layer).state_dict().items():
            yield f'{layer}.{name}', value


def _check_same(saved: dict[str, Tensor], own: dict[str, Tensor], file: Path) -> None:
    missing, foreign = sorted(own.keys() - saved.keys()), sorted(saved.keys() - own.keys())
    if missing or foreign:
        raise ValueError(
            f'{file} does not fit the transformer: it lacks {missing[:3]} and has {foreign[:3]} too many '
            f'({len(missing)} and {len(foreign)} in all); use the same family, target_modules and prompt_dims'
        )
    for key, value in own.items():
        if saved[key].shape != value.shape:
            raise ValueError(
                f'{file}: expected {key} of shape {tuple(value.shape)}, but got {tuple(saved[key].shape)}; use the '
                'same transformer and rank r'
            )
