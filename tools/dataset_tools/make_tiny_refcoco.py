"""Writes a tiny RefCOCO, RefCOCO+ and RefCOCOg: six drawn pictures in the published layout, for tests and first tries.

    python tools/dataset_tools/make_tiny_refcoco.py tiny_data
    GENSEG_DATA=tiny_data python tools/train.py configs/genmask/refcoco_tiny.py

It has what trips readers of the real files: outlines of two overlapping parts, two references to
one object, objects that nobody refers to, names in ``refs`` that are no picture names, pictures of
two sizes, and a pickle as Python 2 wrote it. The three datasets share the pictures and split them differently.
"""

import json
import pickle
from pathlib import Path

import cv2
import numpy as np

from genseg_mm.launch import ToolParser, run_tool

# Blue, green, red
COLOURS = dict(red=(40, 40, 220), green=(50, 180, 50), blue=(220, 90, 30), yellow=(40, 220, 230))
CATEGORIES = ('square', 'cross', 'triangle')
FIRST_ID, STEP = 101, 7  # ids of the pictures; make_tiny_captions.py has captions for some of them


def _rectangle(x0: int, y0: int, x1: int, y1: int) -> list[tuple[int, int]]:
    return [(x0, y0), (x1, y0), (x1, y1), (x0, y1)]


def _cross(x: int, y: int) -> list[list]:
    return [_rectangle(x, y + 8, x + 24, y + 14), _rectangle(x + 9, y, x + 15, y + 24)]


# split, (height, width), objects: colour, category, parts of corners, sentences per reference
SCENES = (
    ('train', (48, 64), (
        ('red', 'square', [_rectangle(4, 6, 20, 22)], [['The red square.', 'square on the left']]),
        ('blue', 'cross', _cross(36, 4), [['Blue cross', 'the cross', 'right thing, blue']]),
        ('green', 'triangle', [[(30, 44), (44, 44), (30, 30)]], []),
    )),
    ('train', (40, 56), (
        ('yellow', 'triangle', [[(8, 34), (30, 34), (8, 12)]],
         [['yellow triangle'], ['bottom left one', 'big triangle']]),
        ('green', 'square', [_rectangle(38, 4, 50, 16)], [['Green square', 'top right square']]),
    )),
    ('train', (48, 64), (
        ('blue', 'square', [_rectangle(40, 20, 58, 38)], [['the blue square']]),
        ('red', 'triangle', [[(6, 40), (26, 40), (6, 20)]], [['Red triangle', 'left shape']]),
    )),
    ('val', (48, 64), (
        ('red', 'cross', _cross(6, 12), [['red cross', 'the cross on the left']]),
        ('green', 'square', [_rectangle(42, 14, 56, 28)], [['green one']]),
    )),
    ('testA', (48, 64), (
        ('yellow', 'square', [_rectangle(8, 8, 24, 24)], [['yellow square', 'square']]),
    )),
    ('testB', (40, 56), (
        ('blue', 'triangle', [[(10, 30), (34, 30), (10, 6)]], [['blue triangle']]),
        ('red', 'square', [_rectangle(38, 20, 50, 32)],
         [['red square', 'the right one', 'Square']]),
    )),
)  # fmt: skip
# Splits of the same six pictures in the other datasets; RefCOCOg's Google split divides the objects
SPLITS = {
    'refcoco+/refs(unc).p': ('val', 'train', 'train', 'train', 'testA', 'testB'),
    'refcocog/refs(umd).p': ('train', 'train', 'train', 'test', 'val', 'train'),
}
GOOGLE, GOOGLE_VAL = 'refcocog/refs(google).p', (5004, 5008, 5012)


def make_tiny_refcoco(data_root: str | Path) -> Path:
    """Writes ``refcoco/instances.json``, ``refcoco/refs(unc).p`` and ``train2014/*.jpg``.

    12 references with 22 sentences: train 7 references / 13 sentences on 3 pictures, val 2 / 3,
    testA 1 / 2 and testB 2 / 4 on one picture each.

    Beside it ``refcoco+`` and ``refcocog`` (UMD and Google), 12 references each, one per object: RefCOCO+ of two
    sentences (train 6 references, val 3, testA 1, testB 2), RefCOCOg of one (UMD: train 9, val 1, test 2; Google:
    train 9, val 3).

    Args:
        data_root: Folder to write into; made if it does not exist.

    Returns:
        ``data_root``.
    """
    data_root = Path(data_root)
    (data_root / 'refcoco').mkdir(parents=True, exist_ok=True)
    (data_root / 'train2014').mkdir(exist_ok=True)
    images, annotations, refs = [], [], []
    for index, (split, (height, width), objects) in enumerate(SCENES):
        image_id = FIRST_ID + STEP * index
        name = f'COCO_train2014_{image_id:012d}.jpg'
        images.append(dict(id=image_id, file_name=name, height=height, width=width))
        for _, category, parts, references in objects:
            annotations.append(_annotation(5001 + len(annotations), image_id, category, parts))
            for sentences in references:
                refs.append(_reference(refs, annotations[-1], name, split, sentences))
        cv2.imwrite(str(data_root / 'train2014' / name), draw(index), [cv2.IMWRITE_JPEG_QUALITY, 95])
    categories = [dict(id=number, name=name) for number, name in enumerate(CATEGORIES, start=1)]
    content = dict(images=images, annotations=annotations, categories=categories)
    _write(data_root / 'refcoco' / 'refs(unc).p', refs, content)
    for name, splits in SPLITS.items():
        _write(data_root / name, _other_references(content, name, splits), content)
    google = _other_references(content, GOOGLE, ('train',) * len(images))
    for ref in google:
        ref['split'] = 'val' if ref['ann_id'] in GOOGLE_VAL else 'train'
    _write(data_root / GOOGLE, google, content)
    return data_root


def draw(index: int) -> np.ndarray:
    """The picture of ``SCENES[index]``, (height, width, 3) BGR."""
    _, (height, width), objects = SCENES[index]
    noise = np.random.default_rng(index).integers(90, 130, (height, width, 3))
    picture = noise.astype(np.uint8)
    for colour, _, parts, _ in objects:
        for part in parts:
            # OpenCV paints the right and lower border as well, COCO's rasteriser does not
            corners = np.array(part) - (np.array(part) == np.array(part).max(axis=0))
            cv2.fillPoly(picture, [corners.astype(np.int32)], COLOURS[colour])
    return picture


def _write(path: Path, refs: list[dict], content: dict) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(pickle.dumps(refs, protocol=2))
    (path.parent / 'instances.json').write_text(json.dumps(content))


def _other_references(content: dict, name: str, splits: tuple[str, ...]) -> list[dict]:
    """One reference per object: what it is, without its place."""
    refs = []
    colours = [colour for _, _, objects in SCENES for colour, *_ in objects]
    places = {image['id']: place for place, image in enumerate(content['images'])}
    for annotation, colour in zip(content['annotations'], colours, strict=True):
        place = places[annotation['image_id']]
        what = f'{colour} {CATEGORIES[annotation["category_id"] - 1]}'
        sentences = [f'A {what} drawn on a grey background.']
        if name.startswith('refcoco+'):
            sentences = [f'The {what}', f'{colour} one']
        image_name = content['images'][place]['file_name']
        refs.append(_reference(refs, annotation, image_name, splits[place], sentences))
    return refs


def _annotation(ann_id: int, image_id: int, category: str, parts: list[list]) -> dict:
    points = np.concatenate([np.array(part, dtype=float) for part in parts])
    x, y = points.min(axis=0).tolist()
    width, height = np.ptp(points, axis=0).tolist()
    return dict(
        id=ann_id,
        image_id=image_id,
        category_id=CATEGORIES.index(category) + 1,
        segmentation=[[float(value) for point in part for value in point] for part in parts],
        bbox=[x, y, width, height],
        area=width * height,
        iscrowd=0,
    )


def _reference(refs: list[dict], annotation: dict, image_name: str, split: str, raw_sentences: list[str]) -> dict:
    first = sum(len(ref['sentences']) for ref in refs)
    sentences = []
    for sent_id, raw in enumerate(raw_sentences, start=first):
        sent = ''.join(letter for letter in raw.lower() if letter.isalnum() or letter == ' ')
        sentences.append(dict(tokens=sent.split(), raw=raw, sent_id=sent_id, sent=sent))
    return dict(
        sent_ids=[sentence['sent_id'] for sentence in sentences],
        file_name=image_name.replace('.jpg', f'_{annotation["id"]}.jpg'),  # as in the real files
        ann_id=annotation['id'],
        ref_id=len(refs),
        image_id=annotation['image_id'],
        split=split,
        sentences=sentences,
        category_id=annotation['category_id'],
    )


def main() -> None:
    parser = ToolParser(description=__doc__.split('\n', maxsplit=1)[0])
    parser.add_argument('out', writes='folder', help='folder for GENSEG_DATA; the files go into its subfolder coco/')
    print(f'wrote {make_tiny_refcoco(Path(parser.parse_args().out) / "coco")}')


if __name__ == '__main__':
    run_tool(main)
