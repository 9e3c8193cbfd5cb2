"""Endless sampling that resumes exactly and does not depend on the number of processes, also of several datasets."""

import itertools
import logging
import math
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
# Keys that keep the random streams of one seed apart; 3 is that of `IterationSeedHook`.
_SOURCE_DRAWS, _PERMUTATION, _PART_DRAWS, _ORDER = 0, 1, 4, 5


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

    A training loop that knows what an update is says so by :meth:`set_update`
    (:class:`~genseg_mm.launch.update_based_train_loop.UpdateBasedTrainLoop` with ``global_batch_size``). An update then
    has the same samples however it is split over processes and micro-batches:

    - ``exact=True``: exactly ``ratio`` of each source. Each micro-batch has one source (``group`` samples of it in a
      row, if that is set), the same in all processes, in an order that is drawn for every update.
    - ``exact=False``: the source is drawn once for ``group`` samples of all processes together, as gen2seg's published
      code does for each of its iterations. Processes may have different ones at the same time.

    Any position is reached without walking there: resuming after millions of samples takes a
    moment.

    Args:
        dataset: The dataset; with ``ratio`` a concatenation (``MixedDataset``, ``ConcatDataset``).
        ratio: Relative frequency of each part, e.g. ``(9, 1)``. ``None`` takes the dataset as one
            source. Parts in brackets are one source, within which the part is drawn for every sample: of
            ``((3, 1), 4)`` half of all samples are of the third part, exactly so with ``exact``.
        group: Number of consecutive samples per process that come from one source; by default 1, with ``exact`` the
            batch size.
        seed: Seed of the stream, the same in all processes. ``None`` agrees on a random one.
        shuffle: Whether each pass is shuffled.
        exact: Whether every update has exactly ``ratio``; it has to be told what an update is.

    Raises:
        ValueError: If the ratio does not fit the dataset, or a source is empty.
    """

    def __init__(
        self,
        dataset: Sized,
        ratio: Sequence[float | Sequence[float]] | None = None,
        group: int | None = None,
        seed: int | None = None,
        shuffle: bool = True,
        exact: bool = False,
    ) -> None:
        if group is not None and group < 1:
            raise ValueError(f'group must be at least 1, but got {group}')
        if exact and ratio is None:
            raise ValueError('exact=True needs a ratio, but got None')
        self.rank, self.world_size = get_dist_info()
        self.num_samples = len(dataset)
        self.sizes = [self.num_samples] if ratio is None else _part_sizes(dataset)
        self.ratio = ratio
        self.sources, self.probabilities, self.part_probabilities = _sources(ratio, self.sizes)
        self.offsets = [0, *itertools.accumulate(self.sizes)][:-1]
        self.group, self.exact = group, exact
        self.seed = sync_random_seed() if seed is None else seed
        self.shuffle = shuffle
        self.position = 0
        self._update_size: tuple[int, int] | None = None  # samples of all processes, of one batch

    def __iter__(self) -> Iterator[Visit]:
        if self._update_size is not None:
            return self._own_of_updates()
        if self.exact:
            raise ValueError(
                'RatioInfiniteSampler(exact=True) has to know how many samples an update has: set '
                "train_cfg.type='genseg_mm.UpdateBasedTrainLoop' and global_batch_size"
            )
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

    def set_update(self, global_batch_size: int, batch_size: int) -> None:
        """Says what an update is, so that it has the same samples however it is split.

        Args:
            global_batch_size: Samples of an update, of all processes and micro-batches.
            batch_size: Samples of a micro-batch of one process.

        Raises:
            ValueError: If the ratio, or ``group``, cannot be kept in every update.
        """
        check_update(self.ratio, self.exact, self.group, global_batch_size, batch_size, self.world_size)
        self._update_size = global_batch_size, batch_size

    def places(self, update: int) -> list[int]:
        """Where the samples of this process stand in an update of all, in the order in which it gets them.

        What is drawn for a sample by (update, place) does not depend on how the update is split. In an exact update the
        first source comes first, else places are in the order of the draws.

        Returns:
            Numbers from 0 up to, without, ``global_batch_size``; one per sample of this process.
        """
        size, batch_size = self._update_size
        processes, rank, own = self.world_size, self.rank, np.arange(size // self.world_size)
        if not self.exact:
            group = self.group or 1
            if len(self.sources) == 1 or group == 1:
                return (own * processes + rank).tolist()
            micro, index = np.divmod(own, batch_size)
            return ((micro * processes + rank) * batch_size + index).tolist()
        unit = processes * (self.group or batch_size)  # of one source, in all processes
        quotas = _quotas(self.probabilities, size)
        firsts = np.arange(0, size, unit)
        if self.shuffle:
            # Whose turn it is; each source hands out its own in their order.
            turns = np.repeat(np.arange(len(quotas)), quotas // unit)
            turns = np.random.default_rng([self.seed, _ORDER, update]).permutation(turns)
            firsts = firsts[np.argsort(np.argsort(turns, kind='stable'))]
        inside = np.arange(unit // processes) * processes + rank
        return (firsts[:, None] + inside).flatten().tolist()

    def _own_of_updates(self) -> Iterator[Visit]:
        """The samples of this process, update by update, from its position on."""
        size, _ = self._update_size
        update, done = divmod(self.position, size // self.world_size)
        sources = [self._source(index, count) for index, count in enumerate(self._taken_by(update))]
        for number in itertools.count(update):
            samples = [next(sources[source]) for source in self._sources_of(number)]  # by place
            for place in self.places(number)[done:]:
                yield samples[place]
            done = 0

    def _taken_by(self, update: int) -> list[int]:
        """How many samples of each source the updates before this one have."""
        size, _ = self._update_size
        if self.exact:
            return (_quotas(self.probabilities, size) * update).tolist()
        group = self.group or 1
        return (self._groups_before(update * size // group) * group).tolist()

    def _sources_of(self, update: int) -> list[int]:
        """Source of each place of an update."""
        size, _ = self._update_size
        if self.exact:
            quotas = _quotas(self.probabilities, size)
            return np.repeat(np.arange(len(quotas)), quotas).tolist()
        group = self.group or 1
        start, num = update * size // group, size // group
        draws = itertools.islice(self._group_draws(start), num)
        return [source for source in draws for _ in range(group)]

    def _stream(self, start: int) -> Iterator[Visit]:
        """The stream of all processes together, from global position ``start``."""
        group = (self.group or 1) * self.world_size
        num_groups, inside = divmod(start, group)
        taken = self._groups_before(num_groups) * group
        sources = [self._source(index, count) for index, count in enumerate(taken.tolist())]
        for source in self._group_draws(num_groups):
            yield from itertools.islice(itertools.islice(sources[source], group), inside, None)
            inside = 0

    def _group_draws(self, start: int) -> Iterator[int]:
        """The source of each group, from group ``start`` on."""
        return _draws([self.seed, _SOURCE_DRAWS], self.probabilities, start)

    def _groups_before(self, num_groups: int) -> np.ndarray:
        """How many of the first ``num_groups`` groups came from each source, (num_sources,)."""
        return _counts_before([self.seed, _SOURCE_DRAWS], self.probabilities, num_groups)

    def _source(self, source: int, position: int) -> Iterator[Visit]:
        """Samples of one source, after ``position`` of them were taken."""
        parts, shares = self.sources[source], self.part_probabilities[source]
        key = [self.seed, _PART_DRAWS, source]
        taken = _counts_before(key, shares, position).tolist()
        streams = [self._part(part, count) for part, count in zip(parts, taken, strict=True)]
        if len(streams) == 1:
            return streams[0]
        return (next(streams[drawn]) for drawn in _draws(key, shares, position))

    def _part(self, part: int, position: int) -> Iterator[Visit]:
        """Samples of one part of the dataset, after ``position`` of them were taken."""
        size, offset = self.sizes[part], self.offsets[part]
        first_visit, done = divmod(position, size) if size else (0, 0)
        for visit in itertools.count(first_visit):
            if self.shuffle:
                generator = np.random.default_rng([self.seed, _PERMUTATION, part, visit])
                order = generator.permutation(size)
            else:
                order = np.arange(size)
            for index in order[done:].tolist():
                yield Visit(index + offset, visit, self.seed)
            done = 0


def _block_of_draws(key: list[int], probabilities: np.ndarray, block: int) -> np.ndarray:
    if len(probabilities) == 1:
        return np.zeros(_DRAWS_PER_BLOCK, dtype=np.int64)
    generator = np.random.default_rng([*key, block])
    return generator.choice(len(probabilities), size=_DRAWS_PER_BLOCK, p=probabilities)


def _draws(key: list[int], probabilities: np.ndarray, start: int) -> Iterator[int]:
    """An endless row of draws that the key decides, from number ``start`` on."""
    block, first = divmod(start, _DRAWS_PER_BLOCK)
    for number in itertools.count(block):
        yield from _block_of_draws(key, probabilities, number)[first:].tolist()
        first = 0


def _counts_before(key: list[int], probabilities: np.ndarray, num: int) -> np.ndarray:
    """How often each outcome comes among the first ``num`` draws, (num_outcomes,)."""
    if len(probabilities) == 1:
        return np.array([num])
    blocks, rest = divmod(num, _DRAWS_PER_BLOCK)
    counts = np.zeros(len(probabilities), dtype=np.int64)
    for block in range(blocks):
        counts += np.bincount(_block_of_draws(key, probabilities, block), minlength=len(counts))
    return counts + np.bincount(_block_of_draws(key, probabilities, blocks)[:rest], minlength=len(counts))


def check_update(
    ratio: Sequence[float | Sequence[float]] | None,
    exact: bool,
    group: int | None,
    global_batch_size: int,
    batch_size: int,
    world_size: int,
) -> None:
    """Refuses what ``RatioInfiniteSampler`` cannot keep in every update.

    Args:
        ratio: As the sampler's; so ``exact`` and ``group``.
        exact: Whether every update has exactly this ratio.
        group: Samples in a row of one source.
        global_batch_size: Samples of an update.
        batch_size: Samples of a micro-batch of one process.
        world_size: Number of processes.

    Raises:
        ValueError: With the numbers, and those that would do.
    """
    if ratio is None:
        return
    totals = np.array([np.sum(share) for share in ratio], dtype=np.float64)
    if not exact:
        group = group or 1
        if global_batch_size % group or (group > 1 and group % batch_size):
            raise ValueError(
                f'sampler.group: expected a divisor of global_batch_size={global_batch_size} that is a multiple of '
                f'batch_size={batch_size}, so that a batch has one source, but got {group}'
            )
        return
    if group is not None and batch_size % group:
        raise ValueError(f'sampler.group: expected a divisor of batch_size={batch_size}, but got {group}')
    shares = totals / totals.sum() * global_batch_size
    quotas = _quotas(totals / totals.sum(), global_batch_size)
    listed = ' : '.join(f'{share:g}' for share in shares)
    if not np.allclose(shares, quotas, rtol=0, atol=1e-6):
        raise ValueError(
            f'sampler.ratio: expected whole numbers of samples in each update, but got {listed} (ratio {list(ratio)} '
            f'of global_batch_size={global_batch_size}); put parts whose number may vary in brackets, or change one'
        )
    unit = world_size * (group or batch_size)
    common = math.gcd(*quotas.tolist())
    if common % unit:
        fitting = [size for size in range(batch_size, 0, -1) if common % (world_size * size) == 0]
        one_source = f'{world_size} processes x {group or batch_size} samples of one source'
        advice = 'take fewer processes'
        if fitting:
            advice = f'set train_dataloader.batch_size={fitting[0]}'
            advice += f' (or {", ".join(map(str, fitting[1:]))})' if fitting[1:] else ''
            advice += ' and leave sampler.group out' if group else ''
        raise ValueError(
            f'sampler.ratio: expected quotas that are multiples of {unit} ({one_source}), but got {listed} of '
            f'global_batch_size={global_batch_size}; {advice}'
        )


def _quotas(probabilities: np.ndarray, size: int) -> np.ndarray:
    return np.rint(probabilities * size).astype(np.int64)


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


def _sources(
    ratio: Sequence[float | Sequence[float]] | None, sizes: list[int]
) -> tuple[list[list[int]], np.ndarray, list[np.ndarray]]:
    """The parts of each source, the shares of the sources, and those of the parts in each."""
    nested = [[1.0]] if ratio is None else [list(own) if isinstance(own, Sequence) else [own] for own in ratio]
    flat = np.array([share for own in nested for share in own], dtype=np.float64)
    if flat.shape != (len(sizes),):
        raise ValueError(
            f'ratio must have one number for each of the {len(sizes)} parts of the dataset, but got {ratio}'
        )
    if not (np.isfinite(flat).all() and (flat >= 0).all() and flat.sum() > 0):
        raise ValueError(f'ratio must be non-negative and not all zero, but got {ratio}')
    empty = [part for part, size in enumerate(sizes) if size == 0 and flat[part] > 0]
    if empty:
        raise ValueError(
            f'the dataset to sample from is empty (part {empty[0]} of {len(sizes)}); check its '
            'annotation file, split and filters'
        )
    numbers = iter(range(len(sizes)))
    parts = [[next(numbers) for _ in own] for own in nested]
    shares = [flat[own] / (flat[own].sum() or 1) for own in parts]  # all 0: never drawn
    return parts, np.array([flat[own].sum() for own in parts]) / flat.sum(), shares
