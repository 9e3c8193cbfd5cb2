"""Samples whose every draw follows from the sampler's seed and the place of the sample, whoever draws."""

import random
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch

from genseg_mm.registry import DATASETS

# Keeps these draws apart from those of samplers, which start from the same seed.
_ACCESS = 2
# The access that is under way, see `current_visit`.
_visits: list[int] = []
# Stands in for NumPy's own while a sample is made: several times faster than saving and restoring that one's state.
_BIT_GENERATOR = np.random.MT19937(0)


class Visit(int):
    """A dataset index that knows how often it was handed out before, over all processes.

    It is an ``int`` everywhere. Datasets that draw something per access (a sentence, points) seed
    the draw with ``[seed, index, index.visit]``, so that it depends neither on the worker, nor on
    the process, nor on a restart.

    Attributes:
        visit: How often the index was handed out before.
        seed: That of the sampler. ``SeededAccess`` sets the global generators from it; None leaves them alone.
    """

    visit: int
    seed: int | None

    def __new__(cls, index: int, visit: int = 0, seed: int | None = None) -> 'Visit':
        self = super().__new__(cls, index)
        self.visit, self.seed = visit, seed
        return self

    def __reduce__(self) -> tuple:
        # Indices travel to the workers of a DataLoader by pickle.
        return Visit, (int(self), self.visit, self.seed)


class SeededAccess:
    """Mixin of datasets: global random states follow the ``Visit`` while a sample is made.

    Transforms of MMCV, MMDetection and MMSegmentation draw from the global generators of NumPy, Python and PyTorch.
    These are set from (seed, index, visit) for each sample and put back afterwards, so that a sample is the same in
    any process and worker and after a restart. It goes first among the bases.
    """

    def __getitem__(self, idx: int) -> Any:
        seed = getattr(idx, 'seed', None)
        if seed is None:
            return super().__getitem__(idx)
        with seeded_access(seed, idx):
            return super().__getitem__(Visit(idx, idx.visit))


@DATASETS.register_module()
class SeededDataset:
    """Any map-style dataset with the global random states of ``SeededAccess``; other attributes are the dataset's.

    Args:
        dataset: The dataset or its config.
    """

    def __init__(self, dataset: Sequence | dict) -> None:
        if isinstance(dataset, dict):
            dataset = DATASETS.build(dataset)
        self.__dict__['dataset'] = dataset

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, idx: int) -> Any:
        if getattr(idx, 'seed', None) is None:
            return self.dataset[idx]
        with seeded_access(idx.seed, idx):
            return self.dataset[Visit(idx, idx.visit)]

    def __getattr__(self, name: str) -> Any:
        if name.startswith('__') or 'dataset' not in self.__dict__:  # while it is unpickled
            raise AttributeError(name)
        return getattr(self.dataset, name)

    def __setattr__(self, name: str, value: Any) -> None:
        # Hooks exchange the pipeline during training: it is the dataset that has to have it.
        setattr(self.dataset, name, value)


def current_visit() -> int | None:
    """Number of the access under way, for a dataset whose index lost its ``Visit`` inside of another one.

    No two accesses of a training have the same number. None outside of an access.
    """
    return _visits[-1] if _visits else None


@contextmanager
def seeded_access(seed: int, idx: Visit) -> Iterator[None]:
    """Sets the global generators of NumPy, Python and PyTorch from (seed, index, visit), and puts them back."""
    words = np.random.SeedSequence([seed, _ACCESS, int(idx), idx.visit]).generate_state(4)
    numpy_own, python_own = np.random.get_bit_generator(), random.getstate()
    torch_own = torch.get_rng_state()
    np.random.set_bit_generator(_BIT_GENERATOR)
    _visits.append((idx.visit << 40) + int(idx))
    try:
        np.random.seed(words)
        random.seed(words.tobytes())
        torch.default_generator.manual_seed(int(words[0]) << 32 | int(words[1]))
        yield
    finally:
        _visits.pop()
        np.random.set_bit_generator(numpy_own)
        random.setstate(python_own)
        torch.set_rng_state(torch_own)
