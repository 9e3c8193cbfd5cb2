"""Runs the jobs of a suite one after another, in one process or in several."""

import shutil
import tempfile
import time
import traceback
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config
from mmengine.device import get_device
from mmengine.dist import get_rank, get_world_size
from torch import nn

from genseg_mm.benchmarking import provenance
from genseg_mm.benchmarking.examples import write_examples
from genseg_mm.benchmarking.jobs import (
    Job,
    effective_config,
    fill_network_size,
    planned_parts,
    run_key,
    what_changed,
)
from genseg_mm.benchmarking.loop import BenchmarkRunner, finite_or_text, together
from genseg_mm.benchmarking.suite import quiet
from genseg_mm.launch.processes import on_main_process
from genseg_mm.launch.user_errors import user_message
from genseg_mm.leaderboard.record import Record


class SuiteRun:
    """Runs jobs; the last model and what is known of the data are kept between them.

    Args:
        one_by_one: The model gets samples one by one.
        threads: Of torch on the CPU; None: as many as it likes.
        seed: Of everything. These three may change the last bits of a number and are part of a result's key.
        launcher: What started the processes.
        rerun: Compute again what is finished.
        same_code: Compute again what other code than this has computed; else that is only said.
        examples: Draw example pictures.
        stopped: Whether the user has stopped the run: some libraries turn the interruption into an error of their own.
    """

    def __init__(
        self,
        one_by_one: bool = True,
        threads: int | None = 1,
        seed: int = 0,
        launcher: str = 'none',
        rerun: bool = False,
        same_code: bool = False,
        examples: bool = True,
        stopped: Callable[[], bool] = lambda: False,
    ) -> None:
        self.mode = dict(one_by_one=one_by_one, threads=threads, seed=seed)
        self.launcher, self.rerun, self.same_code, self.examples = launcher, rerun, same_code, examples
        self.stopped = stopped
        self._facts: dict[str, dict] = {}  # by benchmark
        self._built: tuple[str, nn.Module] | None = None

    def look_up(self, job: Job) -> None:
        """Sets the state of a job by what earlier runs left: 'skipped' if that still holds, 'missing' or 'changed'.

        'failed' without data. Same answer in all processes, found on the main one.
        """
        with quiet():
            job.state, job.reason = on_main_process(lambda: self._state_of(job))

    def _state_of(self, job: Job) -> tuple[str, str]:
        try:
            facts = self._facts_of(job)
        except Exception as error:
            return 'failed', _reason(error)
        old = job.earlier_result()
        if old is None:
            return 'missing', ''
        changed = what_changed(old, planned_parts(job, facts, **self.mode))
        if changed:
            return 'changed', f'{" and ".join(changed)} changed'
        if self.rerun:
            return 'changed', '--rerun'
        if old.run.get('source_sha256') == provenance.source_sha256():
            return 'skipped', ''
        return ('changed', 'code changed') if self.same_code else ('skipped', ' by other code')

    def _facts_of(self, job: Job) -> dict[str, Any]:
        """Counts and fingerprint of a benchmark's data; read once, since they are the same for all models."""
        name = job.benchmark['name']
        if name not in self._facts:
            cfg = effective_config(job.model_cfg, job.benchmark_cfg)
            fill_network_size(cfg, None)
            self._facts[name] = provenance.dataset_facts(cfg)
        return self._facts[name]

    def run(self, job: Job, number: str = '') -> None:
        """Runs a job, if it has to; errors become its state.

        Raises:
            KeyboardInterrupt: If stopped.
        """
        self.look_up(job)
        if self.stopped():
            raise KeyboardInterrupt
        if job.state == 'skipped':
            say(f'{number}{job}: finished before{job.reason}, skipped ({job.result_file})')
            return
        if job.state == 'failed':
            say(f'{number}{job}: FAILED, {job.reason}')
            return
        again = f' (again: {job.reason})' if job.state == 'changed' else ''
        say(f'{number}{job}: running{again}')
        start = time.monotonic()
        try:
            job.record = self._measure(job)
            job.state, job.reason = 'done', ''
        except Exception as error:
            if self.stopped():
                raise KeyboardInterrupt from error
            self._fail(job, error)
        job.seconds = time.monotonic() - start

    def _fail(self, job: Job, error: Exception) -> None:
        job.state, job.reason = 'failed', _reason(error)
        self._built = None
        if get_rank() == 0:
            try:
                job.unfinished.mkdir(parents=True, exist_ok=True)
                with (job.unfinished / 'log.txt').open('a') as log:
                    log.write(''.join(traceback.format_exception(error)))
                where = f'see {job.unfinished / "log.txt"}'
            except OSError as own:
                where = f'its log could not be written: {own}'
            say(f'{job}: FAILED, {job.reason}; {where}')

    def _measure(self, job: Job) -> Record | None:
        started, start = datetime.now(UTC), time.monotonic()
        on_main_process(lambda: _empty(job.unfinished))
        sample_file = job.unfinished / 'samples.npz'
        with quiet():
            cfg = effective_config(job.model_cfg, job.benchmark_cfg, **self.mode, sample_file=str(sample_file))
        with tempfile.TemporaryDirectory(prefix='benchmark') as scratch:
            runner = together(lambda: self._build_runner(job, cfg, scratch))
            try:
                metrics = finite_or_text(runner.test())
                self._built = _model_key(job, cfg), runner.model
                if get_rank() != 0:
                    return None
                pictures = []
                if self.examples:
                    dataset = runner.test_loop.dataloader.dataset
                    pictures = write_examples(job.unfinished, runner.model, dataset, sample_file, self.mode['seed'])
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
        known = self._built is not None and self._built[0] == _model_key(job, cfg)
        built = self._built[1] if known else None
        self._built = None  # frees a model of the last job before the next is built
        runner = BenchmarkRunner(
            cfg=cfg,
            model=built,
            checkpoint=None if known else job.weights,
            log_file=job.unfinished / 'log.txt',
            scratch=scratch,
            launcher=self.launcher,
            name=f'{".".join(job.name)}.{time.monotonic_ns()}',
        )
        fill_network_size(cfg, runner.model)
        runner._test_dataloader = cfg.test_dataloader
        return runner

    def _record(self, job: Job, cfg: Config, runner: BenchmarkRunner, metrics: dict, pictures: list) -> Record:
        loop, facts = runner.test_loop, self._facts_of(job)
        one_by_one = self.mode['one_by_one']
        return Record(
            model=dict(job.model, num_parameters=sum(own.numel() for own in runner.model.parameters())),
            benchmark=job.benchmark,
            metrics=metrics,
            dataset=facts,
            run=dict(
                key=run_key(planned_parts(job, facts, **self.mode)),
                seed=self.mode['seed'],
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


def _model_key(job: Job, cfg: Config) -> str:
    """Jobs of the same model, built alike, share it."""
    return provenance.config_sha256([job.model['name'], cfg.model])


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


def say(text: str) -> None:
    """Prints a line, on the main process only."""
    if get_rank() == 0:
        print(text, flush=True)


def fix_arithmetic(threads: int | None) -> None:
    """Threads of torch, also outside of the loop, and algorithms of cuDNN that give the same bits each time."""
    torch.backends.cudnn.deterministic = True
    torch.backends.cudnn.benchmark = False
    if threads is not None:
        torch.set_num_threads(threads)
