"""What tools/benchmark.py does, in all of its processes."""

import argparse
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from mmengine.config import Config
from mmengine.dist import get_rank, init_dist, is_distributed

from genseg_mm.benchmarking.jobs import Job, LoadedModel, Mode, plan_jobs
from genseg_mm.benchmarking.model_list import choose_models, find_file
from genseg_mm.benchmarking.progress import (
    check_tables,
    headline,
    moved_numbers,
    old_numbers,
    summary,
    times,
    unknown_metrics,
    write_leaderboard,
)
from genseg_mm.benchmarking.run_suite import Outcome, Settings, SuiteRun, fix_arithmetic
from genseg_mm.benchmarking.suite import Suite
from genseg_mm.checkpoint import use_safe_loading
from genseg_mm.launch.processes import connect_processes, on_main_process
from genseg_mm.launch.user_errors import user_message
from genseg_mm.leaderboard import Record
from genseg_mm.whole_files import check_writable
from genseg_mm.write_lock import WriteLock

_SIGNALS: list[int] = []  # received


def refuse_wrong_words(suite: Suite, args: argparse.Namespace) -> None:
    """Refuses what is wrong in suite and command line, before data are made and processes joined.

    Raises:
        NotADirectoryError: If the folder of results cannot be one.
        PermissionError: If nothing can be written there.
        ValueError: If a model, a benchmark or a table is wrong.
    """
    suite.select(args.only)
    choose_models(suite, args.models, args.tasks)
    check_tables(suite)
    if not args.list:
        check_writable(_out(suite, args), '--out')


def lock_out(suite: Suite, args: argparse.Namespace) -> None:
    """Makes the folder of results of this process alone, until it ends; listing needs no lock.

    Raises:
        ValueError: If another run writes there.
    """
    if not args.list:
        WriteLock(_out(suite, args), 'wait for it, end it, or choose another --out', reentrant=True)


def _out(suite: Suite, args: argparse.Namespace) -> Path:
    return Path(args.out or f'work_dirs/benchmarks/{suite.name}').expanduser()


def stop_on_signals() -> None:
    """Has SIGTERM stop the run as Ctrl-C does."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _stop)


def _stop(number: int, _: Any) -> None:
    _SIGNALS.append(number)
    raise KeyboardInterrupt


def connect(launcher: str) -> None:
    """Joins the processes, on GPUs too, before the first runner is built."""
    use_safe_loading()
    connect_processes(Config(dict(launcher=launcher)))
    if launcher != 'none' and not is_distributed():
        init_dist(launcher, backend='nccl')


def make_data(suite: Suite, only: Sequence[str] | None = None) -> None:
    """Has the suite's data written if they are not there, under another name until they are whole.

    Args:
        suite: The suite. Its tool is called as ``TOOL OUT``, or ``TOOL OUT --folders NAME ...`` for some of the folders
            in ``data_root``; what it writes into a folder that is there has to be whole at once.
        only: Benchmarks whose data are needed; all if None.

    Raises:
        ValueError: If the suite's tool fails.
    """
    if not suite.make_data or not _lacks_data(suite, only):
        return
    # Runs of several suites, or into several folders, share the data.
    with WriteLock(Path(suite.data_root), 'wait for it', folder=False, wait=True):
        if _lacks_data(suite, only):
            _write_data(suite, only)


def _lacks_data(suite: Suite, only: Sequence[str] | None) -> bool:
    root = Path(suite.data_root)
    wanted = folders_read(suite.select(only).values(), root)
    is_lacking = any(not (root / name).exists() for name in wanted)
    return is_lacking or (only is None and not root.exists())


def _write_data(suite: Suite, only: Sequence[str] | None) -> None:
    root = Path(suite.data_root)
    every, wanted = (folders_read(suite.select(own).values(), root) for own in (None, only))
    missing = sorted(name for name in wanted if not (root / name).exists())
    some = ['--folders', *missing] if set(missing) < every else []
    target = root
    if not root.exists():
        target = root.with_name(f'{root.name}.unfinished')
        shutil.rmtree(target, ignore_errors=True)
    target.parent.mkdir(parents=True, exist_ok=True)
    what = f' ({", ".join(missing)})' if some else ''
    print(f'{suite.name}: writing its data{what} to {root}', flush=True)
    made = subprocess.run(
        [sys.executable, find_file(suite.make_data), str(target), *some],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    if made.returncode:
        raise ValueError(f'{suite.make_data} could not write the data of {suite.path}: {made.stderr.strip()[-500:]}')
    if target != root:
        target.rename(root)


def folders_read(benchmarks: Iterable[Mapping], root: Path) -> set[str]:
    """Names of the folders in ``root`` that the data sets of benchmarks read."""
    names, waiting = set(), [benchmark['dataset'] for benchmark in benchmarks]
    while waiting:
        one = waiting.pop()
        if isinstance(one, Mapping):
            waiting += one.values()
            if 'data_root' in one and Path(one['data_root']) == root:
                prefixes = (one.get('data_prefix') or {}).values()
                waiting += [str(root / prefix) for prefix in prefixes]
        elif isinstance(one, (list, tuple)):
            waiting += one
        elif isinstance(one, str) and Path(one) != root and Path(one).is_relative_to(root):
            names.add(Path(one).relative_to(root).parts[0])
    return names


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
    fix_arithmetic(args.threads or None)
    out = _out(suite, args)
    benchmarks = suite.select(args.only)
    settings = Settings(
        mode=Mode(one_by_one=not args.fast, threads=args.threads or None, seed=args.seed),
        launcher=args.launcher,
        rerun=args.rerun,
        same_code=bool(args.check),  # old numbers of old code would pass any check
        examples=not args.no_examples,
    )
    models, unusable = _load_models(suite, args)
    jobs = plan_jobs(suite, list(models.values()), benchmarks, out)
    suite_run = SuiteRun(suite, models, settings, _say, lambda: bool(_SIGNALS))
    if args.list:
        _list(suite_run, jobs)
        return 0
    # Before the first result is written, which may be into this very file.
    old = on_main_process(lambda: old_numbers(jobs, args.check)) if args.check else None
    outcomes = _run_all(suite_run, jobs, out)
    code = on_main_process(lambda: _finish(suite, out, jobs, outcomes, unusable, old))
    if old and code and Path(args.check).resolve().is_relative_to(out.resolve()):
        _say(f'note: {args.check} has the new numbers now; a copy elsewhere would have kept the old')
    return code


def _load_models(suite: Suite, args: argparse.Namespace) -> tuple[dict[str, LoadedModel], list[str]]:
    """The models that can be read; of a suite's own models, those that cannot are named and left out."""
    models, unusable = {}, []
    for entry in choose_models(suite, args.models, args.tasks):
        try:
            models[entry.name] = LoadedModel.read(entry)
        except (OSError, ValueError) as error:
            if args.models:
                raise
            unusable.append(f'  FAILED {entry.name}: {user_message(error) or error}')
            _say(unusable[-1].strip())
    return models, unusable


def _list(suite_run: SuiteRun, jobs: list[Job]) -> None:
    for job in jobs:
        outcome = suite_run.state_of(job)
        state = 'finished' if outcome.state == 'skipped' else outcome.state
        reason = f': {outcome.reason.strip()}' if outcome.reason else ''
        _say(f'{job.model:20} {job.benchmark:20} {job.cfg["task"]:10} {state}{reason}')


def _run_all(suite_run: SuiteRun, jobs: list[Job], out: Path) -> list[Outcome]:
    outcomes = []
    for number, job in enumerate(jobs, start=1):
        outcome = suite_run.run(job, f'[{number}/{len(jobs)}] ')
        outcomes.append(outcome)
        if outcome.state == 'done' and get_rank() == 0:
            record = outcome.record
            _say(f'  {headline(suite_run.suite, record)}; {times(record)}')
            note = unknown_metrics(suite_run.suite, record)
            if note:
                _say(f'  note: {note}')
            write_leaderboard(out, suite_run.suite)
    return outcomes


def _finish(
    suite: Suite, out: Path, jobs: list[Job], outcomes: list[Outcome], unusable: list[str], old: list[Record] | None
) -> int:
    failed = bool(unusable) or any(outcome.state == 'failed' for outcome in outcomes)
    if any(outcome.state != 'failed' for outcome in outcomes):
        error = write_leaderboard(out, suite)
        failed = failed or bool(error)
        if error:
            _say(f'leaderboard: FAILED, {error}; remove that file if it is not needed')
        else:
            _say(f'leaderboard: {out / "leaderboard.md"}, .csv, .html, .json')
    moved = False
    if old is not None:
        text, moved = moved_numbers(jobs, old)
        _say(f'--check:\n{text}')
    for line in [*summary(suite, outcomes), *unusable]:
        _say(line)
    return int(failed or moved)


def leave(code: int) -> None:
    """Ends the process with this code; one of several without waiting for the others."""
    sys.stdout.flush()
    sys.stderr.flush()
    if is_distributed():
        os._exit(code)
    sys.exit(code)


def _say(text: str) -> None:
    if get_rank() == 0:
        print(text, flush=True)
