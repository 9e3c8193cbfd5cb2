"""Memory of a training, term by term, from shapes alone: what a card, a machine and a checkpoint hold."""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from genseg_mm.models.cached_inputs import parts_never_asked
from genseg_mm.models.prompt_encoders import PromptEmbeddings
from genseg_mm.optim import muon_matrices
from genseg_mm.planning.kept_bytes import SavedBytes, ShapesOnly, ShortRows, blocks, largest_block
from genseg_mm.registry import class_name

GB = 1e9
LOW = 2  # bytes of a bfloat16
BUCKETS, VALIDATED = 'DDP buckets', 'frozen, in validation'
# Tensors of a parameter's size that an optimizer keeps for it.
_MOMENTS = {'AdamW': 2, 'Adam': 2, 'Adagrad': 1, 'RMSprop': 1}


class Sizes(NamedTuple):
    """Bytes of a whole model, wherever they are.

    Attributes:
        trained: Trained parameters; their gradients take the same.
        optimizer: States of the optimizer.
        frozen: Frozen parameters and buffers by part (``codec``, ``prompt_encoder``, ``backbone``).
        block: Largest block of the trained network, in the precision in which it computes.
        block_gradients: Gradients of that block's trained parameters, in float32.
        root: What of the trained network is in no block, in the precision in which it computes.
        frozen_block: Largest block of the frozen parts.
    """

    trained: int
    optimizer: int
    frozen: dict[str, int]
    block: int
    block_gradients: int
    root: int
    frozen_block: int


@dataclass(frozen=True)
class Setup:
    """How a model is trained.

    Attributes:
        gpus: Cards in all.
        gpus_per_node: Cards of a machine.
        batch: Pictures per card and micro-batch.
        accumulation: Micro-batches of an update.
        sharded: FSDP2 in place of DDP.
        reduce_each_micro_batch: Of ``FSDP2Strategy``.
        offload: Shards and states in the memory of the host.
        checkpointing: Gradient checkpointing.
        ema: A moving average of the trained parameters is kept.
        cached: Of the frozen parts those that the training never runs, since all that they give comes from a cache.
        validates: Whether there is a validation in the training, which runs them.
        views: Gradients are views of DDP's buckets.
    """

    gpus: int = 1
    gpus_per_node: int = 8
    batch: int = 1
    accumulation: int = 1
    sharded: bool = False
    reduce_each_micro_batch: bool = False
    offload: bool = False
    checkpointing: bool = True
    ema: bool = False
    cached: tuple[str, ...] = ()
    validates: bool = True
    views: bool = True


class Activations(NamedTuple):
    """What a forward pass keeps for the backward pass, in bytes: ``fixed + batch * per_picture``."""

    fixed: float
    per_picture: float

    def of(self, batch: int) -> int:
        """Bytes of a batch."""
        return round(self.fixed + batch * self.per_picture)


def optimizer_bytes(optim_wrapper: Mapping[str, Any], model: nn.Module) -> int:
    """States of an optimizer after its first step.

    Args:
        optim_wrapper: Of a config.
        model: Whose trained parameters it gets.

    Raises:
        ValueError: If it is not known what this optimizer keeps.
    """
    config = optim_wrapper['optimizer']
    kind = class_name(config.get('type', ''))
    trained = {name: own.numel() * own.element_size() for name, own in model.named_parameters() if own.requires_grad}
    whole = sum(trained.values())
    if kind == 'SGD':
        return whole if config.get('momentum') else 0
    if kind == 'MuonAdamW':  # one momentum for matrices, two moments for the rest
        keys = (optim_wrapper.get('paramwise_cfg') or {}).get('muon_keys')
        return 2 * whole - sum(trained[name] for name in muon_matrices(model, keys))
    if kind not in _MOMENTS:
        known = ', '.join(sorted([*_MOMENTS, 'MuonAdamW', 'SGD']))
        raise ValueError(
            f'optim_wrapper.optimizer.type: expected one whose states are known ({known}), but got {kind!r}'
        )
    return whole * _MOMENTS[kind]


def bytes_before(sizes: Sizes, setup: Setup, activations: Activations) -> int:
    """Bytes on one card in the midst of an update, but for activations that grow with the batch."""
    terms = per_card(sizes, replace(setup, batch=0), activations)
    if setup.views:
        terms.pop(BUCKETS, 0)
    return sum(terms.values()) - terms.get(VALIDATED, 0)


def per_card(sizes: Sizes, setup: Setup, activations: Activations) -> dict[str, int]:
    """Bytes on one card by term, the largest card's.

    DDP holds everything on each card. Its gradients are views of the buckets that it reduces; these are made anew
    before the second update, when the old ones are still there and no activations yet: what they take more than those
    counts. Gradients that are no views are there twice all the time. FSDP2 holds a share of everything, gathers two
    blocks at a time (the one that computes and the next), and, where gradients are reduced once per update only, whole
    gradients in float32 until then.

    Frozen parts that a training from a cache never runs are in the memory of the host, unless they are sharded. In a
    validation they are on the card and the activations are not: again what they take more than those counts.

    Args:
        sizes: Of the model.
        setup: How it is trained.
        activations: Of one card, with or without checkpointing as ``setup`` says.
    """
    shares = setup.gpus if setup.sharded else 1
    on_card = 0 if setup.offload else 1
    kept = activations.of(setup.batch)
    copies = sizes.trained * (not setup.sharded and setup.gpus > 1)
    on_host = () if setup.sharded and setup.gpus > 1 else setup.cached
    asked = sum(sizes.frozen.get(name, 0) for name in on_host) * setup.validates
    terms = {
        'weights': on_card * math.ceil(sizes.trained / shares),
        'gradients': on_card * math.ceil(sizes.trained / shares),
        'optimizer': on_card * math.ceil(sizes.optimizer / shares),
        'EMA': on_card * math.ceil(sizes.trained / shares) * setup.ema,
        **{
            f'frozen {name}': on_card * math.ceil(own / shares)
            for name, own in sizes.frozen.items()
            if name not in on_host
        },
        BUCKETS: max(0, copies - kept) if setup.views else copies,
        VALIDATED: 0,
        'gathered': 0,
        'unreduced gradients': 0,
        'activations': kept,
    }
    terms[VALIDATED] = max(0, asked - kept - terms[BUCKETS] * setup.views)
    if setup.sharded and setup.gpus > 1:
        gathered = sizes.root + 2 * sizes.block + sizes.block_gradients
        terms['gathered'] = max(gathered, 2 * sizes.frozen_block)
        if setup.accumulation > 1 and not setup.reduce_each_micro_batch:
            terms['unreduced gradients'] = sizes.trained
    return {name: value for name, value in terms.items() if value}


def host_bytes(sizes: Sizes, setup: Setup) -> int:
    """Most memory of one machine's processes at the start, libraries and data workers not counted.

    DDP's ranks read the weights on their own, each into the memory of the host before they go to its card. With FSDP2
    rank 0 alone reads them; with offload the shards and states of the machine's cards stay there.
    """
    ranks = min(setup.gpus, setup.gpus_per_node)
    whole = sizes.trained + sum(sizes.frozen.values())
    if not setup.sharded:
        return ranks * whole
    kept = (2 * sizes.trained + sizes.optimizer + sum(sizes.frozen.values())) * ranks // setup.gpus
    return max(whole, kept if setup.offload else 0)


def checkpoint_bytes(sizes: Sizes, setup: Setup) -> int:
    """Size of a checkpoint that can be resumed from: trained parameters, optimizer, EMA."""
    return sizes.trained * (1 + setup.ema) + sizes.optimizer


def fits(terms: Mapping[str, int], memory: float) -> bool:
    """Whether the terms fit so many bytes."""
    return sum(terms.values()) <= memory


def knobs(setup: Setup) -> Iterator[tuple[str, Setup]]:
    """What to turn until a training fits, from the cheapest on, each with the largest batches first.

    An update has as many pictures in all of them.
    """
    if not setup.checkpointing:
        setup = replace(setup, checkpointing=True)
        yield from _batches('gradient_checkpointing=True (a third more time)', setup)
    yield from _batches('smaller micro-batches', setup)
    frozen = parts_never_asked(('image', 'mask', 'prompt'))
    if not set(frozen) <= set(setup.cached):
        yield from _batches(
            'encodings from a cache (tools/dataset_tools/cache_encodings.py)', replace(setup, cached=frozen)
        )
    whole = replace(setup, sharded=True)
    if setup.gpus > 1:
        if not setup.sharded:
            yield from _batches("FSDP2 (_base_ '../_base_/strategies/fsdp2.py')", whole)
        whole = replace(whole, reduce_each_micro_batch=True)
        yield from _batches('FSDP2 with strategy.reduce_each_micro_batch=True', whole)
        yield from _batches('FSDP2 with strategy.offload=True, too (slow)', replace(whole, offload=True))
    whole = replace(whole, reduce_each_micro_batch=True)
    for gpus in (2, 4, 8, 16, 32, 64):
        if gpus > setup.gpus and setup.batch * setup.accumulation * setup.gpus % gpus == 0:
            yield from _batches(f'FSDP2 on {gpus} cards', _regrouped(whole, gpus=gpus))


def _batches(text: str, setup: Setup) -> Iterator[tuple[str, Setup]]:
    for batch in sorted({setup.batch, *(own for own in (16, 8, 4, 2, 1) if own < setup.batch)}, reverse=True):
        yield f'{text}, batch {batch}', _regrouped(setup, batch=batch)


def _regrouped(setup: Setup, **changes: Any) -> Setup:
    """With these changes, and micro-batches so that an update has as many pictures as before."""
    changed = replace(setup, **changes)
    pictures = setup.gpus * setup.batch * setup.accumulation
    return replace(changed, accumulation=max(1, pictures // (changed.gpus * changed.batch)))


def measured_sizes(model: nn.Module, optim_wrapper: Mapping[str, Any]) -> Sizes:
    """The sizes of a built model, whose parameters may be on the meta device.

    Args:
        model: GenMask, Gen2Seg, or any that trains some of its parts.
        optim_wrapper: Of its config.
    """
    frozen: dict[str, int] = {}
    for name, child in model.named_children():
        tensors = [own for own in child.parameters() if not own.requires_grad] + list(child.buffers())
        if bytes_ := sum(own.numel() * own.element_size() for own in _once(tensors)):
            frozen[name] = bytes_
    trained = _once([own for own in model.parameters() if own.requires_grad])
    networks = [own for own in model.modules() if _is_network(own)]
    trained_blocks = [own for network in networks for own in blocks(network) if _trains(own)]
    frozen_blocks = [own for network in networks for own in blocks(network) if not _trains(own)]
    width = LOW if computes_low(optim_wrapper) else 4
    trained_networks = [own for own in networks if _trains(own)]
    inside = {id(own) for block in trained_blocks for own in block.parameters()}
    root = [own for network in trained_networks for own in network.parameters() if id(own) not in inside]
    return Sizes(
        trained=sum(own.numel() * own.element_size() for own in trained),
        optimizer=optimizer_bytes(optim_wrapper, model),
        frozen=frozen,
        block=max((sum(width * own.numel() for own in block.parameters()) for block in trained_blocks), default=0),
        block_gradients=max(
            (sum(4 * own.numel() for own in block.parameters() if own.requires_grad) for block in trained_blocks),
            default=0,
        ),
        root=width * sum(own.numel() for own in _once(root)),
        frozen_block=max(
            (sum(own.numel() * own.element_size() for own in block.parameters()) for block in frozen_blocks), default=0
        ),
    )


def _once(tensors: list[torch.Tensor]) -> list[torch.Tensor]:
    return list({id(own): own for own in tensors}.values())


def _trains(module: nn.Module) -> bool:
    return any(own.requires_grad for own in module.parameters())


def _is_network(module: nn.Module) -> bool:
    return type(module).__module__.startswith(('diffusers.', 'transformers.')) and bool(list(blocks(module)))


def computes_low(optim_wrapper: Mapping[str, Any]) -> bool:
    """Whether a training with this wrapper computes in 16 bits."""
    return class_name(optim_wrapper.get('type', 'OptimWrapper')) in ('AutocastOptimWrapper', 'AmpOptimWrapper')


def measure_activations(
    model: nn.Module, size: tuple[int, int], text_length: int, low: bool
) -> dict[bool, Activations]:
    """What a training forward pass of a model keeps, without and with gradient checkpointing.

    From passes of one and of two pictures. Frozen encoders keep nothing: they run without a graph. With checkpointing
    the largest block counts once more, since it is computed again with all that it keeps.

    Args:
        model: GenMask or Gen2Seg in training mode, on the meta device or a real one.
        size: Height and width of the pictures.
        text_length: Tokens of a prompt.
        low: Under bfloat16 autocast.
    """
    network = trained_network(model)
    kept: dict[bool, list[int]] = {False: [], True: []}
    for batch in (1, 2):
        switch_checkpointing(model, False)
        total, block = _kept_once(model, network, batch, size, text_length, low)
        switch_checkpointing(model, True)
        kept[False].append(total)
        kept[True].append(_kept_once(model, network, batch, size, text_length, low)[0] + block)
    return {on: Activations(fixed=2 * one - two, per_picture=two - one) for on, (one, two) in kept.items()}


def _kept_once(
    model: nn.Module, network: nn.Module, batch: int, size: tuple[int, int], text_length: int, low: bool
) -> tuple[int, int]:
    device = next(network.parameters()).device
    networks = [own for own in model.modules() if _is_network(own) and _trains(own)]
    for shortened in (networks, []):  # all blocks where not each row of equal ones is gone through in turn
        saved = SavedBytes(model)
        mode = ShapesOnly(low) if device.type == 'meta' else torch.autocast(device.type, torch.bfloat16, enabled=low)
        with ShortRows(shortened, saved) as rows, mode, saved, largest_block(network, saved) as largest:
            forward(model, batch, size, text_length, device)
        left_out = rows.left_out()
        if left_out is not None:
            return saved.total + left_out, largest['bytes']
    raise AssertionError('a pass of all blocks leaves none out')


def forward(model: nn.Module, batch: int, size: tuple[int, int], text_length: int, device: torch.device) -> Tensor:
    """The trained part of a training's forward pass on random latents and prompts, or pictures; its loss.

    Args:
        model: GenMask or Gen2Seg.
        batch: Number of pictures.
        size: Height and width of the pictures.
        text_length: Tokens of a prompt.
        device: That the model is on.
    """
    if hasattr(model, 'colorer'):
        return model.colorer(torch.rand(batch, 3, *size, device=device) * 2 - 1).square().mean()
    rows, columns = (side // model.codec.downsample for side in size)
    noisy, image, target = torch.randn(3, batch, model.backbone.latent_channels, rows, columns, device=device)
    states = torch.randn(batch, text_length, model.backbone.prompt_dims, device=device)
    width = getattr(model.backbone.transformer.config, 'pooled_projection_dim', None)
    pooled = None if width is None else torch.randn(batch, width, device=device)
    # On the meta device masks and levels stay real: code asks for their values.
    there = torch.ones(batch, text_length, dtype=torch.bool, device='cpu' if device.type == 'meta' else device)
    sigma = torch.full((batch,), 0.9, device=device)
    velocity = model.backbone(noisy, sigma, PromptEmbeddings(states, there, pooled), image, there[:, 0])
    return torch.nn.functional.mse_loss(velocity, target)


def trained_network(model: nn.Module) -> nn.Module:
    """The largest network of diffusers or transformers with trained parameters, else the model itself."""
    networks = [own for own in model.modules() if _is_network(own) and _trains(own)]
    return max(networks, key=lambda own: sum(one.numel() for one in own.parameters()), default=model)


def switch_checkpointing(model: nn.Module, on: bool) -> None:
    """Turns gradient checkpointing on or off wherever the libraries know it, in trained parts and what follows them."""
    for own in model.modules():
        name = 'enable_gradient_checkpointing' if on else 'disable_gradient_checkpointing'
        if hasattr(own, name) and getattr(own, '_supports_gradient_checkpointing', False):
            getattr(own, name)()
