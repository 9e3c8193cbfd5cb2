"""Drawing and writing of predictions. A prediction is the dict of one image that the inferencer returns."""

import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from genseg_mm.hooks import pictures
from genseg_mm.inference.jobs import Job
from genseg_mm.inference.prompts import Prompts
from genseg_mm.whole_files import whole_file

_SMALLEST = 256  # longer side of a picture, in pixels: smaller images are enlarged, or points would cover them


def draw_prediction(
    image: np.ndarray, prediction: dict, prompts: Prompts, caption: str, texts: Sequence[str] = ()
) -> np.ndarray:
    """The image with masks, points and boxes, and the colour map beside it.

    Args:
        image: BGR, uint8, (H, W, 3).
        prediction: ``masks`` (K, H, W), and ``color_map`` (H, W, 3) if there is one.
        prompts: Of this image.
        caption: One line under the pictures.
        texts: Of the masks: below the caption one line each, with the mask's colour.

    Returns:
        RGB, uint8; images of less than 256 pixels are enlarged by a whole factor.
    """
    zoom = max(-(-_SMALLEST // max(image.shape[:2])), 1)
    size = image.shape[0] * zoom, image.shape[1] * zoom
    colors = [pictures.color_of(number) for number in range(len(prediction['masks']))]
    picture = pictures.fit(np.ascontiguousarray(image[..., ::-1]), size)
    if colors:
        masks = [pictures.fit(mask.astype(np.uint8), size) > 0 for mask in prediction['masks']]
        picture = pictures.overlay_masks(picture, masks, colors)
    thickness = max(round(max(size) / 400), 1)
    if prompts.boxes is not None:
        for box, color in zip(prompts.boxes, colors, strict=True):
            corners = [round(float(value) * zoom) for value in box]
            cv2.rectangle(picture, corners[:2], corners[2:], color, thickness)
    if prompts.points is not None:
        labels = prompts.point_labels
        labels = np.ones(prompts.points.shape[:2]) if labels is None else labels
        for prompt, kinds, color in zip(prompts.points, labels, colors, strict=True):
            for (x, y), kind in zip(prompt[kinds >= 0], kinds[kinds >= 0], strict=True):
                center = round((float(x) + 0.5) * zoom - 0.5), round((float(y) + 0.5) * zoom - 0.5)
                ring = (255, 255, 255) if kind else (0, 0, 0)
                cv2.circle(picture, center, 3 + 2 * thickness, ring, -1, cv2.LINE_AA)
                cv2.circle(picture, center, 2 + thickness, color, -1, cv2.LINE_AA)
    row = {'masks' if colors else 'image': picture}
    if 'color_map' in prediction:
        row['colour map'] = pictures.fit(bytes_of(prediction['color_map']), size)
    table = pictures.compose(list(row), [row], [caption])
    if not texts:
        return table
    return pictures.with_color_key(table, list(zip(texts, colors, strict=True)))


def draw_picture(picture: np.ndarray, caption: str) -> np.ndarray:
    """A picture with one line under it; RGB, enlarged as in :func:`draw_prediction`."""
    zoom = max(-(-_SMALLEST // max(picture.shape[:2])), 1)
    picture = pictures.fit(picture, (picture.shape[0] * zoom, picture.shape[1] * zoom))
    return pictures.compose(['picture'], [dict(picture=picture)], [caption])


def show_picture(picture: np.ndarray, title: str, wait_time: float) -> None:
    """Shows an RGB picture in a window; 0 seconds wait for a key."""
    from mmengine.visualization import Visualizer

    Visualizer().show(picture, win_name=title, wait_time=wait_time)


def bytes_of(color_map: np.ndarray) -> np.ndarray:
    """A colour map in whole numbers, uint8."""
    return np.clip(np.rint(color_map), 0, 255).astype(np.uint8)


def check_display() -> None:
    """Raises ValueError where no window can be opened."""
    if sys.platform == 'linux' and not {'DISPLAY', 'WAYLAND_DISPLAY'} & os.environ.keys():
        raise ValueError('show needs a display, and there is none; use out_dir')


def save_picture(picture: np.ndarray, path: Path) -> None:
    """Writes an RGB picture as PNG and makes its folder."""
    with whole_file(path, durable=False) as temporary:
        Image.fromarray(picture).save(temporary, 'PNG')


def save_prediction(prediction: dict, job: Job, folder: Path) -> None:
    """Writes ``<name>.json``, prompts and masks as COCO RLE, and ``<name>.png``, the colour map rounded to 8 bits.

    Args:
        prediction: Of the job's image.
        job: Gives the prompts and the name.
        folder: Is made where it is missing.
    """
    from pycocotools import mask as coco_mask

    masks = prediction['masks']
    encoded = coco_mask.encode(np.asfortranarray(masks.transpose(1, 2, 0).astype(np.uint8)))
    given = {
        key: value.tolist() if isinstance(value, np.ndarray) else value
        for key, value in vars(job.prompts).items()
        if value is not None
    }
    content = dict(
        image=job.source.path,
        height=masks.shape[1],
        width=masks.shape[2],
        prompts=given,
        masks=[dict(size=rle['size'], counts=rle['counts'].decode('ascii')) for rle in encoded],
        scores=prediction['scores'].tolist(),
        bboxes=prediction['bboxes'].tolist(),
    )
    if 'descriptions' in prediction:
        content['descriptions'] = prediction['descriptions']
    with whole_file(folder / f'{job.source.stem}.json', durable=False) as temporary:
        temporary.write_text(json.dumps(content, ensure_ascii=False), encoding='utf-8')
    if 'color_map' in prediction:
        save_picture(bytes_of(prediction['color_map']), folder / f'{job.source.stem}.png')
