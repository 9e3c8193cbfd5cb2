"""Writes a tiny COCO: ten drawn pictures in the published layout, for tests and first tries.

    python tools/dataset_tools/make_tiny_coco.py tiny_data
    GENSEG_DATA=tiny_data python tools/analysis_tools/browse_dataset.py configs/_base_/datasets/coco_instance_sd.py

It has what trips readers of the real files: an object of two parts behind another one, a cup annotated before the
table whose outline runs over it, masks as polygons, as RLE of a list (crowd) and as compressed RLE, ids of categories
with gaps and one category beside COCO's 80, a picture without any object and one with a crowd only, a box below
one pixel, and pictures of two sizes.
"""

import json
from pathlib import Path

import cv2
import numpy as np
from pycocotools import mask as mask_utils

from genseg_mm.datasets.class_subsets import COCO_CLASSES
from genseg_mm.launch import ToolParser, run_tool

# COCO's ids have gaps; the last category is not COCO's.
NOT_USED = (12, 26, 29, 30, 45, 66, 68, 69, 71, 83)
IDS = [number for number in range(1, 91) if number not in NOT_USED]
CATEGORIES = {**dict(zip(COCO_CLASSES, IDS, strict=True)), 'lantern': 200}
COLOURS = {
    'person': (60, 60, 210),
    'car': (200, 120, 40),
    'cat': (60, 160, 230),
    'dog': (90, 90, 120),
    'cup': (240, 240, 240),
    'chair': (160, 70, 150),
    'dining table': (70, 120, 160),
    'lantern': (60, 230, 250),
}  # fmt: skip  (blue, green, red)
LANDSCAPE, PORTRAIT = (120, 160), (160, 120)


def _box(x0: int, y0: int, x1: int, y1: int) -> list[tuple[float, float]]:
    return [(x0, y0), (x1, y0), (x1, y1), (x0, y1)]


def _disk(x: int, y: int, radius: int) -> list[tuple[float, float]]:
    angles = np.arange(20) * np.pi / 10
    return np.stack([x + radius * np.cos(angles), y + radius * np.sin(angles)], 1).round(2).tolist()


PEOPLE = [_box(x, y, x + 4, y + 9) for x, y in ((70, 10), (78, 14), (86, 9), (94, 13), (102, 11))]
CUP_AND_TABLE = (
    ('cup', 'polygon', 2, [_box(70, 52, 84, 68)]),  # before the table, whose outline runs over it
    ('dining table', 'polygon', 1, [_box(30, 44, 130, 112)]),
    ('chair', 'polygon', 0, [_box(8, 40, 28, 112)]),
)
# split, (height, width), objects in the order of annotation: category, form of the mask, depth (painted from 0 on:
# higher is in front), parts of corners (x, y)
SCENES = (
    ('train2017', LANDSCAPE, CUP_AND_TABLE),
    ('train2017', LANDSCAPE, (
        ('car', 'polygon', 0, [_box(20, 60, 60, 90), _box(68, 60, 100, 90)]),  # two parts: a person stands before it
        ('person', 'polygon', 1, [_box(60, 40, 68, 104)]),
        ('person', 'crowd', 0, PEOPLE),
    )),
    ('train2017', PORTRAIT, (
        ('cat', 'rle', 0, [_disk(60, 60, 30)]),
        ('dog', 'polygon', 1, [_disk(70, 105, 28)]),
        ('lantern', 'polygon', 0, [_disk(100, 20, 9)]),
    )),
    ('train2017', LANDSCAPE, ()),
    ('train2017', LANDSCAPE, (('person', 'crowd', 0, PEOPLE),)),
    ('train2017', PORTRAIT, (('dog', 'polygon', 0, [_disk(60, 80, 50)]),)),
    ('val2017', LANDSCAPE, CUP_AND_TABLE),
    ('val2017', LANDSCAPE, (
        ('cat', 'polygon', 0, [_box(20, 10, 150, 110)]),  # large: 130 x 100 pixels
        ('dog', 'rle', 1, [_disk(60, 60, 26)]),
        ('person', 'polygon', 2, [_box(120, 70, 130, 100)]),
    )),
    ('val2017', PORTRAIT, (
        ('person', 'polygon', 0, [_disk(40, 50, 20)]),
        ('person', 'polygon', 1, [_disk(62, 60, 20)]),
        ('person', 'crowd', 0, [_box(20, 120, 100, 150)]),
        ('person', 'polygon', 0, [[(100.0, 10.0), (100.4, 10.0), (100.4, 10.4)]]),  # below one pixel
    )),
    ('val2017', LANDSCAPE, ()),
)  # fmt: skip


def make_tiny_coco(data_root: str | Path) -> Path:
    """Writes ``{train,val}2017/%012d.jpg`` and ``annotations/instances_{train,val}2017.json``.

    6 pictures with 11 annotations (2 crowds) for training, 4 with 10 (1 crowd, 1 too small) for validation.

    Args:
        data_root: Folder to write into; made if it does not exist.

    Returns:
        ``data_root``.
    """
    data_root = Path(data_root)
    (data_root / 'annotations').mkdir(parents=True, exist_ok=True)
    categories = [dict(id=own, name=name, supercategory='') for name, own in CATEGORIES.items()]
    for split in ('train2017', 'val2017'):
        (data_root / split).mkdir(exist_ok=True)
        images, annotations = [], []
        for index, (own_split, (height, width), objects) in enumerate(SCENES):
            if own_split != split:
                continue
            image_id = 139 + 146 * index
            name = f'{image_id:012d}.jpg'
            images.append(dict(id=image_id, file_name=name, height=height, width=width))
            picture = _paint(index, height, width, objects)
            cv2.imwrite(str(data_root / split / name), picture, [cv2.IMWRITE_JPEG_QUALITY, 95])
            for category, form, _, parts in objects:
                annotation = _annotation(category, form, parts, height, width)
                annotation.update(id=1000 * (index + 1) + len(annotations), image_id=image_id)
                annotations.append(annotation)
        content = dict(info={}, licenses=[], images=images, annotations=annotations, categories=categories)
        path = data_root / 'annotations' / f'instances_{split}.json'
        path.write_text(json.dumps(content))
    return data_root


def _paint(seed: int, height: int, width: int, objects: tuple) -> np.ndarray:
    generator = np.random.default_rng(seed)
    picture = generator.integers(95, 125, (height, width, 3)).astype(np.uint8)
    for category, _, _, parts in sorted(objects, key=lambda own: own[2]):
        colour = np.array(COLOURS[category]) + generator.integers(-25, 15, 3)
        for part in parts:
            mask = _mask([part], height, width)
            picture[mask] = np.clip(colour, 0, 255)
    return picture


def _mask(parts: list, height: int, width: int) -> np.ndarray:
    return mask_utils.decode(_rle(parts, height, width)).astype(bool)


def _rle(parts: list, height: int, width: int) -> dict:
    flat = [[float(value) for point in part for value in point] for part in parts]
    return mask_utils.merge(mask_utils.frPyObjects(flat, height, width))


def _annotation(category: str, form: str, parts: list, height: int, width: int) -> dict:
    rle = _rle(parts, height, width)
    points = np.concatenate([np.array(part, dtype=float) for part in parts])
    x, y = points.min(axis=0).tolist()
    area = float(mask_utils.area(rle))
    if form == 'polygon':
        segmentation = [[float(value) for point in part for value in point] for part in parts]
    elif form == 'rle':
        segmentation = dict(size=[height, width], counts=rle['counts'].decode())
    else:
        segmentation = dict(size=[height, width], counts=_runs(mask_utils.decode(rle)))
    return dict(
        category_id=CATEGORIES[category],
        segmentation=segmentation,
        bbox=[round(value, 2) for value in (x, y, *np.ptp(points, axis=0).tolist())],
        area=area or 0.08,  # of what covers no pixel centre COCO has the polygon's area
        iscrowd=int(form == 'crowd'),
    )


def _runs(mask: np.ndarray) -> list[int]:
    """Run lengths in columns, of zeros first: COCO's uncompressed RLE."""
    flat = mask.ravel(order='F')
    starts = np.flatnonzero(np.diff(flat, prepend=0))
    return np.diff(starts, prepend=0, append=len(flat)).tolist()


def main() -> None:
    parser = ToolParser(description=__doc__.split('\n', maxsplit=1)[0])
    parser.add_argument('out', writes='folder', help='folder for GENSEG_DATA; the files go into its subfolder coco/')
    print(f'wrote {make_tiny_coco(Path(parser.parse_args().out) / "coco")}')


if __name__ == '__main__':
    run_tool(main)
