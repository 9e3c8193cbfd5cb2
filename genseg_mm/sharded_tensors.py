"""Tensors that are sharded over ranks, or not: their local part, the whole, and back."""

from collections.abc import Mapping
from typing import Any

import torch.distributed as dist
from mmengine.dist import is_distributed
from torch import Tensor
from torch.distributed.tensor import DTensor
from torch.distributed.tensor._utils import compute_local_shape_and_global_offset


def local_of(tensor: Tensor) -> Tensor:
    """What this rank holds of a tensor, sharded or not."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def whole_of(tensor: Tensor) -> Tensor:
    """The whole tensor; a collective call if it is sharded."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def part_of(whole: Tensor, like: Tensor) -> Tensor:
    """What this rank holds of a whole tensor, if that is sharded as ``like``: a view."""
    if not isinstance(like, DTensor):
        return whole
    shape, offset = compute_local_shape_and_global_offset(like.shape, like.device_mesh, like.placements)
    for dim, (size, start) in enumerate(zip(shape, offset, strict=True)):
        whole = whole.narrow(dim, min(start, whole.shape[dim] - size), size)
    return whole


def sharded_as(whole: Tensor, like: Tensor) -> Tensor:
    """A tensor of the shape of ``like``, sharded as that is, in precision and memory of its own."""
    if isinstance(whole, DTensor):
        return whole
    local = part_of(whole, like).to(like.device, copy=True)
    if not isinstance(like, DTensor):
        return local
    return DTensor.from_local(
        local, like.device_mesh, like.placements, run_check=False, shape=like.shape, stride=like.stride()
    )


def gather_on_main(value: Any) -> Any:
    """Nested dicts and lists with whole tensors on the CPU of rank 0; on other ranks what is no tensor.

    Tensor by tensor, so that no more than one is whole elsewhere. A collective call.
    """
    if isinstance(value, Tensor):
        whole = whole_of(value.detach())
        return whole.cpu() if not is_distributed() or dist.get_rank() == 0 else whole.new_empty(0)
    if isinstance(value, Mapping):
        return {key: gather_on_main(own) for key, own in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(map(gather_on_main, value))
    return value
