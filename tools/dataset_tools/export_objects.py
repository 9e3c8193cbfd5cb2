"""Writes scenes of recognisable objects as COCO, RefCOCO, gRefCOCO, captions and ReasonSeg, for other people's tools.

    python tools/dataset_tools/export_objects.py exported --num 1000 200 200
    GENSEG_DATA=exported python tools/analysis_tools/browse_dataset.py configs/genmask/refcoco_tiny.py

The folder has the published layouts: coco/annotations/instances_{train,val}2017.json with coco/{train,val}2017/,
coco/refcoco/{instances.json,refs(unc).p}, coco/grefcoco/{instances.json,grefs(unc).json}, coco/train2014/,
coco/annotations/captions_train2014.json and reason_seg/ReasonSeg/{train,val,test}/. Masks are exact: run lengths, or
polygons without holes where the format has polygons alone. RefCOCO takes expressions of one target, gRefCOCO and
ReasonSeg also those of none and several. testA is what training's wordings say of the test scenes, testB what held-out
wordings say of them; ReasonSeg has both.
"""

import argparse
import json
import pickle
from collections.abc import Iterator, Sequence
from pathlib import Path

import cv2
import numpy as np
from pycocotools import mask as mask_utils

from genseg_mm.datasets import ObjectScenesDataset
from genseg_mm.datasets.object_scenes import ObjectScene
from genseg_mm.files import whole_file, write_text
from genseg_mm.launch import ToolParser, run_tool

FORMATS = ('coco', 'refcoco', 'grefcoco', 'captions', 'reasonseg')
SPLITS = ('train', 'val', 'test')
PICTURE = 'COCO_train2014_{:012d}.png'
STEP = 10_000_000  # ids of the pictures of a split: from 1, 10,000,001 and 20,000,001 on


class Exporter:
    """What the formats share.

    Args:
        out: Folder to write into.
        num: Scenes of train, val and test.
        settings: Of :class:`~genseg_mm.ObjectScenesDataset`.
    """

    def __init__(self, out: str | Path, num: Sequence[int], **settings) -> None:
        self.out, self.num, self.settings = Path(out), dict(zip(SPLITS, num, strict=True)), settings
        names = sorted(set(self._dataset('train', 'referring').cast.bank.names))
        groups = dict(zip(self.cast.bank.names, self.cast.bank.groups, strict=True))
        self.categories = [
            dict(id=number, name=name, supercategory=groups[name]) for number, name in enumerate(names, start=1)
        ]
        self.category_of = {own['name']: own['id'] for own in self.categories}

    def _dataset(self, split: str, task: str, wordings: str = 'train') -> ObjectScenesDataset:
        expressions = dict(expressions='each-kind', wordings=wordings) if task == 'referring' else {}
        dataset = ObjectScenesDataset(
            self.num[split], task=task, split=split, test_mode=True, lazy_init=True, **expressions, **self.settings
        )
        self.cast = dataset.cast
        return dataset

    def coco(self) -> str:
        """Instances, as of COCO 2017."""
        counts = []
        for split in ('train', 'val'):
            dataset, images, annotations = self._dataset(split, 'instance'), [], []
            for index in range(self.num[split]):
                scene, image_id = dataset.scene(index), SPLITS.index(split) * STEP + index + 1
                name = f'{image_id:012d}.png'
                _write_picture(self.out / 'coco' / f'{split}2017' / name, scene.image)
                images.append(_image(image_id, name, scene.image))
                annotations += self._annotations(scene, image_id, len(annotations) + 1, as_list=False)
            path = self.out / 'coco' / 'annotations' / f'instances_{split}2017.json'
            _write_json(path, dict(images=images, annotations=annotations, categories=self.categories))
            counts.append(f'{len(annotations)} objects in {len(images)} pictures of {split}')
        return f'coco: {", ".join(counts)}'

    def refcoco(self) -> str:
        """Expressions of one target; several of one object are one reference."""
        images, annotations, refs, num = [], [], [], 0
        for image_id, first, scene, found in self._scenes(images, annotations):
            for part, texts in found.items():
                for target in range(len(scene.objects)):
                    own = [text for text, targets in texts if targets == (target,)]
                    if own:
                        name = scene.objects[target].name
                        refs.append(self._reference(len(refs), num, own, part, image_id, first + target, name))
                        num += len(own)
        folder = self.out / 'coco' / 'refcoco'
        _write_json(folder / 'instances.json', self._instances(images, annotations))
        with whole_file(folder / 'refs(unc).p') as path:
            path.write_bytes(pickle.dumps(refs, protocol=2))
        return f'refcoco: {num} sentences on {len(refs)} objects in {len(images)} pictures'

    def grefcoco(self) -> str:
        """Expressions of no, one and several targets."""
        images, annotations, refs, num = [], [], [], 0
        for image_id, first, scene, found in self._scenes(images, annotations):
            for part, texts in found.items():
                for text, targets in texts:
                    ids = [first + target for target in targets] or [-1]
                    ref = self._reference(len(refs), num, [text], part, image_id, ids, None)
                    ref['category_id'] = [self.category_of[scene.objects[own].name] for own in targets] or [-1]
                    refs.append(dict(ref, no_target=not targets))
                    num += 1
        folder = self.out / 'coco' / 'grefcoco'
        _write_json(folder / 'instances.json', self._instances(images, annotations))
        _write_json(folder / 'grefs(unc).json', refs)
        return f'grefcoco: {num} sentences in {len(images)} pictures'

    def captions(self) -> str:
        """Pictures with all their captions, as of COCO 2014; of training."""
        dataset, images, annotations = self._dataset('train', 'text_to_image'), [], []
        for index in range(self.num['train']):
            scene, image_id = dataset.scene(index), len(SPLITS) * STEP + index + 1
            name = PICTURE.format(image_id)
            _write_picture(self.out / 'coco' / 'train2014' / name, scene.image)
            images.append(_image(image_id, name, scene.image))
            for text in dataset.scene_captions(index):
                annotations.append(dict(id=len(annotations) + 1, image_id=image_id, caption=text))
        path = self.out / 'coco' / 'annotations' / 'captions_train2014.json'
        _write_json(path, dict(images=images, annotations=annotations))
        return f'captions: {len(annotations)} of {len(images)} pictures'

    def reasonseg(self) -> str:
        """A picture with the wordings of one target; those that held-out words say count as long."""
        num = 0
        for split in SPLITS:
            for wordings in ('train', 'held_out') if split == 'test' else ('train',):
                dataset = self._dataset(split, 'referring', wordings)
                for index in range(self.num[split]):
                    scene, found = dataset.scene(index), dataset.scene_expressions(index)
                    folder = self.out / 'reason_seg' / 'ReasonSeg' / split
                    chosen = found[index % len(found)]
                    same = [own.text for own in found if own.targets == chosen.targets]
                    stem = f'{index:06d}_{wordings}'
                    _write_picture(folder / f'{stem}.jpg', scene.image)
                    mask = np.isin(scene.ids, [target + 1 for target in chosen.targets])
                    shapes = [_shape(points, f'{stem}.jpg') for points in polygons_of(mask)]
                    entry = dict(text=same, is_sentence=wordings == 'held_out', shapes=shapes)
                    _write_json(folder / f'{stem}.json', entry)
                    num += 1
        return f'reasonseg: {num} pictures'

    def _scenes(self, images: list, annotations: list) -> Iterator[tuple]:
        """Scenes with their expressions by the split of RefCOCO; writes the pictures and fills in both lists."""
        for split in SPLITS:
            parts = {split if split != 'test' else 'testA': self._dataset(split, 'referring')}
            if split == 'test':
                parts['testB'] = self._dataset(split, 'referring', 'held_out')
            for index in range(self.num[split]):
                scene, image_id = next(iter(parts.values())).scene(index), SPLITS.index(split) * STEP + index + 1
                name = PICTURE.format(image_id)
                _write_picture(self.out / 'coco' / 'train2014' / name, scene.image)
                images.append(_image(image_id, name, scene.image))
                first = len(annotations) + 1
                annotations += self._annotations(scene, image_id, first, as_list=True)
                found = {
                    part: [(own.text, own.targets) for own in dataset.scene_expressions(index)]
                    for part, dataset in parts.items()
                }
                yield image_id, first, scene, found

    def _annotations(self, scene: ObjectScene, image_id: int, first: int, as_list: bool) -> list[dict]:
        """One per object; RefCOCO's own code reads run lengths in a list alone, COCO's only without."""
        found = []
        for number, own in enumerate(scene.objects):
            rle = mask_utils.encode(np.asfortranarray(scene.ids == number + 1, np.uint8))
            box = mask_utils.toBbox(rle).tolist()
            rle = dict(size=[int(side) for side in rle['size']], counts=rle['counts'].decode('ascii'))
            found.append(
                dict(
                    id=first + number,
                    image_id=image_id,
                    category_id=self.category_of[own.name],
                    segmentation=[rle] if as_list else rle,
                    bbox=box,
                    area=own.visible,
                    iscrowd=0,
                )
            )
        return found

    def _instances(self, images: list, annotations: list) -> dict:
        return dict(images=images, annotations=annotations, categories=self.categories)

    def _reference(
        self, ref_id: int, first: int, texts: list[str], split: str, image_id: int, ann_id: object, name: str | None
    ) -> dict:
        sentences = [
            dict(tokens=text.split(), raw=text, sent=text, sent_id=number) for number, text in enumerate(texts, first)
        ]
        return dict(
            ref_id=ref_id,
            ann_id=ann_id,
            image_id=image_id,
            category_id=self.category_of.get(name),
            split=split,
            file_name=PICTURE.format(image_id),
            sentences=sentences,
            sent_ids=[own['sent_id'] for own in sentences],
        )


def export_objects(
    out: str | Path, num: Sequence[int] = (1000, 200, 200), formats: Sequence[str] = FORMATS, **settings
) -> list[str]:
    """Writes scenes in other datasets' formats.

    Args:
        out: Folder to write into; ``GENSEG_DATA`` for our configs.
        num: Scenes of train, val and test.
        formats: Some of ``FORMATS``.
        settings: Of :class:`~genseg_mm.ObjectScenesDataset`: image_size, seed, bank, groups, ...

    Returns:
        A line on each format.
    """
    exporter = Exporter(out, num, **settings)
    return [getattr(exporter, own)() for own in formats]


def polygons_of(mask: np.ndarray) -> list[list[list[int]]]:
    """Polygons [[x, y], ...], each with its inside and its outline, that are together exactly a mask, (H, W) bool."""
    contours, tree = cv2.findContours(mask.astype(np.uint8), cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
    holes = [] if tree is None else [own for own, links in zip(contours, tree[0], strict=True) if links[3] >= 0]
    if holes:  # cut through a hole: it becomes a bay of both sides
        column = int(np.median(holes[0][:, 0, 0]))
        column = min(max(column, 1), mask.shape[1] - 1)
        left, right = mask.copy(), mask.copy()
        left[:, column:], right[:, :column] = False, False
        return polygons_of(left) + polygons_of(right)
    return [(own[:, 0].tolist() * 3)[: max(len(own), 3)] for own in contours]


def _shape(points: list, name: str) -> dict:
    return dict(label='target', labels=['target'], shape_type='polygon', image_name=name, points=points, flags={})


def _image(image_id: int, name: str, image: np.ndarray) -> dict:
    return dict(id=image_id, file_name=name, height=image.shape[0], width=image.shape[1])


def _write_picture(path: Path, image: np.ndarray) -> None:
    _, data = cv2.imencode(path.suffix, image, [cv2.IMWRITE_JPEG_QUALITY, 95] if path.suffix == '.jpg' else [])
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data.tobytes())


def _write_json(path: Path, content: object) -> None:
    write_text(path, json.dumps(content))


def main() -> None:
    parser = ToolParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('out', writes='folder', help='folder to write into')
    parser.add_argument(
        '--num', type=int, nargs=3, default=[1000, 200, 200], metavar=SPLITS, help='scenes (default: 1000 200 200)'
    )
    parser.add_argument('--format', dest='formats', nargs='+', choices=FORMATS, default=FORMATS)
    parser.add_argument('--image-size', type=int, default=96, help='side of the pictures (default: 96)')
    parser.add_argument('--seed', type=int, default=0)
    parser.add_argument('--bank', help='bank of objects (default: that in the cache folder)')
    parser.add_argument('--groups', nargs='+', help='groups or subgroups to draw from')
    for line in export_objects(**vars(parser.parse_args())):
        print(line)


if __name__ == '__main__':
    run_tool(main)
