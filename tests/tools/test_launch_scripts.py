"""The shell scripts that start the tools in several processes."""

import os
import runpy
import subprocess
import threading
import time
from functools import partial
from pathlib import Path

import pytest

TOOLS = Path(__file__).parents[2] / 'tools'


def run(*command: object, **environment: str) -> subprocess.CompletedProcess:
    return subprocess.run(list(map(str, command)), capture_output=True, text=True, env={**os.environ, **environment})


@pytest.mark.parametrize(
    ('script', 'arguments'),
    [
        ('dist_train.sh', ['a.py']),
        ('dist_train.sh', ['a.py', 'two']),
        ('dist_test.sh', ['a.py', '2']),
        ('slurm_train.sh', ['part', 'job']),
        ('slurm_test.sh', ['part', 'job', 'a.py']),
    ],
)
def test_scripts_print_their_usage(script: str, arguments: list[str]) -> None:
    result = run(TOOLS / script, *arguments)
    assert result.returncode == 2
    assert f'usage: tools/{script} ' in result.stderr
    assert 'Environment:' in result.stderr and '#' not in result.stderr


def test_slurm_scripts_ask_for_what_the_environment_says(tmp_path: Path) -> None:
    fake = tmp_path / 'srun'
    fake.write_text('#!/bin/sh\nprintf "%s\\n" "$@"\n')
    fake.chmod(0o755)
    environment = dict(PATH=f'{tmp_path}:{os.environ["PATH"]}', PYTHON='mypython', GPUS='4', SRUN_ARGS='-w n1 -t 5')
    result = run(TOOLS / 'slurm_test.sh', 'part', 'job', 'a.py', 'b.pth', '--tta', **environment)
    assert result.stdout.split() == [
        '-p', 'part', '--job-name=job', '--gres=gpu:4', '--ntasks=4', '--ntasks-per-node=4',
        '--cpus-per-task=5', '--kill-on-bad-exit=1', '-w', 'n1', '-t', '5',
        'mypython', '-u', str(TOOLS / 'test.py'), 'a.py', 'b.pth', '--launcher', 'slurm', '--tta',
    ]  # fmt: skip


def test_the_quickstart_keeps_its_cores_busy_and_ends_all_with_the_first_failure(tmp_path: Path) -> None:
    quickstart = runpy.run_path(str(TOOLS / 'quickstart.py'))
    job, run_jobs, running = (quickstart[name] for name in ('Job', 'run_jobs', 'RUNNING'))
    for cores, most in ((1, 1), (2, 2), (4, 3)):
        now, seen, lock = [], [], threading.Lock()

        def work(name: str, needed: int, now=now, seen=seen, lock=lock) -> None:
            with lock:
                now.append(needed)
                seen.append((name, sum(now), len(now)))
            time.sleep(0.05)
            with lock:
                now.remove(needed)

        jobs = [job(partial(work, name, needed), needed) for name, needed in (('a', 1), ('b', 1), ('c', 2), ('d', 1))]
        run_jobs(jobs, cores)
        assert sorted(name for name, *_ in seen) == ['a', 'b', 'c', 'd']
        assert max(together for *_, together in seen) == most
        assert cores == 1 or max(needed for _, needed, _ in seen) <= cores

    def fail() -> None:
        while not running:
            time.sleep(0.01)
        raise SystemExit('error: it failed')

    start = time.monotonic()
    sleep = partial(quickstart['run'], ['sleep', '60'], tmp_path / 'log.txt')
    with pytest.raises(SystemExit, match='it failed'):
        run_jobs([job(sleep), job(fail), job(sleep)], 2)
    assert not running and time.monotonic() - start < 30


@pytest.mark.parametrize('cores', [1, 2, 16])
def test_the_quickstart_gives_an_update_as_many_pictures_on_any_machine(cores: int, monkeypatch) -> None:
    quickstart = runpy.run_path(str(TOOLS / 'quickstart.py'))
    monkeypatch.setattr(os, 'sched_getaffinity', lambda _: set(range(cores)))
    trained = [one for world in quickstart['WORLDS'].values() for one in world.values() if not one.weights]
    assert len(trained) == 4
    for model in trained:
        words = quickstart['training_command'](model, ['--work-dir', 'out', '--cfg-options'])
        processes = 1 if 'tools/train.py' in words else int(words[words.index(model.config) + 1])
        assert processes == min(cores, model.processes)
        options = dict(word.split('=') for word in words[words.index('--cfg-options') + 1 :])
        sizes = {int(value) for key, value in options.items() if key.endswith(('batch_size', 'group'))}
        assert sizes == {model.pictures // processes}, words
