"""Samples whose every draw follows from the sampler's seed and the place of the sample, whoever draws.

``CountedVisits`` is what the datasets of pictures with texts share.
"""

import ctypes
import logging
import os
import pickle
import random
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from reprlib import repr as short_repr
from typing import Any, Self

import numpy as np
import torch
from mmengine.dataset import BaseDataset
from mmengine.logging import print_log
from torch.utils.data import get_worker_info

from genseg_mm.datasets.annotation_files import ExistingFiles
from genseg_mm.datasets.leakage import evaluation_image_ids
from genseg_mm.files import usable_text
from genseg_mm.registry import DATASETS

# Keeps these draws apart from those of samplers, which start from the same seed.
_ACCESS = 2
# The access that is under way, see `current_visit`.
_visits: list[int] = []
# Stands in for NumPy's own while a sample is made: several times faster than saving and restoring that one's state.
_BIT_GENERATOR = np.random.MT19937(0)
_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # of malloc.h

_CHOICES = ('all', 'random', 'first')


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

    def __new__(cls, index: int, visit: int = 0, seed: int | None = None) -> Self:
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
        if get_worker_info() is not None:
            _keep_freed_memory()
        seed = getattr(idx, 'seed', None)
        if seed is None:
            return super().__getitem__(idx)
        with seeded_access(seed, idx):
            return super().__getitem__(Visit(idx, idx.visit))

    def _serialize_data(self) -> tuple[np.ndarray, np.ndarray]:
        """See ``BaseDataset``, which goes on to look through the whole process for garbage: a tenth of a second."""
        items = [np.frombuffer(pickle.dumps(own, protocol=4), np.uint8) for own in self.data_list]
        self.data_list.clear()
        return np.concatenate(items), np.cumsum([len(own) for own in items])


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


@cache
def _keep_freed_memory() -> None:
    """Has a loader's worker use the memory of a picture for the next one (glibc), up to 128 MiB of it.

    By default what is freed goes back to the system, and comes from it again page by page: a quarter to a third of
    the time of a sample.
    """
    try:
        allocator = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError, TypeError):
        return
    allocator(_MMAP_THRESHOLD, 64 * 2**20)
    allocator(_TRIM_THRESHOLD, 128 * 2**20)


# ---- datasets of pictures with texts


def checked_choice(name: str, choice: str, test_mode: bool) -> str:
    """Which of several texts a dataset shows: 'all', 'first' or, in training, 'random'.

    Raises:
        ValueError: If it is none of them.
    """
    allowed = ('all', 'first') if test_mode else _CHOICES
    if choice not in allowed:
        raise ValueError(f'{name} must be one of {allowed} with test_mode={test_mode}, but got {choice!r}')
    return choice


class CountedVisits(SeededAccess, BaseDataset):
    """A dataset that draws something at each access, seeded by (seed, index, visit).

    The visit comes with the index if the sampler hands out ``genseg_mm.Visit``, or is that of the dataset around this
    one; otherwise the dataset counts its accesses itself, over all workers of this process, from 0 in a new run.

    ``left_out`` names what of the files is no text or no item, by reason; its counts are logged. A text that is null,
    NaN or missing, of blanks alone, or with a lone surrogate is left out so by every reader; a number is an error.

    Args:
        seed: Seed of the draws.
        exclude_images: Pictures to leave out of training: ``sources`` of
            :func:`genseg_mm.datasets.leakage.evaluation_image_ids`, relative to ``data_root``.
        data_prefix: ``img_path`` is the folder of the pictures.
        pipeline: Transforms.
        **kwargs: Further arguments of ``mmengine.dataset.BaseDataset``.

    Raises:
        ValueError: If ``data_prefix`` has other keys.
    """

    # Of referring and of caption datasets: the parts of a MixedDataset must agree.
    METAINFO = dict(classes=('background', 'target'), palette=[[0, 0, 0], [255, 255, 255]])

    def __init__(
        self,
        seed: int = 0,
        exclude_images: str | int | Sequence[str | int] | None = None,
        data_prefix: Mapping = dict(img_path=''),
        pipeline: Sequence[dict | Callable] = (),
        **kwargs: Any,
    ) -> None:
        if set(data_prefix) != {'img_path'}:
            raise ValueError(f'data_prefix must be dict(img_path=...), but got {dict(data_prefix)}')
        if isinstance(exclude_images, (str, int)):
            exclude_images = (exclude_images,)
        self.seed, self.exclude_images = seed, tuple(exclude_images or ())
        self.left_out: dict[str, list[str]] = {}
        super().__init__(data_prefix=dict(data_prefix), pipeline=list(pipeline), **kwargs)

    def leave_out(self, reason: str, name: str) -> None:
        """Counts and names what is no item."""
        self.left_out.setdefault(reason, []).append(name)

    def usable_text(self, value: object, where: str, name: str = '') -> str:
        """The text, or ``''`` for what is none and is left out; see :func:`genseg_mm.files.usable_text`.

        Args:
            value: What the file has.
            where: File and place, for the message of an error.
            name: Under which it is left out; ``where`` by default.

        Raises:
            ValueError: If the value is of another type.
        """
        text, reason = usable_text(value, where)
        if reason:
            self.leave_out(reason, name or where)
        return text

    def log_left_out(self) -> None:
        """Logs how much was left out, and why."""
        for reason, names in self.left_out.items():
            self._log(f'left out {len(names)} {reason}: {short_repr(sorted(names))}', logging.WARNING)

    def drop_excluded(self, entries: list, image_ids: Callable[[Any], Collection], what: str = 'pictures') -> list:
        """The entries without those of ``exclude_images``; how many those are is logged.

        Args:
            entries: Of training.
            image_ids: Of an entry, the ids by which COCO may know its picture.
            what: Name of the entries, for messages.

        Raises:
            ValueError: If none is left.
        """
        if not self.exclude_images:
            return entries
        excluded = evaluation_image_ids(self.exclude_images, self.data_root or '')
        kept = [entry for entry in entries if excluded.isdisjoint(image_ids(entry))]
        self._log(f'exclude_images leaves out {len(entries) - len(kept)} of {len(entries)} {what}')
        if entries and not kept:
            raise ValueError(f'{self._name}: exclude_images leaves nothing of {len(entries)} {what}')
        return kept

    def check_pictures(self, paths: Collection[str], layout: str, is_error: bool) -> None:
        """Counts picture files that do not exist, in an error or a warning.

        Args:
            paths: Of all pictures.
            layout: What is expected, for the message.
            is_error: Whether none may be missing.

        Raises:
            FileNotFoundError: If one is missing and none may be, or the folder of the pictures does not exist.
        """
        folder = self.data_prefix['img_path']
        if not os.path.isdir(folder):
            raise FileNotFoundError(f'data_prefix img_path: folder {folder!r} does not exist, expected {layout}')
        files = ExistingFiles()
        missing = [path for path in paths if path not in files]
        if not missing:
            return
        message = f'{len(missing)} of {len(paths)} pictures are missing, the first is {min(missing)}'
        if is_error:
            raise FileNotFoundError(f'{message}; {self.ann_file} lists it')
        self._log(message, logging.WARNING)

    @property
    def _name(self) -> str:
        """For messages."""
        return type(self).__name__

    def _log(self, message: str, level: int = logging.INFO) -> None:
        print_log(f'{self._name}: {message}', 'current', level)

    def full_init(self) -> None:
        """See ``BaseDataset``."""
        if not self._fully_initialized:
            super().full_init()
            self._count_visits()

    def get_subset_(self, indices: Sequence[int] | int) -> None:
        """See ``BaseDataset``."""
        super().get_subset_(indices)
        self._count_visits()

    def get_subset(self, indices: Sequence[int] | int) -> 'CountedVisits':
        """See ``BaseDataset``."""
        subset = super().get_subset(indices)
        subset._count_visits()
        return subset

    @property
    def _is_drawn(self) -> bool:
        """Whether visits count: in training."""
        return not self.test_mode

    def get_data_info(self, idx: int) -> dict:
        """Item ``idx``; where visits count, with its ``visit``."""
        info = super().get_data_info(self._position(idx))
        if self._is_drawn:
            info['visit'] = self._visit(idx)
        return info

    def _choose(self, info: dict, num: int) -> int:
        """One of ``num`` choices for an item with a visit, by the subclass's ``seed``."""
        generator = np.random.default_rng([self.seed, info['sample_idx'], info['visit']])
        return int(generator.integers(num))

    def _with_drawn_sentence(self, info: dict) -> dict:
        """An item with one of its ``sentences`` as the text, drawn anew at each visit."""
        drawn = self._choose(info, len(info['sentences']))
        numbers = info.get('sent_ids', range(len(info['sentences'])))
        return dict(info, text=info['sentences'][drawn], sent_id=numbers[drawn])

    def _count_visits(self) -> None:
        # In shared memory: loader workers that are started anew in each epoch must not start to
        # count anew, or every epoch would show the same sentences.
        self._visits = torch.zeros(len(self), dtype=torch.int64).share_memory_()

    def _position(self, idx: int) -> int:
        """Index from the front.

        Raises:
            IndexError: If it lies outside; MMEngine would read another item.
        """
        index = int(idx) + (len(self) if idx < 0 else 0)
        if not 0 <= index < len(self):
            raise IndexError(f'index {int(idx)} is outside of a dataset of {len(self)} items')
        return index

    def _visit(self, idx: int) -> int:
        """Number of this visit to item ``idx``."""
        visit = getattr(idx, 'visit', current_visit())
        if visit is not None:
            return int(visit)
        index = self._position(idx)
        visit = int(self._visits[index])
        self._visits[index] += 1
        return visit
