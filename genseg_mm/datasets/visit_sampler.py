"""Visits for samplers of other packages."""

import logging
from collections.abc import Iterator, Sized
from numbers import Integral
from typing import Any

from mmengine.dist import get_dist_info, sync_random_seed
from mmengine.logging import print_log
from torch.utils.data import Sampler

from genseg_mm.datasets.seeded_access import SeededDataset, Visit
from genseg_mm.registry import DATA_SAMPLERS


@DATA_SAMPLERS.register_module()
class VisitSampler(Sampler):
    """The indices of any sampler as ``Visit``, numbered by epoch and place in the stream of all processes.

    With a sampler that deals one stream out to the processes in turn (those of MMEngine do), a sample is the same
    with any number of them. Indices that are no integers, such as the pairs of video samplers, pass as they are.

    Args:
        sampler: Config of the sampler.
        dataset: What it samples from.
        seed: Of the order and of the draws of each sample, the same in all processes. ``None`` agrees on a random one.
    """

    def __init__(self, sampler: dict, dataset: Sized, seed: int | None = None) -> None:
        self.seed = sync_random_seed() if seed is None else seed
        own = dataset.dataset if isinstance(dataset, SeededDataset) else dataset
        self.sampler = DATA_SAMPLERS.build(sampler, default_args=dict(dataset=own, seed=self.seed))
        self.rank, self.world_size = get_dist_info()
        self.epoch = self.position = 0
        if hasattr(self.sampler, 'skip'):  # MMEngine asks for it by name, and walks where there is none
            self.skip = self._skip

    def __iter__(self) -> Iterator[Visit]:
        start, self.position = self.position, 0
        for position, index in enumerate(self.sampler, start):
            if not isinstance(index, Integral):
                if position == start:
                    print_log(
                        f'{type(self.sampler).__name__} hands out {type(index).__name__}: what transforms draw is not '
                        'repeated by a resumed training',
                        'current',
                        logging.WARNING,
                    )
                yield index
                continue
            number = position * self.world_size + self.rank
            yield Visit(index, (self.epoch << 32) + number, self.seed)

    def __len__(self) -> int:
        return len(self.sampler)

    def __getattr__(self, name: str) -> Any:
        if name.startswith('__') or 'sampler' not in self.__dict__:
            raise AttributeError(name)
        return getattr(self.sampler, name)  # batch samplers of MMDetection read its dataset

    def set_epoch(self, epoch: int) -> None:
        """Begins an epoch, which has an order and draws of its own."""
        self.epoch = epoch
        getattr(self.sampler, 'set_epoch', lambda _: None)(epoch)

    def _skip(self, num_samples: int) -> None:
        self.sampler.skip(num_samples)
        self.position = num_samples
