"""Masks to take home: PNG, COCO RLE, polygons; at the size of the file that was opened."""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path

import cv2
import numpy as np

from genseg_mm import __version__
from genseg_mm.app.steps import Found, Mask, Picture, Prompt, Step
from genseg_mm.pictures import color_of

FORMATS = ('mask', 'cutout', 'coco', 'polygons')


def download(step: Step, model: str, kind: str) -> tuple[str, str, bytes]:
    """A file of what one model found.

    Args:
        step: With at least one mask of the model.
        model: Its name.
        kind: One of FORMATS. 'mask': PNG, 0 and 255 of one object, or of several the numbers 1, 2, ... in 8 bits, the
            later on top; 'cutout': PNG with alpha; 'coco': JSON with an annotation per object, masks as RLE;
            'polygons': GeoJSON-like features in pixels, holes included.

    Returns:
        Name of the file, its kind (MIME), its bytes.

    Raises:
        ValueError: If there is nothing to save, or no such format.
    """
    if kind not in FORMATS:
        raise ValueError(f'format: expected one of {", ".join(FORMATS)}, but got {kind!r}')
    found = step.found.get(model)
    if step.picture is None or found is None or not found.masks:
        raise ValueError('there is no mask to save yet: click on an object first')
    stem = Path(step.picture.name).stem or 'picture'
    if kind == 'mask':
        ids = id_map(found.masks, step.picture.full_size)
        return f'{stem}_mask.png', 'image/png', _png(ids * np.uint8(255) if len(found.masks) == 1 else ids)
    if kind == 'cutout':
        return f'{stem}_cutout.png', 'image/png', _png(_cut(step.picture, found.masks))
    if kind == 'coco':
        return f'{stem}_coco.json', 'application/json', _json(coco(step, model))
    return f'{stem}_polygons.geojson', 'application/geo+json', _json(polygons(step, model))


def coco(step: Step, model: str) -> dict:
    """A COCO file of one image: boxes xywh, masks as compressed RLE."""
    from pycocotools import mask as coco_mask

    height, width = step.picture.full_size
    annotations = []
    for number, (mask, own, prompt) in enumerate(_objects(step, model), 1):
        rle = coco_mask.encode(np.asfortranarray(mask.view(np.uint8)))
        annotations.append(
            dict(
                id=number,
                image_id=1,
                category_id=1,
                iscrowd=0,
                segmentation=dict(size=rle['size'], counts=rle['counts'].decode('ascii')),
                area=int(mask.sum()),
                bbox=[float(side) for side in coco_mask.toBbox(rle)],
                score=round(own.score, 4),
                **_asked(prompt, step.picture),
            )
        )
    return dict(
        info=dict(description=f'genseg_mm {__version__}, {model}'),
        images=[dict(id=1, file_name=step.picture.name, width=width, height=height)],
        categories=[dict(id=1, name='object')],
        annotations=annotations,
    )


def polygons(step: Step, model: str) -> dict:
    """A feature collection: one MultiPolygon per object, (x, y) in pixels from the left upper corner of the picture.

    Pixel i reaches from i to i + 1. The first ring of a polygon is its outline, others are holes; rings are closed, lie
    a quarter of a pixel inside of the mask, and leave out points that are less than that from the line.
    """
    features = []
    for number, (mask, own, prompt) in enumerate(_objects(step, model), 1):
        properties = dict(id=number, score=round(own.score, 4), area=int(mask.sum()), **_asked(prompt, step.picture))
        geometry = dict(type='MultiPolygon', coordinates=_rings(mask))
        features.append(dict(type='Feature', id=number, properties=properties, geometry=geometry))
    height, width = step.picture.full_size
    return dict(
        type='FeatureCollection',
        image=dict(file_name=step.picture.name, width=width, height=height),
        model=model,
        features=features,
    )


def id_map(masks: Sequence[Mask], size: tuple[int, int] | None = None) -> np.ndarray:
    """Numbers 1, 2, ... of masks, the later on top, 0 elsewhere; uint8, (h, w) of the masks or of ``size``."""
    ids = np.zeros(size or masks[0].size, np.uint8)
    for number, mask in enumerate(masks, 1):
        ids[mask.array(size)] = number
    return ids


def overlay(picture: Picture, found: Found | None, longer_side: int) -> np.ndarray:
    """The picture with its masks, small, BGR."""
    height, width = picture.size
    scale = longer_side / max(height, width)
    size = max(round(width * scale), 1), max(round(height * scale), 1)
    small = cv2.resize(picture.bgr, size, interpolation=cv2.INTER_AREA)
    if found is not None:
        for number, mask in enumerate(found.masks):
            inside = mask.array(size[::-1])
            color = np.array(color_of(number)[::-1])
            small[inside] = (0.4 * small[inside] + 0.6 * color).astype(np.uint8)
    return small


def _objects(step: Step, model: str) -> Iterator[tuple[np.ndarray, Mask, Prompt | None]]:
    """One after the other: at the size of a large file all together would fill the memory."""
    masks = step.found[model].masks
    for mask, prompt in zip(masks, step.prompts or (None,) * len(masks), strict=True):
        yield mask.array(step.picture.full_size), mask, prompt


def _asked(prompt: Prompt | None, picture: Picture) -> dict:
    """What an object was asked for with, in pixels of the file."""
    if prompt is None:
        return {}
    down, right = (full / own for full, own in zip(picture.full_size, picture.size, strict=True))
    asked = {}
    if prompt.points:
        asked['points'] = [
            [round((x + 0.5) * right - 0.5, 2), round((y + 0.5) * down - 0.5, 2), label]
            for x, y, label in prompt.points
        ]
    if prompt.box is not None:
        asked['box'] = [round(side * scale, 2) for side, scale in zip(prompt.box, (right, down) * 2, strict=True)]
    if prompt.text is not None:
        asked['text'] = prompt.text
    return asked


def _cut(picture: Picture, masks: Sequence[Mask]) -> np.ndarray:
    """BGRA at the size that the picture is worked on: that of the file is not kept."""
    inside = np.logical_or.reduce([mask.array() for mask in masks])
    return np.dstack([picture.bgr * inside[..., None], inside.astype(np.uint8) * 255])


def _rings(mask: np.ndarray) -> list[list[list[list[float]]]]:
    """Polygons of a mask, each an outline and its holes, (x, y) closed; pixel i reaches from i to i + 1."""
    rows, columns = (np.flatnonzero(mask.any(axis)) for axis in (1, 0))
    if not len(rows):
        return []
    top, left = int(rows[0]), int(columns[0])
    part = mask[top : rows[-1] + 1, left : columns[-1] + 1].view(np.uint8)
    # Twice as large, so that a single pixel has four corners, too: outlines lie a quarter of a pixel inside.
    part = part.repeat(2, 0).repeat(2, 1)
    outlines, tree = cv2.findContours(part, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_SIMPLE)
    parts: dict[int, list] = {}
    for number, outline in enumerate(outlines):
        ring = cv2.approxPolyDP(outline, 0.5, True)
        ring = (ring if len(ring) > 2 else outline)[:, 0]
        points = [[left + (x + 0.5) / 2, top + (y + 0.5) / 2] for x, y in ring.tolist()]
        parent = int(tree[0, number, 3])
        rings = parts.setdefault(number if parent < 0 else parent, [])
        rings.insert(0 if parent < 0 else len(rings), [*points, points[0]])
    return list(parts.values())


def _png(pixels: np.ndarray) -> bytes:
    return cv2.imencode('.png', pixels)[1].tobytes()


def _json(content: dict) -> bytes:
    return json.dumps(content, ensure_ascii=False).encode()
