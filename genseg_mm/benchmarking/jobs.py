"""What there is to do: one job per model and benchmark, and what earlier runs left of it."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from mmengine.config import Config

from genseg_mm.benchmarking import provenance
from genseg_mm.benchmarking.effective_config import read_model_config
from genseg_mm.benchmarking.model_list import ModelEntry, tasks_of
from genseg_mm.benchmarking.suite import Suite
from genseg_mm.leaderboard.record import Record
from genseg_mm.version import __version__


@dataclass
class LoadedModel:
    """A model's config, read once.

    Attributes:
        entry: Its entry.
        cfg: Its config.
        checkpoint: File of weights, or None.
        config_sha256: Of what it contributes to a measurement.
        checkpoint_sha256: Of its weights; of a hub id its commit.
    """

    entry: ModelEntry
    cfg: Config
    checkpoint: str | None
    config_sha256: str
    checkpoint_sha256: str | None

    @classmethod
    def read(cls, entry: ModelEntry) -> 'LoadedModel':
        """Reads config and hashes.

        Raises:
            FileNotFoundError: If config or weights are missing.
            ValueError: If the config is none of a model.
        """
        cfg, checkpoint = read_model_config(entry)
        weights = None if checkpoint is None else provenance.weights_sha256(checkpoint)
        if entry.released:
            weights = provenance.released_sha(entry.config)
        return cls(entry, cfg, checkpoint, provenance.model_sha256(cfg), weights)


@dataclass(frozen=True)
class Job:
    """One model on one benchmark.

    Attributes:
        model: Name of the model.
        benchmark: Name of the benchmark.
        cfg: Of the benchmark.
        folder: Of its results.
    """

    model: str
    benchmark: str
    cfg: dict[str, Any]
    folder: Path

    @property
    def result_file(self) -> Path:
        return self.folder / 'result.json'

    @property
    def unfinished(self) -> Path:
        """Where a measurement is written until it is whole: an earlier result stays until then."""
        return self.folder.with_name(f'{self.folder.name}.unfinished')

    def __str__(self) -> str:
        return f'{self.model} · {self.benchmark}'


def plan_jobs(suite: Suite, models: Sequence[LoadedModel], benchmarks: dict[str, dict], out: Path) -> list[Job]:
    """The jobs, model by model; benchmarks that change the model come last, so that it is built rarely.

    Raises:
        ValueError: If it is not known what a model can do, or nothing is left to do.
    """
    jobs = []
    for model in models:
        tasks = tasks_of(model.entry, model.cfg.model)
        own = [name for name, cfg in benchmarks.items() if cfg['task'] in tasks]
        own.sort(key=lambda name: str(benchmarks[name].get('model') or ''))
        jobs += [
            Job(model.entry.name, name, _for_kind(benchmarks[name], model.entry.kind), out / model.entry.name / name)
            for name in own
        ]
    if models and not jobs:
        tasks = sorted({cfg['task'] for cfg in benchmarks.values()})
        raise ValueError(
            f'nothing to do: the chosen benchmarks of {suite.path} need models for {", ".join(tasks)}, '
            f'and none of {", ".join(model.entry.name for model in models)} is one (--tasks says otherwise)'
        )
    return jobs


def _for_kind(benchmark: dict[str, Any], kind: str) -> dict[str, Any]:
    """A benchmark as a model or a control takes it: ``control_evaluator`` changes the metric of controls."""
    cfg = {key: value for key, value in benchmark.items() if key != 'control_evaluator'}
    if kind == 'control' and 'control_evaluator' in benchmark:
        cfg['evaluator'] = {**cfg['evaluator'], **benchmark['control_evaluator']}
    return cfg


class Mode(NamedTuple):
    """How a model is run, as far as it may change the last bits of a number.

    Attributes:
        one_by_one: It gets samples one by one.
        threads: Of torch on the CPU; None: as many as it likes.
        seed: Of everything.
    """

    one_by_one: bool = True
    threads: int | None = 1
    seed: int = 0


def job_key(model: LoadedModel, job: Job, fingerprint: str | None, mode: Mode) -> str:
    """``run.key`` of a job."""
    return provenance.run_key(
        model.config_sha256, model.checkpoint_sha256, provenance.benchmark_sha256(job.cfg), fingerprint, mode
    )


def earlier_result(job: Job) -> Record | None:
    """The result that is there, or None; one that cannot be read counts as none."""
    try:
        return Record.read(job.result_file)
    except (OSError, ValueError):
        return None


def what_changed(old: Record, model: LoadedModel, job: Job, fingerprint: str | None, mode: Mode) -> list[str]:
    """Which parts of the key differ from an earlier result; empty if it still holds."""
    if old.run['key'] == job_key(model, job, fingerprint, mode):
        return []
    parts = (
        ('model config', old.model['config_sha256'], model.config_sha256),
        ('checkpoint', old.model['checkpoint_sha256'], model.checkpoint_sha256),
        ('benchmark', old.benchmark['sha256'], provenance.benchmark_sha256(job.cfg)),
        ('data', old.dataset['fingerprint'], fingerprint),
        ('genseg_mm version', old.run['packages'].get('genseg_mm'), __version__),
        ('one by one', old.run['one_by_one'], mode.one_by_one),
        ('seed', old.run['seed'], mode.seed),
    )
    return [name for name, before, now in parts if before != now] or ['threads']
