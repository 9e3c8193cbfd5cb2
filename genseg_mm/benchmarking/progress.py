"""What a benchmark run prints, and what it makes of all results so far."""

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from textwrap import shorten

from genseg_mm.benchmarking.jobs import Job
from genseg_mm.benchmarking.run_suite import Outcome
from genseg_mm.benchmarking.suite import Suite
from genseg_mm.leaderboard import (
    Record,
    build,
    count_numbers,
    format_regressions,
    from_records,
    read_records,
    regressions,
)

DEFAULT_TOLERANCE = 0.05  # percent points, of benchmarks that name none
_SHOWN = 4
_REASON = 160  # characters, where the whole has been said before


def headline(suite: Suite, record: Record) -> str:
    """The numbers of a result that the suite's tables show, else its first ones."""
    columns = [column for table in suite.cfg.get('tables') or () for column in table['columns']]
    names = [own['metric'] for own in columns if own['benchmark'] == record.benchmark['name']]
    names = [name for name in dict.fromkeys(names) if name in record.metrics]
    names = names or list(record.metrics)[:_SHOWN]
    return ', '.join(f'{name} {record.metrics[name]:.2f}' for name in names)


def times(record: Record) -> str:
    """Where the time went, per item."""
    own = record.run['seconds_per_item']
    parts = ', '.join(f'{stage} {1000 * own[stage]:.1f}' for stage in ('model', 'data', 'metric'))
    return f'{record.run["seconds"]:.1f} s, {record.dataset["items"]} items ({parts} ms each)'


def check_tables(suite: Suite) -> None:
    """Refuses wrong tables of a suite before anything is measured.

    Raises:
        ValueError: If the leaderboard could not be made.
    """
    try:
        from_records([], suite.cfg, datetime.now(UTC))
    except ValueError as error:
        raise ValueError(f'{suite.path}: {error}') from error


def unknown_metrics(suite: Suite, record: Record) -> str:
    """What the suite's tables show of a benchmark that it has not measured, else nothing."""
    columns = [column for table in suite.cfg.get('tables') or () for column in table['columns']]
    names = [own['metric'] for own in columns if own['benchmark'] == record.benchmark['name']]
    names = [name for name in dict.fromkeys(names) if name not in record.metrics]
    if not names:
        return ''
    return f'its metrics are {", ".join(record.metrics)}, but {suite.path} has columns of {", ".join(names)}'


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
    chosen = {(job.model, job.benchmark) for job in jobs}
    old = [record for record in read_records(old_file) if record.name in chosen]
    if not old:
        raise ValueError(
            f'--check {old_file}: it has none of the chosen models and benchmarks, so there is nothing to compare'
        )
    return old


def moved_numbers(jobs: Sequence[Job], old: Sequence[Record], tolerance: float = DEFAULT_TOLERANCE) -> tuple[str, bool]:
    """Compares the numbers of the chosen jobs with earlier ones.

    Args:
        jobs: The chosen jobs.
        old: Of :func:`old_numbers`.
        tolerance: Of benchmarks that name none.

    Returns:
        What moved, and whether that fails the check.
    """
    new = [Record.read(job.result_file) for job in jobs if job.result_file.is_file()]
    found = regressions(new, old, tolerance)
    return format_regressions(found, count_numbers(old)), any(one.fails for one in found)


def summary(suite: Suite, outcomes: Sequence[Outcome]) -> list[str]:
    """Lines on all jobs, failures last: each reason once, short, as the whole has been said when it happened."""
    done = [outcome for outcome in outcomes if outcome.state == 'done']
    skipped = [outcome for outcome in outcomes if outcome.state == 'skipped']
    failed = [outcome for outcome in outcomes if outcome.state == 'failed']
    seconds = sum(outcome.seconds for outcome in outcomes)
    lines = [
        f'{suite.name}: {len(done)} measured in {seconds:.0f} s, {len(skipped)} finished before, {len(failed)} failed'
    ]
    jobs: dict[str, list[str]] = {}
    for outcome in failed:
        jobs.setdefault(outcome.reason, []).append(str(outcome.job))
    lines += [
        f'  FAILED {", ".join(own)}: {shorten(reason, _REASON, placeholder=" ...")}' for reason, own in jobs.items()
    ]
    return lines
