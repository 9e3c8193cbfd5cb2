"""What tools/benchmark.py does, in all of its processes: from its words through the jobs to the leaderboard."""

import argparse
import os
import shutil
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from textwrap import shorten
from typing import Any

import torch
from mmengine.config import Config
from mmengine.device import get_device
from mmengine.dist import get_rank, get_world_size, is_distributed
from torch import nn

from genseg_mm.benchmarking import provenance
from genseg_mm.benchmarking.examples import write_examples
from genseg_mm.benchmarking.jobs import (
    Job,
    effective_config,
    fill_network_size,
    model_jobs,
    planned_parts,
    run_key,
    what_changed,
)
from genseg_mm.benchmarking.loop import BenchmarkRunner, finite_or_text, together
from genseg_mm.benchmarking.suite import Suite, choose_models, quiet
from genseg_mm.checkpoint import use_safe_loading
from genseg_mm.files.whole_files import check_writable
from genseg_mm.files.write_lock import WriteLock
from genseg_mm.launch.command_line import user_message
from genseg_mm.launch.config import speed_options
from genseg_mm.launch.processes import connect_processes, on_main_process
from genseg_mm.leaderboard import (
    Record,
    build,
    count_numbers,
    format_regressions,
    from_records,
    read_records,
    regressions,
)
from genseg_mm.stopping import signal_received

DEFAULT_TOLERANCE = 0.05  # percent points, of benchmarks that name none
_SHOWN = 4
_REASON = 160  # characters, where the whole has been said before


def refuse_wrong_words(suite: Suite, args: argparse.Namespace) -> None:
    """Refuses what is wrong in suite and command line, before data are made and processes joined.

    Raises:
        NotADirectoryError: If the folder of results cannot be one.
        PermissionError: If nothing can be written there.
        ValueError: If a model, a benchmark or a table is wrong.
    """
    suite.select(args.only)
    choose_models(suite, args.models, args.tasks)
    _check_tables(suite)
    if not args.list:
        check_writable(_out(suite, args), '--out')


def _check_tables(suite: Suite) -> None:
    try:
        from_records([], suite.cfg, datetime.now(UTC))
    except ValueError as error:
        raise ValueError(f'{suite.path}: {error}') from error


def lock_out(suite: Suite, args: argparse.Namespace) -> None:
    """Makes the folder of results of this process alone, until it ends; listing needs no lock.

    Raises:
        ValueError: If another run writes there.
    """
    if not args.list:
        WriteLock(_out(suite, args), 'wait for it, end it, or choose another --out', reentrant=True)


def _out(suite: Suite, args: argparse.Namespace) -> Path:
    return Path(os.path.expanduser(args.out or f'work_dirs/benchmarks/{suite.name}'))


def connect(launcher: str) -> None:
    """Joins the processes before the first runner is built."""
    use_safe_loading()
    connect_processes(Config(dict(launcher=launcher)))


def run(suite: Suite, args: argparse.Namespace) -> int:
    """Runs, or lists, what the command line asks for.

    Args:
        suite: The suite.
        args: Of tools/benchmark.py.

    Returns:
        Exit code.

    Raises:
        KeyboardInterrupt: If stopped; what is finished stays.
    """
    threads = args.threads or None
    fix_arithmetic(threads)
    out = _out(suite, args)
    jobs, unusable = _plan(suite, args, out)
    suite_run = SuiteRun(
        one_by_one=not args.fast,
        threads=threads,
        seed=args.seed,
        launcher=args.launcher,
        rerun=args.rerun,
        same_code=bool(args.check),  # old numbers of old code would pass any check
        examples=not args.no_examples,
        stopped=signal_received,
    )
    if args.list:
        _list(suite_run, jobs)
        return 0
    # Before the first result is written, which may be into this very file.
    old = on_main_process(lambda: old_numbers(jobs, args.check)) if args.check else None
    for number, job in enumerate(jobs, start=1):
        suite_run.run(job, f'[{number}/{len(jobs)}] ')
        if job.state == 'done' and get_rank() == 0:
            _report(suite, job.record)
            write_leaderboard(out, suite)
    code = on_main_process(lambda: _finish(suite, out, jobs, unusable, old))
    if old and code and Path(args.check).resolve().is_relative_to(out.resolve()):
        _say(f'note: {args.check} has the new numbers now; a copy elsewhere would have kept the old')
    return code


def _plan(suite: Suite, args: argparse.Namespace, out: Path) -> tuple[list[Job], list[str]]:
    """The jobs, model by model; of a suite's own models, those that cannot be read are named and left out."""
    benchmarks = suite.select(args.only)
    jobs, readable, unusable = [], [], []
    for entry in choose_models(suite, args.models, args.tasks):
        try:
            jobs += model_jobs(suite, dict(entry, speed=speed_options(args)), benchmarks, out)
            readable.append(entry['name'])
        except (OSError, ValueError) as error:
            if args.models:
                raise
            unusable.append(f'  FAILED {entry["name"]}: {user_message(error) or error}')
            _say(unusable[-1].strip())
    if readable and not jobs:
        tasks = sorted({cfg['task'] for cfg in benchmarks.values()})
        raise ValueError(
            f'nothing to do: the chosen benchmarks of {suite.path} need models for {", ".join(tasks)}, '
            f'and none of {", ".join(readable)} is one (--tasks says otherwise)'
        )
    return jobs, unusable


def _list(suite_run: 'SuiteRun', jobs: list[Job]) -> None:
    for job in jobs:
        suite_run.look_up(job)
        state = 'finished' if job.state == 'skipped' else job.state
        reason = f': {job.reason.strip()}' if job.reason else ''
        model, benchmark = job.name
        _say(f'{model:20} {benchmark:20} {job.benchmark["task"]:10} {state}{reason}')


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
            _say(f'{number}{job}: finished before{job.reason}, skipped ({job.result_file})')
            return
        if job.state == 'failed':
            _say(f'{number}{job}: FAILED, {job.reason}')
            return
        again = f' (again: {job.reason})' if job.state == 'changed' else ''
        _say(f'{number}{job}: running{again}')
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
            _say(f'{job}: FAILED, {job.reason}; {where}')

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


def _say(text: str) -> None:
    """Prints a line, on the main process only."""
    if get_rank() == 0:
        print(text, flush=True)


def _report(suite: Suite, record: Record) -> None:
    """Says the numbers of a result that the suite's tables show, else its first ones, and where the time went."""
    columns = [column for table in suite.cfg.get('tables') or () for column in table['columns']]
    wanted = dict.fromkeys(own['metric'] for own in columns if own['benchmark'] == record.benchmark['name'])
    shown = [name for name in wanted if name in record.metrics] or list(record.metrics)[:_SHOWN]
    numbers = ', '.join(f'{name} {record.metrics[name]:.2f}' for name in shown)
    own = record.run['seconds_per_item']
    stages = ', '.join(f'{stage} {1000 * own[stage]:.1f}' for stage in ('model', 'data', 'metric'))
    _say(f'  {numbers}; {record.run["seconds"]:.1f} s, {record.dataset["items"]} items ({stages} ms each)')
    absent = [name for name in wanted if name not in record.metrics]
    if absent:
        _say(
            f'  note: its metrics are {", ".join(record.metrics)}, but {suite.path} has columns of {", ".join(absent)}'
        )


def write_leaderboard(out: Path, suite: Suite) -> str:
    """Rebuilds all files of the leaderboard from the results in the folder.

    Returns:
        Why that is impossible, such as a broken result of a model that is not measured now; '' if all is well.
    """
    try:
        build(out, suite.cfg).write(out)
    except ValueError as error:
        return str(error)
    return ''


def old_numbers(jobs: Sequence[Job], old_file: str) -> list[Record]:
    """Earlier results of the chosen jobs, read before the run can write to the same file.

    Args:
        jobs: The chosen jobs; results of others in the old file are left out.
        old_file: A leaderboard.json or result.json.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is of another form, or has none of the jobs.
    """
    chosen = {job.name for job in jobs}
    old = [record for record in read_records(old_file) if record.name in chosen]
    if not old:
        raise ValueError(
            f'--check {old_file}: it has none of the chosen models and benchmarks, so there is nothing to compare'
        )
    return old


def _finish(suite: Suite, out: Path, jobs: list[Job], unusable: list[str], old: list[Record] | None) -> int:
    failed = bool(unusable) or any(job.state == 'failed' for job in jobs)
    if any(job.state != 'failed' for job in jobs):
        error = write_leaderboard(out, suite)
        failed = failed or bool(error)
        if error:
            _say(f'leaderboard: FAILED, {error}; remove that file if it is not needed')
        else:
            _say(f'leaderboard: {out / "leaderboard.md"}, .csv, .html, .json')
    moved = False
    if old is not None:
        new = [Record.read(job.result_file) for job in jobs if job.result_file.is_file()]
        found = regressions(new, old, DEFAULT_TOLERANCE)
        moved = any(one.fails for one in found)
        _say(f'--check:\n{format_regressions(found, count_numbers(old))}')
    for line in [*_summary(suite, jobs), *unusable]:
        _say(line)
    return int(failed or moved)


def _summary(suite: Suite, jobs: Sequence[Job]) -> list[str]:
    """Lines on all jobs, failures last: each reason once, short, as the whole has been said when it happened."""
    counts = {state: sum(job.state == state for job in jobs) for state in ('done', 'skipped', 'failed')}
    seconds = sum(job.seconds for job in jobs)
    lines = [
        f'{suite.name}: {counts["done"]} measured in {seconds:.0f} s, {counts["skipped"]} finished before, '
        f'{counts["failed"]} failed'
    ]
    failed: dict[str, list[str]] = {}
    for job in jobs:
        if job.state == 'failed':
            failed.setdefault(job.reason, []).append(str(job))
    lines += [
        f'  FAILED {", ".join(own)}: {shorten(reason, _REASON, placeholder=" ...")}' for reason, own in failed.items()
    ]
    return lines


def leave(code: int) -> None:
    """Ends the process with this code; one of several without waiting for the others."""
    sys.stdout.flush()
    sys.stderr.flush()
    if is_distributed():
        os._exit(code)
    sys.exit(code)


def fix_arithmetic(threads: int | None) -> None:
    """Threads of torch, also outside of the loop, and algorithms of cuDNN that give the same bits each time."""
    torch.backends.cudnn.deterministic = True
    torch.backends.cudnn.benchmark = False
    if threads is not None:
        torch.set_num_threads(threads)
