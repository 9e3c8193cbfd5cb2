"""Datasets of images with one file of instance ids each."""

import logging
import os
from abc import abstractmethod
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import Any

from mmengine.dataset import BaseDataset
from mmengine.logging import print_log

from genseg_mm.datasets.annotation_files import ExistingFiles
from genseg_mm.datasets.counted_warning import warn_counted
from genseg_mm.datasets.seeded_access import SeededAccess

MISSING = ('error', 'skip')
EMPTY = ('keep', 'redraw', 'error')
NUM_NAMED = 3  # examples in a message


class InstanceMapDataset(SeededAccess, BaseDataset):
    """Images, each with a file of instance ids; a dataset says how its folder lists them.

    Items (before the pipeline): ``img_path``, ``instance_map_path`` (read by ``LoadInstanceMap``) or ``instances`` in
    mmdet's form, ``img_id``, ``ignore_background`` (whether what has no id may still be an object: metainfo of the
    loss), ``sample_idx``, and what :meth:`list_pairs` adds.

    ``skipped`` names every pair that is not in the dataset, by reason: ``{'no instance map': [path, ...]}``.

    Args:
        data_root: Folder of the dataset as it was downloaded.
        ignore_background: See above.
        missing: What a pair with a missing file means: ``'error'``, or ``'skip'`` (counted, announced and named in
            ``skipped``).
        empty: What a sample means whose ``gt_instance_map`` has no instance after the pipeline: ``'keep'`` it (with
            a labelled background it still teaches what is black; with an ignored one its loss is zero; the reference
            does this), ``'redraw'`` another item in its place (in training), or ``'error'``. Kept and replaced
            samples are counted in ``num_empty`` of each process and announced when that is 1, 10, 100, ...
        subset: Name of the items' part in an evaluation of several.
        pipeline: Transforms.
        **kwargs: Further keyword arguments of MMEngine's ``BaseDataset`` (test_mode, indices, metainfo, ...).

    Raises:
        FileNotFoundError: If the folder or, with ``missing='error'``, a file of a pair does not exist.
        ValueError: If the folder has no pair; or at an empty sample with ``empty='error'``.
    """

    METAINFO = dict(classes=('background', 'object'), palette=[(70, 130, 180), (220, 20, 60)])

    def __init__(
        self,
        data_root: str,
        ignore_background: bool = False,
        missing: str = 'error',
        empty: str = 'keep',
        subset: str | None = None,
        pipeline: Sequence = (),
        **kwargs: Any,
    ) -> None:
        if missing not in MISSING:
            raise ValueError(f'missing must be one of {MISSING}, but got {missing!r}')
        if empty not in EMPTY:
            raise ValueError(f'empty must be one of {EMPTY}, but got {empty!r}')
        if empty == 'redraw' and kwargs.get('test_mode'):
            raise ValueError("empty='redraw' is for training, but got test_mode=True")
        self.ignore_background, self.subset = ignore_background, subset
        self.missing, self.empty, self.num_empty = missing, empty, 0
        self.skipped: dict[str, list[str]] = {}
        super().__init__(data_root=str(data_root), pipeline=list(pipeline), **kwargs)

    @abstractmethod
    def list_pairs(self) -> Iterator[dict]:
        """Yields ``img_path``, ``instance_map_path`` (or ``instances``) and further keys, in a fixed order.

        Either path may name a file that does not exist. Pairs that the dataset's own settings leave out (too few
        instances, say) are reported by :meth:`skip` in place of being yielded.
        """

    def skip(self, path: str | Path, reason: str) -> None:
        """Notes a pair that is left out.

        A reason that starts with "no " is a missing file or folder, which ``missing='error'`` does not let pass.
        """
        self.skipped.setdefault(reason, []).append(str(path))

    def load_data_list(self) -> list[dict]:
        """Lists the pairs, in the order of :meth:`list_pairs`."""
        if not Path(self.data_root).is_dir():
            raise FileNotFoundError(
                f'{type(self).__name__} expects a folder at data_root, but there is none at {self.data_root}'
            )
        self.skipped = {}
        items, files = [], ExistingFiles()
        for pair in self.list_pairs():
            absent = [
                (pair[key], reason)
                for key, reason in (('img_path', 'no image'), ('instance_map_path', 'no instance map'))
                if key in pair and str(pair[key]) not in files
            ]
            for path, reason in absent:
                self.skip(path, reason)
            if not absent:
                item = dict(pair, ignore_background=self.ignore_background)
                if self.subset is not None:
                    item['subset'] = self.subset
                items.append({'img_id': len(items), **item})
        self._check(items)
        return items

    def _check(self, items: list[dict]) -> None:
        name = type(self).__name__
        texts = {
            reason: f'{name}: {len(paths)} left out of {self.data_root}: {reason}, such as '
            + ', '.join(paths[:NUM_NAMED])
            for reason, paths in self.skipped.items()
        }
        absent = [text for reason, text in texts.items() if reason.startswith('no ')]
        if absent and self.missing == 'error':
            raise FileNotFoundError('; '.join(absent) + "; missing='skip' goes on without them")
        for text in texts.values():
            print_log(text, logger='current', level=logging.WARNING)
        if not items:
            raise ValueError(f'{name} found no pair of image and instance map in {self.data_root}')

    def prepare_data(self, idx: int) -> dict | None:
        """The item after the pipeline; None, for which another one is drawn, where ``empty`` says so."""
        data = super().prepare_data(idx)
        if not _has_no_instance(data):
            return data
        item = self.get_data_info(idx)
        path = item.get('instance_map_path', item['img_path'])
        if self.empty == 'error':
            raise ValueError(f"{path}: no instance after the pipeline, which empty='error' refuses")
        self.num_empty += 1
        done = 'keeps it' if self.empty == 'keep' else 'takes another sample in its place'
        warn_counted(
            f'{type(self).__name__}: no instance in {path} after the pipeline; empty={self.empty!r} {done}',
            self.num_empty,
        )
        return None if self.empty == 'redraw' else data


def named_files(folder: Path, suffixes: Collection[str]) -> set[str]:
    """Names without ending of the files that end so; hidden ones (``._*`` of macOS) are no data."""
    return {
        os.path.splitext(name)[0]
        for name in os.listdir(folder)
        if os.path.splitext(name)[1] in suffixes and not name.startswith('.')
    }


def _has_no_instance(data: dict | None) -> bool:
    """Whether a sample, packed or not, has an instance map with nothing on it."""
    if data is None:
        return False
    if 'gt_instance_map' in data:
        return not (data['gt_instance_map'] > 0).any()
    packed = getattr(data.get('data_samples'), 'gt_instance_map', None)
    return packed is not None and not bool((packed.data > 0).any())
