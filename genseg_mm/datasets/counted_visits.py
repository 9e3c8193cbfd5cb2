"""Datasets that show one of several texts: which, how often each was handed out before, and which are none."""

import logging
from collections.abc import Sequence
from reprlib import repr as short_repr
from typing import Any

import numpy as np
import torch
from mmengine.dataset import BaseDataset
from mmengine.logging import print_log

from genseg_mm.datasets.seeded_access import SeededAccess, current_visit
from genseg_mm.files import usable_text

_CHOICES = ('all', 'random', 'first')


def checked_choice(name: str, choice: str, test_mode: bool) -> str:
    """Which of several texts a data set shows: 'all', 'first' or, in training, 'random'.

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
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self.left_out: dict[str, list[str]] = {}
        super().__init__(*args, **kwargs)

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

    def _log(self, message: str, level: int = logging.INFO) -> None:
        print_log(f'{type(self).__name__}: {message}', 'current', level)

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
            raise IndexError(f'index {int(idx)} is outside of a data set of {len(self)} items')
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
