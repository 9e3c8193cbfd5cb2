"""Rows of Hugging Face's ``datasets`` that hold pictures and their instances; the package is an extra.

A picture within a row has the address ``rows://<table>/<row>/<column>``, which MMEngine's file client reads while its
table is open in the process: ``LoadImage`` and ``read_instance_map`` take it like a path. Nothing of a row is decoded
but by them.
"""

import os
import re
from pathlib import Path
from reprlib import repr as short_repr
from typing import Any

from mmengine.fileio.backends import BaseStorageBackend, register_backend

from genseg_mm.datasets.own_splits import DRAWN
from genseg_mm.datasets.row_masks import as_segmentation
from genseg_mm.datasets.segmentations import encode_segmentation
from genseg_mm.files import read_bytes
from genseg_mm.files.image_headers import read_header

MAX_PICTURE_BYTES = 2**30
_ALIASES = dict(val=('val', 'validation', 'valid'))
_ADDRESS = re.compile(r'rows://([^/]+)/(\d+)[^/]*/(.+)', re.DOTALL)
_open: dict[str, 'PictureRows'] = {}  # by the name of the table


def open_rows(source: Any, split: str | None) -> tuple[Any, bool]:
    """A table of rows, and whether its split is still to be drawn.

    Args:
        source: Folder that ``save_to_disk`` wrote, or a ``datasets.Dataset`` or ``DatasetDict``.
        split: As of ``InstanceFolderDataset``.

    Raises:
        FileNotFoundError: If there is no such folder.
        ImportError: If ``datasets`` is missing.
        ValueError: If it is no such folder or object, or has no such split.
    """
    datasets = _package(source)
    name = 'the rows'
    if isinstance(source, (str, os.PathLike)):
        name = str(source)
        if not os.path.isdir(source):
            raise FileNotFoundError(f'there is no folder {source}: expected one that save_to_disk of datasets wrote')
        try:
            source = datasets.load_from_disk(str(source))
        except Exception as error:  # of damaged folders: those of pyarrow, json, fsspec
            reason = ' '.join(str(error).split())[:200]
            raise ValueError(
                f'{name}: expected a folder that save_to_disk of datasets wrote, but got: {reason}'
            ) from error
    if isinstance(source, datasets.DatasetDict):
        wanted = next((own for own in _ALIASES.get(split, (split,)) if own in source), None)
        has_val = any(own in source for own in _ALIASES['val'])
        if wanted is not None and (split != 'train' or has_val):
            return source[wanted], False
        if split in DRAWN and 'train' in source and not has_val:
            return source['train'], True
        if split is None and len(source) == 1:
            return next(iter(source.values())), False
        raise ValueError(f'{name}: expected one of the splits {list(source)}, but got split={split!r}')
    if not isinstance(source, datasets.Dataset):
        raise ValueError(f'rows must be a datasets.Dataset, but got {type(source).__name__}')
    return source, split in DRAWN


class PictureRows:
    """A table whose rows hold a picture and its instances.

    Args:
        table: A ``datasets.Dataset``.
        image: Column of the picture, of the feature ``Image``.
        annotations: Column of its map of ids, of the feature ``Image``; or of a list of its instances, an RLE or COCO
            polygons each. Of a column of dicts ``'objects.segmentation'``.

    Raises:
        ValueError: If there are no such columns.
    """

    def __init__(self, table: Any, image: str, annotations: str) -> None:
        datasets = _package(table)
        columns = table.column_names
        for name in (image, annotations.partition('.')[0]):
            if name not in columns:
                raise ValueError(f'expected the columns {image!r} and {annotations!r}, but got {columns}')
        if not isinstance(table.features[image], datasets.Image):
            raise ValueError(f'column {image!r}: expected pictures (Image), but got {table.features[image]}')
        self.is_map = isinstance(table.features.get(annotations), datasets.Image)
        for name in (image, annotations) if self.is_map else (image,):
            table = table.cast_column(name, datasets.Image(decode=False))
        self.table, self.image, self.annotations = table.with_format(None), image, annotations
        self.key = str(table._fingerprint)
        _open[self.key] = self

    def __setstate__(self, state: dict) -> None:
        # In a worker that was started anew.
        self.__dict__.update(state)
        _open[self.key] = self

    def __len__(self) -> int:
        return len(self.table)

    def name(self, number: int) -> str:
        """Of a row, in its order."""
        return f'{number:08d}'

    def pair(self, number: int) -> dict:
        """``img_path`` and ``instance_map_path``, or ``instances`` and the size of the picture.

        Raises:
            ValueError: If the row is wrong; names it.
        """
        address = f'rows://{self.key}/{self.name(number)}/'
        pair = dict(img_path=address + self.image)
        if self.is_map:
            return dict(pair, instance_map_path=address + self.annotations)
        where = f'row {number}'
        value = self.table[number]
        for key in self.annotations.split('.'):
            value = value.get(key) if isinstance(value, dict) else None
        if not isinstance(value, list):
            raise ValueError(f'{where}: expected a list of instances as {self.annotations!r}, got {short_repr(value)}')
        header = read_header(self.read(number, self.image), f'{where}, {self.image}')
        height, width = header.height, header.width
        if header.orientation > 4:
            height, width = width, height
        instances = [
            self._instance(own, height, width, f'{where}, instance {place}') for place, own in enumerate(value)
        ]
        return dict(pair, height=height, width=width, instances=instances)

    @staticmethod
    def _instance(own: Any, height: int, width: int, where: str) -> dict:
        from pycocotools import mask as mask_utils

        if not isinstance(own, (list, dict)):
            raise ValueError(f'{where}: expected an RLE or polygons, but got {short_repr(own)}')
        segmentation = as_segmentation(own, where)
        rle = encode_segmentation(segmentation, height, width, where)
        x, y, box_width, box_height = mask_utils.toBbox(rle).tolist()
        box = [x, y, x + box_width, y + box_height]
        return dict(bbox=box, bbox_label=0, ignore_flag=0, area=float(mask_utils.area(rle)), mask=segmentation)

    def read(self, number: int, column: str) -> bytes:
        """The bytes of a picture.

        Raises:
            ValueError: If the row has none.
        """
        cell = self.table.select_columns([column])[number][column] or {}
        if cell.get('bytes') is not None:
            return cell['bytes']
        if not cell.get('path'):
            raise ValueError(f'row {number}, {column}: expected a picture, but got nothing')
        return read_bytes(cell['path'], MAX_PICTURE_BYTES)


@register_backend('genseg_rows', prefixes='rows', force=True)
class RowsBackend(BaseStorageBackend):
    """Reads a picture of an open table by its address (see the module)."""

    def get(self, filepath: str | Path) -> bytes:
        """The bytes of a picture.

        Raises:
            ValueError: If the address is wrong, or its table is not open in this process.
        """
        found = _ADDRESS.fullmatch(str(filepath))
        if found is None or found[1] not in _open:
            raise ValueError(f'expected an address rows://<table>/<row>/<column> of an open table, but got {filepath}')
        return _open[found[1]].read(int(found[2]), found[3])

    def get_text(self, filepath: str | Path, encoding: str = 'utf-8') -> str:
        """The bytes as text."""
        return self.get(filepath).decode(encoding)


def _package(source: Any) -> Any:
    try:
        import datasets
    except ImportError as error:
        what = f' of {source}' if isinstance(source, (str, os.PathLike)) else ''
        raise ImportError(f"rows{what} need the package datasets: pip install 'genseg_mm[huggingface]'") from error
    return datasets


def image_columns(table: Any) -> tuple[str, str]:
    """The columns that look like those of a picture and of its map of ids, or of its instances.

    Raises:
        ValueError: If there are none.
    """
    datasets = _package(table)
    pictures = [name for name, kind in table.features.items() if isinstance(kind, datasets.Image)]
    names = ('mask', 'masks', 'instances', 'instance_map', 'annotation', 'annotations', 'label', 'segmentation', 'ids')
    annotations = [name for name in names if name in table.column_names]
    annotations += [name for name in pictures[1:] if name not in annotations]
    images = [name for name in pictures if name not in annotations]
    if not images or not annotations:
        raise ValueError(
            f'expected a column of pictures and one of maps of ids or of instances, but got {table.column_names}'
        )
    return images[0], annotations[0]
