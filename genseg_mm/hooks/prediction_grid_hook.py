"""Pictures of what the model predicts, written during validation."""

import os
from collections.abc import Sequence
from typing import Any

from mmengine.dist import is_main_process
from mmengine.hooks import Hook
from mmengine.runner import Runner
from mmengine.structures import BaseDataElement
from PIL import Image

from genseg_mm.files.whole_files import whole_file
from genseg_mm.pictures import caption, compose, draw_sample
from genseg_mm.registry import HOOKS

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
        table = compose(titles, self._rows, self._captions)
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
