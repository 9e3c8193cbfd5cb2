"""A codec, and masks with their pictures, from configs: for the tools that study latents of masks."""

from collections.abc import Mapping
from typing import NamedTuple

import cv2
import numpy as np
import torch
from mmengine.registry import MODELS, init_default_scope
from torch import Tensor

from genseg_mm.config_file import read_config_file
from genseg_mm.launch.config import override_config
from genseg_mm.launch.dataset_parts import DatasetPart, RawLoader, dataset_parts, read_dataset_config
from genseg_mm.models.latent_codec import LatentCodec

BATCH_SIZE = 16


class MaskPictures(NamedTuple):
    """Masks and the pictures that they belong to.

    Attributes:
        images: RGB in [-1, 1], (N, 3, H, W).
        masks: One object of each picture, (N, H, W) bool.
        objects: All objects of each picture, (N, H, W) bool; the masks again where the data does not tell.
        source: What they are, in words.
    """

    images: Tensor
    masks: Tensor
    objects: Tensor
    source: str


def read_codec(path: str, options: Mapping | None = None, seed: int = 0) -> LatentCodec:
    """The codec of a config.

    Args:
        path: Config with ``model.codec`` or ``codec``, a :class:`LatentCodec` or a bare autoencoder.
        options: Of ``--cfg-options``.
        seed: Of autoencoders with random weights.

    Raises:
        FileNotFoundError: If there is no such config.
        ValueError: If it has no codec.
    """
    cfg = read_config_file(path)
    if options:
        override_config(cfg, options)
    init_default_scope(cfg.get('default_scope', 'genseg_mm'))
    codec = cfg.get('codec') or (cfg.get('model') or {}).get('codec')
    if codec is None:
        raise ValueError(f"{path} has no codec: expected 'model.codec' or 'codec', but got {sorted(cfg)}")
    torch.manual_seed(seed)
    if not str(codec['type']).endswith('LatentCodec'):
        codec = dict(type='genseg_mm.LatentCodec', autoencoder=codec)
    codec = MODELS.build(codec)
    codec.max_batch = codec.max_batch or BATCH_SIZE
    return codec.eval()


def read_mask_pictures(
    path: str | None, split: str, num: int, image_size: tuple[int, int], seed: int = 0, options: Mapping | None = None
) -> MaskPictures:
    """Masks and pictures of the first dataset of a split that has masks, resized.

    Args:
        path: Config with dataloaders; None for the procedural scenes.
        split: 'train', 'val' or 'test'.
        num: So many items at most, drawn by the seed.
        image_size: Height and width; masks take the nearest pixel.
        seed: Seeds the choice of items, and of the object where a dataset has instances without texts.
        options: Of ``--cfg-options``.

    Raises:
        FileNotFoundError: If config or data are missing.
        ValueError: If no dataset of the split has masks.
    """
    if path is None:
        scenes = dict(type='genseg_mm.ShapesDataset', num_scenes=num, image_size=image_size)
        scenes |= dict(task='referring', split=split, expressions='random', seed=seed)
        parts = [DatasetPart(f'procedural scenes, {split}', scenes)]
    else:
        parts = dataset_parts(read_dataset_config(path, options), (split,))
    for part in parts:
        dataset = part.build()
        load = RawLoader(dataset)
        order = np.random.default_rng([seed, len(dataset)]).permutation(len(dataset))[:num]
        if len(order) == 0 or _truth(load(int(order[0])), seed) is None:
            continue  # text-to-image parts
        items = [_item(load(int(index)), image_size, seed) for index in sorted(order)]
        images, masks, objects = (torch.stack(values) for values in zip(*items, strict=True))
        source = f'{part.name}: {len(items)} masks at {image_size[0]}x{image_size[1]}'
        return MaskPictures(images, masks, objects, source)
    names = ', '.join(part.name for part in parts)
    raise ValueError(f'{path}: expected a dataset with masks in split {split!r}, but got none in {names}')


def _truth(item: dict, seed: int) -> tuple[np.ndarray, np.ndarray] | None:
    """The mask of one object and that of all, (H, W) bool; None where the item has neither."""
    ids = item.get('gt_instance_map')
    if 'gt_seg_map' in item:
        mask = item['gt_seg_map'] == 1
        return mask, mask if ids is None else ids > 0
    if ids is None:
        return None
    present = np.unique(ids[ids > 0])
    if len(present) == 0:
        return ids > 0, ids > 0
    chosen = np.random.default_rng([seed, item.get('sample_idx', 0)]).choice(present)
    return ids == chosen, ids > 0


def _item(item: dict, image_size: tuple[int, int], seed: int) -> tuple[Tensor, Tensor, Tensor]:
    size = (image_size[1], image_size[0])  # OpenCV: width, height
    image = np.ascontiguousarray(item['img'][..., ::-1])
    image = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
    masks = [
        torch.from_numpy(cv2.resize(own.astype(np.uint8), size, interpolation=cv2.INTER_NEAREST)) > 0
        for own in _truth(item, seed)
    ]
    return torch.from_numpy(image).permute(2, 0, 1) / 127.5 - 1, *masks
