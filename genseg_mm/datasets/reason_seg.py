"""ReasonSeg: questions whose answer is a region of the picture."""

import logging
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from reprlib import repr as short_repr

import cv2
import numpy as np

from genseg_mm.datasets.annotation_files import is_number, where_configs_look
from genseg_mm.datasets.leakage import coco_image_id
from genseg_mm.datasets.published_counts import Count, exclusion_note, num_pictures
from genseg_mm.datasets.seeded_access import CountedVisits, checked_choice
from genseg_mm.datasets.segmentations import MAX_REACH
from genseg_mm.files import read_json
from genseg_mm.registry import DATASETS

LAYOUT = '<data_root>/ReasonSeg/{train,val,test}/<name>.jpg and <name>.json'
IGNORED = 255  # value of the mask where nothing is asked
SPLITS = ('train', 'val', 'test')


@DATASETS.register_module()
class ReasonSegDataset(CountedVisits):
    """ReasonSeg (LISA, https://github.com/dvlab-research/LISA): 239, 200 and 779 pictures in train, val and test.

    In training every picture is one item, of whose 1 to 5 wordings one is drawn at each access from a generator seeded
    by (seed, index, visit), as :class:`genseg_mm.RefCOCODataset` draws. In test ``sentence='first'`` is one item per
    picture with its first wording (LISA), ``'all'`` one item per wording (UFO).

    An item has ``img_path, img_id`` (the file's name without suffix), ``text, sent_id`` (place among the wordings),
    ``sentences``, ``length`` (``'long'`` for questions, ``'short'`` for names: ``is_sentence`` of the file),
    ``shapes`` and ``ignore_label``, of which ``LoadReferringMask`` draws the mask in {0, 1, 255 = ignore} at the size
    of the decoded picture (``LoadImage`` goes before it), ``task='mask'``, ``subset`` (the split), ``seg_fields=[]``,
    and in training ``visit``.

    Pictures without any target polygon (the published test split has two) stay, with an empty target; their number
    and names are logged, also in ``without_target``. Wordings that are no text (null, NaN, empty, or with a lone
    surrogate) are left out, and pictures without any other as well: ``left_out`` names them by reason, they are counted
    in a warning.

    Args:
        data_root: Folder that ``data_prefix`` is relative to.
        data_prefix: ``img_path`` is the folder of the splits' folders; LISA's layout is
            ``reason_seg/ReasonSeg/``.
        split: ``'train'``, ``'val'``, ``'test'``, or ``'train_val'`` (only for training).
        sentence: ``'first'`` (default in test), ``'all'`` or ``'random'`` (default in training).
        train_ignore: What regions to ignore are in training: ``'ignore'`` (255; GenMask's mask images show them as
            background) or ``'background'`` (0, as LISA). In test they are always 255.
        exclude_images: Of training; see :class:`genseg_mm.RefCOCODataset`. Only pictures with COCO names can be meant
            (the published ones are from OpenImages and ScanNet).
        test_mode: See above.
        **kwargs: As for :class:`CountedVisits`: seed, pipeline, and those of ``mmengine.dataset.BaseDataset``.

    Raises:
        FileNotFoundError: If a folder, or the annotation of a picture, is missing.
        ValueError: If an argument or a file is wrong. No picture is skipped.
    """

    PUBLISHED = dict(train=239, val=200, test=779)  # pictures; LISA, README

    def __init__(
        self,
        data_root: str = '',
        data_prefix: Mapping = dict(img_path='ReasonSeg/'),
        split: str = 'train',
        sentence: str | None = None,
        train_ignore: str = 'ignore',
        exclude_images: str | int | Sequence[str | int] | None = None,
        test_mode: bool = False,
        **kwargs,
    ) -> None:
        sentence = sentence or ('first' if test_mode else 'random')
        sentence = checked_choice('sentence', sentence, test_mode)
        if train_ignore not in ('ignore', 'background'):
            raise ValueError(f"train_ignore must be 'ignore' or 'background', but got {train_ignore!r}")
        unknown = set(split.split('_')) - set(SPLITS)
        if unknown or (test_mode and '_' in split):
            raise ValueError(
                f"split must be one of {SPLITS} or, in training, several as 'train_val', but got {split!r}"
            )
        if exclude_images is not None and split != 'train':
            raise ValueError(f"exclude_images is for split='train', but got split={split!r}")
        self.split, self.sentence = split, sentence
        self.ignore_label = 0 if train_ignore == 'background' and not test_mode else IGNORED
        self.without_target: list[str] = []
        super().__init__(
            data_root=str(data_root),
            data_prefix=data_prefix,
            exclude_images=exclude_images,
            test_mode=test_mode,
            **kwargs,
        )

    def load_data_list(self) -> list[dict]:
        """Lists the pictures, in the order of their names, and reads their annotations."""
        folder = self.data_prefix['img_path']
        if not os.path.isdir(folder):
            raise FileNotFoundError(
                f'data_prefix img_path: folder {folder!r} does not exist, expected {LAYOUT}. {where_configs_look()}'
            )
        self.left_out.clear()
        paths = [(path, split) for split in self.split.split('_') for path in _pictures(folder, split)]
        paths = self.drop_excluded(paths, lambda own: (coco_image_id(os.path.basename(own[0])),))
        found = (self._item(path, split) for path, split in paths)
        items = [item for item in found if item is not None]
        self.log_left_out()
        if not items:
            raise ValueError(f'{folder}: no picture of {self.split!r} has a text')
        self._report(items)
        if self.sentence == 'random':
            return items
        count = 1 if self.sentence == 'first' else None
        return [
            dict(item, text=text, sent_id=number)
            for item in items
            for number, text in enumerate(item['sentences'][:count])
        ]

    def published_items(self) -> int | None:
        """Pictures of the complete split; of its wordings no number is published."""
        if self.sentence == 'all':
            return None
        return sum(self.PUBLISHED[split] for split in self.split.split('_'))

    def published_counts(self) -> Iterator[Count]:
        """What a copy has beside what is published; see ``genseg_mm/datasets/published_counts.py``."""
        published = sum(self.PUBLISHED[split] for split in self.split.split('_'))
        found = num_pictures(self) if self.sentence == 'all' else len(self)
        yield Count(found, 'pictures', published, note=exclusion_note(self))

    def _item(self, path: str, split: str) -> dict | None:
        found = read_annotation(f'{os.path.splitext(path)[0]}.json', self.usable_text)
        if not found['sentences']:
            self.leave_out('pictures without a text', path)
            return None
        if all(shape['ignore'] for shape in found['shapes']):
            self.without_target.append(path)
        return dict(
            img_path=path,
            img_id=os.path.splitext(os.path.basename(path))[0],
            sentences=found['sentences'],
            length='long' if found['is_sentence'] else 'short',
            shapes=found['shapes'],
            ignore_label=self.ignore_label,
            task='mask',
            subset=split,
            seg_fields=[],
        )

    def _report(self, items: list[dict]) -> None:
        num_long = sum(item['length'] == 'long' for item in items)
        self._log(
            f'{len(items)} pictures ({num_long} long, {len(items) - num_long} short) with '
            f'{sum(len(item["sentences"]) for item in items)} wordings'
        )
        if self.without_target:
            names = ', '.join(map(os.path.basename, self.without_target[:5]))
            self._log(
                f'{len(self.without_target)} pictures have no target polygon, so that an empty mask is right: {names}'
                + ', ...' * (len(self.without_target) > 5),
                logging.WARNING,
            )

    @property
    def _name(self) -> str:
        return f'{type(self).__name__} {self.split!r}'

    def get_data_info(self, idx: int) -> dict:
        """Item ``idx``; in training with a newly drawn wording (see the class)."""
        info = super().get_data_info(idx)
        return self._with_drawn_sentence(info) if self.sentence == 'random' else info


def _pictures(folder: str, split: str) -> list[str]:
    """Paths of the pictures of a split by name; each has an annotation."""
    folder = os.path.join(folder, split)
    if not os.path.isdir(folder):
        raise FileNotFoundError(f'no folder {folder!r}, expected {LAYOUT}')
    names = set(os.listdir(folder))
    pictures = sorted(name for name in names if name.endswith('.jpg'))
    lonely = [name for name in pictures if f'{name[:-4]}.json' not in names]
    if lonely:
        raise FileNotFoundError(
            f'{folder}: {len(lonely)} of {len(pictures)} pictures lack their annotation <name>.json, the first is '
            f'{lonely[0]}'
        )
    if not pictures:
        raise FileNotFoundError(f'{folder} holds no picture, expected {LAYOUT}')
    return [os.path.join(folder, name) for name in pictures]


def read_annotation(path: str, usable: Callable[[object, str], str]) -> dict:
    """Reads one annotation file, UTF-8 or, as some are, Windows-1252.

    Args:
        path: The file.
        usable: Takes a text and its place, and gives it back, or ``''`` for what is none and is left out.

    Returns:
        ``sentences`` (all different ways to say the same, without those that are no text), ``is_sentence`` (whether
        they are long questions) and ``shapes`` (dicts of ``points`` [[x, y], ...] and ``ignore``; a union, without
        those labelled 'flag').

    Raises:
        ValueError: If the file is damaged or lacks something.
    """
    content = read_json(path, fallback='cp1252')
    kinds = dict(text=list, is_sentence=int, shapes=list)
    for key, kind in kinds.items():
        if not isinstance(content, dict) or not isinstance(content.get(key), kind):
            raise ValueError(
                f'{path}: expected a dict with text (list of str), is_sentence (bool) and shapes (list), but {key} '
                f'is {short_repr(content.get(key) if isinstance(content, dict) else content)}'
            )
    sentences = content['text']
    if not sentences:
        raise ValueError(f'{path}: text must be a list of sentences, but got []')
    usable_ones = [usable(text, f'{path}, text {index}') for index, text in enumerate(sentences)]
    shapes = [_shape(own, f'{path}, shape {index}') for index, own in enumerate(content['shapes'])]
    return dict(
        sentences=[text.strip() for text in usable_ones if text],
        is_sentence=bool(content['is_sentence']),
        shapes=[shape for shape in shapes if shape is not None],
    )


def draw_shapes(
    shapes: list[dict], height: int, width: int, ignored: int = IGNORED, where: str = 'shapes'
) -> np.ndarray:
    """The mask of the shapes as LISA draws it (``utils/data_processing.py``).

    Points are cut to integers; each polygon covers its interior and its outline, one pixel thick. pycocotools' masks of
    the same polygons are smaller: their IoU with these is 0.85 for small and 0.98 for large objects. Polygons are
    painted by their area, the largest first, so that a smaller one stays visible on a larger one; of two equal ones
    the first in the list lies on top.

    Args:
        shapes: Dicts of ``points`` and ``ignore``, see :func:`read_annotation`.
        height: Of the picture as OpenCV decodes it, turned as its EXIF data say.
        width: Of the same.
        ignored: Value of the regions to ignore.
        where: What the message of an error starts with.

    Returns:
        (height, width) uint8: 1 on the target, ``ignored`` on regions to ignore, 0 elsewhere.

    Raises:
        ValueError: If points lie far outside of the picture.
    """
    limit = MAX_REACH * max(height, width)  # far outside OpenCV's fixed-point coordinates overflow
    polygons, areas = [], []
    for shape in shapes:
        points = np.asarray(shape['points'], np.float64)
        if np.abs(points).max() > limit:
            raise ValueError(
                f'{where}: expected coordinates inside of the picture of {height}x{width} or near it, but got '
                f'{points[np.abs(points).max(axis=1).argmax()].tolist()}'
            )
        polygons.append(points.astype(np.int32)[None])
        areas.append(int(_paint(np.zeros((height, width), np.uint8), polygons[-1], 1).sum()))
    mask = np.zeros((height, width), np.uint8)
    for index in np.argsort(areas, kind='stable')[::-1]:
        _paint(mask, polygons[index], ignored if shapes[index]['ignore'] else 1)
    return mask


def _paint(mask: np.ndarray, polygon: np.ndarray, value: int) -> np.ndarray:
    cv2.polylines(mask, polygon, isClosed=True, color=value, thickness=1)
    cv2.fillPoly(mask, polygon, value)
    return mask


def _shape(shape: dict, where: str) -> dict | None:
    if not isinstance(shape, dict) or not isinstance(shape.get('label'), str):
        raise ValueError(f'{where}: expected a dict with a label, but got {short_repr(shape)}')
    label = shape['label'].lower()
    if label == 'flag':
        return None
    points = shape.get('points')
    valid = isinstance(points, list) and len(points) > 0
    if not valid or not all(_is_point(point) for point in points):
        raise ValueError(f'{where}: points must be [[x, y], ...], but got {short_repr(points)}')
    return dict(points=points, ignore='ignore' in label)


def _is_point(point: object) -> bool:
    return isinstance(point, (list, tuple)) and len(point) == 2 and all(map(is_number, point))
