"""Pictures from texts: the inferencer's task 'generate'."""

import json
from collections.abc import Iterator, Sequence
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
from mmengine.config import Config
from mmengine.registry import TRANSFORMS, DefaultScope
from rich.progress import Progress

from genseg_mm.dataset_configs import walk
from genseg_mm.datasets.coco_captions import CaptionDataset
from genseg_mm.devices import device_of
from genseg_mm.files import check_writable, whole_file
from genseg_mm.inference.prompts import check_not_empty
from genseg_mm.inference.results import check_display, draw_picture, save_picture, show_picture
from genseg_mm.inference.taken_names import first_free_number
from genseg_mm.models.base import seeded_generator
from genseg_mm.models.genmask import GENERATION_SETTINGS, checked_texts, pictures_to_bytes
from genseg_mm.precision import evaluation_autocast
from genseg_mm.registry import DATASETS, class_name


class PictureGeneration:
    """The part of :class:`GenSegInferencer` that makes pictures of texts."""

    def generate(
        self,
        texts: str | Sequence[str],
        num_images: int = 1,
        image_size: int | Sequence[int] | None = None,
        seed: int = 0,
        batch_size: int = 4,
        return_vis: bool = False,
        out_dir: str | PathLike = '',
        show: bool = False,
        wait_time: float = 0.0,
        no_save_vis: bool = False,
        no_save_pred: bool = False,
        progress_bar: bool | None = None,
        **settings: Any,
    ) -> dict:
        """Makes pictures of texts with a GenMask model.

        Texts go through ``TextPrompt`` of the caption data that the config trains on, if it trains on any.

        Args:
            texts: A text, or a list.
            num_images: Pictures for each text.
            image_size: (height, width) or one number. Default: that of the model's ``generation``; else the size that
                the config's caption data has.
            seed: Of the noise. Picture k of a text depends on text, seed and k alone.
            batch_size: Pictures made at once.
            return_vis: Give pictures with their texts under them as well.
            out_dir: Folder for ``vis/<number>.png`` and ``preds/<number>.{png,json}``, the picture and how it was made;
                numbers go on behind those that are there.
            show: Shows the pictures in windows, each for ``wait_time`` seconds.
            wait_time: 0 waits for a key.
            no_save_vis: Writes nothing into ``vis``.
            no_save_pred: Writes nothing into ``preds``.
            progress_bar: Default: where there are several batches.
            **settings: ``num_steps``, ``guidance_scale``, ``negative_text``, ``shift`` of ``GenMask.generate``, over
                those of the model's ``generation``.

        Returns:
            ``predictions``, a dict per picture, text by text: ``image`` RGB uint8 (H, W, 3), ``text``, ``seed``,
            ``number`` k; ``visualization``, RGB pictures, or None without ``return_vis``.

        Raises:
            ValueError: If the model is no GenMask, or an argument is out of range.
        """
        if not self.takes_texts:
            raise ValueError(
                f"task='generate' needs GenMask, but got {type(self.model).__name__}, which makes no pictures"
            )
        _check_settings(settings, num_images, batch_size, seed)
        if show:
            check_display()
        if out_dir:
            out_dir = check_writable(out_dir, 'out_dir')
        texts = checked_texts([texts] if isinstance(texts, str) else texts)
        for text in texts:
            check_not_empty(text, 'generation')
        settings = {name: value for name, value in settings.items() if value is not None}
        settings = {**self.model.generation, **settings}
        settings['image_size'] = self._picture_size(image_size)
        jobs = [(text, number) for text in texts for number in range(num_images)]
        several = self.show_progress and len(jobs) > batch_size
        predictions, drawn = [], []
        start = first_free_number(out_dir) if out_dir else 0
        with Progress(disable=not (several if progress_bar is None else progress_bar)) as progress:
            task = progress.add_task('Generation', total=len(jobs))
            for prediction in self._pictures(jobs, seed, batch_size, settings):
                index = len(predictions)
                predictions.append(prediction)
                if return_vis or show or (out_dir and not no_save_vis):
                    picture = draw_picture(prediction['image'], f'"{prediction["text"]}"')
                    if return_vis:
                        drawn.append(picture)
                    if out_dir and not no_save_vis:
                        save_picture(picture, Path(out_dir, 'vis', f'{start + index:08d}.png'))
                    if show:
                        show_picture(picture, prediction['text'], wait_time)
                if out_dir and not no_save_pred:
                    save_generated(prediction, settings, Path(out_dir, 'preds', f'{start + index:08d}'))
                progress.advance(task)
        return dict(predictions=predictions, visualization=drawn if return_vis else None)

    def _pictures(self, jobs: list[tuple[str, int]], seed: int, batch_size: int, settings: dict) -> Iterator[dict]:
        dataset = caption_dataset(self.cfg)
        with DefaultScope.overwrite_default_scope(self.scope):
            instruct = [
                TRANSFORMS.build(one)
                for one in dataset.get('pipeline') or ()
                if class_name(one['type']) == 'TextPrompt'
            ]

        def prompt_of(text: str) -> str:
            results = dict(text=text)
            for transform in instruct:
                results = transform(results)
            return results['text']

        if settings.get('negative_text'):  # the empty one is no caption
            settings = {**settings, 'negative_text': prompt_of(settings['negative_text'])}
        for start in range(0, len(jobs), batch_size):
            part = jobs[start : start + batch_size]
            with evaluation_autocast(self.cfg, device_of(self.model)):
                pictures = self.model.generate(
                    [prompt_of(text) for text, _ in part],
                    generators=[seeded_generator(seed, number) for _, number in part],
                    **settings,
                )
            arrays = pictures_to_bytes(pictures).permute(0, 2, 3, 1).cpu().numpy()
            for (text, number), image in zip(part, arrays, strict=True):
                image = np.ascontiguousarray(image)
                yield dict(image=image, text=text, seed=seed, number=number)

    def _picture_size(self, image_size: int | Sequence[int] | None) -> tuple[int, int]:
        given = (image_size, self.model.generation.get('image_size'), trained_size(self.cfg))
        size = next((one for one in given if one is not None), None)
        if size is None:
            raise ValueError('the config states no size of pictures: expected image_size=(height, width), but got none')
        return _pair(size)


def _check_settings(settings: dict, num_images: int, batch_size: int, seed: int) -> None:
    unknown = set(settings) - set(GENERATION_SETTINGS)
    if unknown:
        raise ValueError(f'generate knows {GENERATION_SETTINGS}, but got {sorted(unknown)}')
    for name, value, least in (('num_images', num_images, 1), ('batch_size', batch_size, 1), ('seed', seed, 0)):
        if not isinstance(value, int) or value < least:
            raise ValueError(f'{name} must be a whole number of at least {least}, but got {value!r}')
    negative = settings.get('negative_text')
    if negative is not None and not isinstance(negative, str):
        raise ValueError(f'negative_text must be a text, but got {negative!r}')


def caption_dataset(cfg: Config) -> dict:
    """Config of the first dataset of pictures with captions that a config trains on; empty if there is none."""
    for dataset in walk((cfg.get('train_dataloader') or {}).get('dataset') or {}):
        kind = dataset.get('type')
        kind = DATASETS.get(kind) if isinstance(kind, str) else kind
        has_captions = isinstance(kind, type) and issubclass(kind, CaptionDataset)
        if has_captions or dataset.get('task') == 'text_to_image':
            return dataset
    return {}


def trained_size(cfg: Config) -> tuple[int, int] | None:
    """Height and width of the pictures of the caption data of a config, None where it does not say.

    Said by the last square crop or resize without keep_ratio of its pipeline, or by a dataset that draws its pictures.
    """
    dataset = caption_dataset(cfg)
    for transform in reversed(dataset.get('pipeline') or []):
        crop, scale = transform.get('crop_size'), transform.get('scale')
        if crop is not None:
            height, width = _pair(crop)
            return (height, width) if height == width else None  # mmcv and mmseg differ in order
        if scale is not None and not transform.get('keep_ratio', False):
            return _pair(scale)[::-1]
    if dataset.get('task') == 'text_to_image':
        return _pair(dataset.get('image_size', 64))
    return None


def _pair(size: int | Sequence[int]) -> tuple[int, int]:
    return (size, size) if isinstance(size, int) else tuple(size)


def save_generated(prediction: dict, settings: dict, path: Path) -> None:
    """Writes ``<path>.png`` and ``<path>.json`` with text, seed and settings."""
    save_picture(prediction['image'], path.with_suffix('.png'))
    content = {key: value for key, value in prediction.items() if key != 'image'}
    text = json.dumps({**content, 'settings': settings}, ensure_ascii=False)
    with whole_file(path.with_suffix('.json'), durable=False) as temporary:
        temporary.write_text(text, encoding='utf-8')
