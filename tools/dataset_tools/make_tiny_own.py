"""Writes tiny data of one's own in every form that `prepare_own.py` reads, for tests and first tries.

    python tools/dataset_tools/make_tiny_own.py tiny_data
    python tools/dataset_tools/prepare_own.py tiny_data/yolo

Drawn scenes of shapes: ``maps/`` (a 16-bit PNG of ids per picture), ``coco/`` (a json of polygons), ``lvis/`` (a json
whose pictures have a coco_url), ``yolo/`` (text files of polygons, data.yaml), ``referring/`` (a csv of sentences and
black-and-white masks), ``polygons/`` (a jsonl of sentences and polygons or RLE); and with their packages ``parquet/``
and ``rows/`` (Hugging Face's datasets, saved).
"""

import csv
import importlib.util
import io
import json
from pathlib import Path

import cv2
import numpy as np
from PIL import Image
from pycocotools import mask as mask_utils

from genseg_mm.datasets.shapes_dataset import ShapesDataset
from genseg_mm.launch import ToolParser, run_tool

SIZE = (72, 96)  # (height, width)
NUM_SENTENCES = 3  # of a picture, at most
SPLIT_AT = 0.75  # of the pictures that have a split of their own


def make_tiny_own(root: str | Path, num: int = 12) -> Path:
    """Writes all forms of the same kind of scenes.

    Args:
        root: Folder to write into; made if it does not exist.
        num: Number of pictures.

    Returns:
        ``root``.
    """
    root = Path(root)
    instances = ShapesDataset(num_scenes=num, image_size=SIZE, task='instance', split='train')
    scenes = [(own.image[..., ::-1], own.ids) for own in map(instances.scene, range(num))]
    _write_maps(root / 'maps', scenes)
    _write_coco(root / 'coco', scenes)
    _write_lvis(root / 'lvis', scenes)
    _write_yolo(root / 'yolo', scenes)
    referring = ShapesDataset(num_scenes=num, image_size=SIZE, task='referring', split='train')
    told = [(referring.scene(number), _sentences(referring, number)) for number in range(num)]
    _write_referring(root / 'referring', told)
    _write_polygons(root / 'polygons', told)
    if importlib.util.find_spec('pyarrow'):
        _write_parquet(root / 'parquet', told)
    found = importlib.util.find_spec('datasets')
    if found and found.origin:  # not a folder of that name on the path
        _write_rows(root / 'rows', scenes)
    return root


def _sentences(dataset: ShapesDataset, number: int) -> dict[int, list[str]]:
    """Sentences of a scene by the object that they are about."""
    found: dict[int, list[str]] = {}
    for one in dataset.scene_expressions(number):
        found.setdefault(one.target, []).append(one.text)
    return {target: texts[:NUM_SENTENCES] for target, texts in found.items()}


def _save(path: Path, array: np.ndarray) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(path, **({'quality': 95} if path.suffix == '.jpg' else {}))
    return path.name


def outline(mask: np.ndarray) -> list[float]:
    """The outer polygon of the largest part of a mask, [x0, y0, x1, y1, ...] in pixels."""
    contours, _ = cv2.findContours(mask.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    longest = max(contours, key=len)[:, 0]
    return (longest + 0.5).astype(float).reshape(-1).tolist() if len(longest) > 2 else []


def _polygons(ids: np.ndarray) -> list[list[float]]:
    return [polygon for own in np.unique(ids[ids > 0]) if (polygon := outline(ids == own))]


def _write_maps(root: Path, scenes: list) -> None:
    for number, (picture, ids) in enumerate(scenes):
        _save(root / f'images/{number:03d}.jpg', picture)
        _save(root / f'masks/{number:03d}.png', ids.astype(np.uint16))


def _coco_of(scenes: list) -> dict:
    height, width = SIZE
    annotations = []
    for number, (_, ids) in enumerate(scenes):
        for polygon in _polygons(ids):
            xs, ys = polygon[::2], polygon[1::2]
            rle = mask_utils.merge(mask_utils.frPyObjects([polygon], height, width))
            annotations.append(
                dict(
                    id=len(annotations) + 1,
                    image_id=number + 1,
                    category_id=1,
                    segmentation=[polygon],
                    bbox=[min(xs), min(ys), max(xs) - min(xs), max(ys) - min(ys)],
                    area=float(mask_utils.area(rle)),
                    iscrowd=0,
                )
            )
    images = [dict(id=number + 1, height=height, width=width) for number in range(len(scenes))]
    return dict(images=images, annotations=annotations, categories=[dict(id=1, name='shape')])


def _write_coco(root: Path, scenes: list) -> None:
    content = _coco_of(scenes)
    for image, (picture, _) in zip(content['images'], scenes, strict=True):
        image['file_name'] = _save(root / f'images/{image["id"]:03d}.jpg', picture)
    (root / 'annotations.json').write_text(json.dumps(content))


def _write_lvis(root: Path, scenes: list) -> None:
    content = _coco_of(scenes)
    for image, (picture, _) in zip(content['images'], scenes, strict=True):
        folder = 'val2017' if image['id'] % 4 == 0 else 'train2017'
        name = _save(root / folder / f'{image["id"]:012d}.jpg', picture)
        image['coco_url'] = f'http://images.cocodataset.org/{folder}/{name}'
        image.update(neg_category_ids=[], not_exhaustive_category_ids=[])
    for own in content['annotations']:
        del own['iscrowd']  # LVIS has no crowds
    (root / 'lvis.json').write_text(json.dumps(content))


def _write_yolo(root: Path, scenes: list) -> None:
    height, width = SIZE
    for number, (picture, ids) in enumerate(scenes):
        split = 'train' if number < SPLIT_AT * len(scenes) else 'val'
        _save(root / f'images/{split}/{number:03d}.jpg', picture)
        lines = []
        for polygon in _polygons(ids):
            shares = np.reshape(polygon, (-1, 2)) / (width, height)
            lines.append(' '.join(['0', *(f'{share:.6f}' for share in shares.reshape(-1))]))
        labels = root / f'labels/{split}/{number:03d}.txt'
        labels.parent.mkdir(parents=True, exist_ok=True)
        labels.write_text('\n'.join(lines) + '\n')
    (root / 'data.yaml').write_text('path: .\ntrain: images/train\nval: images/val\nnames:\n  0: shape\n')


def _write_referring(root: Path, told: list) -> None:
    with io.StringIO() as file:
        rows = csv.writer(file, lineterminator='\n')
        rows.writerow(['image', 'mask', 'text'])
        for number, (scene, sentences) in enumerate(told):
            _save(root / f'images/{number:03d}.jpg', scene.image[..., ::-1])
            for target, texts in sentences.items():
                mask = (scene.ids == target + 1).astype(np.uint8) * 255
                name = _save(root / f'masks/{number:03d}_{target}.png', mask)
                rows.writerows([f'images/{number:03d}.jpg', f'masks/{name}', text] for text in texts)
        (root / 'refs.csv').write_text(file.getvalue(), encoding='utf-8')


def _told_rows(told: list) -> list[dict]:
    """Rows with a split, masks as polygons and as RLE in turn, all sentences of an object in one."""
    rows = []
    for number, (scene, sentences) in enumerate(told):
        split = 'train' if number < SPLIT_AT * len(told) else 'val'
        for target, texts in sentences.items():
            mask = scene.ids == target + 1
            rle = mask_utils.encode(np.asfortranarray(mask, np.uint8))
            rle = dict(size=rle['size'], counts=rle['counts'].decode())
            shape = [outline(mask)] if len(rows) % 2 else rle
            rows.append(dict(image=f'images/{number:03d}.jpg', mask=shape, text=texts, split=split))
    return rows


def _write_polygons(root: Path, told: list) -> None:
    for number, (scene, _) in enumerate(told):
        _save(root / f'images/{number:03d}.jpg', scene.image[..., ::-1])
    lines = [json.dumps(row) for row in _told_rows(told)]
    (root / 'refs.jsonl').write_text('\n'.join(lines) + '\n')


def _write_parquet(root: Path, told: list) -> None:
    import pyarrow
    import pyarrow.parquet

    for number, (scene, _) in enumerate(told):
        _save(root / f'images/{number:03d}.jpg', scene.image[..., ::-1])
    rows = [dict(row, mask=json.dumps(row['mask'])) for row in _told_rows(told)]
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), root / 'refs.parquet')


def _write_rows(root: Path, scenes: list) -> None:
    import datasets

    features = datasets.Features(dict(image=datasets.Image(), mask=datasets.Image()))
    columns = dict(
        image=[Image.fromarray(picture) for picture, _ in scenes],
        mask=[Image.fromarray(ids.astype(np.uint16)) for _, ids in scenes],
    )
    datasets.Dataset.from_dict(columns, features=features).save_to_disk(str(root))


def main() -> None:
    parser = ToolParser(description=__doc__.split('\n', maxsplit=1)[0])
    parser.add_argument('out', writes='folder', help='folder to write into')
    parser.add_argument('--num', type=int, default=12, help='pictures of each form (default: 12)')
    args = parser.parse_args()
    print(f'wrote {make_tiny_own(args.out, args.num)}')


if __name__ == '__main__':
    run_tool(main)
