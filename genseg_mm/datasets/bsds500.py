"""BSDS500: photographs and the boundaries that several people saw in each."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from mmcv.transforms import BaseTransform
from mmengine.dataset import BaseDataset

from genseg_mm.datasets.annotation_files import named_files, where_configs_look
from genseg_mm.datasets.published_counts import Count
from genseg_mm.files.arrays import read_boundaries
from genseg_mm.registry import DATASETS, TRANSFORMS

SPLITS = ('train', 'val', 'test')
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
        images, ground_truth = folder / 'images' / self.split, folder / 'groundTruth' / self.split
        pictures, truths = named_files(images, ('.jpg',)), named_files(ground_truth, ('.mat',))
        for have, lack, what in ((pictures, truths, '.mat'), (truths, pictures, '.jpg')):
            missing = sorted(have - lack, key=_number)
            if missing:
                names = ', '.join(f'{name}{what}' for name in missing[:NUM_NAMED])
                raise FileNotFoundError(
                    f'{type(self).__name__}: {len(missing)} of {len(have)} {what} files of {self.split} are missing in '
                    f'{folder}, such as {names}'
                )
        if not pictures:
            raise ValueError(f'{type(self).__name__} found no picture in {images}')
        return [
            dict(
                img_path=str(images / f'{name}.jpg'),
                boundaries_path=str(ground_truth / f'{name}.mat'),
                img_id=name,
                subset=self.split,
            )
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


@TRANSFORMS.register_module()
class LoadBoundaries(BaseTransform):
    """Loads ``results['boundaries_path']``, a .mat file of BSDS500.

    Added: gt_boundaries (N annotators, H, W) uint8 in {0, 1}, at the original size. No transform resizes or flips it:
    put it after Resize in the test pipeline.

    Raises:
        FileNotFoundError: If the file does not exist.
        ValueError: If there is no boundaries_path, or the file is damaged or of another size than the picture.
    """

    def transform(self, results: dict) -> dict:
        """Adds the maps."""
        if 'boundaries_path' not in results:
            raise ValueError(
                f"LoadBoundaries needs 'boundaries_path' in the sample, but got the keys {sorted(results)}"
            )
        boundaries = read_boundaries(results['boundaries_path'])
        expected = tuple(results.get('ori_shape', boundaries.shape[1:]))
        if boundaries.shape[1:] != expected:
            raise ValueError(
                f'{results["boundaries_path"]}: expected the size of the image {results.get("img_path", "")} '
                f'{expected}, but got {boundaries.shape[1:]}'
            )
        results['gt_boundaries'] = boundaries
        return results

    def __repr__(self) -> str:
        return f'{type(self).__name__}()'


def _number(name: str) -> tuple[int, str]:
    return (int(name) if name.isdecimal() else 0, name)
