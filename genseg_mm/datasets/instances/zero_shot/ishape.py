"""iShape: thin, hollow and branching objects that cross one another, for zero-shot point prompts."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from genseg_mm.datasets.instances.coco_instances import CocoInstanceDataset
from genseg_mm.datasets.instances.instance_map_dataset import InstanceMapDataset, named_files
from genseg_mm.datasets.published_counts import Count
from genseg_mm.registry import DATASETS

SUBSETS = ('antenna', 'branch', 'fence', 'hanger', 'log', 'wire')
SPLITS = ('train', 'val')
SOURCES = ('instance_map', 'coco')
ANNOTATIONS = 'coco_format-mask_encoding=rle-instances_2017.json'
IMAGE_SUFFIXES = ('.jpg', '.png')


@DATASETS.register_module()
class IShapeDataset(InstanceMapDataset):
    """One of the six sub-datasets of iShape (Yang et al., 2021), 1024 x 1024.

    Layout: ``<data_root>/<subset>/<split>/image/`` with ``instance_map/<name>.png`` and
    ``coco_format-mask_encoding=rle-instances_2017.json``. The links of ``coco_format/`` (named train2017 in val, too)
    point to the same files; they are not needed, and archive tools often lose them.

    **Stated by the source** (its README): maps are 16-bit PNG, pixel value x is instance x; the json holds RLE masks,
    since outlines cannot say holes; each sub-dataset has one foreground class. 12,870 pictures, 175,840 instances.

    **Ours**: 0 is the background; all six sub-datasets are one benchmark, with one ``subset`` each.

    **Unknown**: sizes of train and val; whether a picture and its map have the same name up to the ending (expected
    here, an error names what has no partner); split of gen2seg's evaluation (arXiv 2505.15263).

    ``img_id`` is ``<subset>/<split>/<name>``. In the map every pixel is one instance's. With ``source='coco'`` items
    have ``instances`` as those of ``CocoInstanceDataset``, for ``mmdet.CocoMetric``.

    Args:
        data_root: Folder ``ishape_dataset``.
        subset: ``'antenna'`` (photographs), ``'branch'``, ``'fence'``, ``'hanger'``, ``'log'`` or ``'wire'``.
        split: ``'train'``, ``'val'``, or None for both.
        source: ``'instance_map'`` or ``'coco'``.
        **kwargs: As for ``InstanceMapDataset``.

    Raises:
        FileNotFoundError: If a folder, a file of a pair or the json is missing.
        ValueError: If an argument or an entry of the json is wrong.
    """

    # Pictures and instances of train and val together (12,870 and 175,840 in all; paper and README). The sizes of
    # train and val are not published.
    PUBLISHED = dict(
        antenna=(370, 3_036),
        branch=(2_500, 26_046),
        fence=(2_500, 7_870),
        hanger=(2_500, 49_275),
        log=(2_500, 72_144),
        wire=(2_500, 17_469),
    )

    def __init__(
        self,
        data_root: str,
        subset: str = 'antenna',
        split: str | None = 'val',
        source: str = 'instance_map',
        **kwargs: Any,
    ) -> None:
        for name, value, known in (
            ('subset', subset, SUBSETS),
            ('split', split, (*SPLITS, None)),
            ('source', source, SOURCES),
        ):
            if value not in known:
                raise ValueError(f'{name} must be one of {known}, but got {value!r}')
        self.split, self.source = split, source
        super().__init__(data_root=data_root, subset=subset, **kwargs)

    def published_items(self) -> int | None:
        """Pictures of train and val together; of each alone no number is published."""
        return self.PUBLISHED[self.subset][0] if self.split is None else None

    def published_counts(self) -> Iterator[Count]:
        """What a copy has beside what is published; see ``genseg_mm/datasets/published_counts.py``."""
        pictures, instances = self.PUBLISHED[self.subset]
        if self.split is None:
            yield Count(len(self), 'pictures', pictures)
            if self.source == 'coco':
                items = map(self.get_data_info, range(len(self)))
                yield Count(sum(len(item['instances']) for item in items), 'instances', instances)
            return
        folder = Path(self.data_root, self.subset)
        found = [_num_files(folder / split / 'image') for split in SPLITS]
        if 0 not in found:  # a copy of val alone cannot be checked: only the sum is published
            yield Count(sum(found), 'pictures', pictures, note='train and val together')

    def list_pairs(self) -> Iterator[dict]:
        """See ``InstanceMapDataset``."""
        for split in SPLITS if self.split is None else (self.split,):
            folder = Path(self.data_root) / self.subset / split
            if not (folder / 'image').is_dir():
                self.skip(folder / 'image', 'no folder')
                continue
            pairs = self._annotated if self.source == 'coco' else self._mapped
            for pair in pairs(folder):
                stem = Path(pair['img_path']).stem
                yield dict(pair, img_id=f'{self.subset}/{split}/{stem}')

    def _mapped(self, folder: Path) -> Iterator[dict]:
        images = named_files(folder / 'image', IMAGE_SUFFIXES)
        maps = folder / 'instance_map'
        if not maps.is_dir():
            self.skip(maps, 'no folder')
            return
        for name in sorted(images | named_files(maps, ('.png',))):
            found = (folder / 'image' / f'{name}{suffix}' for suffix in IMAGE_SUFFIXES)
            image = next((path for path in found if path.is_file()), None)
            yield dict(
                img_path=str(image or folder / 'image' / f'{name}{IMAGE_SUFFIXES[0]}'),
                instance_map_path=str(maps / f'{name}.png'),
                ids_are_indices=True,
            )

    def _annotated(self, folder: Path) -> Iterator[dict]:
        dataset = CocoInstanceDataset(
            data_root=str(folder), ann_file=ANNOTATIONS, data_prefix=dict(img='image/'), serialize_data=False
        )
        for index in range(len(dataset)):
            item = dataset.get_data_info(index)
            yield {key: item[key] for key in ('img_path', 'height', 'width', 'instances')}


def _num_files(folder: Path) -> int:
    if not folder.is_dir():
        return 0
    return sum(not path.name.startswith('.') for path in folder.iterdir())
