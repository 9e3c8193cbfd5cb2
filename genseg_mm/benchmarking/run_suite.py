"""Runs the jobs of a suite one after another, in one process or in several."""

import shutil
import tempfile
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import torch
from mmengine.config import Config
from mmengine.device import get_device
from mmengine.dist import get_rank, get_world_size
from torch import nn

from genseg_mm.benchmarking import provenance
from genseg_mm.benchmarking.dataset_facts import DatasetFacts, dataset_facts
from genseg_mm.benchmarking.effective_config import effective_config, fill_network_size
from genseg_mm.benchmarking.examples import write_examples
from genseg_mm.benchmarking.jobs import Job, LoadedModel, Mode, earlier_result, job_key, what_changed
from genseg_mm.benchmarking.loop import finite_or_text, together
from genseg_mm.benchmarking.runner import BenchmarkRunner
from genseg_mm.benchmarking.suite import Suite, quiet
from genseg_mm.launch.processes import on_main_process
from genseg_mm.launch.user_errors import user_message
from genseg_mm.leaderboard.record import Record


@dataclass(frozen=True)
class Settings:
    """How to run.

    Attributes:
        mode: What may change a number's last bits.
        launcher: What started the processes.
        rerun: Compute again what is finished.
        same_code: Compute again what other code than this has computed; else that is only said.
        examples: Draw example pictures.
    """

    mode: Mode = Mode()
    launcher: str = 'none'
    rerun: bool = False
    same_code: bool = False
    examples: bool = True


@dataclass
class Outcome:
    """What became of a job.

    Attributes:
        job: The job.
        state: 'done', 'skipped' (finished before) or 'failed'; before running 'missing' or 'changed' as well.
        reason: Why, if it failed or has to run again.
        seconds: Taken.
        record: The result.
    """

    job: Job
    state: str
    reason: str = ''
    seconds: float = 0.0
    record: Record | None = None


@dataclass
class SuiteRun:
    """Runs jobs; models and what is known of the data are kept between them.

    Args:
        suite: The suite.
        models: By name.
        settings: How to run.
        say: Prints a line; on the main process only.
        stopped: Whether the user has stopped the run: some libraries turn the interruption into an error of their own.
    """

    suite: Suite
    models: dict[str, LoadedModel]
    settings: Settings
    say: Callable[[str], None] = print
    stopped: Callable[[], bool] = lambda: False
    _facts: dict[str, DatasetFacts] = field(default_factory=dict)
    _built: tuple[str, nn.Module] | None = None

    def state_of(self, job: Job) -> Outcome:
        """What is left of earlier runs: 'skipped' if that still holds, 'missing', 'changed', or 'failed' without data.

        Same answer in all processes, found on the main one.
        """
        with quiet():
            return Outcome(job, *on_main_process(lambda: self._state_of(job)))

    def _state_of(self, job: Job) -> tuple[str, str]:
        try:
            facts = self._facts_of(job)
        except Exception as error:
            return 'failed', _reason(error)
        old = earlier_result(job)
        if old is None:
            return 'missing', ''
        changed = what_changed(old, self.models[job.model], job, facts.fingerprint, self.settings.mode)
        if changed:
            return 'changed', f'{" and ".join(changed)} changed'
        if self.settings.rerun:
            return 'changed', '--rerun'
        if old.run.get('source_sha256') == provenance.source_sha256():
            return 'skipped', ''
        return ('changed', 'code changed') if self.settings.same_code else ('skipped', ' by other code')

    def _facts_of(self, job: Job) -> DatasetFacts:
        """Counts and fingerprint of a benchmark's data; read once, since they are the same for all models."""
        if job.benchmark not in self._facts:
            cfg = effective_config(self.models[job.model].cfg, job.cfg)
            fill_network_size(cfg, None)
            self._facts[job.benchmark] = dataset_facts(cfg)
        return self._facts[job.benchmark]

    def run(self, job: Job, number: str = '') -> Outcome:
        """Runs a job, if it has to; errors become an outcome.

        Raises:
            KeyboardInterrupt: If stopped.
        """
        outcome = self.state_of(job)
        if self.stopped():
            raise KeyboardInterrupt
        if outcome.state == 'skipped':
            self._say(f'{number}{job}: finished before{outcome.reason}, skipped ({job.result_file})')
            outcome.record = earlier_result(job)
            return outcome
        if outcome.state == 'failed':
            self._say(f'{number}{job}: FAILED, {outcome.reason}')
            return outcome
        again = f' (again: {outcome.reason})' if outcome.state == 'changed' else ''
        self._say(f'{number}{job}: running{again}')
        start = time.monotonic()
        try:
            record = self._measure(job)
        except Exception as error:
            if self.stopped():
                raise KeyboardInterrupt from error
            outcome = self._failed(job, error)
        else:
            outcome = Outcome(job, 'done', record=record)
        outcome.seconds = time.monotonic() - start
        return outcome

    def _failed(self, job: Job, error: Exception) -> Outcome:
        reason = _reason(error)
        self._built = None
        if get_rank() == 0:
            try:
                job.unfinished.mkdir(parents=True, exist_ok=True)
                with (job.unfinished / 'log.txt').open('a') as log:
                    log.write(''.join(traceback.format_exception(error)))
                where = f'see {job.unfinished / "log.txt"}'
            except OSError as own:
                where = f'its log could not be written: {own}'
            self._say(f'{job}: FAILED, {reason}; {where}')
        return Outcome(job, 'failed', reason)

    def _say(self, text: str) -> None:
        if get_rank() == 0:
            self.say(text)

    def _measure(self, job: Job) -> Record | None:
        started, start = datetime.now(UTC), time.monotonic()
        on_main_process(lambda: _empty(job.unfinished))
        sample_file = job.unfinished / 'samples.npz'
        model = self.models[job.model]
        settings = self.settings
        with quiet():
            cfg = effective_config(
                model.cfg,
                job.cfg,
                settings.mode.one_by_one,
                settings.mode.threads,
                settings.mode.seed,
                str(sample_file),
            )
        with tempfile.TemporaryDirectory(prefix='benchmark') as scratch:
            runner = together(lambda: self._build_runner(job, cfg, scratch))
            try:
                metrics = finite_or_text(runner.test())
                self._built = provenance.config_sha256([job.model, cfg.model]), runner.model
                if get_rank() != 0:
                    return None
                loop = runner.test_loop
                pictures = []
                if self.settings.examples:
                    dataset, seed = loop.dataloader.dataset, self.settings.mode.seed
                    pictures = write_examples(job.unfinished, runner, dataset, sample_file, seed)
                record = self._record(job, cfg, runner, metrics, pictures)
                record.run.update(
                    started=started.isoformat(timespec='seconds'), seconds=round(time.monotonic() - start, 2)
                )
                _name_samples(cfg, job.folder / sample_file.name)
                cfg.dump(str(job.unfinished / 'config.py'))
                shutil.rmtree(job.folder, ignore_errors=True)
                job.unfinished.rename(job.folder)
                record.write(job.result_file)  # last: without it the folder counts as not run
                return record
            finally:
                runner.close()

    def _build_runner(self, job: Job, cfg: Config, scratch: str) -> BenchmarkRunner:
        key = provenance.config_sha256([job.model, cfg.model])
        known = self._built is not None and self._built[0] == key
        built = self._built[1] if known else None
        self._built = None  # frees a model of the last job before the next is built
        runner = BenchmarkRunner(
            cfg=cfg,
            model=built,
            checkpoint=None if known else self.models[job.model].checkpoint,
            log_file=job.unfinished / 'log.txt',
            scratch=scratch,
            launcher=self.settings.launcher,
            name=f'{job.model}.{job.benchmark}.{time.monotonic_ns()}',
        )
        fill_network_size(cfg, runner.model)
        runner._test_dataloader = cfg.test_dataloader
        return runner

    def _record(self, job: Job, cfg: Config, runner: BenchmarkRunner, metrics: dict, pictures: list) -> Record:
        model, facts, loop = self.models[job.model], self._facts_of(job), runner.test_loop
        one_by_one, seed = self.settings.mode.one_by_one, self.settings.mode.seed
        return Record(
            model=dict(
                name=job.model,
                title=model.entry.title,
                kind=model.entry.kind,
                config=provenance.display_path(model.entry.config),
                config_sha256=model.config_sha256,
                checkpoint=provenance.display_path(model.checkpoint),
                checkpoint_sha256=model.checkpoint_sha256,
                num_parameters=sum(own.numel() for own in runner.model.parameters()),
            ),
            benchmark=dict(
                suite=self.suite.name,
                name=job.benchmark,
                title=job.cfg['title'],
                task=job.cfg['task'],
                protocol=job.cfg['protocol'],
                sha256=provenance.benchmark_sha256(job.cfg),
                tolerance=job.cfg.get('tolerance'),
            ),
            metrics=metrics,
            dataset=dict(vars(facts)),
            run=dict(
                key=job_key(model, job, facts.fingerprint, self.settings.mode),
                seed=seed,
                seconds_per_item=loop.seconds_per_item,
                processes=get_world_size(),
                batch_size=1 if one_by_one else cfg.test_dataloader.batch_size,
                one_by_one=one_by_one,
                threads=loop.threads,
                device=str(get_device()),
                hardware=provenance.hardware(),
                packages=provenance.packages(),
                commit=provenance.commit(),
                source_sha256=provenance.source_sha256(),
                command=provenance.command(),
            ),
            examples=pictures,
        )


def _empty(folder: Path) -> None:
    """Makes the folder anew: what a stopped run left there is of no use."""
    if folder.exists():
        shutil.rmtree(folder)
    folder.mkdir(parents=True)


def _name_samples(cfg: Config, sample_file: Path) -> None:
    """Names the file of samples in the config, in place, as it will be called."""
    evaluator = cfg.test_evaluator
    for metric in evaluator if isinstance(evaluator, list) else [evaluator]:
        if metric.get('sample_file'):
            metric.sample_file = str(sample_file)


def _reason(error: Exception) -> str:
    return user_message(error) or f'{type(error).__name__}: {" ".join(str(error).split())[:300]}'


def fix_arithmetic(threads: int | None) -> None:
    """Threads of torch, also outside of the loop, and algorithms of cuDNN that give the same bits each time."""
    torch.backends.cudnn.deterministic = True
    torch.backends.cudnn.benchmark = False
    if threads is not None:
        torch.set_num_threads(threads)
