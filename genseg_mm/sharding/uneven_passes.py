"""Passes of a sharded model that differ by rank: other tasks, other numbers of batches, of steps or of pictures."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.fsdp import FSDPModule


@contextmanager
def uneven_passes(model: nn.Module, group: Any) -> Iterator[Callable[[], None]]:
    """Within it, ranks run the sharded modules of a model in any order and number, without gradients.

    To run a module, all ranks that share its parameters have to gather them: one that runs another module meanwhile
    would wait for ever, or take the others' parameters for its own. Here all ranks agree, before any of them gathers,
    on the module that is next, and those that do not need it gather it all the same and drop it at once. No module is
    whole on a rank that does not run it, so what a rank needs of memory stays one block.

    Modules are numbered as they stand in the model, and of those that ranks want the last one is next. What a rank has
    whole, modules that it is inside of, stands before the one that it wants: so no module is gathered anew by others
    while it is whole here, and a rank that is inside a part leaves it before others enter it again.

    Ranks that run the same modules, as with one task and equal numbers of batches, never do more than one number's
    agreement per module.

    Args:
        model: With modules of ``fully_shard``; the same on all ranks.
        group: A gloo group of all ranks; None: without one (a single process).

    Yields:
        What each rank calls when it has run all that it has to: it takes part in what the others still run, and
        returns when all have called it. After an error on one rank the others' next agreement is an error, too.
    """
    units = [own for own in model.modules() if isinstance(own, FSDPModule)]
    if group is None or not units:
        yield lambda: None
        return

    def wait_for_turn(number: int, *_: Any) -> None:
        """Returns when all ranks gather the unit of this number, counted from 1; of 0, when none wants any."""
        while True:
            wanted = torch.tensor(number)
            dist.all_reduce(wanted, dist.ReduceOp.MAX, group=group)
            if wanted == number:
                return
            unit = units[int(wanted) - 1]
            unit.unshard()
            unit.reshard()

    handles = []
    for number, unit in enumerate(units, 1):
        unit.reshard()  # a root may have been left whole
        handles.append(unit.register_forward_pre_hook(partial(wait_for_turn, number), prepend=True))
        handles.append(unit.register_forward_hook(lambda own, *_: own.reshard()))  # roots stay whole by themselves
    try:
        yield partial(wait_for_turn, 0)
    finally:
        for handle in handles:
            handle.remove()
