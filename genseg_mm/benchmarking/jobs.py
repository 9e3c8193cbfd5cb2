"""What there is to do: one job per model and benchmark, the config it is measured with, and its key."""

import copy
import inspect
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mmengine.config import Config, ConfigDict
from mmengine.registry import METRICS
from torch import nn

from genseg_mm import __version__
from genseg_mm.benchmarking import provenance
from genseg_mm.benchmarking.suite import TASKS, Suite, is_released
from genseg_mm.checkpoint import weights_sha256
from genseg_mm.dataset_configs import MODEL_PLACES, fill_network_resize, replace_transforms, walk
from genseg_mm.inference.build_model import chosen_weights, read_config
from genseg_mm.leaderboard.record import Record
from genseg_mm.precision import evaluation_dtype, evaluation_settings, set_evaluation
from genseg_mm.registry import MODELS, class_name

_NETWORK_RESIZE = dict(type='genseg_mm.NetworkResize')  # until the model is built, and its size known
_KEPT = ('default_scope', 'custom_imports', 'model_wrapper_cfg')
# What a number is called or how far it may move does not decide it.
_NOT_HASHED = ('title', 'tolerance')


@dataclass
class Job:
    """One model on one benchmark: what it takes, and what becomes of it.

    Attributes:
        model: Section ``model`` of its record, but for the number of parameters.
        benchmark: Section ``benchmark`` of its record.
        model_cfg: Config of the model; all its jobs share it.
        weights: File of its weights, or None.
        benchmark_cfg: Config of the benchmark, as a model of this kind takes it.
        folder: Of its results.
        state: 'done', 'skipped' (finished before) or 'failed'; before running 'missing' or 'changed' as well.
        reason: Why, if it failed or has to run again.
        seconds: Taken.
        record: The result, on the main process.
    """

    model: dict[str, Any]
    benchmark: dict[str, Any]
    model_cfg: Config
    weights: str | None
    benchmark_cfg: dict[str, Any]
    folder: Path
    state: str = 'missing'
    reason: str = ''
    seconds: float = 0.0
    record: Record | None = None

    @property
    def name(self) -> tuple[str, str]:
        """(model, benchmark), as a record has it."""
        return self.model['name'], self.benchmark['name']

    @property
    def result_file(self) -> Path:
        return self.folder / 'result.json'

    @property
    def unfinished(self) -> Path:
        """Where a measurement is written until it is whole: an earlier result stays until then."""
        return self.folder.with_name(f'{self.folder.name}.unfinished')

    def __str__(self) -> str:
        return ' · '.join(self.name)

    def earlier_result(self) -> Record | None:
        """The result that is there, or None; one that cannot be read counts as none."""
        try:
            return Record.read(self.result_file)
        except (OSError, ValueError):
            return None


def model_jobs(suite: Suite, entry: dict[str, Any], benchmarks: dict[str, dict], out: Path) -> list[Job]:
    """The jobs of a model; benchmarks that change it come last, so that it is built rarely.

    Args:
        suite: The suite.
        entry: Of :func:`genseg_mm.benchmarking.suite.choose_models`.
        benchmarks: The chosen ones.
        out: Folder of results.

    Raises:
        FileNotFoundError: If config or weights of the model are missing.
        ValueError: If the config is none of a model, or it is not known what that can do.
    """
    cfg, weights = read_model_config(entry)
    sha256 = provenance.released_sha(entry['config']) if is_released(entry['config']) else None
    model = dict(
        name=entry['name'],
        title=entry['title'],
        kind=entry['kind'],
        config=provenance.display_path(entry['config']),
        config_sha256=model_sha256(cfg),
        checkpoint=provenance.display_path(weights),
        checkpoint_sha256=sha256 if weights is None else weights_sha256(weights),
    )
    tasks = tasks_of(entry, cfg.model)
    names = [name for name, own in benchmarks.items() if own['task'] in tasks]
    names.sort(key=lambda name: str(benchmarks[name].get('model') or ''))
    jobs = []
    for name in names:
        own = _for_kind(benchmarks[name], entry['kind'])
        benchmark = dict(
            suite=suite.name,
            name=name,
            title=own['title'],
            task=own['task'],
            protocol=own['protocol'],
            sha256=benchmark_sha256(own),
            tolerance=own.get('tolerance'),
        )
        jobs.append(Job(model, benchmark, cfg, weights, own, out / entry['name'] / name))
    return jobs


def tasks_of(entry: dict[str, Any], model: dict) -> tuple[str, ...]:
    """What a model can do: what the suite or --tasks says, else what its class, or that of its head, answers.

    A class answers by a class method ``benchmark_tasks(config)``, so that a subclass keeps the answer.

    Args:
        entry: The model's, of which ``name`` and ``tasks`` count.
        model: Its config.

    Raises:
        ValueError: If neither the entry nor the type says so.
    """
    if entry['tasks']:
        return entry['tasks']
    part = model.get('decode_head') or model  # of mmseg's models the head knows
    kind = part.get('type', '') if isinstance(part, dict) else ''
    ask = getattr(MODELS.get(kind) if isinstance(kind, str) else kind, 'benchmark_tasks', None)
    if ask is not None:
        return ask(part)
    raise ValueError(
        f'{entry["name"]}: what can a {class_name(model.get("type"))} do? name it with --tasks {" ".join(TASKS)} '
        "(some of these), or as tasks=(...) in the suite's models"
    )


def _for_kind(benchmark: dict[str, Any], kind: str) -> dict[str, Any]:
    """A benchmark as a model or a control takes it: ``control_evaluator`` changes the metric of controls."""
    cfg = {key: value for key, value in benchmark.items() if key != 'control_evaluator'}
    if kind == 'control' and 'control_evaluator' in benchmark:
        cfg['evaluator'] = {**cfg['evaluator'], **benchmark['control_evaluator']}
    return cfg


def key_parts(model: Mapping, benchmark: Mapping, dataset: Mapping, run: Mapping) -> dict[str, Any]:
    """What two results have in common if one need not be computed again.

    Args:
        model: Section of a record.
        benchmark: Likewise.
        dataset: Likewise.
        run: Likewise, of which packages and the way of running count.

    Returns:
        Name of a part -> its hash or value; ``run.key`` is the hash of the values.
    """
    return {
        'model config': model['config_sha256'],
        'checkpoint': model['checkpoint_sha256'],
        'benchmark': benchmark['sha256'],
        'data': dataset['fingerprint'],
        'genseg_mm version': run['packages'].get('genseg_mm'),
        'one by one': run['one_by_one'],
        'threads': run['threads'],
        'seed': run['seed'],
    }


def planned_parts(job: Job, dataset: Mapping, one_by_one: bool, threads: int | None, seed: int) -> dict[str, Any]:
    """:func:`key_parts` of a job that is run in this way."""
    run = dict(packages=dict(genseg_mm=__version__), one_by_one=one_by_one, threads=threads, seed=seed)
    return key_parts(job.model, job.benchmark, dataset, run)


def what_changed(old: Record, planned: Mapping[str, Any]) -> list[str]:
    """Which parts of the key differ from an earlier result; empty if it still holds."""
    if old.run['key'] == run_key(planned):
        return []
    before = key_parts(old.model, old.benchmark, old.dataset, old.run)
    # A record has the threads that were used, the key those that were asked for.
    return [name for name, own in planned.items() if own != before[name] and name != 'threads'] or ['threads']


def run_key(parts: Mapping[str, Any]) -> str:
    """``run.key`` of :func:`key_parts`."""
    return provenance.config_sha256(list(parts.values()))


def benchmark_sha256(benchmark: Mapping) -> str:
    """Hash of a benchmark, without its title and tolerance."""
    return provenance.config_sha256({key: own for key, own in benchmark.items() if key not in _NOT_HASHED})


def model_sha256(model_cfg: Config) -> str:
    """Hash of what a model's config contributes to a measurement: the model, its own transforms, its precision."""
    transforms = model_transforms(model_cfg)
    parts = dict(model=model_cfg.model, data_preprocessor=model_cfg.get('data_preprocessor'), transforms=transforms)
    if dtype := evaluation_dtype(model_cfg):
        parts['evaluation_dtype'] = str(dtype)
    settings = evaluation_settings(model_cfg)
    parts.update({key: own for key, own in settings.items() if key != 'evaluation_dtype'})
    return provenance.config_sha256([parts, provenance.named_files(parts)])


def read_model_config(entry: dict[str, Any]) -> tuple[Config, str | None]:
    """Config of a model, and its weights.

    Args:
        entry: Of :func:`genseg_mm.benchmarking.suite.choose_models`.

    Raises:
        FileNotFoundError: If there is no such config.
        ValueError: If it has no model.
    """
    if is_released(entry['config']):
        cfg, weights = _released_config(entry['config']), None
    else:
        cfg, own_weights = read_config(entry['config'])
        weights = chosen_weights(entry['config'], entry['checkpoint'], own_weights)
    if entry['settings']:
        cfg.merge_from_dict(dict(model=copy.deepcopy(entry['settings'])))
    set_evaluation(cfg, **entry.get('speed', {}))
    return cfg, weights


def _released_config(source: str) -> Config:
    from genseg_mm.models.colorers.released_folder import released_kind
    from genseg_mm.models.gen2seg import RELEASED

    settings = copy.deepcopy(RELEASED[released_kind(source)])
    settings['colorer']['pretrained'] = source
    return Config(dict(default_scope='genseg_mm', model=dict(type='genseg_mm.Gen2Seg', **settings)))


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
    if dtype := evaluation_dtype(model_cfg):
        cfg.evaluation_dtype = str(dtype).removeprefix('torch.')
    settings = evaluation_settings(model_cfg)
    cfg.update({key: own for key, own in settings.items() if key != 'evaluation_dtype'})
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
        sampler=dict(type='genseg_mm.PictureSampler'),
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
