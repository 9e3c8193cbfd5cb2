"""Endless sampling that resumes exactly and does not depend on the number of processes, also of several datasets."""

import itertools
import logging
from collections.abc import Iterator, Sequence, Sized
from numbers import Integral
from typing import Any

import numpy as np
from mmengine.dataset import ConcatDataset
from mmengine.dist import get_dist_info, sync_random_seed
from mmengine.logging import print_log
from torch.utils.data import Sampler

from genseg_mm.datasets.seeded_access import SeededAccess, SeededDataset, Visit
from genseg_mm.registry import DATA_SAMPLERS, DATASETS

_DRAWS_PER_BLOCK = 4096
# Keys that keep the random streams of one seed apart.
_SOURCE_DRAWS, _PERMUTATION = range(2)


@DATA_SAMPLERS.register_module()
class RatioInfiniteSampler(Sampler):
    """Endless shuffled passes over a dataset, or over several in a given ratio.

    One stream of indices is defined for all processes together; process ``rank`` takes every
    ``world_size``-th of it. Two processes with batch size B therefore see in each iteration exactly
    the samples that one process with batch size 2B sees. Each source is passed through in
    permutations, so no sample comes twice before all came once.

    With ``ratio``, the source is drawn once for ``group`` consecutive samples of *every* process:
    with ``group`` equal to the batch size an iteration has one source, the same in all processes
    (no process then waits for gradients that another one does not have). To compare one process
    with N, give it N times the batch size and N times ``group``.

    Any position is reached without walking there: resuming after millions of samples takes a
    moment.

    Args:
        dataset: The dataset; with ``ratio`` a concatenation (``MixedDataset``, ``ConcatDataset``).
        ratio: Relative frequency of each part, e.g. ``(9, 1)``. ``None`` takes the dataset as one
            source.
        group: Number of consecutive samples per process that come from one source.
        seed: Seed of the stream, the same in all processes. ``None`` agrees on a random one.
        shuffle: Whether each pass is shuffled.

    Raises:
        ValueError: If the ratio does not fit the dataset, or a source is empty.
    """

    def __init__(
        self,
        dataset: Sized,
        ratio: Sequence[float] | None = None,
        group: int = 1,
        seed: int | None = None,
        shuffle: bool = True,
    ) -> None:
        if group < 1:
            raise ValueError(f'group must be at least 1, but got {group}')
        self.rank, self.world_size = get_dist_info()
        self.num_samples = len(dataset)
        self.sizes = [self.num_samples] if ratio is None else _part_sizes(dataset)
        self.probabilities = _probabilities(ratio, self.sizes)
        self.offsets = [0, *itertools.accumulate(self.sizes)][:-1]
        self.group = group
        self.seed = sync_random_seed() if seed is None else seed
        self.shuffle = shuffle
        self.position = 0

    def __iter__(self) -> Iterator[Visit]:
        start = self.position * self.world_size + self.rank
        return itertools.islice(self._stream(start), 0, None, self.world_size)

    def __len__(self) -> int:
        return self.num_samples

    def skip(self, num_samples: int) -> None:
        """Goes to the position after ``num_samples`` samples of this process.

        The count is from the very beginning. MMEngine's ``IterBasedTrainLoop`` calls it on resume.
        """
        if num_samples < 0:
            raise ValueError(f'num_samples must not be negative, but got {num_samples}')
        self.position = num_samples

    def set_epoch(self, epoch: int) -> None:
        """An endless stream has no epochs."""

    def _stream(self, start: int) -> Iterator[Visit]:
        """The stream of all processes together, from global position ``start``."""
        group = self.group * self.world_size
        num_groups, inside = divmod(start, group)
        taken = self._groups_before(num_groups) * group
        block, first = divmod(num_groups, _DRAWS_PER_BLOCK)
        sources = [self._source(index, count) for index, count in enumerate(taken.tolist())]
        for number in itertools.count(block):
            for source in self._source_draws(number)[first:]:
                yield from itertools.islice(itertools.islice(sources[source], group), inside, None)
                inside = 0
            first = 0

    def _source_draws(self, block: int) -> list:
        if len(self.sizes) == 1:
            return [0] * _DRAWS_PER_BLOCK
        generator = np.random.default_rng([self.seed, _SOURCE_DRAWS, block])
        return generator.choice(len(self.sizes), size=_DRAWS_PER_BLOCK, p=self.probabilities).tolist()

    def _groups_before(self, num_groups: int) -> np.ndarray:
        """How many of the first ``num_groups`` groups came from each source, (num_sources,)."""
        if len(self.sizes) == 1:
            return np.array([num_groups])
        blocks, rest = divmod(num_groups, _DRAWS_PER_BLOCK)
        counts = np.zeros(len(self.sizes), dtype=np.int64)
        for block in range(blocks):
            counts += np.bincount(self._source_draws(block), minlength=len(counts))
        return counts + np.bincount(self._source_draws(blocks)[:rest], minlength=len(counts))

    def _source(self, source: int, position: int) -> Iterator[Visit]:
        """Indices of one source, after ``position`` of them were taken."""
        size, offset = self.sizes[source], self.offsets[source]
        first_visit, done = divmod(position, size) if size else (0, 0)
        for visit in itertools.count(first_visit):
            if self.shuffle:
                generator = np.random.default_rng([self.seed, _PERMUTATION, source, visit])
                order = generator.permutation(size)
            else:
                order = np.arange(size)
            for index in order[done:].tolist():
                yield Visit(index + offset, visit, self.seed)
            done = 0


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


@DATASETS.register_module()
class MixedDataset(SeededAccess, ConcatDataset):
    """Several datasets in a row whose parts still see the ``Visit`` of each index.

    The global random states follow the visit while a sample is made (see ``SeededAccess``), so that
    stock transforms such as ``RandomFlip`` are reproduced exactly after a restart and with any
    number of workers and processes.

    Args:
        datasets: Datasets or their configs.
        seed: Of these states; by default the sampler's.
        **kwargs: As for MMEngine's ``ConcatDataset``.
    """

    def __init__(self, datasets: Sequence, seed: int | None = None, **kwargs) -> None:
        super().__init__(datasets, **kwargs)
        self.seed = seed

    def _get_ori_dataset_idx(self, idx: int) -> tuple[int, int]:
        part, index = super()._get_ori_dataset_idx(idx)
        return part, Visit(index, idx.visit) if isinstance(idx, Visit) else index

    def __getitem__(self, idx: int) -> dict:
        if self.seed is not None and isinstance(idx, Visit):
            idx = Visit(idx, idx.visit, self.seed)
        return super().__getitem__(idx)


def _part_sizes(dataset: Sized) -> list[int]:
    parts = getattr(dataset, 'datasets', None)
    if parts is None:
        raise ValueError(
            'ratio needs a dataset of several parts (MixedDataset or ConcatDataset), but got '
            f'{type(dataset).__name__}; leave ratio out for a single dataset'
        )
    return [len(part) for part in parts]


def _probabilities(ratio: Sequence[float] | None, sizes: list[int]) -> np.ndarray:
    shares = np.ones(1) if ratio is None else np.asarray(ratio, dtype=np.float64)
    if shares.shape != (len(sizes),):
        raise ValueError(
            f'ratio must have one number for each of the {len(sizes)} parts of the dataset, but got {ratio}'
        )
    if not (np.isfinite(shares).all() and (shares >= 0).all() and shares.sum() > 0):
        raise ValueError(f'ratio must be non-negative and not all zero, but got {ratio}')
    empty = [part for part, size in enumerate(sizes) if size == 0 and shares[part] > 0]
    if empty:
        raise ValueError(
            f'the dataset to sample from is empty (part {empty[0]} of {len(sizes)}); check its '
            'annotation file, split and filters'
        )
    return shares / shares.sum()
