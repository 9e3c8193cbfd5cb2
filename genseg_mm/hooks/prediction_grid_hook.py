"""Pictures of what the model predicts, written during validation."""

import os
from collections.abc import Sequence
from typing import Any

import numpy as np
from mmengine.dist import is_main_process
from mmengine.hooks import Hook
from mmengine.runner import Runner
from mmengine.structures import BaseDataElement
from PIL import Image

from genseg_mm.hooks import pictures
from genseg_mm.registry import HOOKS
from genseg_mm.whole_files import whole_file

_COLUMNS = ('image', 'ground truth', 'prediction', 'colour map')
_ROWS_PER_PAGE = 8


@HOOKS.register_module()
class PredictionGridHook(Hook):
    """Writes PNG grids: image with points, ground truth, prediction, colour map.

    One row per sample, with its text and the IoU under it; the samples are spread evenly over the
    evaluation set and are the same each time. Files: ``<out_dir>/val/iter_<N>.png`` and
    ``<out_dir>/test/<page>.png``. Works without a display and on the main process only. It draws
    what a sample has: ``gt_sem_seg`` or ``gt_instance_map``; ``pred_sem_seg``,
    ``pred_instances.masks``, ``pred_color_map`` (or three-channel ``seg_logits`` next to a
    ``gt_instance_map``), ``pred_img`` (a picture generated from the text). Samples that come from a
    cache have no image; they are left out, and their number is logged.

    Args:
        num_images: Number of samples; ``None`` draws all.
        panel_size: Longer side of each picture, in pixels.
        out_dir: Folder, relative to the work dir.
        draw: Whether to draw at all.
        test: Whether to draw in testing, too (``tools/test.py --show-dir`` sets it).
        show: Whether to open a window for each grid.
        wait_time: Seconds that a window stays; 0 waits for a key.
    """

    priority = 'LOW'

    def __init__(
        self,
        num_images: int | None = 8,
        panel_size: int = 224,
        out_dir: str = 'vis',
        draw: bool = True,
        test: bool = False,
        show: bool = False,
        wait_time: float = 0.0,
    ) -> None:
        if num_images is not None and num_images < 1:
            raise ValueError(f'num_images must be at least 1 or None, but got {num_images}')
        self.num_images = num_images
        self.panel_size = panel_size
        self.out_dir = out_dir
        self.draw = draw
        self.test = test
        self.show = show
        self.wait_time = wait_time
        self._begin(None)

    def before_val_epoch(self, runner: Runner) -> None:
        """Chooses the samples to draw."""
        self._begin(runner.val_dataloader)

    def before_test_epoch(self, runner: Runner) -> None:
        """Chooses the samples to draw."""
        self._begin(runner.test_dataloader)

    def after_val_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: Any = None) -> None:
        """Draws the chosen samples of this batch."""
        if self.draw and is_main_process():
            self._collect(runner, data_batch, outputs, 'val')

    def after_test_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: Any = None) -> None:
        """Draws the chosen samples of this batch."""
        if self.draw and self.test and is_main_process():
            self._collect(runner, data_batch, outputs, 'test')

    def after_val_epoch(self, runner: Runner, metrics: dict | None = None) -> None:
        """Writes the last page."""
        self._finish(runner, 'val')

    def after_test_epoch(self, runner: Runner, metrics: dict | None = None) -> None:
        """Writes the last page."""
        self._finish(runner, 'test')

    def _begin(self, loader: Any) -> None:
        self._rows, self._captions, self._seen, self._drawn, self._page = [], [], 0, 0, 1
        self._num_without_image = 0
        samples = 0 if loader is None else len(loader) * (loader.batch_size or 1)
        self._stride = 1 if self.num_images is None else max(samples // self.num_images, 1)

    def _collect(self, runner: Runner, data_batch: dict, outputs: Sequence[BaseDataElement], stage: str) -> None:
        for image, sample in zip(data_batch['inputs'], outputs, strict=True):
            chosen = self._seen % self._stride == 0
            self._seen += 1
            if not chosen or self._drawn == self.num_images:
                continue
            if image.numel() == 0:
                self._num_without_image += 1
                continue
            self._drawn += 1
            self._rows.append(draw_sample(image.cpu().numpy(), sample, self.panel_size))
            self._captions.append(caption(sample))
            if len(self._rows) == _ROWS_PER_PAGE:
                self._write(runner, stage)

    def _finish(self, runner: Runner, stage: str) -> None:
        self._write(runner, stage)
        if self._num_without_image:
            runner.logger.info(
                f'{self._num_without_image} predictions not drawn: their images are not loaded, but cached encodings'
            )

    def _write(self, runner: Runner, stage: str) -> None:
        if not self._rows:
            return
        titles = [title for title in _COLUMNS if any(title in row for row in self._rows)]
        table = pictures.compose(titles, self._rows, self._captions)
        name = f'iter_{runner.iter}' if stage == 'val' else f'{self._page:04d}'
        if stage == 'val' and self._page > 1:
            name += f'_page{self._page}'
        path = os.path.join(runner.work_dir, self.out_dir, stage, f'{name}.png')
        with whole_file(path, durable=False) as temporary:
            Image.fromarray(table).save(temporary, 'PNG')
        runner.logger.info(f'Predictions drawn to {path}')
        if self.show:
            runner.visualizer.show(table, win_name=name, wait_time=self.wait_time)
        self._rows, self._captions, self._page = [], [], self._page + 1


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
    image = pictures.fit(image, size)
    row = {'image': image}
    points, point_labels = _points(sample)
    if points is not None:
        zoom = size[1] / original[1], size[0] / original[0]
        row['image'] = pictures.draw_points(image, points, point_labels, zoom)
    has_instances = 'gt_instance_map' in sample and sample.get('text') is None
    if has_instances:
        row['ground truth'] = pictures.color_instances(_labels(sample.gt_instance_map, size))
    elif 'gt_sem_seg' in sample:
        row['ground truth'] = pictures.overlay_labels(image, _labels(sample.gt_sem_seg, size))
    if 'pred_instances' in sample and 'masks' in sample.pred_instances:
        masks = [pictures.fit(mask.astype(np.uint8), size) > 0 for mask in _pred_masks(sample)]
        colors = [pictures.color_of(number) for number in range(len(masks))]
        row['prediction'] = pictures.overlay_masks(image, masks, colors)
    elif 'pred_sem_seg' in sample and not has_instances:
        row['prediction'] = pictures.overlay_labels(image, _labels(sample.pred_sem_seg, size))
    if 'pred_img' in sample:
        generated = sample.pred_img.data.cpu().numpy().transpose(1, 2, 0)
        row['prediction'] = pictures.fit(np.ascontiguousarray(generated), size)
    color_map = _color_map(sample)
    if color_map is not None:
        row['colour map'] = pictures.fit(color_map, size)
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
        known = truth != pictures.IGNORE_LABEL
        if truth.shape != predicted.shape or max(truth[known].max(initial=0), predicted.max()) > 1:
            return []
        return [pictures.iou(truth == 1, predicted == 1, known)]
    ids = sample.get('point_ids')
    if ids is None or 'gt_instance_map' not in sample or 'pred_instances' not in sample:
        return []
    truth = _labels(sample.gt_instance_map)
    return [
        pictures.iou(truth == number, mask)
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
    return labels if size is None else pictures.fit(labels, size)


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
