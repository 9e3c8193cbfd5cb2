"""Predictions as other programs read them: COCO files, what CVAT imports, ``supervision.Detections``, brush strokes."""

import json
import os
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np

from genseg_mm.files import check_new_file, whole_file
from genseg_mm.inference.images import Source, is_folder
from genseg_mm.inference.results import decoded, encoded

ENDINGS = {
    '.json': 'a COCO file',
    '.zip': 'COCO 1.0 as CVAT imports it',
    '.xml': 'CVAT for images 1.1',
}
OBJECT = 'object'  # what instances without a sentence are called
_IN_ZIP = 'annotations/instances_default.json'
_INFO = dict(description='predictions of genseg_mm')
_DATE = (1980, 1, 1, 0, 0, 0)  # of files in an archive, so that the same predictions are the same bytes


@dataclass
class PredictedImage:
    """What was found in one image."""

    file_name: str
    height: int
    width: int
    masks: list[dict]  # COCO RLE, see results.encoded
    scores: list[float]
    names: list[str]  # of the categories


def predicted_image(source: Source, inputs: str, prediction: dict, texts: Sequence[str] = ()) -> PredictedImage:
    """What was found in one image of a call, its name as seen from the folder that was given."""
    place = Path(source.path)
    name = place.relative_to(inputs).as_posix() if is_folder(inputs) else place.name
    masks = np.asarray(prediction['masks'])
    return PredictedImage(
        file_name=name,
        height=masks.shape[1],
        width=masks.shape[2],
        masks=encoded(masks),
        scores=np.asarray(prediction['scores']).tolist(),
        names=list(texts) or [OBJECT] * len(masks),
    )


def check_export(path: str | Path, force: bool | None = None) -> Path:
    """Refuses a file that predictions cannot be written to, before anything is predicted; see ``check_new_file``."""
    path = Path(path)
    if path.suffix.lower() not in ENDINGS:
        known = ', '.join(f'{ending} ({what})' for ending, what in ENDINGS.items())
        raise ValueError(f'--out: expected a file that ends with {known}, but got {path}')
    return check_new_file(path, '--out', force)


def is_export(path: str | Path) -> bool:
    """Whether a file is a COCO json that was written here, which a run that goes on may write anew."""
    try:
        with open(Path(os.path.expanduser(path)), 'rb') as file:
            return file.read(100).startswith(json.dumps(dict(info=_INFO))[:-2].encode())
    except OSError:
        return False


def write_annotations(path: str | Path, images: Sequence[PredictedImage]) -> int:
    """Writes one file of all images: by its ending a COCO json, a zip of it, or CVAT's XML. Empty masks are left out.

    Returns:
        The number of masks.

    Raises:
        ValueError: If the ending is another one.
        WriteError: If it cannot be written.
    """
    path = check_export(path)
    content = coco_content(images)
    with whole_file(path) as temporary:
        if path.suffix.lower() == '.xml':
            ElementTree.ElementTree(cvat_images(content)).write(temporary, encoding='utf-8', xml_declaration=True)
        elif path.suffix.lower() == '.zip':
            with zipfile.ZipFile(temporary, 'w') as archive:
                archive.writestr(zipfile.ZipInfo(_IN_ZIP, _DATE), json.dumps(content), zipfile.ZIP_DEFLATED)
        else:
            temporary.write_text(json.dumps(content, ensure_ascii=False), encoding='utf-8')
    return len(content['annotations'])


def coco_content(images: Sequence[PredictedImage]) -> dict[str, list[dict]]:
    """A COCO file of instances: images, annotations with RLE, area, box and score, categories.

    Its ``annotations`` are a list of COCO results as well (``COCO.loadRes``).
    """
    from pycocotools import mask as coco_mask

    names = list(dict.fromkeys(name for image in images for name in image.names)) or [OBJECT]
    numbers = {name: number for number, name in enumerate(names, 1)}
    annotations = []
    for image_id, image in enumerate(images, 1):
        for rle, score, name in zip(image.masks, image.scores, image.names, strict=True):
            area = int(coco_mask.area(rle))
            if not area:
                continue
            annotations.append(
                dict(
                    id=len(annotations) + 1,
                    image_id=image_id,
                    category_id=numbers[name],
                    segmentation=rle,
                    area=area,
                    bbox=coco_mask.toBbox(rle).tolist(),
                    iscrowd=0,
                    score=float(score),
                )
            )
    return dict(
        info=_INFO,
        licenses=[],
        images=[
            dict(id=number, file_name=own.file_name, height=own.height, width=own.width)
            for number, own in enumerate(images, 1)
        ],
        annotations=annotations,
        categories=[dict(id=number, name=name, supercategory='') for name, number in numbers.items()],
    )


def cvat_images(content: dict[str, list[dict]]) -> ElementTree.Element:
    """The content of a COCO file as "CVAT for images 1.1": a mask is the run lengths, row by row, within its box."""
    names = {own['id']: own['name'] for own in content['categories']}
    root = ElementTree.Element('annotations')
    ElementTree.SubElement(root, 'version').text = '1.1'
    labels = ElementTree.SubElement(ElementTree.SubElement(ElementTree.SubElement(root, 'meta'), 'task'), 'labels')
    for name in names.values():
        ElementTree.SubElement(ElementTree.SubElement(labels, 'label'), 'name').text = name
    masks: dict[int, list[dict]] = {own['id']: [] for own in content['images']}
    for own in content['annotations']:
        masks[own['image_id']].append(own)
    for number, image in enumerate(content['images']):
        size = dict(width=str(image['width']), height=str(image['height']))
        node = ElementTree.SubElement(root, 'image', id=str(number), name=image['file_name'], **size)
        for own in masks[image['id']]:
            left, top, width, height = (int(value) for value in own['bbox'])
            (mask,) = decoded([own['segmentation']], image['height'], image['width'])
            runs = run_lengths(mask[top : top + height, left : left + width])
            place = dict(left=str(left), top=str(top), width=str(width), height=str(height))
            ElementTree.SubElement(
                node, 'mask', label=names[own['category_id']], source='auto', occluded='0', z_order='0',
                rle=', '.join(map(str, runs)), **place,
            )  # fmt: skip
    return root


def run_lengths(mask: np.ndarray) -> list[int]:
    """Lengths of the runs of equal pixels of a mask, row by row; the first, which may be 0, is of background."""
    flat = np.concatenate([[False], np.asarray(mask, bool).ravel(), [False]])
    turns = np.flatnonzero(flat[1:] != flat[:-1])  # where runs begin and end
    ends = np.concatenate([[0], turns, [mask.size]])
    lengths = np.diff(ends)
    return (lengths[:-1] if lengths[-1] == 0 else lengths).tolist()


def brush_rle(mask: np.ndarray) -> list[int]:
    """A mask as Label Studio's brush: the bytes of its run-length code of four equal channels of 0 and 255.

    The code (``rle-pack`` of thi.ng/umbrella): 32 bits, the number of values; 5, their bits less one; four times 4, the
    bits less one of the four kinds of lengths; then for each run a 1, 2 bits, which kind, the length less one and the
    value.

    Args:
        mask: (H, W) bool.

    Returns:
        Integers in [0, 255].
    """
    sizes = (3, 4, 8, 16)
    bits = [f'{4 * mask.size:032b}', f'{8 - 1:05b}', *(f'{size - 1:04b}' for size in sizes)]
    value = 0
    for length in run_lengths(mask):
        left = 4 * length
        while left:
            part = min(left, 1 << 16)
            kind = next(number for number, size in enumerate(sizes) if part <= 1 << size)
            bits.append(f'1{kind:02b}{part - 1:0{sizes[kind]}b}{value:08b}')
            left -= part
        value = 255 - value
    text = ''.join(bits)
    text += '0' * (-len(text) % 8)
    return list(int(text, 2).to_bytes(len(text) // 8, 'big'))


def to_supervision(prediction: dict[str, Any], names: Sequence[str] = ()) -> Any:
    """A prediction of the inferencer as ``supervision.Detections``, with boxes, masks, scores and classes.

    Args:
        prediction: With ``masks`` (K, H, W), ``scores`` and ``bboxes``; empty masks are left out.
        names: Of the masks, such as the texts that were asked; 'object' by default.

    Raises:
        ImportError: If supervision is not installed.
        ValueError: If there are more or fewer names than masks.
    """
    try:
        import supervision
    except ModuleNotFoundError as error:
        raise ImportError("to_supervision needs supervision: pip install 'genseg_mm[supervision]'") from error
    masks = np.asarray(prediction['masks'], bool)
    names = list(names) or [OBJECT] * len(masks)
    if len(names) != len(masks):
        raise ValueError(f'names: expected one for each of the {len(masks)} masks, but got {len(names)}')
    numbers = {name: number for number, name in enumerate(dict.fromkeys(names))}
    kept = masks.any((1, 2))
    return supervision.Detections(
        xyxy=np.asarray(prediction['bboxes'], np.float32).reshape(-1, 4)[kept],
        mask=masks[kept],
        confidence=np.asarray(prediction['scores'], np.float32)[kept],
        class_id=np.array([numbers[name] for name in names], int)[kept],
        data={'class_name': np.array(names, dtype=object)[kept].astype(str)},
    )
