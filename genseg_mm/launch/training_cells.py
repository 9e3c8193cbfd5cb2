"""Grids of short trainings for tools: each a process of one thread in a folder of its own, kept once it is finished."""

import json
import os
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import Any, TextIO

from genseg_mm.files import read_json, read_json_lines, whole_file

RESULT = 'result.json'


def run_cell(
    folder: Path, command: Sequence[str], settings: dict[str, Any], read: Callable[[Path], dict[str, Any]]
) -> dict[str, Any]:
    """What a training of a grid came to; it is not run again where its folder has a result of the same settings.

    Args:
        folder: Its work dir; what an interrupted run left there is removed.
        command: Of the training, which writes to the folder.
        settings: All that the result depends on: plain values of JSON.
        read: Gives the result of the folder of a finished training.

    Returns:
        What ``read`` gave, and ``seconds``, ``cpu_seconds``, ``settings``.

    Raises:
        ValueError: If the training fails, or a result there is of other settings.
    """
    result_file = folder / RESULT
    if result_file.is_file():
        return finished_cell(folder, settings)
    if folder.exists():
        shutil.rmtree(folder)
    folder.mkdir(parents=True)
    start = time.monotonic()
    with (folder / 'train.txt').open('w') as log:
        status, cpu_seconds = run_process(command, log)
    if status:
        tail = ' / '.join((folder / 'train.txt').read_text().splitlines()[-3:])
        raise ValueError(f'{folder.name} failed, its output is in {folder}/train.txt: {tail}')
    seconds = round(time.monotonic() - start, 1)
    result = dict(read(folder), seconds=seconds, cpu_seconds=round(cpu_seconds, 1), settings=settings)
    with whole_file(result_file) as unfinished:
        unfinished.write_text(json.dumps(result, indent=2) + '\n')
    return result


def finished_cell(folder: Path, settings: dict[str, Any]) -> dict[str, Any]:
    """The result of a folder.

    Raises:
        ValueError: If it is of other settings.
    """
    result = read_json(folder / RESULT)
    if result['settings'] != settings:
        raise ValueError(
            f'{folder / RESULT} is of a run with other settings ({_difference(result["settings"], settings)}): give '
            'another --work-dir, or remove it'
        )
    return result


def run_process(command: Sequence[str], log: TextIO) -> tuple[int, float]:
    """Runs a command on one thread; its exit status and the CPU seconds that it took."""
    environment = {**os.environ, 'OMP_NUM_THREADS': '1'}
    child = subprocess.Popen(list(command), env=environment, stdout=log, stderr=subprocess.STDOUT)
    try:
        _, status, usage = os.wait4(child.pid, 0)
    except BaseException:
        child.terminate()
        raise
    child.returncode = os.waitstatus_to_exitcode(status)  # it has been waited for
    return child.returncode, usage.ru_utime + usage.ru_stime


def run_grid(run: Callable[..., dict[str, Any]], points: Sequence[tuple], jobs: int) -> Iterator[tuple[tuple, dict]]:
    """Runs the points of a grid, some side by side, and gives (point, result) as they finish.

    Args:
        run: Called with each point.
        points: Arguments.
        jobs: So many at once.
    """
    with ThreadPoolExecutor(jobs) as pool:
        futures = {pool.submit(run, *point): point for point in points}
        try:
            for future in as_completed(futures):
                yield futures[future], future.result()
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


def logged_lines(run_dir: Path) -> list[dict]:
    """All that a training logged, line by line.

    Raises:
        FileNotFoundError: If there is no log.
    """
    logs = sorted(run_dir.glob('*/vis_data/scalars.json'))
    if not logs:
        raise FileNotFoundError(f'expected {run_dir}/*/vis_data/scalars.json, but there is none')
    return [line for _, line in read_json_lines(logs[-1])]


def schedule_options(schedulers: Sequence[dict], old: int, new: int) -> dict[str, int]:
    """Stretches learning-rate schedules made for ``old`` iterations to ``new``.

    A warm-up (LinearLR from 0) keeps its length, up to a quarter of the run, and nothing else begins before its end.

    Returns:
        Keys of the config, dotted, and their values.
    """
    options, warm_up = {}, 0
    for index, scheduler in enumerate(schedulers):
        if scheduler['type'] == 'LinearLR' and not scheduler.get('begin', 0):
            warm_up = max(1, min(scheduler['end'], new // 4))
            options[f'param_scheduler.{index}.end'] = warm_up
    for index, scheduler in enumerate(schedulers):
        if f'param_scheduler.{index}.end' in options:
            continue
        begin = max(warm_up, round(scheduler.get('begin', 0) * new / old))
        options[f'param_scheduler.{index}.begin'] = begin
        if 'end' in scheduler:
            end = round(scheduler['end'] * new / old)
            options[f'param_scheduler.{index}.end'] = max(begin + 1, end)
    return options


def _difference(old: dict, new: dict) -> str:
    changed = {key for key in {*old, *new} if old.get(key) != new.get(key)}
    shown = []
    for key in sorted(changed):
        values = [own.get(key) for own in (old, new)]
        if all(isinstance(own, list) for own in values):
            shown += sorted({str(own) for own in values[0]} ^ {str(own) for own in values[1]})
        else:
            shown.append('the config has changed' if key == 'config' else f'{key}: {values[0]!r}, now {values[1]!r}')
    return ', '.join(shown)
