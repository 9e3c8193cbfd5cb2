"""BSDS500: photographs and the boundaries that several people saw in each."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from mmengine.dataset import BaseDataset

from genseg_mm.datasets.annotation_files import where_configs_look
from genseg_mm.datasets.published_counts import Count
from genseg_mm.registry import DATASETS

SPLITS = ('train', 'val', 'test')
NUM_TEST_MAPS = 1_063  # of all annotators
INNER_FOLDERS = ('BSDS500/data', 'data', '.', 'BSR/BSDS500/data', 'BSDS500/BSDS500/data')
NUM_NAMED = 3  # examples in a message


@DATASETS.register_module()
class BSDS500Dataset(BaseDataset):
    """BSDS500 (Arbelaez et al., PAMI 2011), 481 x 321 or 321 x 481, 4 to 9 annotators for each picture.

    ``BSDS500/data/images/<split>/<id>.jpg`` and ``BSDS500/data/groundTruth/<split>/<id>.mat``, as the authors publish
    them. Other files, such as the ``Thumbs.db`` there, are left alone.

    Items have ``img_path``, ``img_id`` (the number as text), ``boundaries_path`` (read by :class:`LoadBoundaries`),
    ``subset`` (the split) and ``sample_idx``, in the order of their numbers.

    Args:
        data_root: The folder that holds ``BSDS500/data``, or that folder itself or its parent.
        split: 'train', 'val' or 'test'.
        pipeline: Transforms.
        **kwargs: Further keyword arguments of MMEngine's ``BaseDataset`` (test_mode, indices, metainfo, ...).

    Raises:
        FileNotFoundError: If there is no such folder, or the other file of a pair is missing.
        ValueError: If the split is unknown or has no picture.
    """

    METAINFO = dict(classes=('boundary',), palette=[[220, 20, 60]])
    PUBLISHED = dict(train=200, val=100, test=200)  # pictures

    def __init__(self, data_root: str, split: str = 'test', pipeline: Sequence = (), **kwargs: Any) -> None:
        if split not in SPLITS:
            raise ValueError(f'split must be one of {SPLITS}, but got {split!r}')
        self.split = split
        super().__init__(data_root=str(data_root), pipeline=list(pipeline), **kwargs)

    def load_data_list(self) -> list[dict]:
        """Lists the pairs by their numbers."""
        folder = self._folder()
        pictures = _files(folder / 'images' / self.split, '.jpg')
        truths = _files(folder / 'groundTruth' / self.split, '.mat')
        for have, lack, what in ((pictures, truths, '.mat'), (truths, pictures, '.jpg')):
            missing = sorted(set(have) - set(lack), key=_number)
            if missing:
                names = ', '.join(f'{name}{what}' for name in missing[:NUM_NAMED])
                raise FileNotFoundError(
                    f'{type(self).__name__}: {len(missing)} of {len(have)} {what} files of {self.split} are missing in '
                    f'{folder}, such as {names}'
                )
        if not pictures:
            raise ValueError(f'{type(self).__name__} found no picture in {folder / "images" / self.split}')
        return [
            dict(img_path=str(pictures[name]), boundaries_path=str(truths[name]), img_id=name, subset=self.split)
            for name in sorted(pictures, key=_number)
        ]

    def published_counts(self) -> Iterator[Count]:
        """What a copy has beside what is published; see ``genseg_mm/datasets/published_counts.py``."""
        yield Count(len(self), 'pictures', self.PUBLISHED[self.split])

    def _folder(self) -> Path:
        root = Path(self.data_root)
        for inner in INNER_FOLDERS:
            if (root / inner / 'images').is_dir() and (root / inner / 'groundTruth').is_dir():
                return root / inner
        raise FileNotFoundError(
            f'{type(self).__name__}: expected BSDS500/data/images and BSDS500/data/groundTruth below data_root, but '
            f'found neither these nor data/images in {root}. {where_configs_look()}'
        )


def _files(folder: Path, suffix: str) -> dict[str, Path]:
    """Files of a folder by name without suffix; none where there is no such folder. Hidden ones are no data."""
    return {path.stem: path for path in folder.glob(f'*{suffix}') if not path.name.startswith('.')}


def _number(name: str) -> tuple[int, str]:
    return (int(name) if name.isdecimal() else 0, name)
