"""Booking of what rises while a program runs (seconds, FLOPs) to its phases."""

import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch


class PhaseMeter:
    """Books a rising count to the phases during which it rises; what an inner phase used is not the outer one's.

    Args:
        count: The count now, such as :func:`clock` gives.
    """

    def __init__(self, count: Callable[[], float]) -> None:
        self.count = count
        self.rounds: list[dict[str, float]] = []
        self._inner: float = 0
        self._watched: list[tuple[Any, str]] = []

    def start_round(self) -> dict[str, float]:
        """Begins the next repeat; phases are booked to its dict, in the order in which they end."""
        self.rounds.append(defaultdict(int))
        return self.rounds[-1]

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """What rises inside is booked to this name."""
        outer, self._inner = self._inner, 0
        start = self.count()
        try:
            yield
        finally:
            used = self.count() - start
            self.rounds[-1][name] += used - self._inner
            self._inner = outer + used

    def watch(self, owner: Any, method: str, name: str) -> None:
        """Books every call of a method of one object to a name, until :meth:`release`."""
        function = getattr(owner, method)

        def measured(*args: Any, **kwargs: Any) -> Any:
            with self.phase(name):
                return function(*args, **kwargs)

        setattr(owner, method, measured)
        self._watched.append((owner, method))

    def release(self) -> None:
        """Gives the watched methods back."""
        for owner, method in reversed(self._watched):
            owner.__dict__.pop(method, None)
        self._watched.clear()


def clock(device: torch.device, cpu_time: bool = False) -> Callable[[], float]:
    """The time in seconds, after all that a GPU has been given is done.

    Args:
        device: That the model is on.
        cpu_time: CPU seconds of this process (all its threads) in place of the clock's, for a busy machine.
    """
    read = time.process_time if cpu_time else time.perf_counter

    def now() -> float:
        if device.type == 'cuda':
            torch.cuda.synchronize(device)
        return read()

    return now
