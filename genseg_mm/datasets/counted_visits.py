"""Datasets of pictures with texts: which text an access shows, which texts are none, which pictures are left out."""

import logging
import os
from collections.abc import Callable, Collection, Mapping, Sequence
from reprlib import repr as short_repr
from typing import Any

import numpy as np
import torch
from mmengine.dataset import BaseDataset
from mmengine.logging import print_log

from genseg_mm.datasets.annotation_files import ExistingFiles
from genseg_mm.datasets.leakage import evaluation_image_ids
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

    # Of referring and of caption data sets: the parts of a MixedDataset must agree.
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
