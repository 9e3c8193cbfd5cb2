"""Visitors: the history of each, which nobody else sees, and how long it is kept."""

import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Hashable

from genseg_mm.app import limits
from genseg_mm.app.steps import Step


class Session:
    """One visitor's history.

    Attributes:
        lock: Held while steps are read or added.
        steps: The oldest first.
        position: Of the one that is shown; -1 is none.
        sent: Names of the pictures that the page has.
        ticket: Changes when slow work is started or stopped: what began with another one is dropped.
        used: When, in seconds of the clock.
    """

    def __init__(self, now: float = 0.0) -> None:
        self.lock = threading.RLock()
        self.steps: list[Step] = []
        self.position = -1
        self.sent: set[str] = set()
        self.ticket = 0
        self.used = now

    @property
    def current(self) -> Step | None:
        """The step that is shown."""
        return self.steps[self.position] if self.position >= 0 else None

    @property
    def num_bytes(self) -> int:
        """Of all steps and the pictures that they share."""
        pictures = {step.picture.key: step.picture.bgr.nbytes for step in self.steps if step.picture is not None}
        return sum(pictures.values()) + sum(step.num_bytes for step in self.steps)

    def new_ticket(self) -> int:
        """Stops slow work that runs, and is the ticket of what begins."""
        with self.lock:
            self.ticket += 1
            return self.ticket

    def add(self, step: Step) -> None:
        """Shows a step, in place of those that were undone; the oldest are dropped where there are too many."""
        with self.lock:
            del self.steps[self.position + 1 :]
            self.steps.append(step)
            while len(self.steps) > 1 and (len(self.steps) > limits.MAX_STEPS or self.num_bytes > limits.SESSION_BYTES):
                del self.steps[0]
            self.position = len(self.steps) - 1

    def replace(self, step: Step) -> None:
        """Shows a step in place of the current one."""
        with self.lock:
            self.steps[self.position] = step

    def go(self, position: int) -> None:
        """Shows another step; one that is not there is the nearest."""
        with self.lock:
            self.position = min(max(position, 0), len(self.steps) - 1)


class Sessions:
    """The visitors, those who came last at the end.

    Args:
        clock: Seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._kept: OrderedDict[Hashable, Session] = OrderedDict()

    def __len__(self) -> int:
        return len(self._kept)

    def of(self, key: Hashable) -> Session:
        """The session of a visitor, a new one where there is none (any more)."""
        with self._lock:
            now = self._clock()
            session = self._kept.pop(key, None) or Session()
            session.used = now
            self._kept[key] = session
            self._drop(now)
            return session

    def forget(self, key: Hashable) -> None:
        """Drops all that a visitor has."""
        with self._lock:
            self._kept.pop(key, None)

    def _drop(self, now: float) -> None:
        held = [(key, session.num_bytes, session.used) for key, session in self._kept.items()]
        total, count = sum(own[1] for own in held), len(held)
        for key, num_bytes, used in held[:-1]:  # never the one that asks
            many = count > limits.MAX_SESSIONS or total > limits.ALL_SESSIONS_BYTES
            if not many and now - used <= limits.MAX_IDLE:
                break  # all others were used later
            del self._kept[key]
            total, count = total - num_bytes, count - 1
