"""Datasets of images with one file of instance ids each."""

from abc import abstractmethod
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from mmengine.dataset import BaseDataset
from mmengine.logging import print_log

MISSING = ('error', 'skip')
NUM_NAMED = 3  # examples in a message


class InstanceMapDataset(BaseDataset):
    """Images, each with a file of instance ids; a dataset says how its folder lists them.

    Items (before the pipeline): ``img_path``, ``instance_map_path`` (read by ``LoadInstanceMap``), ``img_id``,
    ``ignore_background`` (whether what has no id may still be an object: metainfo of the loss), ``sample_idx``, and
    what :meth:`list_pairs` adds.

    ``skipped`` names every pair that is not in the dataset, by reason: ``{'no instance map': [path, ...]}``.

    Args:
        data_root: Folder of the dataset as it was downloaded.
        ignore_background: See above.
        missing: What a pair with a missing file means: ``'error'``, or ``'skip'`` (counted, announced and named in
            ``skipped``).
        pipeline: Transforms.
        **kwargs: Further keyword arguments of MMEngine's ``BaseDataset`` (test_mode, indices, metainfo, ...).

    Raises:
        FileNotFoundError: If the folder or, with ``missing='error'``, a file of a pair does not exist.
        ValueError: If the folder has no pair.
    """

    METAINFO = dict(classes=('object',), palette=[[220, 20, 60]])

    def __init__(
        self,
        data_root: str,
        ignore_background: bool = False,
        missing: str = 'error',
        pipeline: Sequence = (),
        **kwargs: Any,
    ) -> None:
        if missing not in MISSING:
            raise ValueError(f'missing must be one of {MISSING}, but got {missing!r}')
        self.ignore_background = ignore_background
        self.missing = missing
        self.skipped: dict[str, list[str]] = {}
        super().__init__(data_root=str(data_root), pipeline=list(pipeline), **kwargs)

    @abstractmethod
    def list_pairs(self) -> Iterator[dict]:
        """Yields ``img_path``, ``instance_map_path`` and further keys of every pair, in a fixed order.

        Either path may name a file that does not exist. Pairs that the dataset's own settings leave out (too few
        instances, say) are reported by :meth:`skip` in place of being yielded.
        """

    def skip(self, path: str | Path, reason: str) -> None:
        """Notes a pair that is left out."""
        self.skipped.setdefault(reason, []).append(str(path))

    def load_data_list(self) -> list[dict]:
        """Lists the pairs, in the order of :meth:`list_pairs`."""
        if not Path(self.data_root).is_dir():
            raise FileNotFoundError(
                f'{type(self).__name__} expects a folder at data_root, but there is none at {self.data_root}'
            )
        self.skipped = {}
        items = []
        for pair in self.list_pairs():
            absent = [
                (pair[key], reason)
                for key, reason in (
                    ('img_path', 'no image'),
                    ('instance_map_path', 'no instance map'),
                )
                if not Path(pair[key]).is_file()
            ]
            for path, reason in absent:
                self.skip(path, reason)
            if not absent:
                item = dict(pair, ignore_background=self.ignore_background)
                items.append({'img_id': len(items), **item})
        self._check(items)
        return items

    def _check(self, items: list[dict]) -> None:
        name = type(self).__name__
        for reason, paths in self.skipped.items():
            text = (
                f'{name}: {len(paths)} left out of {self.data_root}: {reason}, such as '
                + ', '.join(paths[:NUM_NAMED])
            )
            if reason.startswith('no ') and self.missing == 'error':
                raise FileNotFoundError(f"{text}; missing='skip' goes on without them")
            print_log(text, logger='current', level=30)
        if not items:
            raise ValueError(f'{name} found no pair of image and instance map in {self.data_root}')
