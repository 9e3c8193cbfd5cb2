"""Drawing of data samples, images, masks and prompts, for hooks, inference and tools; needs no display.

Pictures are RGB uint8 (H, W, 3).
"""

import bisect
import colorsys
from collections.abc import Sequence
from pathlib import Path

import cv2
import matplotlib
import numpy as np
from mmengine.structures import BaseDataElement
from PIL import Image, ImageDraw, ImageFont

PAPER, INK = (255, 255, 255), (30, 30, 30)
MASK, IGNORED, BACKGROUND = (255, 60, 40), (128, 128, 128), (24, 24, 24)
IGNORE_LABEL = 255
_GOLDEN_RATIO = 0.618034
_GAP, _FONT_SIZE = 4, 12
_LINE = _FONT_SIZE + 7


def draw_sample(image: np.ndarray, sample: BaseDataElement, panel_size: int) -> dict:
    """The pictures of one sample.

    Args:
        image: Network input, BGR uint8, (3, h, w).
        sample: Ground truth and predictions at original size; a generated picture at that of the input.
        panel_size: Longer side of each picture.

    Returns:
        Column title -> RGB picture; all of one size, and of the aspect ratio of the original or generated picture.
    """
    original = tuple(sample.get('ori_shape', image.shape[1:]))[:2]
    if 'pred_img' in sample:  # of the network's size
        original = image.shape[1:]
    scale = panel_size / max(original)
    size = max(round(original[0] * scale), 1), max(round(original[1] * scale), 1)
    image = np.ascontiguousarray(np.clip(image, 0, 255).astype(np.uint8)[::-1].transpose(1, 2, 0))
    image = fit(image, size)
    row = {'image': image}
    points, point_labels = _points(sample)
    if points is not None:
        zoom = size[1] / original[1], size[0] / original[0]
        row['image'] = draw_points(image, points, point_labels, zoom)
    has_instances = 'gt_instance_map' in sample and sample.get('text') is None
    if has_instances:
        row['ground truth'] = color_instances(_labels(sample.gt_instance_map, size))
    elif 'gt_sem_seg' in sample:
        row['ground truth'] = overlay_labels(image, _labels(sample.gt_sem_seg, size))
    if 'pred_instances' in sample and 'masks' in sample.pred_instances:
        masks = [fit(mask.astype(np.uint8), size) > 0 for mask in _pred_masks(sample)]
        colors = [color_of(number) for number in range(len(masks))]
        row['prediction'] = overlay_masks(image, masks, colors)
    elif 'pred_sem_seg' in sample and not has_instances:
        row['prediction'] = overlay_labels(image, _labels(sample.pred_sem_seg, size))
    if 'pred_img' in sample:
        generated = sample.pred_img.data.cpu().numpy().transpose(1, 2, 0)
        row['prediction'] = fit(np.ascontiguousarray(generated), size)
    color_map = _color_map(sample)
    if color_map is not None:
        row['colour map'] = fit(color_map, size)
    return row


def caption(sample: BaseDataElement) -> str:
    """What was asked, and how well it was answered."""
    overlaps = _overlaps(sample)
    parts = [f'IoU {np.mean(overlaps):.2f}' + ' (mean)' * (len(overlaps) > 1)] if overlaps else []
    if sample.get('text'):
        parts.append(f'"{sample.get("text")}"')
    parts += [str(sample.get(key)) for key in ('subset', 'kind') if sample.get(key)]
    return ' · '.join(parts)


def _overlaps(sample: BaseDataElement) -> list[float]:
    """IoU of a referring mask, or of each point prompt."""
    if 'gt_sem_seg' in sample and 'pred_sem_seg' in sample and 'pred_instances' not in sample:
        truth, predicted = _labels(sample.gt_sem_seg), _labels(sample.pred_sem_seg)
        known = truth != IGNORE_LABEL
        if truth.shape != predicted.shape or max(truth[known].max(initial=0), predicted.max()) > 1:
            return []
        return [iou(truth == 1, predicted == 1, known)]
    ids = sample.get('point_ids')
    if ids is None or 'gt_instance_map' not in sample or 'pred_instances' not in sample:
        return []
    truth = _labels(sample.gt_instance_map)
    return [
        iou(truth == number, mask)
        for number, mask in zip(np.asarray(ids).tolist(), _pred_masks(sample), strict=True)
        if mask.shape == truth.shape
    ]


def _points(sample: BaseDataElement) -> tuple[np.ndarray | None, np.ndarray | None]:
    points = sample.get('points')
    if points is None or len(points) == 0:
        return None, None
    points = np.asarray(points, dtype=np.float64).reshape(len(points), -1, 2)
    labels = sample.get('point_labels')
    if labels is None:
        return points, np.ones(points.shape[:2])
    return points, np.asarray(labels).reshape(points.shape[:2])


def _labels(data: BaseDataElement, size: tuple[int, int] | None = None) -> np.ndarray:
    labels = data.data.squeeze(0).cpu().numpy().astype(np.int32)
    return labels if size is None else fit(labels, size)


def _pred_masks(sample: BaseDataElement) -> np.ndarray:
    masks = sample.pred_instances.masks
    return np.asarray(masks.cpu() if hasattr(masks, 'cpu') else masks).astype(bool)


def _color_map(sample: BaseDataElement) -> np.ndarray | None:
    for name in ('pred_color_map', 'seg_logits'):
        if name in sample and (name == 'pred_color_map' or 'gt_instance_map' in sample):
            channels = sample.get(name).data.float().cpu().numpy()
            if channels.shape[0] == 3:
                colors = np.clip(np.rint(channels), 0, 255).astype(np.uint8)
                return np.ascontiguousarray(colors.transpose(1, 2, 0))
    return None


def color_of(number: int) -> tuple[int, int, int]:
    """A bright colour for the n-th object; neighbours in number differ well."""
    red, green, blue = colorsys.hsv_to_rgb(number * _GOLDEN_RATIO % 1.0, 0.7, 1.0)
    return round(255 * red), round(255 * green), round(255 * blue)


def fit(picture: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Resizes to (height, width); values of label maps and of enlarged pixels stay as they are."""
    height, width = size
    shrink = picture.ndim == 3 and picture.shape[0] > height
    mode = cv2.INTER_AREA if shrink else cv2.INTER_NEAREST_EXACT
    return cv2.resize(picture, (width, height), interpolation=mode)


def overlay_labels(picture: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """A semantic map (H, W) over a picture.

    A single class is red, several have their own colours; ignored pixels are gray.
    """
    present = [label for label in np.unique(labels).tolist() if label not in (0, IGNORE_LABEL)]
    masks = [labels == label for label in present]
    colors = [MASK] if present == [1] else [color_of(label) for label in present]
    result = overlay_masks(picture, masks, colors)
    ignored = labels == IGNORE_LABEL
    result[ignored] = (0.3 * result[ignored] + 0.7 * np.array(IGNORED)).astype(np.uint8)
    return result


def overlay_masks(picture: np.ndarray, masks: Sequence[np.ndarray], colors: Sequence[tuple]) -> np.ndarray:
    """Binary masks (H, W), tinted and outlined, over a dimmed picture."""
    levels = np.arange(256)[:, None]  # of a channel; 8 bits in, 8 bits out: by tables, not by sums of large pictures
    result = cv2.LUT(picture, (0.6 * levels).astype(np.uint8))
    for mask, color in zip(masks, colors, strict=True):
        mask = mask.astype(np.uint8)
        left, top, width, height = cv2.boundingRect(mask)
        box = slice(top, top + height), slice(left, left + width)
        if width:
            tint = (0.45 * levels + 0.55 * np.array(color)).astype(np.uint8)
            result[box] = cv2.copyTo(cv2.LUT(picture[box], tint[None]), mask[box], result[box].copy())
        outlines, _ = cv2.findContours(mask, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
        cv2.drawContours(result, outlines, -1, color, 1)
    return result


def color_instances(ids: np.ndarray) -> np.ndarray:
    """An instance map (H, W), 0 = background, in flat colours."""
    result = np.full((*ids.shape, 3), BACKGROUND, dtype=np.uint8)
    for number, instance in enumerate(np.unique(ids[ids > 0])):
        result[ids == instance] = color_of(number)
    return result


def draw_points(
    picture: np.ndarray, points: np.ndarray, labels: np.ndarray, scale: tuple[float, float], thickness: int = 1
) -> np.ndarray:
    """Point prompts as dots in the colour of their mask, positive ringed white, negative black.

    Args:
        picture: RGB, (H, W, 3).
        points: (K, P, 2), (x, y) in pixels of the original image.
        labels: (K, P), 1 positive, 0 negative, -1 no point.
        scale: Size of the picture over that of the original image, (x, y).
        thickness: Of the rings, about, in pixels.
    """
    result = picture.copy()
    for number, (prompt, kinds) in enumerate(zip(points, labels, strict=True)):
        for (x, y), kind in zip(prompt[kinds >= 0], kinds[kinds >= 0], strict=True):
            center = round((float(x) + 0.5) * scale[0] - 0.5), round((float(y) + 0.5) * scale[1] - 0.5)
            ring = (255, 255, 255) if kind else (0, 0, 0)
            cv2.circle(result, center, 3 + 2 * thickness, ring, -1, cv2.LINE_AA)
            cv2.circle(result, center, 2 + thickness, color_of(number), -1, cv2.LINE_AA)
    return result


def compose(titles: Sequence[str], rows: Sequence[dict], captions: Sequence[str]) -> np.ndarray:
    """A table of pictures with column titles above and a caption under each row.

    Args:
        titles: Column titles, in order.
        rows: For each row, title -> picture; missing ones stay blank.
        captions: One line of text per row, cut to the width of the table.
    """
    widths = [max(row[title].shape[1] for row in rows if title in row) for title in titles]
    heights = [max(picture.shape[0] for picture in row.values()) for row in rows]
    width = sum(widths) + _GAP * (len(widths) + 1)
    height = _LINE + sum(heights) + len(rows) * (_LINE + _GAP)
    table = Image.new('RGB', (width, height), PAPER)
    draw, font = ImageDraw.Draw(table), _font()
    lefts = [_GAP + sum(widths[:i]) + _GAP * i for i in range(len(widths))]
    for left, title in zip(lefts, titles, strict=True):
        draw.text((left, 2), title, INK, font)
    top = _LINE
    for row, line, row_height in zip(rows, captions, heights, strict=True):
        for left, title in zip(lefts, titles, strict=True):
            if title in row:
                table.paste(Image.fromarray(row[title]), (left, top))
        draw.text((_GAP, top + row_height + 2), _cut(line, font, width - 2 * _GAP), INK, font)
        top += row_height + _LINE + _GAP
    return np.asarray(table)


def with_color_key(table: np.ndarray, entries: Sequence[tuple[str, tuple]]) -> np.ndarray:
    """A picture with one line under it for each colour: a square of it, and what it stands for.

    Args:
        table: RGB uint8, (H, W, 3).
        entries: Text, cut to the width of the picture, and colour (R, G, B).
    """
    height, width = table.shape[:2]
    result = Image.new('RGB', (width, height + len(entries) * _LINE + _GAP), PAPER)
    result.paste(Image.fromarray(table), (0, 0))
    draw, font = ImageDraw.Draw(result), _font()
    left = 2 * _GAP + _FONT_SIZE
    for place, (text, color) in enumerate(entries):
        top = height + place * _LINE
        draw.rectangle((_GAP, top + 2, _GAP + _FONT_SIZE, top + 2 + _FONT_SIZE), tuple(color))
        draw.text((left, top + 1), _cut(text, font, width - left - _GAP), INK, font)
    return np.asarray(result)


def _font() -> ImageFont.FreeTypeFont:
    # Pillow's own font has neither accents nor Greek or Cyrillic letters.
    file = Path(matplotlib.get_data_path(), 'fonts', 'ttf', 'DejaVuSans.ttf')
    return ImageFont.truetype(str(file), _FONT_SIZE)


def _cut(text: str, font: ImageFont.ImageFont, width: int) -> str:
    # What is longer does not fit by far, and to measure it takes time; one word may be as long as it likes.
    start = text[: 20 * max(width, 1)]
    words = ' '.join(start.split())
    if len(start) == len(text) and font.getlength(words) <= width:
        return words
    lengths = range(1, len(words))  # a longer text is wider: halve; none may fit
    return words[: bisect.bisect_right(lengths, width, key=lambda num: font.getlength(words[:num] + ' ...'))] + ' ...'


def iou(first: np.ndarray, second: np.ndarray, valid: np.ndarray | None = None) -> float:
    """Intersection over union of two binary masks; 1 where both are empty."""
    if valid is not None:
        first, second = first & valid, second & valid
    union = int((first | second).sum())
    return int((first & second).sum()) / union if union else 1.0
