"""Items of any data set with the latents and prompt embeddings that a tool has stored for them."""

import json
import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from mmcv.transforms import BaseTransform
from mmengine.dataset import Compose

from genseg_mm.datasets.captions.tar_shards import split_address
from genseg_mm.datasets.encodings.encoding_cache import KINDS, EncodingCache, config_key, content_key
from genseg_mm.registry import TRANSFORMS, class_name

# What our loaders make the mask of a 'mask' item from; paths stand for the file with its size and time.
MASK_SOURCES = ('gt_seg_map', 'segmentations', 'shapes', 'seg_map_path', 'mask_path')
# Transforms that change the text alone; they stay before CachedEncodings.
TEXT_TRANSFORMS = ('TextPrompt', 'UseDescriptions')


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
    ``img`` is removed where image and mask are both cached.

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
