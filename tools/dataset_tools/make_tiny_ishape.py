"""Writes a tiny iShape: eighteen painted pictures in the published layout, for tests and first tries.

    python tools/dataset_tools/make_tiny_ishape.py tiny_data

It has what trips readers of the real files: six folders, ids in 16-bit PNG above 255, thin objects that cross one
another and hollow ones, RLE with holes whose counts are a str or a list, and the links of ``coco_format/`` (left out
where the file system has none).
"""

import json
import os
from pathlib import Path

import cv2
import numpy as np
from PIL import Image
from pycocotools import mask as mask_utils

from genseg_mm.launch import ToolParser, run_tool

SIZE = (96, 96)
SUBSETS = ('antenna', 'branch', 'fence', 'hanger', 'log', 'wire')
PER_SPLIT = dict(train=1, val=2)
ANNOTATIONS = 'coco_format-mask_encoding=rle-instances_2017.json'
FIRST_ID = 254  # the third object of a picture has more than 8 bits


def make_tiny_ishape(data_root: str | Path) -> Path:
    """Writes ``<subset>/{train,val}/{image/*.jpg, instance_map/*.png, coco_format-mask_encoding=...json}``.

    1 picture for training and 2 for validation in each of the six, with 3 objects each (ids 254, 255, 256).

    Args:
        data_root: Folder to write into; made if it does not exist.

    Returns:
        ``data_root``.
    """
    data_root = Path(data_root)
    for place, subset in enumerate(SUBSETS):
        for split, num in PER_SPLIT.items():
            folder = data_root / subset / split
            for name in ('image', 'instance_map', 'coco_format'):
                (folder / name).mkdir(parents=True, exist_ok=True)
            images, annotations = [], []
            for number in range(num):
                ids, picture = _paint(subset, 100 * place + 10 * (split == 'val') + number)
                name = f'{number:04d}'
                Image.fromarray(picture).save(folder / 'image' / f'{name}.jpg', quality=95)
                Image.fromarray(ids).save(folder / 'instance_map' / f'{name}.png')
                height, width = SIZE
                images.append(dict(id=number, file_name=f'{name}.jpg', height=height, width=width))
                annotations += _annotations(ids, number, len(annotations))
            content = dict(images=images, annotations=annotations, categories=[dict(id=1, name=subset)])
            (folder / ANNOTATIONS).write_text(json.dumps(content))
            _link(folder / 'coco_format' / 'instances_train2017.json', f'../{ANNOTATIONS}')
            _link(folder / 'coco_format' / 'train2017', '../image')
    return data_root


def _paint(subset: str, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Ids (H, W) uint16 and the picture (H, W, 3) RGB."""
    generator = np.random.default_rng(seed)
    ids = np.zeros(SIZE, np.uint16)
    picture = generator.integers(100, 125, (*SIZE, 3)).astype(np.uint8)
    for number in range(3):
        mask = _shape(subset, number, generator)
        ids[mask] = FIRST_ID + number
        colour = np.array([(200, 70, 60), (60, 150, 90), (70, 90, 200)][number])
        noise = generator.integers(-12, 12, (int(mask.sum()), 3))
        picture[mask] = np.clip(colour + noise, 0, 255)
    return ids, picture


def _shape(subset: str, number: int, generator: np.random.Generator) -> np.ndarray:
    mask = np.zeros(SIZE, np.uint8)
    low, high = 8 + 28 * number, 30 + 28 * number  # each has a band of its own, and crosses others
    if subset in ('antenna', 'branch', 'wire'):
        xs = np.linspace(4, 91, 7)
        ys = generator.uniform(max(low - 14, 2), min(high + 14, 93), 7)
        points = np.stack([xs, ys], 1).round().astype(np.int32)
        cv2.polylines(mask, [points], False, 1, 3)
        if subset == 'branch':
            for x, y in points[1:-1].tolist():
                cv2.line(mask, (x, y), (x + 8, y - 12), 1, 2)
    elif subset == 'log':
        cv2.line(mask, (8, low + 6), (88, high - 6), 1, 10)
    else:  # hollow: a frame, with bars in a fence
        cv2.rectangle(mask, (6 + 6 * number, low), (82 + 6 * number, high), 1, 3)
        for x in range(24, 80, 16) if subset == 'fence' else ():
            cv2.line(mask, (x, low), (x, high), 1, 2)
    return mask.astype(bool)


def _annotations(ids: np.ndarray, image_id: int, first: int) -> list[dict]:
    annotations = []
    for number, own in enumerate(np.unique(ids[ids > 0])):
        rle = mask_utils.encode(np.asfortranarray(ids == own, dtype=np.uint8))
        counts = rle['counts'].decode() if number % 2 else _runs(ids == own)
        annotations.append(
            dict(
                id=first + number,
                image_id=image_id,
                category_id=1,
                segmentation=dict(size=list(SIZE), counts=counts),
                bbox=mask_utils.toBbox(rle).tolist(),
                area=int(mask_utils.area(rle)),
                iscrowd=0,
            )
        )
    return annotations


def _runs(mask: np.ndarray) -> list[int]:
    """Run lengths in columns, of zeros first: COCO's uncompressed RLE."""
    flat = mask.ravel(order='F').astype(np.int8)
    starts = np.flatnonzero(np.diff(flat, prepend=0))
    return np.diff(starts, prepend=0, append=len(flat)).tolist()


def _link(path: Path, target: str) -> None:
    if path.is_symlink():
        return
    try:
        os.symlink(target, path)
    except (NotImplementedError, OSError) as error:
        print(f'{path.name} left out, no links here: {error}')


def main() -> None:
    parser = ToolParser(description=__doc__.split('\n', maxsplit=1)[0])
    parser.add_argument(
        'out', writes='folder', help='folder for GENSEG_DATA; the files go into its subfolder ishape_dataset/'
    )
    print(f'wrote {make_tiny_ishape(Path(parser.parse_args().out) / "ishape_dataset")}')


if __name__ == '__main__':
    run_tool(main)
