"""Items of any dataset with the latents and prompt embeddings that a tool has stored for them, and what it stores."""

import json
import os
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from mmcv.transforms import BaseTransform
from mmengine.dataset import BaseDataset, Compose
from torch.utils.data import Dataset

from genseg_mm.dataset_configs import single_datasets
from genseg_mm.datasets.encoding_cache import KINDS, EncodingCache, config_key, content_key
from genseg_mm.datasets.image_text import split_address
from genseg_mm.datasets.transforms.referring import CHECKED
from genseg_mm.registry import DATASETS, TRANSFORMS, class_name

# What our loaders make the mask of a 'mask' item from; paths stand for the file with its size and time.
MASK_SOURCES = ('gt_seg_map', 'segmentations', 'shapes', 'row_mask', 'seg_map_path', 'mask_path')
# Transforms that change the text alone; they stay before CachedEncodings.
TEXT_TRANSFORMS = ('TextPrompt', 'UseDescriptions')
# Arguments with which a dataset draws one of several texts at each access, and what lists all of them.
_DRAWS = ('sentence', 'expressions', 'caption')


@TRANSFORMS.register_module()
class CachedEncodings(BaseTransform):
    """Looks up what ``tools/dataset_tools/cache_encodings.py`` has stored for an item.

    It takes the place of the transforms that load and resize pictures and masks, and holds their configs: the tool
    runs them, training does so only for what is not cached. It stands after the transforms that make the text::

        dict(type='genseg_mm.TextPrompt'),
        dict(type='genseg_mm.CachedEncodings', folder='caches/refcoco', transforms=[
            dict(type='genseg_mm.LoadImage'),
            dict(type='genseg_mm.LoadReferringMask'),
            dict(type='genseg_mm.AntialiasedResize', scale=(512, 512))]),
        dict(type='genseg_mm.PackGenSegInputs'),

    An item is found by its picture file (path, size and time of change; the pixels where ``img`` is in memory
    already), by what its mask is made from, by its text, and by ``transforms``; nothing is decoded. Transforms that
    draw at random cannot be cached and are refused. It is meant for training; predictions work from it as well, but
    without pixels there is nothing for a ``PredictionGridHook`` to draw.

    Added keys: image_latents (C, h, w); mask_latents (C, h, w) for items of task 'mask'; prompt_states (l, D) and
    prompt_mask (L,) bool, whose states beyond l are zero; prompt_pooled (P,) if the encoder has it; for items of task
    'image' the same of the empty prompt as empty_prompt_*; cached_text, encoder_fingerprints, img_shape, ori_shape.
    ``img`` is removed where image and mask are both cached. Encoders that a training then never asks for wait in the
    memory of the host.

    Args:
        folder: The cache.
        what: Which of 'image', 'mask' and 'prompt' to take from it.
        transforms: Configs of the transforms that it makes unnecessary, in their order.

    Raises:
        FileNotFoundError: If there is no cache in the folder.
        ValueError: If the cache is not made for this ``what`` or these ``transforms``; when used, if an item is not in
            it or its picture has changed since.
    """

    def __init__(self, folder: str, what: Sequence[str] = KINDS, transforms: Sequence[dict] = ()) -> None:
        what = (what,) if isinstance(what, str) else tuple(what)
        if not what or set(what) - set(KINDS):
            raise ValueError(f'CachedEncodings: what must be of {KINDS}, but got {what}')
        check_deterministic(transforms)
        self.cache = EncodingCache(folder)
        self.what, self.pipeline = what, config_key(list(transforms))
        manifest = self.cache.manifest
        encoders = manifest.get('encoders', {})
        missing = [kind for kind in what if kind not in encoders]
        if missing:
            raise ValueError(
                f'the cache {folder} has no encodings of kind {missing[0]!r}, but of {sorted(encoders)}: '
                f'{self.cache.command} --what {" ".join(what)}'
            )
        if self.pipeline not in manifest['pipelines']:
            known = '; '.join(json.dumps(own) for own in manifest['pipelines'].values())
            raise ValueError(
                f'the cache {folder} is stale: it was made with other transforms than those of CachedEncodings, '
                f'expected {known}, but got {json.dumps(list(transforms), default=str)}; update it with '
                f'{self.cache.command}'
            )
        self.fingerprints = {kind: encoders[kind]['fingerprint'] for kind in what}
        self.looks_at_images = encoders.get('prompt', {}).get('looks_at_images', False)
        self.transforms = Compose(list(transforms))

    def transform(self, results: dict) -> dict:
        """Adds the encodings of an item; see the class."""
        is_mask = results.get('task', 'mask') == 'mask'
        needed = {'image', 'mask'} if is_mask else {'image'}
        kinds = [kind for kind in self.what if kind in needed or kind == 'prompt']
        found, image = {}, None
        if 'image' in kinds or (self.looks_at_images and is_mask):
            image = self._picture(results)
        if 'image' in kinds:
            found['image_latents'] = self._get('image', image['content'], results)['latents']
        if 'mask' in kinds:
            record = self.cache.items.get(mask_item(results, self.pipeline))
            content = record['content'] if record else ''
            found['mask_latents'] = self._get('mask', content, results)['latents']
        if 'prompt' in kinds:
            seen = image['content'] if self.looks_at_images and is_mask else ''
            found.update(self._prompt(results, results['text'], seen, 'prompt'))
            found['cached_text'] = results['text']
            if not is_mask:
                found.update(self._prompt(results, '', '', 'empty_prompt'))
        if needed <= set(kinds):
            results.pop('img', None)
            for key in ('ori_shape', 'img_shape'):
                results[key] = tuple(image[key])
        else:
            results = self.transforms(results)
        fingerprints = {kind: self.fingerprints[kind] for kind in kinds}
        results.update(found, encoder_fingerprints=fingerprints)
        return results

    def _picture(self, results: dict) -> dict:
        key, state = image_item(results, self.pipeline)
        record = self.cache.items.get(key)
        if record is None:
            raise ValueError(f'{_name(results)} is not in the cache: {self.cache.command}')
        if state and state != {name: record[name] for name in state}:
            raise ValueError(
                f'{state["path"]} has changed since it was cached (expected {record["size"]} bytes and mtime_ns '
                f'{record["mtime_ns"]}, but got {state["size"]} and {state["mtime_ns"]}): {self.cache.command}'
            )
        return record

    def _prompt(self, results: dict, text: str, image: str, prefix: str) -> dict:
        content = prompt_content(text, image)
        if not self.cache.has('prompt', content):
            raise ValueError(
                f'the prompt {text!r} of {_name(results)} is not in the cache {self.cache.folder}: '
                f'{self.cache.command}; the transforms before CachedEncodings make the text, they must be the same'
            )
        tensors = self.cache.get('prompt', content)
        return {f'{prefix}_{part}': tensor for part, tensor in tensors.items()}

    def _get(self, kind: str, content: str, results: dict) -> dict:
        if not self.cache.has(kind, content):
            raise ValueError(
                f'the {kind} of {_name(results)} is not in the cache {self.cache.folder}: {self.cache.command}'
            )
        return self.cache.get(kind, content)


def _name(results: dict) -> str:
    path = results.get('img_path') or f'image {results.get("img_id", "?")}'
    annotations = f', annotations {results["ann_ids"]}' if 'ann_ids' in results else ''
    return f'{path}{annotations}'


def image_item(results: dict, pipeline: str) -> tuple[str, dict]:
    """Key of an item's picture before the transforms, and the state of its file.

    Args:
        results: The item: ``img`` in memory, or ``img_path``.
        pipeline: Key of the transforms, see ``config_key``.

    Returns:
        The key; ``path, size, mtime_ns`` of the file, empty where the pixels are in memory.

    Raises:
        FileNotFoundError: If the file does not exist.
        ValueError: If there is neither.
    """
    if 'img' in results:
        return content_key('img', results['img'], pipeline), {}
    if not results.get('img_path'):
        raise ValueError(f'cannot cache an item without img and img_path: {sorted(results)}')
    file, member = _file_of(results['img_path'])
    key = content_key('img_path', file + member, pipeline)
    return key, {'path': file, **_state(file)}


def _file_of(path: str) -> tuple[str, str]:
    """The file of a picture's path or of its address in a tar shard, and what follows it in the address."""
    found = split_address(path)
    if found is None and '://' in path:
        raise ValueError(
            f'{path}: expected a local file, as its size and time tell whether it has changed, but got an address'
        )
    file, member = found or (path, '')
    return os.path.abspath(file), member


def mask_item(results: dict, pipeline: str) -> str:
    """Key of what an item's mask is made from.

    Raises:
        ValueError: If nothing in the item says what its mask is made from.
    """
    sources = [key for key in MASK_SOURCES if key in results]
    if not sources:
        raise ValueError(
            f'cannot tell what the mask of {_name(results)} is made from: expected one of {MASK_SOURCES}, but got '
            f"{sorted(results)}; leave 'mask' out of what"
        )
    parts: list[Any] = ['mask', pipeline]
    for key in sources:
        value = results[key]
        if key.endswith('_path'):
            value = {'path': os.path.abspath(value), **_state(value)}
        parts += [key, value if isinstance(value, np.ndarray) else json.dumps(value, default=_text)]
    if 'gt_seg_map' not in results and 'height' in results and 'width' in results:
        parts.append(f'{results["height"]}x{results["width"]}')
    elif 'gt_seg_map' not in results:  # it is drawn at the size of the picture
        parts.append(json.dumps(image_item(results, pipeline)))
    return content_key(*parts, str(results.get('ignore_label')))


def prompt_content(text: str, image: str = '') -> str:
    """Content of a prompt: the text and, for encoders that look at it, the content of the picture."""
    return content_key('prompt', text, image)


def _state(path: str) -> dict:
    state = os.stat(path)
    return dict(size=state.st_size, mtime_ns=state.st_mtime_ns)


def _text(value: Any) -> Any:
    return value.decode('latin1') if isinstance(value, bytes) else np.asarray(value).tolist()


def split_pipeline(pipeline: Sequence[Mapping]) -> tuple[list[dict], list[dict]]:
    """Splits a pipeline into the transforms of the text and those of pictures and masks.

    Args:
        pipeline: With :class:`CachedEncodings`, which says what belongs where; or without, then ``TEXT_TRANSFORMS``
            are those of the text, and packing ends it.

    Returns:
        Configs of both.

    Raises:
        ValueError: If one of them draws at random.
    """
    names = [class_name(transform.get('type')) for transform in pipeline]
    if 'CachedEncodings' in names:
        place = names.index('CachedEncodings')
        text, pixels = list(pipeline[:place]), list(pipeline[place].get('transforms', ()))
    else:
        end = next((i for i, name in enumerate(names) if name.startswith('Pack')), len(names))
        is_text = [name in TEXT_TRANSFORMS for name in names[:end]]
        pairs = list(zip(pipeline, is_text, strict=False))
        text = [transform for transform, own in pairs if own]
        pixels = [transform for transform, own in pairs if not own]
    check_deterministic([*text, *pixels])
    return text, pixels


def kinds_always_cached(dataset: Any) -> frozenset[str]:
    """Of 'image', 'mask' and 'prompt' those that every item of a training takes from a cache.

    Args:
        dataset: Config, of one dataset or of several in one.
    """
    found = frozenset(KINDS)
    for own in single_datasets(dataset):
        pipeline = own.get('pipeline') or () if isinstance(own, Mapping) else ()
        cached = (step for step in pipeline if class_name(step.get('type', '')) == 'CachedEncodings')
        whats = [step.get('what', KINDS) for step in cached]
        found &= {kind for what in whats for kind in ((what,) if isinstance(what, str) else what)}
    return found


def check_deterministic(transforms: Sequence[Mapping]) -> None:
    """ValueError for transforms that, by their name, draw at random."""
    for transform in transforms:
        if not isinstance(transform, Mapping):
            raise ValueError(f'transforms must be configs, but got {transform!r}')
        name = class_name(transform.get('type'))
        if 'Random' in name or 'Distortion' in name or 'Jitter' in name:
            raise ValueError(
                f'{name} draws at random, so its pictures cannot be cached: remove it from the pipeline, or train '
                'without the cache'
            )


# ---- a dataset as the frozen encoders are to see it: every text, every mask, no random draws


class ItemsToEncode(Dataset):
    """Items of one dataset before and after the transforms that a cache makes unnecessary.

    A dataset that draws one of several sentences per access lists all of them here.

    Args:
        cfg: Config of the dataset, with its pipeline.

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
        """Item ``index`` of the dataset with its final text, without decoding anything.

        Raises:
            ValueError: If the dataset or a transform draws at random, or the item has no text.
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
    """The dataset of a config; where it draws a text per access, the one of all texts."""
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
