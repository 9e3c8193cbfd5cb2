"""What of a model is sharded, and how: torch's ``fully_shard`` per block, then per part."""

from collections.abc import Iterator, Sequence

import torch
from torch import nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import CPUOffloadPolicy, FSDPModule, MixedPrecisionPolicy, OffloadPolicy, fully_shard


def shard_model(
    model: nn.Module,
    mesh: DeviceMesh,
    blocks: Sequence[str] | None = None,
    param_dtype: torch.dtype | None = None,
    offload: bool = False,
) -> None:
    """Shards every model of diffusers and transformers in ``model`` in place, and every other trained layer.

    A model of theirs is sharded block by block, then what is left of it: one block of all ranks is whole at a time.
    Autoencoders stay whole on every rank: they are small, frozen and entered by ``encode`` and ``decode``. Trained
    layers outside such models are sharded one by one: a gradient that is not sharded cannot be clipped together
    with one that is.

    Args:
        model: On any device, the meta device included.
        mesh: Ranks, (shards,) or (copies, shards).
        blocks: Names of the classes of blocks; default: what the libraries say of each of their models.
        param_dtype: Of trained parameters while they compute. Gradients are reduced in float32, and inputs are left
            as they are: a timestep in bfloat16 is another one. Frozen models keep the precision they were loaded in.
        offload: Shards wait in the memory of the host.

    Raises:
        ValueError: If a name in ``blocks`` is that of no block.
    """
    policy = CPUOffloadPolicy(pin_memory=mesh.device_type != 'cpu') if offload else OffloadPolicy()
    parts = {part: list(blocks_of(part, blocks)) for part in library_parts(model)}
    unknown = set(blocks or ()) - {_class_name(block) for found in parts.values() for block in found}
    if unknown:
        known = sorted({_class_name(block) for part in parts for block in blocks_of(part)})
        raise ValueError(
            f'strategy.blocks: expected classes of blocks in lists of the model, but got {sorted(unknown)}; the '
            f'libraries name {known}'
        )
    for part, found in parts.items():
        trained = any(own.requires_grad for own in part.parameters())
        precision = MixedPrecisionPolicy(
            param_dtype=param_dtype if trained else None,
            reduce_dtype=torch.float32 if trained and param_dtype is not None else None,
            cast_forward_inputs=False,
        )
        # What is left of a trained part is needed again by the backward pass at once.
        options = dict(mesh=mesh, mp_policy=precision, offload_policy=policy)
        for block in found:
            fully_shard(block, reshard_after_forward=True, **options)
        fully_shard(part, reshard_after_forward=not trained, **options)
    _shard_rest(model, dict(mesh=mesh, offload_policy=policy), param_dtype)


def _shard_rest(model: nn.Module, options: dict, param_dtype: torch.dtype | None) -> None:
    reduce_dtype = None if param_dtype is None else torch.float32
    precision = MixedPrecisionPolicy(param_dtype, reduce_dtype, cast_forward_inputs=False)
    inside = {own for module in model.modules() if isinstance(module, FSDPModule) for own in module.modules()}
    for module in [own for own in model.modules() if own not in inside]:
        if any(own.requires_grad for own in module.parameters(recurse=False)):
            fully_shard(module, mp_policy=precision, **options)


def library_parts(model: nn.Module) -> Iterator[nn.Module]:
    """The outermost models of diffusers and transformers that are run by calling them."""
    name = type(model).__module__
    if name.startswith(('diffusers.models', 'transformers.models')) and hasattr(model, 'config'):
        if not (hasattr(model, 'encode') and hasattr(model, 'decode')):
            yield model
        return
    for child in model.children():
        yield from library_parts(child)


def blocks_of(part: nn.Module, names: Sequence[str] | None = None) -> Iterator[nn.Module]:
    """The repeated blocks of a model, none inside another.

    Args:
        part: Model of diffusers or transformers.
        names: Of their classes; default: the libraries' ``_no_split_modules`` and ``_repeated_blocks``, and where none
            of those stands in a list, all lists of several modules of one class.
    """
    known = set(names or ())
    if names is None:
        for module in part.modules():
            for key in ('_no_split_modules', '_repeated_blocks'):
                known.update(getattr(module, key, None) or ())
        known &= set(map(_class_name, _listed(part)))
    yield from _blocks(part, known or None)


def _blocks(module: nn.Module, known: set[str] | None) -> Iterator[nn.Module]:
    for child in module.children():
        is_list = isinstance(module, nn.ModuleList)
        same = is_list and len(module) > 1 and len(set(map(type, module))) == 1
        if is_list and (_class_name(child) in known if known is not None else same):
            yield child
        else:
            yield from _blocks(child, known)


def _listed(part: nn.Module) -> Iterator[nn.Module]:
    for module in part.modules():
        if isinstance(module, nn.ModuleList):
            yield from module


def _class_name(module: nn.Module) -> str:
    return type(module).__name__
