"""What tools/benchmark.py does, in all of its processes: from its words to the leaderboard, and what it prints."""

import argparse
import os
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from textwrap import shorten

from mmengine.config import Config
from mmengine.dist import get_rank, init_dist, is_distributed

from genseg_mm.benchmarking.jobs import Job, model_jobs
from genseg_mm.benchmarking.run_suite import SuiteRun, fix_arithmetic, say
from genseg_mm.benchmarking.suite import Suite, choose_models
from genseg_mm.checkpoint import use_safe_loading
from genseg_mm.launch.processes import connect_processes, on_main_process
from genseg_mm.launch.user_errors import user_message
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
from genseg_mm.whole_files import check_writable
from genseg_mm.write_lock import WriteLock

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
    return Path(args.out or f'work_dirs/benchmarks/{suite.name}').expanduser()


def connect(launcher: str) -> None:
    """Joins the processes, on GPUs too, before the first runner is built."""
    use_safe_loading()
    connect_processes(Config(dict(launcher=launcher)))
    if launcher != 'none' and not is_distributed():
        init_dist(launcher, backend='nccl')


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
        say(f'note: {args.check} has the new numbers now; a copy elsewhere would have kept the old')
    return code


def _plan(suite: Suite, args: argparse.Namespace, out: Path) -> tuple[list[Job], list[str]]:
    """The jobs, model by model; of a suite's own models, those that cannot be read are named and left out."""
    benchmarks = suite.select(args.only)
    jobs, readable, unusable = [], [], []
    for entry in choose_models(suite, args.models, args.tasks):
        try:
            jobs += model_jobs(suite, entry, benchmarks, out)
            readable.append(entry['name'])
        except (OSError, ValueError) as error:
            if args.models:
                raise
            unusable.append(f'  FAILED {entry["name"]}: {user_message(error) or error}')
            say(unusable[-1].strip())
    if readable and not jobs:
        tasks = sorted({cfg['task'] for cfg in benchmarks.values()})
        raise ValueError(
            f'nothing to do: the chosen benchmarks of {suite.path} need models for {", ".join(tasks)}, '
            f'and none of {", ".join(readable)} is one (--tasks says otherwise)'
        )
    return jobs, unusable


def _list(suite_run: SuiteRun, jobs: list[Job]) -> None:
    for job in jobs:
        suite_run.look_up(job)
        state = 'finished' if job.state == 'skipped' else job.state
        reason = f': {job.reason.strip()}' if job.reason else ''
        model, benchmark = job.name
        say(f'{model:20} {benchmark:20} {job.benchmark["task"]:10} {state}{reason}')


def _report(suite: Suite, record: Record) -> None:
    """Says the numbers of a result that the suite's tables show, else its first ones, and where the time went."""
    columns = [column for table in suite.cfg.get('tables') or () for column in table['columns']]
    wanted = dict.fromkeys(own['metric'] for own in columns if own['benchmark'] == record.benchmark['name'])
    shown = [name for name in wanted if name in record.metrics] or list(record.metrics)[:_SHOWN]
    numbers = ', '.join(f'{name} {record.metrics[name]:.2f}' for name in shown)
    own = record.run['seconds_per_item']
    stages = ', '.join(f'{stage} {1000 * own[stage]:.1f}' for stage in ('model', 'data', 'metric'))
    say(f'  {numbers}; {record.run["seconds"]:.1f} s, {record.dataset["items"]} items ({stages} ms each)')
    absent = [name for name in wanted if name not in record.metrics]
    if absent:
        say(f'  note: its metrics are {", ".join(record.metrics)}, but {suite.path} has columns of {", ".join(absent)}')


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
            say(f'leaderboard: FAILED, {error}; remove that file if it is not needed')
        else:
            say(f'leaderboard: {out / "leaderboard.md"}, .csv, .html, .json')
    moved = False
    if old is not None:
        new = [Record.read(job.result_file) for job in jobs if job.result_file.is_file()]
        found = regressions(new, old, DEFAULT_TOLERANCE)
        moved = any(one.fails for one in found)
        say(f'--check:\n{format_regressions(found, count_numbers(old))}')
    for line in [*_summary(suite, jobs), *unusable]:
        say(line)
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
