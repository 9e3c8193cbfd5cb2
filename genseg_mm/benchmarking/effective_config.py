"""The config that a model is measured on a benchmark with: of the model and of the benchmark, nothing else."""

import copy
import inspect
import os
from typing import Any

from mmengine.config import Config, ConfigDict
from mmengine.registry import METRICS
from torch import nn

from genseg_mm.benchmarking.model_list import ModelEntry
from genseg_mm.dataset_configs import MODEL_PLACES, fill_network_resize, replace_transforms, walk
from genseg_mm.inference.build_model import chosen_weights, read_config
from genseg_mm.registry import class_name

_NETWORK_RESIZE = dict(type='genseg_mm.NetworkResize')  # until the model is built, and its size known
_KEPT = ('default_scope', 'custom_imports', 'model_wrapper_cfg')


def read_model_config(entry: ModelEntry) -> tuple[Config, str | None]:
    """Config of a model, and its weights.

    Raises:
        FileNotFoundError: If there is no such config.
        ValueError: If it has no model.
    """
    if entry.released:
        cfg, weights = _released_config(entry.config), None
    else:
        cfg, own_weights = read_config(entry.config)
        weights = chosen_weights(entry.config, entry.checkpoint, own_weights)
    if entry.settings:
        cfg.merge_from_dict(dict(model=copy.deepcopy(entry.settings)))
    return cfg, weights


def effective_config(
    model_cfg: Config,
    benchmark: dict,
    one_by_one: bool = True,
    threads: int | None = 1,
    seed: int = 0,
    sample_file: str | None = None,
) -> Config:
    """What a runner needs to measure a model on a benchmark.

    Args:
        model_cfg: Config of the model, of which ``model``, the scope, the transforms of :func:`model_transforms`, and
            batch size and workers of the test loader are used.
        benchmark: Of a suite.
        one_by_one: As for ``BenchmarkLoop``.
        threads: As for ``BenchmarkLoop``.
        seed: Of the run.
        sample_file: Where the metric writes its results per sample, if it can.

    Raises:
        ValueError: If the model's pipeline has several sizes.
    """
    loader = model_cfg.get('test_dataloader') or {}
    cfg = ConfigDict({key: model_cfg[key] for key in _KEPT if key in model_cfg})
    cfg.setdefault('default_scope', 'genseg_mm')
    cfg.model = copy.deepcopy(model_cfg.model)
    if model_cfg.get('data_preprocessor') is not None:  # as mmseg's configs have it
        cfg.model.setdefault('data_preprocessor', copy.deepcopy(model_cfg.data_preprocessor))
    if benchmark.get('model'):
        cfg.model.merge(ConfigDict(copy.deepcopy(benchmark['model'])))
    cores = len(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else os.cpu_count()
    dataset = _with_model_transforms(copy.deepcopy(benchmark['dataset']), model_cfg)
    cfg.test_dataloader = ConfigDict(
        batch_size=loader.get('batch_size', 1),
        num_workers=min(loader.get('num_workers', 0), cores),
        persistent_workers=False,
        sampler=dict(type='mmengine.DefaultSampler', shuffle=False),
        dataset=dataset,
    )
    cfg.test_evaluator = _with_sample_file(copy.deepcopy(benchmark['evaluator']), sample_file)
    cfg.test_cfg = ConfigDict(type='genseg_mm.BenchmarkLoop', one_by_one=one_by_one, threads=threads)
    env = model_cfg.get('env_cfg') or {}
    cfg.env_cfg = ConfigDict(
        cudnn_benchmark=False,  # it chooses algorithms, and with them last bits, by their speed of the moment
        mp_cfg=env.get('mp_cfg', dict(mp_start_method='fork', opencv_num_threads=0)),
        dist_cfg=env.get('dist_cfg', dict(backend='nccl')),
    )
    cfg.randomness = ConfigDict(seed=seed)
    return Config(cfg)


def model_transforms(model_cfg: Config) -> dict[str, dict]:
    """``Resize``, ``TextPrompt`` and ``UseDescriptions`` of a model's test pipeline, by these names, where it has them.

    Raises:
        ValueError: If parts of its test set have different ones.
    """
    found: dict[str, dict] = {}
    for pipeline in _pipelines(model_cfg):
        for transform in pipeline:
            name = class_name(transform['type']) if isinstance(transform, dict) else ''
            if name in ('NetworkResize', 'AntialiasedResize'):
                name = 'Resize'
            if name not in ('Resize', 'TextPrompt', 'UseDescriptions'):
                continue
            if found.setdefault(name, transform) != transform:
                raise ValueError(
                    f'{model_cfg.filename}: the parts of its test set have different {name}s, '
                    f'{found[name]} and {transform}, so the size or words of this model are unclear'
                )
    return found


def _pipelines(model_cfg: Config) -> list[list]:
    dataset = (model_cfg.get('test_dataloader') or {}).get('dataset') or {}
    found = [own['pipeline'] for own in walk(dataset) if own.get('pipeline')]
    return found or [model_cfg.get('test_pipeline') or []]


def _with_model_transforms(dataset: Any, model_cfg: Config) -> Any:
    """Fills in the model's size, and its instruction where the benchmark's ``TextPrompt`` names none."""
    own = model_transforms(model_cfg)

    def fill(transform: dict) -> list[dict] | None:
        if transform.get('type') in MODEL_PLACES:
            name = MODEL_PLACES[transform['type']]
            found = own.get(name, _NETWORK_RESIZE if name == 'Resize' else None)
            return [copy.deepcopy(found)] if found else []
        if len(transform) == 1 and class_name(transform.get('type')) == 'TextPrompt':
            return [copy.deepcopy(own.get('TextPrompt', transform))]
        return None

    return ConfigDict(replace_transforms(dataset, fill))


def fill_network_size(cfg: Config, model: nn.Module | None) -> None:
    """Gives the pictures the size that the network prefers, in place, where its config says none.

    The size is that of ``GenSegInferencer`` and of tools/test.py: ``network_resize()`` of the model. Without a model,
    or for one that takes pictures as they are (controls), nothing is resized.

    Args:
        cfg: Of :func:`effective_config`.
        model: The built model.
    """
    cfg.test_dataloader.dataset = fill_network_resize(cfg.test_dataloader.dataset, model)


def _with_sample_file(evaluator: Any, sample_file: str | None) -> Any:
    """Gives the file to the first metric that takes one."""
    if sample_file is None:
        return evaluator
    metrics = evaluator if isinstance(evaluator, list | tuple) else [evaluator]
    for metric in metrics:
        kind = metric['type']
        kind = METRICS.get(kind) if isinstance(kind, str) else kind
        if kind is not None and 'sample_file' in inspect.signature(kind).parameters:
            metric.setdefault('sample_file', sample_file)
            break
    return evaluator


def _released_config(source: str) -> Config:
    from genseg_mm.models.colorers.released_folder import released_kind
    from genseg_mm.models.released_weights import SETTINGS

    settings = copy.deepcopy(SETTINGS[released_kind(source)])
    settings['colorer']['pretrained'] = source
    return Config(dict(default_scope='genseg_mm', model=dict(type='genseg_mm.Gen2Seg', **settings)))
