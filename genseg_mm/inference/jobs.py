"""Images on their way through a network that takes batches of one size."""

import logging
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from mmengine.logging import print_log
from mmseg.structures import SegDataSample

from genseg_mm.inference.images import Source, read_image
from genseg_mm.inference.prompts import Prompts


@dataclass
class Job:
    """One image: what was asked, and what has come out so far."""

    source: Source
    prompts: Prompts
    image: np.ndarray | None  # BGR; None where it could not be read and is skipped
    outputs: list = field(default_factory=list)  # of the network: one, or one per text
    num_runs: int = 0  # outputs that are to come
    sample: SegDataSample | None = None  # the prediction
    descriptions: list[str] | None = None  # of the texts, where they were asked for

    @property
    def is_done(self) -> bool:
        """Whether nothing is to come any more."""
        return len(self.outputs) == self.num_runs


def read_jobs(sources: Sequence[Source], prompts: Sequence[Prompts], on_error: str = 'raise') -> Iterator[Job]:
    """Reads the images one by one.

    Args:
        sources: The images.
        prompts: One per image; points must lie in their image.
        on_error: 'raise', or 'skip': an image that cannot be read becomes a job without one. They are logged, and so is
            their number.
    """
    if on_error not in ('raise', 'skip'):
        raise ValueError(f"on_error must be 'raise' or 'skip', but got {on_error!r}")
    num_skipped = 0
    for source, own in zip(sources, prompts, strict=True):
        image = None
        try:
            image = read_image(source)
        except (ValueError, OSError) as error:
            if on_error == 'raise':
                raise
            num_skipped += 1
            print_log(f'Skipped: {error}', 'current', logging.WARNING)
        if image is not None:
            own.check(source.name, image.shape[:2])
        yield Job(source, own, image)
    if num_skipped:
        message = f'{num_skipped} of {len(sources)} images were skipped, since they could not be read.'
        print_log(message, 'current', logging.WARNING)


def run_in_order(
    jobs: Iterable[Job],
    pack: Callable[[Job], Iterable[dict]],
    run: Callable[[list[tuple[Job, dict]]], Any],
    batch_size: int,
) -> Iterator[Job]:
    """Runs full batches of one size as they come together.

    At most about four batches of inputs wait at any time: where more would, because many images differ in size, the
    size that has waited longest is run in a smaller batch.

    Args:
        jobs: Read one by one.
        pack: Network inputs of a job, dicts with ``inputs`` (3, h, w).
        run: Called with at most batch_size inputs of one size and their jobs, to whose ``outputs`` it adds.
        batch_size: At least 1.

    Yields:
        The jobs in their order, each as soon as it and those before it are done.
    """
    if not isinstance(batch_size, int) or batch_size < 1:
        raise ValueError(f'batch_size must be a whole number of at least 1, but got {batch_size!r}')
    queues: dict[tuple, list] = {}  # network size -> inputs that wait; the size that has waited longest comes first
    order: deque[Job] = deque()

    def run_queue(size: tuple) -> None:
        waiting = queues.pop(size)
        for start in range(0, len(waiting), batch_size):
            run(waiting[start : start + batch_size])

    for job in jobs:
        order.append(job)
        for data in pack(job):
            queues.setdefault(tuple(data['inputs'].shape), []).append((job, data))
            job.num_runs += 1
        for size in [size for size, waiting in queues.items() if len(waiting) >= batch_size]:
            run_queue(size)
        while sum(map(len, queues.values())) > 4 * batch_size:
            run_queue(next(iter(queues)))
        while order and order[0].is_done:
            yield order.popleft()
    for size in list(queues):
        run_queue(size)
    yield from order
