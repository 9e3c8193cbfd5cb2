"""Randomness from (seed, iteration, position in the batch of all ranks) alone, so that a resumed run repeats it."""

from collections.abc import Sequence

import numpy as np
import torch
from mmengine.dist import get_rank, get_world_size
from mmengine.logging import MessageHub
from torch import Generator, Tensor


def seeded_generator(*key: int) -> Generator:
    """CPU generator seeded by a tuple of non-negative integers."""
    state = np.random.SeedSequence(key).generate_state(1, np.uint64)
    return torch.Generator().manual_seed(int(state[0] >> np.uint64(1)))


def training_generators(num: int) -> list[Generator]:
    """One generator per sample, keyed by its position in the batch of all ranks (samplers deal indices out in turn)."""
    hub = MessageHub.get_current_instance()
    seed, iteration = int(hub.get_info('seed', 0) or 0), int(hub.get_info('iter', 0))
    rank, world_size = get_rank(), get_world_size()
    return [seeded_generator(seed, iteration, index * world_size + rank) for index in range(num)]


def draw_noise(shape: Sequence[int], generators: Sequence[Generator]) -> Tensor:
    """Standard normal noise, (N, *shape), sample by sample on the CPU: the same on every device and in any batch."""
    return torch.stack([torch.randn(*shape, generator=own) for own in generators])
