"""Writes a tiny PIDray: eight painted X-ray pictures in the published layout, for tests and first tries.

    python tools/dataset_tools/make_tiny_pidray.py tiny_data [--version 2]

It has what trips readers of the real files: ids of pictures that restart in every file, files of macOS (``._*``) beside
pictures and annotations, polygons, RLE with a hole whose counts are a list or a str, transparent objects that overlap,
and, in version 2, one file for all test pictures.
"""

import json
from pathlib import Path

import cv2
import numpy as np
from pycocotools import mask as mask_utils

from genseg_mm.launch import ToolParser, run_tool

SIZE = (96, 128)
CLASSES = (
    'Baton', 'Pliers', 'Hammer', 'Powerbank', 'Scissors', 'Wrench',
    'Gun', 'Bullet', 'Sprayer', 'HandCuffs', 'Knife', 'Lighter',
)  # fmt: skip
JUNK = b'\0\5\x16\7Mac OS X'
# split, objects: class, form of the mask, box (x0, y0, x1, y1)
PICTURES = (
    ('train', (('Knife', 'polygon', (20, 40, 90, 52)),)),
    ('train', (('Gun', 'polygon', (30, 30, 80, 70)), ('Bullet', 'str', (90, 20, 106, 36)))),
    ('easy', (('Hammer', 'polygon', (20, 30, 100, 50)),)),
    ('easy', (('HandCuffs', 'list', (30, 24, 82, 76)),)),
    ('hard', (('Wrench', 'polygon', (10, 20, 70, 34)), ('Powerbank', 'str', (50, 26, 110, 80)))),
    ('hard', (('Lighter', 'polygon', (12, 12, 30, 44)), ('HandCuffs', 'str', (50, 30, 110, 86)),
              ('Sprayer', 'polygon', (36, 10, 50, 60)))),
    ('hidden', (('Knife', 'list', (30, 50, 100, 60)),)),
    ('hidden', (('Scissors', 'polygon', (40, 20, 90, 70)),)),
)  # fmt: skip


def make_tiny_pidray(data_root: str | Path, version: int = 1) -> Path:
    """Writes ``{train,easy,hard,hidden}/*.png`` and ``annotations/xray_{train,test_easy,test_hard,test_hidden}.json``.

    2 pictures in each split, with 3, 2, 5 and 2 objects. Version 2: ``{train,test}/`` and
    ``annotations/{train,test}.json``.

    Args:
        data_root: Folder to write into; made if it does not exist.
        version: 1 or 2.

    Returns:
        ``data_root``.
    """
    data_root = Path(data_root)
    files: dict[str, list] = {}
    for number, (split, objects) in enumerate(PICTURES):
        place = sum(own == split for own, _ in PICTURES[:number])
        name = f'xray_{split if split != "train" else ""}{place:05d}.png'
        if version == 1:
            folder, file = split, f'xray_{split if split == "train" else f"test_{split}"}.json'
        else:
            folder = 'train' if split == 'train' else 'test'
            file = f'{folder}.json'
        (data_root / folder).mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(data_root / folder / name), _paint(number, objects))
        (data_root / folder / f'._{name}').write_bytes(JUNK)
        files.setdefault(file, []).append((name, objects))
    (data_root / 'annotations').mkdir(exist_ok=True)
    for file, pictures in files.items():
        (data_root / 'annotations' / file).write_text(json.dumps(_content(pictures)))
        (data_root / 'annotations' / f'._{file}').write_bytes(JUNK)
    return data_root


def _content(pictures: list) -> dict:
    """COCO's json of pictures (name, objects); ids count from 0."""
    height, width = SIZE
    images, annotations = [], []
    for number, (name, objects) in enumerate(pictures):
        images.append(dict(id=number, file_name=name, height=height, width=width))
        for category, form, box in objects:
            annotation = _annotation(category, form, box)
            annotations.append(dict(annotation, id=len(annotations), image_id=number))
    categories = [dict(id=place, name=name) for place, name in enumerate(CLASSES, start=1)]
    return dict(images=images, annotations=annotations, categories=categories)


def _annotation(category: str, form: str, box: tuple) -> dict:
    mask = _mask(category, box)
    rle = mask_utils.encode(np.asfortranarray(mask, dtype=np.uint8))
    x0, y0, x1, y1 = box
    if form == 'polygon':
        segmentation = [[float(value) for value in (x0, y0, x1, y0, x1, y1, x0, y1)]]
    else:
        counts = rle['counts'].decode() if form == 'str' else _runs(mask)
        segmentation = dict(size=list(SIZE), counts=counts)
    return dict(
        category_id=CLASSES.index(category) + 1,
        segmentation=segmentation,
        bbox=[x0, y0, x1 - x0, y1 - y0],
        area=int(mask.sum()),
        iscrowd=0,
    )


def _mask(category: str, box: tuple) -> np.ndarray:
    """(H, W) bool: the box, of handcuffs a ring in it."""
    x0, y0, x1, y1 = box
    mask = np.zeros(SIZE, np.uint8)
    if category == 'HandCuffs':
        cv2.circle(mask, ((x0 + x1) // 2, (y0 + y1) // 2), min(x1 - x0, y1 - y0) // 2 - 4, 1, 6)
    else:
        mask[y0:y1, x0:x1] = 1
    return mask.astype(bool)


def _runs(mask: np.ndarray) -> list[int]:
    """Run lengths in columns, of zeros first: COCO's uncompressed RLE."""
    flat = mask.ravel(order='F').astype(np.int8)
    starts = np.flatnonzero(np.diff(flat, prepend=0))
    return np.diff(starts, prepend=0, append=len(flat)).tolist()


def _paint(seed: int, objects: tuple) -> np.ndarray:
    """Objects absorb light, one behind the other, (H, W, 3) BGR."""
    generator = np.random.default_rng(seed)
    light = np.full((*SIZE, 3), 235.0)
    light[6:-6, 4:-4] *= (0.9, 0.85, 0.75)  # the bag
    for category, _, box in objects:
        dark = generator.uniform(0.35, 0.6, 3)
        light[_mask(category, box)] *= dark
    return np.clip(light + generator.integers(-4, 5, light.shape), 0, 255).astype(np.uint8)


def main() -> None:
    parser = ToolParser(description=__doc__.split('\n', maxsplit=1)[0])
    parser.add_argument('out', writes='folder', help='folder for GENSEG_DATA; the files go into its subfolder pidray/')
    parser.add_argument('--version', type=int, choices=(1, 2), default=1)
    args = parser.parse_args()
    print(f'wrote {make_tiny_pidray(Path(args.out) / "pidray", args.version)}')


if __name__ == '__main__':
    run_tool(main)
