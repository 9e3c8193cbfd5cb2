"""The single datasets of a config, and their items as the files have them, for the tools that verify and draw."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from mmcv.transforms import LoadImageFromFile
from mmengine.config import Config
from mmengine.registry import DATASETS, init_default_scope

from genseg_mm.config_file import read_config_file
from genseg_mm.dataset_configs import MODEL_PLACES, single_datasets
from genseg_mm.datasets.instances.instance_map_dataset import InstanceMapDataset
from genseg_mm.datasets.transforms import LoadReferringMask
from genseg_mm.datasets.transforms.load_image import LoadImage
from genseg_mm.datasets.transforms.load_instance_map import LoadInstanceMap
from genseg_mm.launch.config import override_config
from genseg_mm.network_sizes import is_network_resize

SPLITS = ('train', 'val', 'test')
TRUTHS = ('gt_instance_map', 'gt_masks', 'gt_seg_map', 'gt_boundaries')
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


def read_dataset_config(path: str, options: Mapping | None = None) -> Config:
    """Reads a config of which only the dataloaders are needed.

    Args:
        path: A whole config, a suite of ``configs/benchmarks``, or one of ``configs/_base_/datasets`` or
            ``configs/_base_/benchmarks``.
        options: Of ``--cfg-options``.

    Raises:
        FileNotFoundError: If there is no such config, or the data that a suite makes itself are not there.
        ValueError: If it is no config.
    """
    cfg = read_config_file(path)
    if is_suite(cfg):
        # Suites are made of what is here; only who reads one needs them.
        from genseg_mm.benchmarking.suite import read_suite

        suite = read_suite(path, options)
        if suite.make_data and not Path(suite.data_root).is_dir():
            raise FileNotFoundError(
                f'{path} makes its data itself, which are not there: run python {suite.make_data} {suite.data_root}'
            )
        cfg = Config(suite.cfg, filename=path)
    elif options:
        override_config(cfg, options)
    init_default_scope(cfg.get('default_scope', 'genseg_mm'))
    return cfg


def is_suite(cfg: Config) -> bool:
    """Whether a config is a suite of benchmarks."""
    return isinstance(cfg.get('suite'), Mapping) and isinstance(cfg.get('benchmarks'), Mapping)


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
    found = cfg.benchmarks if is_suite(cfg) else cfg
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
        referring = 'segmentations' in results or 'shapes' in results
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
