"""Parameters without memory, and how all ranks get theirs from rank 0."""

from collections.abc import Callable, Iterable, MutableMapping

import torch
import torch.distributed as dist
from mmengine.dist import is_distributed
from torch import Tensor, nn
from torch.distributed.tensor import DTensor, Shard

from genseg_mm.sharded_tensors import local_of


@torch.no_grad()
def fill_from_main(targets: Iterable[tuple[str, Tensor]], sources: MutableMapping[str, Tensor]) -> None:
    """Fills tensors of all ranks with those of rank 0, one after the other; a collective call.

    Args:
        targets: Names and tensors, sharded along their first dimension or whole, in the same order on all ranks.
        sources: On rank 0 the whole tensors by name, which are given up one by one as they are sent; those that are
            not there are sent from ``targets``.
    """
    for name, target in targets:
        source, local = sources.pop(name, None), local_of(target)
        if not isinstance(target, DTensor):
            sent = local if source is None else local.copy_(source)
            data = _bytes_of(sent.contiguous())
            if is_distributed() and data.numel():
                dist.broadcast(data, 0)
            local.copy_(data.view(local.dtype).view(local.shape))
            continue
        _scatter(target, local, source)


def _scatter(target: DTensor, local: Tensor, source: Tensor | None) -> None:
    assert isinstance(target.placements[-1], Shard) and target.placements[-1].dim == 0, target.placements
    num_shards = target.device_mesh.shape[-1]
    rows = -(-target.shape[0] // num_shards)
    # Gloo sends from memory of the host, NCCL from that of the card.
    device = torch.device('cpu') if dist.get_backend() == 'gloo' else torch.device(target.device_mesh.device_type)
    received = torch.empty((rows, *target.shape[1:]), dtype=local.dtype, device=device)
    if not received.numel():
        return
    pieces = None
    if dist.get_rank() == 0:
        assert source is not None
        source = source.to(device=device, dtype=local.dtype)
        parts = [_padded(source[index * rows : (index + 1) * rows], rows) for index in range(num_shards)]
        pieces = [_bytes_of(parts[rank % num_shards]) for rank in range(dist.get_world_size())]
    data = _bytes_of(received)
    dist.scatter(data, pieces, src=0)
    local.copy_(received[: local.shape[0]])


def _padded(part: Tensor, rows: int) -> Tensor:
    if len(part) == rows:
        return part.contiguous()
    return torch.cat([part, part.new_zeros(rows - len(part), *part.shape[1:])])


def _bytes_of(tensor: Tensor) -> Tensor:
    """The memory of a contiguous tensor: not every backend sends every type."""
    return tensor.view(-1).view(torch.uint8)


# ---- parameters without memory


def take_parameters(model: nn.Module) -> dict[str, Tensor]:
    """Puts all parameters on the meta device in place, and gives back what was in them.

    Parameters that are one stay one.
    """
    taken = {name: own.data for name, own in model.named_parameters() if not own.is_meta}
    replace_parameters(model, lambda own: own if own.is_meta else own.data.to('meta'))
    return taken


def allocate_parameters(model: nn.Module, device: torch.device) -> None:
    """Gives parameters on the meta device memory, whose content is arbitrary; of a sharded one, its shard."""

    def allocated(own: nn.Parameter) -> Tensor:
        if not own.is_meta:
            return own
        if not isinstance(own, DTensor):
            return torch.empty_like(own.data, device=device)
        local = torch.empty_like(own.detach().to_local(), device=device)
        return DTensor.from_local(
            local, own.device_mesh, own.placements, run_check=False, shape=own.shape, stride=own.stride()
        )

    replace_parameters(model, allocated)


def replace_parameters(model: nn.Module, function: Callable[[nn.Parameter], Tensor]) -> None:
    """Puts ``function(parameter)`` in the place of every parameter; one that has several places stays one."""
    new: dict[int, tuple[nn.Parameter, nn.Parameter]] = {}  # with the old ones, whose ids then are no one else's
    for module in model.modules():
        for name, own in module._parameters.items():
            if own is None:
                continue
            if id(own) not in new:
                data = function(own)
                new[id(own)] = own, own if data is own else nn.Parameter(data, requires_grad=own.requires_grad)
            module._parameters[name] = new[id(own)][1]
