"""Instances of one's own: a folder of pictures with maps of ids, COCO's json, YOLO's polygons, or rows of a table."""

import os
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

from pycocotools import mask as mask_utils

from genseg_mm.datasets.annotation_files import (
    ExistingFiles,
    folders_below,
    is_integer,
    picture_path,
    where_configs_look,
)
from genseg_mm.datasets.coco_instances import CocoInstanceDataset
from genseg_mm.datasets.instance_maps import InstanceMapDataset
from genseg_mm.datasets.own_splits import DEFAULT_SHARE, DRAWN, checked_share, drawn_split
from genseg_mm.datasets.picture_rows import PictureRows, open_rows
from genseg_mm.datasets.row_masks import as_segmentation
from genseg_mm.datasets.segmentations import encode_segmentation, label_rule
from genseg_mm.datasets.yolo_polygons import YoloData, folder_of, label_path, read_data_yaml, read_labels
from genseg_mm.files import has_lone_surrogate, read_lines
from genseg_mm.files.image_headers import read_header
from genseg_mm.registry import DATASETS

FORMATS = dict(maps='masks', coco='annotations.json', yolo='labels', rows='mask')  # -> annotations by default
IDS = ('index', 'rgb', 'components')
MARK_16 = 0xFFFF  # white, where a mask was saved in 16 bits
PICTURES = ('.jpg', '.jpeg', '.png', '.webp', '.bmp', '.tif', '.tiff')
MAPS = ('.png', '.tif', '.tiff', '.bmp', '.hdf5', '.h5')  # what loses nothing
YAML = ('.yaml', '.yml')


@DATASETS.register_module()
class InstanceFolderDataset(InstanceMapDataset):
    """Pictures of one's own with their instances, in one of four formats.

    - ``'maps'``: every picture has a map of ids of the same name, ``images/a/b.jpg`` and ``masks/a/b.png``, at any
      depth; 0 is background. What the pixels of a map mean says ``ids``.
    - ``'coco'``: a json in COCO's or LVIS's format; see :class:`genseg_mm.CocoInstanceDataset`. ``id``, ``bbox`` and
      ``area`` of annotations, and ``categories``, may be missing. Boxes without a mask are left out.
    - ``'yolo'``: a text file of polygons per picture (``genseg_mm/datasets/yolo_polygons.py``), ``images/a/b.jpg`` and
      ``labels/a/b.txt``; or a ``data.yaml`` as ``annotations``, which says where the pictures of each split are. An
      empty file is a picture without an instance; a picture without a file is missing its labels. Where polygons
      overlap, the smaller one lies on top, as in ``LoadInstanceMap``.
    - ``'rows'``: rows of Hugging Face's ``datasets`` (``genseg_mm/datasets/picture_rows.py``), saved by
      ``save_to_disk`` at ``data_root``, or handed over as ``rows``; ``images`` and ``annotations`` are the columns of
      the picture and of its map of ids.

    Items are those of every ``InstanceMapDataset``; ``img_id`` is the picture's path without ending (COCO: its id).
    ``dropped`` counts by reason what of annotations is left out.

    Args:
        data_root: Folder that the other paths are relative to.
        format: See above.
        images: Folder of the pictures.
        annotations: Folder of the maps or labels, the json, or the ``data.yaml``. Default: ``'masks'``,
            ``'annotations.json'``, ``'labels'``, or the column ``'mask'``.
        ids: Of maps: ``'index'``: the value (of a palette, 8 or 16 bits) is the instance; ``'rgb'``: the colour is, as
            r * 65536 + g * 256 + b; ``'components'``: every connected region of a value above 0 of an 8-bit map is an
            instance, for masks that say what is an object, and not which (one of 16 bits may also hold 65,535). A file
            of another kind is an error.
        map_suffix: What follows the picture's name in the name of its map: ``'.png'``, ``'_mask.png'``, ...
        classes: Of coco and yolo: names of those to keep (yolo without ``data.yaml``: numbers); ``'all'``.
        split: Which pictures. With a ``data.yaml`` that has 'train' and 'val' one of its splits; with rows that are
            saved by split one of theirs; otherwise 'train' and 'val' are drawn by the names of the pictures. None takes
            all.
        val_share: Share of the pictures of a 'val' that is drawn.
        rows: With ``'rows'``, a ``datasets.Dataset`` in place of ``data_root``.
        allow_outside: Whether paths may leave data_root and the folder of the pictures.
        void: Of ids='index': a value of 8-bit maps, 1 to 255, that is no instance but background, such as 255, the
            borders of Pascal VOC's. None: every value above 0 is one.
        **kwargs: As for ``InstanceMapDataset``: ignore_background, missing, empty, subset, pipeline, test_mode, ...

    Raises:
        FileNotFoundError: If a folder, a file of a pair or the json is missing.
        ImportError: If ``datasets`` is missing, for rows.
        ValueError: If an argument or a file of annotations is wrong, or nothing is left.
    """

    def __init__(
        self,
        data_root: str = '',
        format: str = 'maps',
        images: str | None = None,
        annotations: str | None = None,
        ids: str = 'index',
        map_suffix: str = '.png',
        classes: str | Sequence[str | int] = 'all',
        split: str | None = None,
        val_share: float = DEFAULT_SHARE,
        rows: Any = None,
        allow_outside: bool = False,
        void: int | None = None,
        **kwargs: Any,
    ) -> None:
        for name, value, known in (('format', format, tuple(FORMATS)), ('ids', ids, IDS)):
            if value not in known:
                raise ValueError(f'{name} must be one of {known}, but got {value!r}')
        if os.path.splitext(f'x{map_suffix}')[1].lower() not in MAPS:
            raise ValueError(f'map_suffix must end with one of {MAPS}, which lose nothing, but got {map_suffix!r}')
        if rows is not None and format != 'rows':
            raise ValueError(f"rows go with format='rows', but got format={format!r}")
        if classes != 'all' and format not in ('coco', 'yolo'):
            raise ValueError(f"classes goes with format='coco' and 'yolo', but got format={format!r}")
        self.format, self.ids, self.map_suffix, self.classes = format, ids, map_suffix, classes
        self.images = images if images is not None else 'image' if format == 'rows' else 'images'
        self.annotations = annotations if annotations is not None else FORMATS[format]
        self.split, self.val_share = split, checked_share(val_share)
        self.rows, self.allow_outside = rows, allow_outside
        self.dropped: Counter[str] = Counter()
        self.label_rule = None
        if ids == 'components':
            self.label_rule = label_rule([*range(1, 256), MARK_16], [*range(256), MARK_16])
        if void is not None:
            if ids != 'index' or isinstance(void, bool) or not isinstance(void, int) or not 0 < void < 256:
                raise ValueError(
                    f"void must be a value from 1 to 255 and goes with ids='index', but got {void!r} and {ids!r}"
                )
            self.label_rule = label_rule([own for own in range(1, 256) if own != void], range(256), 'classes')
        super().__init__(data_root=str(data_root), **kwargs)

    def load_data_list(self) -> list[dict]:
        """Lists the pairs; see ``InstanceMapDataset``."""
        self.dropped = Counter()
        return super().load_data_list()

    def list_pairs(self) -> Iterator[dict]:
        """See ``InstanceMapDataset``."""
        yield from getattr(self, f'_{self.format}')()

    def _inside(self, name: str) -> str:
        """Path of a folder or file below data_root."""
        where = f'{type(self).__name__} {self.data_root}'
        return os.path.normpath(picture_path(self.data_root, name or '.', self.data_root, where, self.allow_outside))

    def _existing(self, name: str, exists: Any, what: str) -> str:
        path = self._inside(name)
        if not exists(path):
            raise FileNotFoundError(f'{type(self).__name__}: there is no {what} {path!r}. {where_configs_look()}')
        return path

    def _of_split(self, names: Sequence[str]) -> set[str]:
        return drawn_split(names, self.split, self.val_share, f'{type(self).__name__} {self.data_root}')

    # ---- maps of ids

    def _maps(self) -> Iterator[dict]:
        pictures = self._existing(self.images, os.path.isdir, 'folder of pictures')
        maps = self._existing(self.annotations, os.path.isdir, 'folder of maps')
        if pictures == maps and self.map_suffix.lower() in PICTURES:
            raise ValueError(
                f'{type(self).__name__}: pictures and maps are in one folder {pictures!r}, so map_suffix has to tell '
                f"them apart, as '_mask.png' does, but got {self.map_suffix!r}"
            )
        found = self._pictures_of(pictures)
        suffix = self.map_suffix
        ending = suffix.lower()  # as of pictures, a.PNG is no other kind of file than a.png
        names = {name: path for name, path in found.items() if pictures != maps or not path.lower().endswith(ending)}
        of_maps: dict[str, str] = {}
        for folder, files in folders_below(maps):
            for file in sorted(files, key=lambda own: (not own.endswith(suffix), own)):
                path = os.path.join(folder, file)
                if not file.lower().endswith(ending) or len(file) <= len(suffix):
                    continue
                if of_maps.setdefault(os.path.relpath(path, maps)[: -len(suffix)], path) != path:
                    self.skip(path, 'the second map of a name')
        meaning: dict[str, Any] = dict(ids_are_colors=True) if self.ids == 'rgb' else dict(ids_are_indices=True)
        if self.label_rule:
            meaning['label_rule'] = self.label_rule
        both = sorted(set(names) | set(of_maps))
        kept = self._of_split(both) if both else set()
        for name in both:
            if name in kept:
                image = names.get(name, os.path.join(pictures, f'{name}.*'))
                instance_map = of_maps.get(name, os.path.join(maps, name + suffix))
                yield dict(img_path=image, instance_map_path=instance_map, img_id=name, **meaning)

    def _pictures_of(self, root: str) -> dict[str, str]:
        """Name without ending, below the folder, -> path, of all pictures at any depth."""
        found: dict[str, str] = {}
        for folder, files in folders_below(root):
            for file in files:
                stem, ending = os.path.splitext(file)
                path = os.path.join(folder, file)
                name = os.path.relpath(os.path.join(folder, stem), root)
                if ending.lower() not in PICTURES:
                    continue
                if has_lone_surrogate(path):
                    self.skip(path.encode(errors='replace').decode(), 'a name that is no UTF-8')
                elif name in found:
                    self.skip(path, 'the second picture of a name')
                else:
                    found[name] = path
        return found

    # ---- COCO and LVIS

    def _coco(self) -> Iterator[dict]:
        path = self._existing(self.annotations, os.path.isfile, 'json')
        pictures = self._existing(self.images, os.path.isdir, 'folder of pictures')
        dataset = OwnCocoFile(
            data_root=self.data_root,
            ann_file=os.path.relpath(path, self.data_root or '.'),
            data_prefix=dict(img=os.path.relpath(pictures, self.data_root or '.')),
            classes=self.classes,
            allow_outside=self.allow_outside,
            serialize_data=False,
        )
        items = [dataset.get_data_info(index) for index in range(len(dataset))]
        self.dropped = dataset.dropped
        for item in items:
            drawn = [own for own in item['instances'] if 'mask' in own or own['ignore_flag']]
            if len(drawn) < len(item['instances']):
                self.dropped['boxes without a mask'] += len(item['instances']) - len(drawn)
                item['instances'] = drawn
        names = [os.path.splitext(os.path.relpath(item['img_path'], pictures))[0] for item in items]
        kept = self._of_split(names)
        for name, item in zip(names, items, strict=True):
            if name in kept:
                yield {key: item[key] for key in ('img_path', 'img_id', 'height', 'width', 'instances')}

    # ---- YOLO's polygons

    def _yolo(self) -> Iterator[dict]:
        if self.annotations.endswith(YAML):
            path = self._existing(self.annotations, os.path.isfile, 'file')
            data = read_data_yaml(path)
            pictures, drawn = self._named_by(data, path)
            pairs = [(os.path.splitext(os.path.relpath(own, self.data_root or '.'))[0], own, label_path(own))
                     for own in pictures]  # fmt: skip
        else:
            data, drawn = YoloData({}, {}, ''), True
            root = self._existing(self.images, os.path.isdir, 'folder of pictures')
            labels = self._existing(self.annotations, os.path.isdir, 'folder of labels')
            pairs = [(name, own, os.path.join(labels, f'{name}.txt')) for name, own in self._pictures_of(root).items()]
        wanted = self._wanted(data)
        kept = self._of_split([name for name, _, _ in pairs]) if drawn and pairs else None
        files, num = ExistingFiles(), 0
        for name, image, labels in sorted(pairs):
            if kept is not None and name not in kept:
                continue
            pair = dict(img_path=image, img_id=name)
            if image not in files:
                yield pair  # the base says so
            elif labels not in files:
                self.skip(labels, 'no file of labels')
            else:
                size = self._size(image)
                if size is not None:
                    pair.update(size, instances=self._polygons(labels, size, data, wanted))
                    num += len(pair['instances'])
                    yield pair
        if not num and self.dropped:
            reasons = ', '.join(f'{count} {reason}' for reason, count in self.dropped.items())
            raise ValueError(f'{self._inside(self.annotations)}: expected polygons, but got {reasons}')

    def _named_by(self, data: YoloData, path: str) -> tuple[list[str], bool]:
        """Pictures of the split that a ``data.yaml`` has, and whether its split is still to be drawn."""
        drawn = self.split in DRAWN and not all(split in data.splits for split in DRAWN)
        split = 'train' if drawn else self.split
        splits = list(data.splits) if split is None else [split]
        missing = [own for own in splits if own not in data.splits]
        if missing:
            raise ValueError(f'{path} has no split {missing[0]!r}, but {", ".join(data.splits) or "none"}')
        pictures: dict[str, None] = {}
        for entry in (entry for own in splits for entry in data.splits[own]):
            place = self._inside(folder_of(entry, data, path))
            if os.path.isdir(place):
                pictures.update(dict.fromkeys(sorted(self._pictures_of(place).values())))
                continue
            for number, line in read_lines(place):
                if line.strip():
                    where = f'{place}, line {number}'
                    folder = os.path.dirname(place)
                    own = picture_path(folder, line.strip(), self.data_root, where, self.allow_outside)
                    pictures[os.path.normpath(own)] = None
        return list(pictures), drawn

    def _wanted(self, data: YoloData) -> set[int] | None:
        """Numbers of the classes to keep; None: all."""
        if self.classes == 'all':
            return None
        numbers = {name: number for number, name in data.names.items()}
        unknown = [own for own in self.classes if own not in numbers and not isinstance(own, int)]
        if unknown or isinstance(self.classes, str):
            known = f'one of {list(numbers)}' if numbers else 'numbers, as there is no data.yaml that has names'
            raise ValueError(f'{type(self).__name__}: classes must be {known}, but got {self.classes!r}')
        return {numbers.get(own, own) for own in self.classes}

    def _size(self, image: str) -> dict[str, int] | None:
        """Height and width of a picture, upright; None where its header cannot be read."""
        try:
            header = read_header(image, f'image {image}')
        except ValueError as error:
            self.skip(str(error), 'no readable picture')
            return None
        sides = header.height, header.width
        height, width = sides[::-1] if header.orientation > 4 else sides
        return dict(height=height, width=width)

    def _polygons(self, path: str, size: dict[str, int], data: YoloData, wanted: set[int] | None) -> list[dict]:
        instances = []
        for number, own in enumerate(read_labels(path, size['height'], size['width'], data.names, self.dropped)):
            if wanted is not None and own['category'] not in wanted:
                self.dropped['other class'] += 1
                continue
            xs, ys = own['polygon'][::2], own['polygon'][1::2]
            instances.append(
                dict(
                    bbox=[min(xs), min(ys), max(xs), max(ys)],
                    bbox_label=0,
                    ignore_flag=0,
                    cat_id=own['category'],
                    ann_id=number,
                    area=_area(xs, ys),
                    mask=[own['polygon']],
                )
            )
        return instances

    # ---- rows of Hugging Face's datasets

    def _rows(self) -> Iterator[dict]:
        source = self.data_root if self.rows is None else self.rows
        table, drawn = open_rows(source, self.split)
        self.open_rows = rows = PictureRows(table, self.images, self.annotations)  # goes to workers with the dataset
        names = [rows.name(number) for number in range(len(rows))]
        kept = self._of_split(names) if drawn else set(names)
        meaning: dict[str, Any] = dict(ids_are_colors=True) if self.ids == 'rgb' else dict(ids_are_indices=True)
        if self.label_rule:
            meaning['label_rule'] = self.label_rule
        for number, name in enumerate(names):
            if name in kept:
                pair = rows.pair(number)
                yield dict(pair, img_id=name, **({} if 'instances' in pair else meaning))


class OwnCocoFile(CocoInstanceDataset):
    """A json of one's own, whose annotations may lack what follows from their masks."""

    @staticmethod
    def _complete(content: dict) -> None:
        annotations = content.get('annotations')
        annotations = [own for own in annotations if isinstance(own, dict)] if isinstance(annotations, list) else []
        for number, own in enumerate(annotations, start=1):
            own.setdefault('id', number)
            if 'bbox' not in own or 'area' not in own:
                box, area = _extent(own.get('segmentation'))
                own |= {
                    key: value for key, value in (('bbox', box), ('area', area)) if value is not None and key not in own
                }
        if 'categories' not in content:
            for own in annotations:
                own.setdefault('category_id', 1)
            numbers = {own['category_id'] for own in annotations if is_integer(own['category_id'])}
            content['categories'] = [dict(id=number, name=f'object {number}') for number in sorted(numbers)]


def _extent(segmentation: Any) -> tuple[list[float] | None, float | None]:
    """Box [x, y, width, height] and area of polygons or an RLE; None where it is neither."""
    try:
        if isinstance(segmentation, dict):
            rle = encode_segmentation(segmentation, *segmentation['size'], 'the mask')
            return mask_utils.toBbox(rle).tolist(), float(mask_utils.area(rle))
        polygons = as_segmentation(segmentation, 'the mask')
    except (ValueError, TypeError, KeyError):
        return None, None
    xs, ys = ([value for own in polygons for value in own[start::2]] for start in (0, 1))
    if not xs:
        return None, None
    box = [min(xs), min(ys), max(xs) - min(xs), max(ys) - min(ys)]
    return box, sum(_area(own[::2], own[1::2]) for own in polygons)


def _area(xs: Sequence[float], ys: Sequence[float]) -> float:
    """Of a polygon, in square pixels."""
    following = zip([*xs[1:], xs[0]], [*ys[1:], ys[0]], strict=True)
    return abs(sum(x * next_y - next_x * y for x, y, (next_x, next_y) in zip(xs, ys, following, strict=True))) / 2
