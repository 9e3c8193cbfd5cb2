"""The single datasets of a config and their items as the files have them, for tools; masks and codecs likewise."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
import torch
from mmcv.transforms import LoadImageFromFile
from mmengine.config import Config
from mmengine.registry import DATASETS, MODELS, init_default_scope
from torch import Tensor, nn

from genseg_mm.config_file import read_config_file
from genseg_mm.dataset_configs import MODEL_PLACES, single_datasets
from genseg_mm.datasets.instance_maps import InstanceMapDataset
from genseg_mm.datasets.transforms import LoadImage, LoadInstanceMap, LoadReferringMask
from genseg_mm.launch.config import override_config
from genseg_mm.network_sizes import is_network_resize

SPLITS = ('train', 'val', 'test')
TRUTHS = ('gt_instance_map', 'gt_masks', 'gt_seg_map', 'gt_boundaries')
CODEC_BATCH_SIZE = 16
BENCHMARK_KEYS = ('task', 'dataset', 'evaluator')


@dataclass
class DatasetPart:
    """One dataset of a config.

    Attributes:
        name: 'train', or 'val 2/3' for the second of three that are joined; of a benchmark its name.
        cfg: Its config.
        same: Names of equal datasets of other splits.
    """

    name: str
    cfg: dict
    same: list[str] = field(default_factory=list)

    def build(self, missing: str | None = None) -> Any:
        """The dataset, fully loaded.

        Args:
            missing: If given, what an ``InstanceMapDataset`` does with missing files, whatever the config says.
        """
        cfg = dict(self.cfg)
        kind = cfg.get('type')
        kind = DATASETS.get(kind) if isinstance(kind, str) else kind
        if missing and isinstance(kind, type) and issubclass(kind, InstanceMapDataset):
            cfg['missing'] = missing
        dataset = DATASETS.build(cfg)
        if hasattr(dataset, 'full_init'):
            dataset.full_init()
        return dataset


def dataset_parts(
    cfg: Config, splits: tuple[str, ...] = SPLITS, benchmarks: Iterable[str] | None = None
) -> list[DatasetPart]:
    """All single datasets of the dataloaders and benchmarks, through whatever joins, repeats or balances them.

    Args:
        cfg: The config.
        splits: Of 'train', 'val', 'test'; those that the config has not are left out. Benchmarks are in any.
        benchmarks: Only the benchmarks of these names, and no dataloaders.

    Raises:
        ValueError: If it has none of them, or no benchmark of a name.
    """
    if benchmarks:
        return _named_parts(_chosen_benchmarks(cfg, benchmarks))
    wanted: list[tuple[str, dict]] = []
    for split in splits:
        loader = cfg.get(f'{split}_dataloader')
        if loader is None:
            continue
        if not isinstance(loader, Mapping) or not isinstance(loader.get('dataset'), Mapping):
            raise ValueError(f'{split}_dataloader: expected a dict with a dataset, but got {loader!r}')
        wanted.append((split, loader['dataset'].to_dict()))
    wanted += _benchmarks(cfg).items()
    parts = _named_parts(wanted)
    if not parts:
        names = ', '.join(f'{split}_dataloader' for split in splits)
        raise ValueError(f'{cfg.filename} has no dataset: expected one of {names}')
    return parts


def _benchmarks(cfg: Config) -> dict[str, dict]:
    """Name -> config of the dataset of the benchmarks of a suite, or of a file that defines some."""
    # A suite inherits more than it lists.
    found = cfg.benchmarks if isinstance(cfg.get('benchmarks'), Mapping) else cfg
    return {
        name: value['dataset'].to_dict()
        for name, value in found.items()
        if isinstance(value, Mapping) and all(key in value for key in BENCHMARK_KEYS)
    }


def _chosen_benchmarks(cfg: Config, names: Iterable[str]) -> list[tuple[str, dict]]:
    known = _benchmarks(cfg)
    unknown = [name for name in names if name not in known]
    if unknown:
        raise ValueError(f'{cfg.filename} has no benchmark {unknown[0]!r}, but {", ".join(known) or "none"}')
    return [(name, known[name]) for name in dict.fromkeys(names)]


def _named_parts(wanted: Iterable[tuple[str, dict]]) -> list[DatasetPart]:
    """The single datasets of (name, config), equal ones once."""
    parts: list[DatasetPart] = []
    for title, cfg in wanted:
        found = [_as_files_have_it(own) for own in single_datasets(cfg)]
        for number, leaf in enumerate(found, start=1):
            name = title if len(found) == 1 else f'{title} {number}/{len(found)}'
            equal = [part for part in parts if part.cfg == leaf]
            if equal:
                equal[0].same.append(name)
            else:
                parts.append(DatasetPart(name, leaf))
    return parts


def _as_files_have_it(cfg: dict) -> dict:
    """Config of a single dataset without the transforms that a model fills in."""
    pipeline = [
        own for own in cfg.get('pipeline', ()) if own.get('type') not in MODEL_PLACES and not is_network_resize(own)
    ]
    return dict(cfg, pipeline=pipeline) if 'pipeline' in cfg else cfg


class RawLoader:
    """Items as the files have them: only the loading transforms of a dataset's pipeline, at the original size.

    mmcv's image loader is replaced by :class:`genseg_mm.LoadImage`, which refuses pictures that are cut short. Where
    the pipeline loads no ground truth but the item names one, our loaders read it.

    Args:
        dataset: A dataset of MMEngine's kind (``get_data_info``, ``pipeline``).

    Raises:
        ValueError: If it is of another kind.
    """

    def __init__(self, dataset: Any) -> None:
        if not hasattr(dataset, 'get_data_info') or not hasattr(dataset, 'pipeline'):
            raise ValueError(
                f"{type(dataset).__name__}: expected a dataset of MMEngine's kind, with get_data_info and pipeline"
            )
        self.dataset = dataset
        self.loaders = [
            _checking(transform)
            for transform in dataset.pipeline.transforms
            if type(transform).__name__.startswith(('Load', 'KeepClasses'))
        ]
        self._last: tuple[str, np.ndarray] | None = None

    def __call__(self, index: int) -> dict:
        """Item ``index`` with ``img`` (H, W, 3) BGR and what of gt_instance_map, gt_masks and gt_seg_map there is.

        Raises:
            FileNotFoundError: If a file is missing.
            ValueError: If a file is damaged, or sizes do not agree. Other packages' loaders raise what they like.
        """
        results = self.dataset.get_data_info(index)
        loaders: list[Callable] = list(self.loaders)
        if 'img' not in results and not any(isinstance(own, LoadImage) for own in loaders):
            loaders.insert(0, LoadImage())
        for loader in loaders:
            if isinstance(loader, LoadImage):
                self._load_image(loader, results)
            else:
                results = loader(results)
        if not any(key in results for key in TRUTHS):
            results = self._load_truth(results)
        _check_sizes(results)
        return results

    def _load_image(self, loader: LoadImage, results: dict) -> None:
        path = results['img_path']
        known = self._last is not None and self._last[0] == path
        # Many sentences of one picture: it is decoded once, unless an annotation gives it another size.
        height, width = self._last[1].shape[:2] if known else (None, None)
        if not known or (results.get('height', height), results.get('width', width)) != (height, width):
            self._last = None
            self._last = path, loader(dict(results))['img']
        image = self._last[1]
        results.update(img=image, img_shape=image.shape[:2], ori_shape=image.shape[:2])

    @staticmethod
    def _load_truth(results: dict) -> dict:
        masks = any('mask' in instance for instance in results.get('instances', ()))
        if 'instance_map_path' in results or masks:
            return LoadInstanceMap(invalid='skip')(results)
        referring = any(key in results for key in ('segmentations', 'shapes', 'row_mask'))
        return LoadReferringMask()(results) if referring else results


def _checking(transform: Callable) -> Callable:
    if not isinstance(transform, LoadImageFromFile) or isinstance(transform, LoadImage):
        return transform
    return LoadImage(
        color_type=transform.color_type,
        imdecode_backend=transform.imdecode_backend,
        backend_args=transform.backend_args,
    )


def _check_sizes(results: dict) -> None:
    size = tuple(results['img'].shape[:2])
    for key in TRUTHS:
        if key not in results:
            continue
        truth = results[key]
        own = (truth.height, truth.width) if key == 'gt_masks' else tuple(np.shape(truth)[-2:])
        if own != size:
            sources = ('instance_map_path', 'seg_map_path', 'boundaries_path')
            source = next((results[name] for name in sources if results.get(name)), key)
            raise ValueError(
                f'{source}: expected the size {size} of {Path(results.get("img_path", "img")).name}, but got {own}'
            )


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


def read_mask_pictures(
    cfg: Config | None, split: str, num: int, image_size: tuple[int, int], seed: int = 0
) -> MaskPictures:
    """Masks and pictures of the first dataset of a split that has masks, resized.

    Args:
        cfg: Config with dataloaders; None for the procedural scenes.
        split: 'train', 'val' or 'test'.
        num: So many items at most, drawn by the seed.
        image_size: Height and width; masks take the nearest pixel.
        seed: Seeds the choice of items, and of the object where a dataset has instances without texts.

    Raises:
        FileNotFoundError: If data are missing.
        ValueError: If no dataset of the split has masks.
    """
    if cfg is None:
        scenes = dict(type='genseg_mm.ShapesDataset', num_scenes=num, image_size=image_size)
        scenes |= dict(task='referring', split=split, expressions='random', seed=seed)
        parts = [DatasetPart(f'procedural scenes, {split}', scenes)]
    else:
        parts = dataset_parts(cfg, (split,))
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
    raise ValueError(f'{cfg.filename}: expected a dataset with masks in split {split!r}, but got none in {names}')


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


def read_codec(path: str, options: Mapping | None = None, seed: int = 0) -> nn.Module:
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
    codec.max_batch = codec.max_batch or CODEC_BATCH_SIZE
    return codec.eval()
