"""COCO and every dataset in COCO's instance format, as objects without classes."""

import difflib
import logging
import os
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from mmengine.dataset import BaseDataset
from mmengine.logging import print_log

from genseg_mm.datasets.annotation_files import CATEGORY, IMAGE, INSTANCE, picture_path, read_coco, where_configs_look
from genseg_mm.datasets.class_subsets import class_list
from genseg_mm.datasets.published_counts import Count
from genseg_mm.datasets.seeded_access import SeededAccess
from genseg_mm.registry import DATASETS

FILTERS = ('filter_empty_gt', 'min_size')


@DATASETS.register_module()
class CocoInstanceDataset(SeededAccess, BaseDataset):
    """Instances of a COCO-format json, all of one class 'object'; it says what it leaves out.

    Items are those of ``mmdet.CocoDataset`` (img_path, img_id, height, width, instances with bbox xyxy, bbox_label,
    ignore_flag, mask), so that mmdet's and our transforms read either; ``genseg_mm.LoadInstanceMap`` makes the id
    map. Different from mmdet's: the categories come from the file, not from ``metainfo``, which drops all others
    without a word; bbox_label is 0 and each instance has ``cat_id``, ``ann_id`` and ``area``. As in mmdet, annotations
    marked ``ignore``, boxes outside of the picture, sides below one pixel and areas of 0 are dropped, and crowd
    regions (iscrowd) stay with ``ignore_flag=1``.

    LVIS's files are in this format, too: their pictures have a ``coco_url`` in place of ``file_name``, which ends with
    folder and name, so that ``data_prefix=dict(img='')`` is the folder of train2017/ and val2017/.

    ``dropped`` counts annotations by reason, ``skipped`` names pictures by reason; both are logged. ``num_pictures`` is
    what the file has, before anything is left out.

    Class-agnostic AP and AR: ``genseg_mm.ClassAgnosticCocoMetric`` (or ``mmdet.CocoMetric`` without ann_file; with one,
    it looks for a category named 'object').

    Args:
        data_root: Folder that the other paths are relative to.
        ann_file: The json.
        data_prefix: ``img`` is the folder of the pictures.
        classes: ``'all'`` in the file, the names of those to keep, or a list of
            ``genseg_mm/datasets/class_subsets.py``: ``'coco_novel'``, ``'coco_10'``, ``'coco_5'``,
            ``'coco'``. Names given here must be in the file; of a list of ours those are taken that the file has.
        other_classes: What objects of other classes become: ``'drop'``, or ``'ignore'``: ``ignore_flag=1``, so that
            ``CocoMetric`` counts neither finding nor missing them as a mistake. Both are background in the id map.
        filter_cfg: mmdet's ``dict(filter_empty_gt=True, min_size=32)``, here for test_mode as well: leaves out
            pictures without an instance that is no crowd, and those whose shorter side is below min_size.
        ignore_background: Whether what has no id may still be an object (metainfo of the loss).
        subset: Name of the items' part in an evaluation of several.
        allow_outside: Whether the paths of pictures may leave data_root and the folder of the pictures.
        pipeline: Transforms.
        test_mode: As for MMEngine's ``BaseDataset``.
        **kwargs: Further arguments of MMEngine's ``BaseDataset``.

    Raises:
        FileNotFoundError: If the json or the folder of the pictures is missing.
        ValueError: If an argument or an entry of the json is wrong, or nothing is left.
    """

    METAINFO = dict(classes=('background', 'object'), palette=[(70, 130, 180), (220, 20, 60)])
    # Pictures by annotation file; cocodataset.org
    PUBLISHED = {'instances_train2017.json': 118_287, 'instances_val2017.json': 5_000}

    def __init__(
        self,
        data_root: str = '',
        ann_file: str = 'annotations/instances_train2017.json',
        data_prefix: Mapping = dict(img='train2017/'),
        classes: str | Sequence[str] = 'all',
        other_classes: str = 'drop',
        filter_cfg: Mapping | None = None,
        ignore_background: bool = False,
        subset: str | None = None,
        allow_outside: bool = False,
        pipeline: Sequence[dict | Callable] = (),
        test_mode: bool = False,
        **kwargs,
    ) -> None:
        if other_classes not in ('drop', 'ignore'):
            raise ValueError(f"other_classes must be 'drop' or 'ignore', but got {other_classes!r}")
        if set(data_prefix) != {'img'}:
            raise ValueError(f'data_prefix must be dict(img=...), but got {dict(data_prefix)}')
        unknown = set(filter_cfg or ()) - set(FILTERS)
        if unknown:
            raise ValueError(f'filter_cfg knows {FILTERS}, but got {sorted(unknown)}')
        self.classes = classes if classes == 'all' else class_list(classes, 'coco')
        self._must_exist = not isinstance(classes, str)
        self.other_classes = other_classes
        self.ignore_background, self.subset = ignore_background, subset
        self.allow_outside = allow_outside
        self.dropped: Counter[str] = Counter()
        self.skipped: dict[str, list[str]] = {}
        self.num_pictures = 0
        super().__init__(
            data_root=str(data_root),
            ann_file=str(ann_file),
            data_prefix=dict(data_prefix),
            filter_cfg=None if filter_cfg is None else dict(filter_cfg),
            pipeline=list(pipeline),
            test_mode=test_mode,
            **kwargs,
        )

    def load_data_list(self) -> list[dict]:
        """Reads the json; items are in the order of their image ids, as mmdet's."""
        content = self._read()
        self.num_pictures = len(content['images'])
        names = {own['id']: own['name'] for own in content['categories']}
        wanted = self._wanted(names)
        annotations: dict[int, list[dict]] = {own['id']: [] for own in content['images']}
        for own in content['annotations']:
            if own['category_id'] not in names:
                raise ValueError(
                    f'{self.ann_file}: annotation {own["id"]} has the category {own["category_id"]}, which is not in '
                    'the file'
                )
            annotations[own['image_id']].append(own)
        self.dropped = Counter()
        items = [
            self._item(image, annotations[image['id']], wanted)
            for image in sorted(content['images'], key=lambda own: own['id'])
        ]
        self._report(items, len(content['annotations']), names, wanted)
        return items

    def published_items(self) -> int | None:
        """Pictures of the complete file, before filter_cfg leaves any out."""
        return self.PUBLISHED.get(Path(self.ann_file).name)

    def published_counts(self) -> Iterator[Count]:
        """What a copy has beside what is published; train is often used in part on purpose."""
        name = Path(self.ann_file).name
        if name == 'instances_val2017.json':
            yield Count(self.num_pictures, 'pictures', self.PUBLISHED[name])

    def _read(self) -> dict:
        folder = self.data_prefix['img']
        for path, exists in ((self.ann_file, os.path.isfile), (folder, os.path.isdir)):
            if not exists(path):
                raise FileNotFoundError(
                    f'{type(self).__name__}: there is no {path!r}; expected are the annotations '
                    f'{os.path.basename(self.ann_file)!r} and a folder of pictures {folder!r}. '
                    f'{where_configs_look()}'
                )
        return read_coco(self.ann_file, dict(images=IMAGE, annotations=INSTANCE, categories=CATEGORY), self._complete)

    @staticmethod
    def _complete(content: dict) -> None:
        """Fills in what a subclass lets a file leave out."""

    def _wanted(self, names: Mapping[int, str]) -> set[int]:
        if self.classes == 'all':
            return set(names)
        known = set(names.values())
        unknown = [name for name in self.classes if name not in known]
        if unknown and self._must_exist:
            near = difflib.get_close_matches(unknown[0], known, 3) or sorted(known)[:5]
            raise ValueError(
                f'{self.ann_file} has no class {unknown[0]!r} ({len(unknown)} of the {len(self.classes)} in classes '
                f'are not among its {len(known)}); near are {near}'
            )
        return {number for number, name in names.items() if name in self.classes}

    def _item(self, image: dict, annotations: list[dict], wanted: set[int]) -> dict:
        instances = []
        for own in annotations:
            reason, ignored = self._judge(own, image, wanted)
            if reason:
                self.dropped[reason] += 1
                continue
            x, y, width, height = own['bbox']
            instance = dict(
                bbox=[x, y, x + width, y + height],
                bbox_label=0,
                ignore_flag=int(ignored),
                cat_id=own['category_id'],
                ann_id=own['id'],
                area=own['area'],
            )
            if own.get('segmentation'):
                instance['mask'] = own['segmentation']
            instances.append(instance)
        folder, name = self.data_prefix['img'], image['file_name']
        where = f'{self.ann_file}, image {image["id"]}'
        item = dict(
            img_path=picture_path(folder, name, self.data_root, where, self.allow_outside),
            img_id=image['id'],
            height=image['height'],
            width=image['width'],
            instances=instances,
            ignore_background=self.ignore_background,
        )
        return item if self.subset is None else dict(item, subset=self.subset)

    def _judge(self, own: dict, image: dict, wanted: set[int]) -> tuple[str | None, bool]:
        """Reason to drop an annotation, and whether it is to be ignored, as a crowd."""
        if own.get('ignore', False):
            return 'marked ignore', False
        x, y, width, height = own['bbox']
        inside_x = min(x + width, image['width']) - max(x, 0)
        inside_y = min(y + height, image['height']) - max(y, 0)
        if min(inside_x, inside_y) <= 0:
            return 'box outside of the picture', False
        if own['area'] <= 0 or min(width, height) < 1:
            return 'area 0 or a side below 1 pixel', False
        ignored = bool(own.get('iscrowd', 0))
        if own['category_id'] not in wanted:
            return ('other class', False) if self.other_classes == 'drop' else (None, True)
        return None, ignored

    def _report(self, items: list[dict], num_annotations: int, names: Mapping, wanted: set[int]) -> None:
        instances = [instance for item in items for instance in item['instances']]
        num_ignored = sum(instance['ignore_flag'] for instance in instances)
        used = {instance['cat_id'] for instance in instances if not instance['ignore_flag']}
        text = (
            f'{len(instances) - num_ignored} instances of {len(used)} classes in {len(items)} pictures, '
            f'{num_ignored} regions to ignore (crowds)'
        )
        if self.dropped:
            reasons = ', '.join(f'{count} {reason}' for reason, count in self.dropped.most_common())
            text += f'; dropped {self.dropped.total()} of {num_annotations} annotations: {reasons}'
        if len(wanted) < len(names):
            text += f'; {len(wanted)} of {len(names)} classes are asked for'
        self._log(text)
        if len(instances) == num_ignored:
            raise ValueError(f'{self.ann_file}: nothing is left to learn from: {text}')

    def filter_data(self) -> list[dict]:
        """Leaves out pictures as ``filter_cfg`` says (see the class)."""
        filter_cfg = self.filter_cfg or {}
        min_size = filter_cfg.get('min_size', 0)
        self.skipped, kept = {}, []
        for item in self.data_list:
            empty = all(instance['ignore_flag'] for instance in item['instances'])
            if empty and filter_cfg.get('filter_empty_gt', False):
                self.skipped.setdefault('without an instance', []).append(item['img_path'])
            elif min(item['height'], item['width']) < min_size:
                reason = f'shorter side below {min_size}'
                self.skipped.setdefault(reason, []).append(item['img_path'])
            else:
                kept.append(item)
        for reason, paths in self.skipped.items():
            self._log(f'{len(paths)} of {len(self.data_list)} pictures left out: {reason}')
        if not kept:
            raise ValueError(f'{self.ann_file}: filter_cfg={filter_cfg} leaves no picture')
        return kept

    def _log(self, message: str) -> None:
        print_log(f'{type(self).__name__} {os.path.basename(self.ann_file)}: {message}', 'current', logging.INFO)
