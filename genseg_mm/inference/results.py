"""From outputs of the network to the prediction of an image, which is drawn and written."""

import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from mmengine.structures import InstanceData, PixelData
from mmseg.structures import SegDataSample
from PIL import Image
from torch import Tensor

from genseg_mm import pictures
from genseg_mm.files import whole_file
from genseg_mm.inference.images import Job
from genseg_mm.inference.prompts import Prompts, is_set
from genseg_mm.inference.taken_names import identity, png_text
from genseg_mm.models.map_prompting import MapPrompting, as_instances

_SMALLEST = 256  # longer side of a picture, in pixels: smaller images are enlarged, or points would cover them


def colored_sample(job: Job) -> SegDataSample:
    """The prediction of Gen2Seg: ``pred_color_map`` and ``pred_instances``, whose number may be 0."""
    sample = _sample(job)
    colors, sample.pred_instances = job.outputs[0]
    sample.pred_color_map = PixelData(data=colors)
    return sample


def generated_sample(job: Job, threshold: float) -> SegDataSample:
    """The prediction of GenMask: ``pred_instances`` with one mask per text.

    A score is the brightness of the generated mask image, in [0, 1], averaged inside the mask.

    Args:
        job: Its outputs are logits (H, W), see ``GenerativeMaskHead.grey_to_logits``.
        threshold: Of the mask head.
    """
    sample = _sample(job)
    empty = torch.zeros(0, *job.image.shape[:2])
    logits = torch.stack(job.outputs) if job.outputs else empty  # (T, H, W)
    masks = logits > 0
    brightness = logits / 2 + threshold
    scores = (brightness * masks).sum((1, 2)) / masks.sum((1, 2)).clamp(min=1)
    sample.pred_instances = as_instances(masks, scores)
    return sample


def _sample(job: Job) -> SegDataSample:
    meta = dict(img_path=job.source.path, ori_shape=job.image.shape[:2])
    if job.descriptions is not None:
        meta['descriptions'] = job.descriptions
    return SegDataSample(metainfo=meta)


def instances_of(
    model: MapPrompting,
    colors: Tensor,
    network_map: Tensor,
    prompts: Prompts,
    name: str,
    automatic: bool | dict | None = None,
    prompting: dict | None = None,
) -> InstanceData:
    """Instances of one colour map, on the CPU.

    Args:
        model: That made the map.
        colors: Colour map at the size of the image, (3, H, W), for prompts.
        network_map: The same at the network's size, for instances without prompts.
        prompts: Points and boxes; there may be none.
        name: Of the image, for messages.
        automatic: Instances without prompts, with these settings; None does as the model's own ``automatic`` says.
        prompting: Settings of ``masks_from_points`` over those of the model.
    """
    given = dict(points=prompts.points, point_labels=prompts.point_labels, boxes=prompts.boxes)
    given = {key: value for key, value in given.items() if value is not None}
    try:
        if given:
            return model.prompt(colors, **given, **(prompting or {})).cpu()
        if is_set(model.automatic if automatic is None else automatic):
            settings = automatic if isinstance(automatic, dict) else {}
            if network_map.shape != colors.shape:
                settings = dict(settings, size=tuple(colors.shape[-2:]))
            return model.automatic_instances(network_map, **settings).cpu()
    except ValueError as error:
        raise ValueError(f'{name}: {error}') from error
    return as_instances(torch.zeros(0, *colors.shape[1:], dtype=torch.bool), torch.zeros(0))


def arrays_of(result: SegDataSample | InstanceData) -> dict[str, Any]:
    """``masks``, ``scores``, ``bboxes`` and, if there are any, ``color_map`` as arrays and ``descriptions``."""
    instances = result if isinstance(result, InstanceData) else result.pred_instances
    arrays = {key: np.asarray(instances[key].cpu()) for key in ('masks', 'scores', 'bboxes')}
    if 'pred_color_map' in result:
        arrays = dict(color_map=color_array(result.pred_color_map.data), **arrays)
    if 'descriptions' in result:
        arrays['descriptions'] = result.descriptions
    return arrays


class ColorMap(np.ndarray):
    """A colour map that a notebook shows in one line, not as all of its numbers."""

    def __repr__(self) -> str:
        if self.ndim != 3 or self.shape[2] != 3:  # a part of one
            return repr(self.view(np.ndarray))
        height, width, _ = self.shape
        return f'colour map of {height} x {width} pixels, {self.dtype}, RGB in [0, 255]'


def color_array(colors: Tensor) -> np.ndarray:
    """Colours (3, H, W) as an array (H, W, 3), float32."""
    return cv2.merge(list(colors.float().cpu().numpy()))  # a tenth of the time of a transpose


def draw_prediction(
    image: np.ndarray,
    prediction: dict,
    prompts: Prompts,
    caption: str,
    texts: Sequence[str] = (),
    numbers: Sequence[int] | None = None,
) -> np.ndarray:
    """The image with masks, points and boxes, and the colour map beside it.

    Args:
        image: BGR, uint8, (H, W, 3).
        prediction: ``masks`` (K, H, W), and ``color_map`` (H, W, 3) if there is one.
        prompts: Of this image.
        caption: One line under the pictures.
        texts: Of the masks: below the caption one line each, with the mask's colour.
        numbers: Of the masks, which decide their colours; from 0 on by default.

    Returns:
        RGB, uint8; images of less than 256 pixels are enlarged by a whole factor.
    """
    zoom = max(-(-_SMALLEST // max(image.shape[:2])), 1)
    size = image.shape[0] * zoom, image.shape[1] * zoom
    numbers = range(len(prediction['masks'])) if numbers is None else numbers
    colors = [pictures.color_of(number) for number in numbers]
    picture = pictures.fit(cv2.cvtColor(image, cv2.COLOR_BGR2RGB), size)
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
        picture = pictures.draw_points(picture, prompts.points, labels, (zoom, zoom), thickness)
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
    return cv2.add(color_map, (0, 0, 0, 0), dtype=cv2.CV_8U)  # rounds, a half to even, and clips


def check_display() -> None:
    """Raises ValueError where no window can be opened."""
    if sys.platform == 'linux' and not {'DISPLAY', 'WAYLAND_DISPLAY'} & os.environ.keys():
        raise ValueError('show needs a display, and there is none; use out_dir')


def save_picture(picture: np.ndarray, path: Path, source: str | None = None) -> None:
    """Writes an RGB picture as PNG and makes its folder.

    Args:
        picture: (H, W, 3) uint8.
        path: The file.
        source: Path of the picture that it is drawn of, which the file then says ('' for an array).
    """
    options = {} if source is None else dict(pnginfo=png_text(source))
    with whole_file(path, durable=False) as temporary:
        Image.fromarray(picture).save(
            temporary, 'PNG', compress_level=1, **options
        )  # a fourth of the time, 1.1 x the size


def encoded(masks: np.ndarray) -> list[dict]:
    """Masks (K, H, W) bool as COCO RLE: ``size`` and ``counts``, a text."""
    from pycocotools import mask as coco_mask

    found = coco_mask.encode(np.asfortranarray(masks.transpose(1, 2, 0).astype(np.uint8)))
    return [dict(size=rle['size'], counts=rle['counts'].decode('ascii')) for rle in found]


def decoded(rles: Sequence[dict], height: int, width: int) -> np.ndarray:
    """Masks (K, H, W) bool of :func:`encoded`."""
    from pycocotools import mask as coco_mask

    if not rles:
        return np.zeros((0, height, width), bool)
    return np.ascontiguousarray(coco_mask.decode(list(rles)).transpose(2, 0, 1)).astype(bool)


def plain_prompts(prompts: Prompts) -> dict[str, Any]:
    """What is given of the prompts, as plain values."""
    return {
        key: value.tolist() if isinstance(value, np.ndarray) else value
        for key, value in vars(prompts).items()
        if value is not None
    }


def file_stamp(path: str) -> list[int] | None:
    """Bytes and time of a file, in ns, which tell it from another of its name; None where there is none."""
    try:
        status = os.stat(path) if path else None
    except OSError:
        status = None
    return status and [status.st_size, status.st_mtime_ns]


def save_prediction(prediction: dict, job: Job, folder: Path, run: str | None = None) -> None:
    """Writes ``<name>.json``, prompts and masks as COCO RLE, and ``<name>.png``, the colour map rounded to 8 bits.

    Args:
        prediction: Of the job's image.
        job: Gives the prompts and the name.
        folder: Is made where it is missing.
        run: Key of the run, see :func:`genseg_mm.inference.resuming.run_key`.
    """
    masks = prediction['masks']
    content = dict(
        image=job.source.path,
        height=masks.shape[1],
        width=masks.shape[2],
        prompts=plain_prompts(job.prompts),
        masks=encoded(masks),
        scores=prediction['scores'].tolist(),
        bboxes=prediction['bboxes'].tolist(),
    )
    if 'descriptions' in prediction:
        content['descriptions'] = prediction['descriptions']
    if run is not None:
        content.update(run=run, file=file_stamp(job.source.path))
    if job.source.path:
        content.update(identity(job.source.path))
    if 'color_map' in prediction:
        save_picture(bytes_of(prediction['color_map']), folder / f'{job.source.stem}.png')
    # Comes last: where it is, all is.
    with whole_file(folder / f'{job.source.stem}.json', durable=False) as temporary:
        temporary.write_text(json.dumps(content, ensure_ascii=False), encoding='utf-8')
