"""GenMask's latents and prompts that come with the samples, from a cache of what its frozen encoders give.

A cache is made for certain weights and settings of the encoders. Their fingerprint comes with every cached sample
and is compared with that of the model, so a cache of another autoencoder is an error and no bad result.
"""

import hashlib
import inspect
import json
from collections.abc import Collection, Sequence
from typing import Any
from weakref import WeakKeyDictionary

import torch
import torch.nn.functional as F
from mmengine.structures import BaseDataElement
from torch import Tensor, nn

from genseg_mm.checkpoint import weights_digest
from genseg_mm.models.prompt_encoders import PromptEmbeddings

# Where they come from and how they were saved changes nothing that an encoder computes.
_NO_SETTINGS = {
    'training', 'trainable', 'padding', 'max_batch', 'frozen_parts', 'name_or_path', '_name_or_path', 'dtype',
    'torch_dtype', 'transformers_version', '_diffusers_version', '_class_name', 'architectures', '_commit_hash',
    'gradient_checkpointing', 'attn_implementation', 'use_cache', 'remember',
}  # fmt: skip
_fingerprints: WeakKeyDictionary[nn.Module, dict] = WeakKeyDictionary()


def parts_never_asked(kinds: Collection[str]) -> tuple[str, ...]:
    """Which frozen parts of a GenMask a training never runs if these kinds of encodings all come from a cache."""
    codec, prompts = {'image', 'mask'} <= set(kinds), 'prompt' in kinds
    return ('codec',) * codec + ('prompt_encoder',) * prompts


def read_cached(
    model: nn.Module, inputs: Tensor, samples: Sequence[BaseDataElement], texts: Sequence[str]
) -> tuple[Tensor | None, PromptEmbeddings | None]:
    """Latents of the pictures, and prompts, that come with the samples of a batch; None where the encoder has to run.

    Args:
        model: With ``codec``, ``prompt_encoder`` and ``data_preprocessor``.
        inputs: RGB in [-1, 1], (N, 3, H, W); (N, 3, 0, 0) where the samples hold latents.
        samples: N samples, all with ``image_latents`` (C, h, w) or none; so ``prompt_states`` (l, D) and
            ``prompt_mask`` (L,).
        texts: N prompts; a sample's own text, or '' where it is dropped.

    Returns:
        Standardised latents, (N, C, h, w), float32; N prompts.

    Raises:
        ValueError: If some samples have encodings and others not, if their shapes differ, if other encoders have made
            them, or if there are no pixels to encode either.
    """
    latents = _read_latents(model, samples, 'image')
    if latents is None and inputs.shape[-1] == 0:
        raise ValueError(
            f'{_path(samples[0])} has neither pixels nor image_latents: put LoadImage or CachedEncodings into the '
            'pipeline'
        )
    prompt = _read_prompts(model, samples, texts)
    if prompt is None and inputs.shape[-1] == 0 and getattr(model.prompt_encoder, 'looks_at_images', False):
        raise ValueError(
            f'{_path(samples[0])} has no pixels, but {type(model.prompt_encoder).__name__} looks at images: cache the '
            "prompts, too, or leave 'image' out of CachedEncodings' what"
        )
    return latents, prompt


def read_cached_masks(model: nn.Module, samples: Sequence[BaseDataElement], images: Tensor) -> Tensor | None:
    """Latents of the masks that come with samples of task 'mask'; None if there are none.

    Args:
        model: With ``codec`` and ``data_preprocessor``.
        samples: M samples, all with ``mask_latents`` (C, h, w) or none.
        images: Latents of the images of the batch, (N, C, h, w).

    Returns:
        Standardised latents, (M, C, h, w), float32.

    Raises:
        ValueError: As :func:`read_cached`, or if masks and images differ in shape.
    """
    latents = _read_latents(model, samples, 'mask')
    if latents is not None and latents.shape[1:] != images.shape[1:]:
        raise ValueError(
            f'cached mask_latents must have the shape of the image latents, {tuple(images.shape[1:])}, but got '
            f'{tuple(latents.shape[1:])}: image and mask must go through the same Resize'
        )
    return latents


def _read_latents(model: nn.Module, samples: Sequence[BaseDataElement], kind: str) -> Tensor | None:
    """Latents of a kind, (N, C, h, w); None where no sample has them."""
    name = f'{kind}_latents'
    if not _all_or_none(samples, name):
        return None
    tensors = [sample.get(name) for sample in samples]
    shapes = {tuple(tensor.shape): sample for tensor, sample in zip(tensors, samples, strict=True)}
    if len(shapes) > 1 or tensors[0].dim() != 3:
        shown = list(shapes.items())
        (first, sample), (last, other) = shown[0], shown[-1]
        raise ValueError(
            f'{name} of a batch must have one shape (C, h, w), but got {first} ({_path(sample)}) and {last} '
            f'({_path(other)}): resize with keep_ratio=False, or use batch_size=1'
        )
    _check_origin(model, kind, samples)
    return torch.stack(tensors).float()


def _read_prompts(
    model: nn.Module, samples: Sequence[BaseDataElement], texts: Sequence[str]
) -> PromptEmbeddings | None:
    encoder = model.prompt_encoder
    own = [_own_prompt(text, sample) for text, sample in zip(texts, samples, strict=True)]
    if not _all_or_none(samples, 'prompt_states'):
        return None
    if getattr(encoder, 'trainable', False):
        raise ValueError(
            f"{type(encoder).__name__} is trained, so its prompts cannot come from a cache: leave 'prompt' out of "
            "CachedEncodings' what, or set trainable=False"
        )
    _check_origin(model, 'prompt', samples)
    masks = [sample.get(f'{name}_mask') for name, sample in zip(own, samples, strict=True)]
    states = [sample.get(f'{name}_states') for name, sample in zip(own, samples, strict=True)]
    pooled = [sample.get(f'{name}_pooled') for name, sample in zip(own, samples, strict=True)]
    _check_prompts(states, masks, samples)
    length = max(len(mask) for mask in masks)
    dtype = next((p.dtype for p in encoder.parameters()), states[0].dtype)
    return PromptEmbeddings(
        torch.stack([F.pad(one, (0, 0, 0, length - len(one))) for one in states]).to(dtype),
        torch.stack([F.pad(one, (0, length - len(one))) for one in masks]),
        None if pooled[0] is None else torch.stack(pooled).to(dtype),
    )


def _own_prompt(text: str, sample: BaseDataElement) -> str:
    """Which of a sample's cached prompts a text is."""
    if 'prompt_states' not in sample or text == sample.get('cached_text'):
        return 'prompt'
    if text == '' and 'empty_prompt_states' in sample:
        return 'empty_prompt'
    raise ValueError(
        f'{_path(sample)}: the cached prompt is that of {sample.get("cached_text")!r}, but got {text!r}: put what '
        'changes the text, such as TextPrompt, before CachedEncodings'
    )


def _check_prompts(states: list[Tensor], masks: list[Tensor], samples: Sequence[BaseDataElement]) -> None:
    for one, mask, sample in zip(states, masks, samples, strict=True):
        if one.dim() != 2 or mask.dim() != 1 or len(one) > len(mask):
            raise ValueError(
                f'{_path(sample)}: expected prompt_states (l, D) and prompt_mask (L,) with l <= L, but got '
                f'{tuple(one.shape)} and {tuple(mask.shape)}'
            )
        if one.shape[1] != states[0].shape[1]:
            raise ValueError(
                f'prompt_states of a batch must have one width, but got {states[0].shape[1]} and {one.shape[1]} '
                f'({_path(sample)})'
            )


def _path(sample: BaseDataElement) -> str:
    return f'sample {sample.get("img_path", "?")!r}'


def _all_or_none(samples: Sequence[BaseDataElement], name: str) -> bool:
    has = [name in sample for sample in samples]
    if any(has) and not all(has):
        without = samples[has.index(False)]
        raise ValueError(
            f'a batch must be all cached or not at all, but {sum(has)} of {len(has)} samples have {name}, and '
            f'{_path(without)} has not: give all datasets CachedEncodings, or the sampler group=batch_size'
        )
    return bool(has) and all(has)


def _check_origin(model: nn.Module, kind: str, samples: Sequence[BaseDataElement]) -> None:
    expected = encoder_manifest(model, kind)['fingerprint']
    for sample in samples:
        found = (sample.get('encoder_fingerprints') or {}).get(kind)
        if found != expected:
            encoder = 'prompt encoder' if kind == 'prompt' else 'autoencoder'
            raise ValueError(
                f'the cached {kind} of {_path(sample)} was made by another {encoder} than that of the model, or with '
                f'other settings: expected fingerprint {expected}, but got {found}; make a new cache with '
                'tools/dataset_tools/cache_encodings.py'
            )


def encoder_manifest(model: nn.Module, kind: str) -> dict:
    """What identifies the frozen encoder of a kind of encodings.

    The weights are hashed once per encoder: names, types, shapes and all bytes.

    Args:
        model: With ``codec``, ``prompt_encoder`` and ``data_preprocessor``.
        kind: 'image', 'mask' or 'prompt'.

    Returns:
        ``settings`` (plain data), ``weights`` (hex) and ``fingerprint`` (hex, of both); for prompts
        ``looks_at_images``.
    """
    encoder = model.prompt_encoder if kind == 'prompt' else model.codec
    if encoder not in _fingerprints:
        looks = kind != 'prompt' or getattr(encoder, 'looks_at_images', False)
        settings = {'encoder': _settings(encoder)}
        if looks:
            settings['data_preprocessor'] = _settings(model.data_preprocessor)
        weights = weights_digest(encoder)
        joined = json.dumps(settings, sort_keys=True) + weights
        manifest = dict(
            fingerprint=hashlib.sha256(joined.encode()).hexdigest()[:32], settings=settings, weights=weights
        )
        if kind == 'prompt':
            manifest['looks_at_images'] = looks
        _fingerprints[encoder] = manifest
    return _fingerprints[encoder]


def _pieces(tokenizer: Any) -> list[str]:
    """How a fast tokenizer cuts words and what it puts around them; lengths are set anew by every call."""
    backend = getattr(tokenizer, 'backend_tokenizer', None)
    if backend is None:
        return []
    copied = type(backend).from_str(backend.to_str())
    copied.no_padding()
    copied.no_truncation()
    return [copied.to_str()]


def _settings(part: Any) -> Any:
    """Plain data on how an encoder is set: of its attributes, those of its parts and their configs."""
    if isinstance(part, (str, int, float, bool, type(None))):
        return part
    if isinstance(part, (list, tuple)):
        return [_settings(one) for one in part]
    if isinstance(part, Tensor):
        return hashlib.sha256(str(part.tolist()).encode()).hexdigest()[:16]
    if hasattr(part, 'get_vocab'):
        special = [str(part.special_tokens_map), str(getattr(part, 'chat_template', None))]
        vocabulary = json.dumps([sorted(part.get_vocab().items()), special, *_pieces(part)])
        return hashlib.sha256(vocabulary.encode()).hexdigest()[:16]
    values = part if isinstance(part, dict) else vars(part)
    if isinstance(part, nn.Module):
        values = {**values, **part._buffers, **part._modules}
        if not type(part).__module__.startswith('genseg_mm') and hasattr(part, 'config'):
            values = {'config': part.config}
    elif hasattr(part, 'to_dict'):
        values = part.to_dict()
    found = {'class': type(part).__name__} if not isinstance(part, dict) else {}
    for name, value in values.items():
        name = str(name)
        if name in _NO_SETTINGS or (name.startswith('_') and name != '_channel_conversion'):
            continue
        if inspect.isroutine(value) or isinstance(value, type):
            continue
        found[name] = _settings(value)
    return found
