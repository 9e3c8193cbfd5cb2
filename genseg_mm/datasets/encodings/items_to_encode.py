"""A data set as the frozen encoders are to see it: every text, every mask, no random draws."""

import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from mmengine.dataset import BaseDataset, Compose
from torch.utils.data import Dataset

from genseg_mm.datasets.encodings.cached_encodings import image_item, mask_item, split_pipeline
from genseg_mm.datasets.encodings.encoding_cache import config_key
from genseg_mm.datasets.transforms.mask_values import CHECKED
from genseg_mm.registry import DATASETS, class_name

# Arguments with which a data set draws one of several texts at each access, and what lists all of them.
_DRAWS = ('sentence', 'expressions', 'caption')


class ItemsToEncode(Dataset):
    """Items of one data set before and after the transforms that a cache makes unnecessary.

    A data set that draws one of several sentences per access lists all of them here.

    Args:
        cfg: Config of the data set, with its pipeline.

    Attributes:
        transforms: Configs of the transforms of pictures and masks.
        pipeline: Their key.
        chosen: Indices that the items of this ``Dataset`` are; set it to leave some out.
        folder: That of the pipeline's ``CachedEncodings``, None without.

    Raises:
        ValueError: If a transform draws at random.
    """

    def __init__(self, cfg: Mapping) -> None:
        pipeline = cfg.get('pipeline', ())
        text, self.transforms = split_pipeline(pipeline)
        self.folder = next((t['folder'] for t in pipeline if class_name(t['type']) == 'CachedEncodings'), None)
        self.dataset = with_all_texts({**cfg, 'pipeline': []})
        self.pipeline = config_key(self.transforms)
        self._text = [(class_name(own['type']), Compose([own])) for own in text]
        self._pixels = [(class_name(own['type']), Compose([own])) for own in self.transforms]
        self.chosen = list(range(len(self.dataset)))

    def __len__(self) -> int:
        return len(self.chosen)

    def info(self, index: int) -> dict:
        """Item ``index`` of the data set with its final text, without decoding anything.

        Raises:
            ValueError: If the data set or a transform draws at random, or the item has no text.
        """
        with no_draws(type(self.dataset).__name__):
            results = self.dataset.get_data_info(index)
        results = _apply(self._text, results)
        if not isinstance(results.get('text'), str):
            raise ValueError(
                f"{results.get('img_path', '?')}: expected a string 'text', but got {results.get('text')!r}"
            )
        return results

    def __getitem__(self, position: int) -> dict:
        """Item ``chosen[position]`` after all transforms.

        Returns:
            ``img`` (3, H, W) uint8 BGR; ``mask`` (H, W) uint8 or None; ``text``, ``task``, ``name``,
            ``ori_shape``, ``img_shape``, and ``keys``: of ``image`` (see ``image_item``) and, with a mask, ``mask``.

        Raises:
            ValueError: If a transform draws at random, or mask and picture differ in size.
        """
        results = self.info(self.chosen[position])
        is_mask = results.get('task', 'mask') == 'mask'
        keys = {'image': image_item(results, self.pipeline)}
        sources = dict(results)
        results = _apply(self._pixels, results)
        image = results['img']
        mask = results.get('gt_seg_map') if is_mask else None
        if mask is not None:
            keys['mask'] = mask_item(sources, self.pipeline)
        return dict(
            img=torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1))),
            mask=None if mask is None else torch.from_numpy(np.ascontiguousarray(mask)),
            text=results['text'],
            task='mask' if is_mask else 'image',
            mask_values_checked=bool(results.get(CHECKED)),
            name=results.get('img_path') or f'image {results.get("img_id", "?")}',
            ori_shape=tuple(results.get('ori_shape', image.shape))[:2],
            img_shape=tuple(results.get('img_shape', image.shape))[:2],
            keys=keys,
        )


def _apply(transforms: Sequence[tuple[str, Callable]], results: dict) -> dict:
    for name, transform in transforms:
        with no_draws(name):
            results = transform(results)
    return results


def with_all_texts(cfg: dict) -> Any:
    """The data set of a config; where it draws a text per access, the one of all texts."""
    kind = DATASETS.get(cfg['type']) if isinstance(cfg['type'], str) else cfg['type']
    # Files are read once it is clear which items are wanted.
    lazy = {'lazy_init': True} if isinstance(kind, type) and issubclass(kind, BaseDataset) else {}
    dataset = DATASETS.build({**cfg, **lazy})
    draws = [name for name in _DRAWS if getattr(dataset, name, None) == 'random']
    draws = [name for name in draws if _has_choice(dataset, name)]
    if draws:
        # Parts of the list of items are other ones in the longer list: all of it is taken.
        whole = {key: None for key in ('max_items', 'indices') if key in cfg}
        dataset = DATASETS.build({**cfg, **lazy, **whole, **dict.fromkeys(draws, 'all')})
    if hasattr(dataset, 'full_init'):
        dataset.full_init()
    return dataset


def _has_choice(dataset: Any, name: str) -> bool:
    # ShapesDataset has captions or expressions, by its task.
    task = dict(expressions='referring', caption='text_to_image').get(name)
    return getattr(dataset, 'task', task) == task


@contextmanager
def no_draws(name: str) -> Iterator[None]:
    """ValueError if what runs inside draws from a global random state of Python, NumPy or torch."""
    states = random.getstate(), np.random.get_state(), torch.get_rng_state()
    yield
    drawn = [
        library
        for library, same in (
            ('random', random.getstate() == states[0]),
            ('numpy.random', _equal(np.random.get_state(), states[1])),
            ('torch', torch.equal(torch.get_rng_state(), states[2])),
        )
        if not same
    ]
    if drawn:
        raise ValueError(
            f'{name} draws at random (from {drawn[0]}), so what it makes cannot be cached: remove it from the '
            'pipeline, or train without the cache'
        )


def _equal(state: tuple, other: tuple) -> bool:
    return state[0] == other[0] and np.array_equal(state[1], other[1]) and state[2:] == other[2:]
