"""What a forward pass keeps for the backward pass, counted on a real device or on the meta device."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from itertools import groupby
from typing import Any, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_flatten, tree_map

# What autocast runs in low precision, of what transformers are made of.
PRODUCTS = {
    F.linear, F.conv1d, F.conv2d, F.conv3d, torch.matmul, Tensor.matmul, Tensor.__matmul__, torch.bmm, Tensor.bmm,
    torch.baddbmm, F.scaled_dot_product_attention,
}  # fmt: skip


class SavedBytes:
    """Counts every storage once that autograd keeps while this is active; parameters and buffers do not count.

    A view keeps the whole of its storage, so whole storages are counted. What a backward pass itself needs on top
    (gradients of a layer's output) is not.

    Args:
        model: Its parameters and buffers are left out.
    """

    def __init__(self, model: nn.Module) -> None:
        self._owned = {_key(tensor) for tensor in [*model.parameters(), *model.buffers()]}
        self._kept: dict[int, torch.UntypedStorage] = {}
        self._hooks = torch.autograd.graph.saved_tensors_hooks(self._pack, lambda tensor: tensor)

    def __enter__(self) -> Self:
        self._hooks.__enter__()
        return self

    def __exit__(self, *error: object) -> None:
        self._hooks.__exit__(*error)

    @property
    def total(self) -> int:
        """Bytes so far."""
        return sum(storage.nbytes() for storage in self._kept.values())

    def _pack(self, tensor: Tensor) -> Tensor:
        key = _key(tensor)
        if key not in self._owned:
            self._kept[key] = tensor.untyped_storage()  # held, so that no other storage gets its address
        return tensor.detach()  # the tensor itself would refer to the graph that refers to it


def _key(tensor: Tensor) -> int:
    return tensor.untyped_storage()._cdata


@contextmanager
def largest_block(model: nn.Module, saved: SavedBytes) -> Iterator[dict[str, int]]:
    """Sees how much each block of the model's lists of blocks adds to ``saved``: 'bytes' of the largest.

    With gradient checkpointing that is what comes on top while a block is computed again in the backward pass.
    """
    largest, before, handles = dict(bytes=0), {}, []
    for block in blocks(model):
        enter = block.register_forward_pre_hook(lambda own, args: before.__setitem__(own, saved.total))
        leave = block.register_forward_hook(
            lambda own, args, output: largest.update(bytes=max(largest['bytes'], saved.total - before[own]))
        )
        handles += [enter, leave]
    try:
        yield largest
    finally:
        for handle in handles:
            handle.remove()


def blocks(network: nn.Module) -> Iterable[nn.Module]:
    """The members of the lists of modules that stand directly in a network."""
    lists = [child for child in network.children() if isinstance(child, nn.ModuleList)]
    return [block for modules in lists for block in modules]


class ShortRows:
    """Networks whose rows of equal blocks have three of them left: each one in between keeps what the second keeps.

    A pass of 60 blocks then costs what one of three does::

        with saved, ShortRows(networks, saved) as rows:
            model(...)
            total = saved.total + rows.left_out()

    Args:
        networks: With blocks in lists of modules.
        saved: What is counted.
    """

    def __init__(self, networks: Iterable[nn.Module], saved: SavedBytes) -> None:
        self._saved = saved
        self._lists = [
            (network, name, child)
            for network in networks
            for name, child in network.named_children()
            if isinstance(child, nn.ModuleList)
        ]
        self._rows: list[tuple[nn.Module, nn.Module, int]] = []  # second, last, number in between
        self._entered: list[tuple[nn.Module, int]] = []
        self._handles: list[Any] = []

    def __enter__(self) -> Self:
        for network, name, whole in self._lists:
            kept: list[nn.Module] = []
            for _, row in groupby(whole, _kind):
                own = list(row)
                if len(own) > 3:
                    self._rows.append((own[1], own[-1], len(own) - 3))
                    own = [own[0], own[1], own[-1]]
                kept += own
            if len(kept) == len(whole):
                continue
            network._modules[name] = nn.ModuleList(kept)
            self._handles += [
                block.register_forward_pre_hook(lambda own, args: self._entered.append((own, self._saved.total)))
                for block in kept
            ]
        return self

    def __exit__(self, *error: object) -> None:
        for network, name, whole in self._lists:
            network._modules[name] = whole
        for handle in self._handles:
            handle.remove()

    def left_out(self) -> int | None:
        """Bytes that the blocks left out would have kept; None if the pass does not go through each row in turn."""
        entered = [own for own, _ in self._entered]
        bytes_ = 0
        for second, last, between in self._rows:
            if entered.count(second) != 1 or entered.count(last) != 1:
                return None
            place = entered.index(second)
            if entered.index(last) != place + 1:
                return None
            bytes_ += between * (self._entered[place + 1][1] - self._entered[place][1])
        return bytes_


def _kind(block: nn.Module) -> tuple:
    """Equal for blocks that compute alike: structure, shapes, precisions, what is trained, and switches."""
    tensors = [(name, own.shape, own.dtype, own.requires_grad) for name, own in block.named_parameters()]
    switches = [
        (name, value)
        for module in block.modules()
        for name, value in vars(module).items()
        if isinstance(value, (bool, float, str))
    ]
    return repr(block), tensors, switches


class ShapesOnly(TorchFunctionMode):
    """Runs a model on the meta device beside small real tensors, whose values its code may ask for.

    - A real tensor that meets one without values loses its own: masks and positions stay real until then, so that
      ``if has_image.all()`` has an answer.
    - Attention takes the fused kernel, as it does on a real device; on the meta device torch would choose the plain
      one, which keeps the attention weights.
    - The meta device has no autocast, so it is imitated: products take bfloat16 copies of their float32 arguments; a
      weight is copied once, as autocast does.

    Args:
        autocast: Whether to imitate bfloat16 autocast.
    """

    def __init__(self, autocast: bool = False) -> None:
        super().__init__()
        self._autocast = autocast
        self._copies: dict[int, Tensor] = {}

    def __torch_function__(self, func: Callable, types: tuple, args: tuple = (), kwargs: dict | None = None) -> Any:
        kwargs = kwargs or {}
        tensors = [one for one in tree_flatten((args, kwargs))[0] if isinstance(one, Tensor)]
        if any(tensor.is_meta for tensor in tensors):
            if not all(tensor.is_meta for tensor in tensors):
                args, kwargs = _indices(func, args), tree_map(_without_values, kwargs)
                args = tree_map(_without_values, args)
            if self._autocast and func in PRODUCTS:
                args, kwargs = tree_map(self._lowered, args), tree_map(self._lowered, kwargs)
            if func is F.scaled_dot_product_attention:
                return _fused_attention(*args, **kwargs)
        return func(*args, **kwargs)

    def _lowered(self, value: Any) -> Any:
        if not isinstance(value, Tensor) or value.dtype != torch.float32:
            return value
        if not (value.is_leaf and value.requires_grad):
            return value.bfloat16()
        if id(value) not in self._copies:
            self._copies[id(value)] = value.bfloat16()
        return self._copies[id(value)]


def _without_values(value: Any) -> Any:
    return value.to('meta') if isinstance(value, Tensor) else value


def _indices(func: Callable, args: tuple) -> tuple:
    """The arguments of ``tensor[mask]`` with the positions in place of a real mask: how many there are is its value."""
    if func not in (Tensor.__getitem__, Tensor.__setitem__):
        return args
    mask = args[1]
    if isinstance(mask, Tensor) and mask.dtype == torch.bool and not mask.is_meta:
        return (args[0], mask.nonzero(as_tuple=True), *args[2:])
    return args


def _fused_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Tensor:
    if enable_gqa:
        groups = query.shape[-3] // key.shape[-3]
        key, value = key.repeat_interleave(groups, -3), value.repeat_interleave(groups, -3)
    if attn_mask is not None and attn_mask.dtype == torch.bool:
        attn_mask = torch.zeros_like(attn_mask, dtype=query.dtype)
    return torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(
        query, key, value, dropout_p, is_causal, attn_mask=attn_mask, scale=scale
    )[0]
