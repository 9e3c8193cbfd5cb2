"""Trainings that torchrun starts again: what they resume from, and that they end with the same bits."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from short_runs import run_forked
from toy_parts import CONFIG, toy_runner

from genseg_mm.checkpoint import load_weights_only
from genseg_mm.launch import processes
from genseg_mm.launch.restarts import resume_after_restart

TESTS = Path(__file__).parents[1]
WORDS = ['default_hooks.checkpoint.interval=50', 'train_cfg.max_iters=300', 'train_cfg.val_interval=300']


def start(monkeypatch, work_dir: Path, count: int, run: str = 'abc', **asked: object) -> Config:
    """What a training that torchrun starts for the ``count``-th time again makes of its config."""
    environment = dict(TORCHELASTIC_MAX_RESTARTS=3, TORCHELASTIC_RESTART_COUNT=count, TORCHELASTIC_RUN_ID=run)
    for name, value in environment.items():
        monkeypatch.setenv(name, str(value))
    cfg = Config(dict(work_dir=str(work_dir), resume=False, load_from=None, **asked))
    resume_after_restart(cfg)
    return cfg


def test_a_restart_takes_the_newest_checkpoint_that_is_its_own(tmp_path, monkeypatch):
    other = tmp_path / 'other'
    toy_runner(other, {'train_cfg.max_iters': 10}).train()
    work_dir = tmp_path / 'run'
    work_dir.mkdir()
    old, new = (work_dir / f'iter_{number}.pth' for number in (5, 10))
    old.write_bytes((other / 'iter_5.pth').read_bytes())  # of an earlier training

    assert start(monkeypatch, work_dir, 0).resume is False
    assert start(monkeypatch, work_dir, 1).resume is False  # it has written nothing yet
    new.write_bytes((other / 'iter_10.pth').read_bytes())
    cfg = start(monkeypatch, work_dir, 2)
    assert (cfg.resume, cfg.load_from) == (True, str(new))
    new.write_bytes(new.read_bytes()[:5000])  # cut off by the failure
    old.write_bytes((other / 'iter_5.pth').read_bytes())  # written anew by this one
    cfg = start(monkeypatch, work_dir, 3)
    assert (cfg.resume, cfg.load_from) == (True, str(old))
    assert start(monkeypatch, work_dir, 1, run='another').resume is False  # that failed before it could note anything


def test_without_restarts_nothing_is_written(tmp_path, monkeypatch):
    monkeypatch.delenv('TORCHELASTIC_MAX_RESTARTS', raising=False)
    cfg = Config(dict(work_dir=str(tmp_path), resume=False, load_from=None))
    resume_after_restart(cfg)
    assert not list(tmp_path.iterdir()) and cfg.resume is False


def test_on_gpus_the_processes_are_joined_before_anything_is_the_main_processs(monkeypatch):
    joined = []
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: True)
    monkeypatch.setattr(torch.cuda, 'device_count', lambda: 2)
    monkeypatch.setattr(torch.multiprocessing, 'set_start_method', lambda *own, **_: joined.append(own))
    monkeypatch.setattr(processes, 'init_dist', lambda *own, **kwargs: joined.append((*own, kwargs)))
    monkeypatch.setattr(os, 'environ', dict(os.environ, RANK='0', WORLD_SIZE='2', LOCAL_WORLD_SIZE='2'))
    env = dict(mp_cfg=dict(mp_start_method='fork'), dist_cfg=dict(backend='nccl', timeout=60))
    processes.connect_processes(Config(dict(launcher='pytorch', env_cfg=env)))
    processes.connect_processes(Config(dict(launcher='pytorch')))
    assert joined == [
        ('fork',), ('pytorch', dict(backend='nccl', timeout=60)), ('fork',), ('pytorch', dict(backend='nccl')),
    ]  # fmt: skip


@pytest.fixture(scope='module')
def undisturbed(tmp_path_factory) -> Path:
    work_dir = tmp_path_factory.mktemp('undisturbed')
    run_forked('train.py', CONFIG, '--work-dir', work_dir, '--cfg-options', *WORDS, cwd=work_dir, processes=2)
    return work_dir


def train(work_dir: Path) -> tuple[subprocess.Popen, Path]:
    """Starts a training in two processes; its log lies beside the work dir."""
    environment = {
        **os.environ,
        'PYTHONPATH': f'{TESTS}{os.pathsep}{TESTS.parent}',
        'PYTHON': sys.executable,
        'OMP_NUM_THREADS': '1',
        'MAX_RESTARTS': '2',
    }
    script, log = TESTS.parent / 'tools' / 'dist_train.sh', work_dir.with_suffix('.log')
    with log.open('w') as file:
        job = subprocess.Popen(
            [str(script), str(CONFIG), '2', '--work-dir', str(work_dir), '--cfg-options', *WORDS],
            env=environment,
            stdout=file,
            stderr=subprocess.STDOUT,
        )
    return job, log


def test_a_job_that_slurm_requeues_goes_on(tmp_path, monkeypatch):
    monkeypatch.delenv('TORCHELASTIC_MAX_RESTARTS', raising=False)
    monkeypatch.setenv('SLURM_JOB_ID', '41')
    checkpoint = tmp_path / 'iter_10.pth'

    def resumed(**asked: object) -> Config:
        cfg = Config(dict(work_dir=str(tmp_path), resume=False, load_from=None, **asked))
        resume_after_restart(cfg)
        return cfg

    assert resumed().resume is False and not list(tmp_path.iterdir())  # another launcher, within a job of slurm
    assert resumed(launcher='slurm').resume is False
    toy_runner(tmp_path, {'train_cfg.max_iters': 10}).train()
    monkeypatch.setenv('SLURM_RESTART_COUNT', '1')
    assert resumed(launcher='slurm').load_from == str(checkpoint)


SRUN = """#!/bin/bash
# srun as far as it matters here: --ntasks processes on this machine.
while [ $# -gt 0 ]; do
    case "$1" in
    --ntasks=*) tasks="${1#*=}" ;;
    -p) shift ;;
    -*) ;;
    *) break ;;
    esac
    shift
done
for number in $(seq 0 $((tasks - 1))); do
    SLURM_PROCID=$number SLURM_LOCALID=$number SLURM_NTASKS=$tasks SLURM_NODELIST='node[1-1]' SLURM_JOB_ID=$PPID "$@" &
    pids+=($!)
done
for pid in "${pids[@]}"; do wait "$pid" || exit 1; done
"""


@pytest.mark.slow
def test_training_through_slurm_is_that_through_torchrun(tmp_path, undisturbed):
    for name, text in (('srun', SRUN), ('scontrol', '#!/bin/sh\necho localhost\n')):
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(0o755)
    environment = {
        **os.environ,
        'PYTHONPATH': f'{TESTS}{os.pathsep}{TESTS.parent}',
        'PYTHON': sys.executable,
        'OMP_NUM_THREADS': '1',
        'PATH': f'{tmp_path}:{os.environ["PATH"]}',
        'GPUS': '2',
    }
    command = [
        str(TESTS.parent / 'tools/slurm_train.sh'),
        'part',
        'job',
        str(CONFIG),
        '--work-dir',
        str(tmp_path / 'run'),
    ]
    command += ['--cfg-options', *WORDS]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    ends = [load_weights_only(str(folder / 'iter_300.pth')) for folder in (undisturbed, tmp_path / 'run')]
    for name, value in ends[0]['state_dict'].items():
        assert torch.equal(ends[1]['state_dict'][name], value), name


@pytest.mark.slow
@pytest.mark.parametrize('victim', [0, 1])
def test_a_killed_process_brings_the_job_back_and_the_end_is_the_same(tmp_path, undisturbed, victim):
    work_dir = tmp_path / 'run'
    job, log = train(work_dir)
    try:
        until(lambda: (work_dir / 'iter_100.pth').is_file(), job)
        os.kill(processes_of(job.pid)[victim], signal.SIGKILL)
        assert job.wait(240) == 0, log.read_text()[-3000:]
    finally:
        job.kill()
    ends = [load_weights_only(str(folder / 'iter_300.pth')) for folder in (undisturbed, work_dir)]
    for name, value in ends[0]['state_dict'].items():
        assert torch.equal(ends[1]['state_dict'][name], value), name
    runs = sorted(work_dir.glob('*/vis_data/scalars.json'))
    steps = [[json.loads(line)['step'] for line in run.read_text().splitlines() if 'loss' in line] for run in runs]
    assert len(runs) == 2 and steps[0][0] == 1 and steps[1][0] in (101, 151, 201, 251) and steps[1][-1] == 300
    assert not list(work_dir.glob('*.tmp'))


def processes_of(pid: int) -> list[int]:
    """Those that torchrun has started, by rank."""
    children = Path(f'/proc/{pid}/task/{pid}/children').read_text().split()

    def rank(child: str) -> int:
        environment = Path(f'/proc/{child}/environ').read_bytes().split(b'\0')
        return int(dict(own.split(b'=', 1) for own in environment if b'=' in own)[b'RANK'])

    return [int(child) for child in sorted(children, key=rank)]


def until(condition, job: subprocess.Popen) -> None:
    end = time.monotonic() + 240
    while not condition():
        assert job.poll() is None and time.monotonic() < end
        time.sleep(0.05)
