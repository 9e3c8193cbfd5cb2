"""Interrupted and distributed training end exactly where plain training does."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from short_runs import ForkedTool, run_forked
from toy_parts import CONFIG, toy_runner

from genseg_mm.checkpoint import load_weights_only
from genseg_mm.launch import SafeRunner

TESTS = Path(__file__).parents[1]
TOOLS = TESTS.parent / 'tools'


def weights(work_dir: Path, iteration: int = 20) -> dict[str, torch.Tensor]:
    state = load_weights_only(str(work_dir / f'iter_{iteration}.pth'))['state_dict']
    return {name: value for name, value in state.items() if name != 'ballast'}


def assert_same_weights(first: dict, second: dict) -> None:
    assert first.keys() == second.keys()
    for name, value in first.items():
        assert torch.equal(value, second[name]), name


def losses(work_dir: Path) -> list[float]:
    """Logged losses of all runs in a work dir, by iteration."""
    found = {}
    for log in sorted(work_dir.glob('*/vis_data/scalars.json')):
        for line in map(json.loads, log.read_text().splitlines()):
            if 'loss' in line:
                found[line['step']] = line['loss']
    return [found[step] for step in sorted(found)]


def start(*command: object) -> subprocess.Popen:
    environment = {**os.environ, 'PYTHONPATH': f'{TESTS}{os.pathsep}{TESTS.parent}', 'PYTHON': sys.executable}
    environment.setdefault('OMP_NUM_THREADS', '1')
    return subprocess.Popen(
        list(map(str, command)),
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def train(runner: SafeRunner) -> None:
    """Trains and ends the workers, for which the garbage collector would wait seconds."""
    runner.train()
    iterator = runner.train_loop.dataloader_iterator._iterator
    getattr(iterator, '_shutdown_workers', lambda: None)()


@pytest.fixture(scope='module')
def uninterrupted(tmp_path_factory) -> Path:
    work_dir = tmp_path_factory.mktemp('uninterrupted')
    toy_runner(work_dir).train()
    return work_dir


@pytest.mark.parametrize('num_workers', [0, 2])
def test_resumed_training_ends_with_the_same_bits(tmp_path, uninterrupted, num_workers) -> None:
    workers = {'train_dataloader.num_workers': num_workers, 'train_dataloader.persistent_workers': num_workers > 0}
    # 10 iterations of 4 samples are one pass over 24 samples and two thirds of another.
    train(toy_runner(tmp_path, {**workers, 'train_cfg.max_iters': 10}))
    train(toy_runner(tmp_path, workers, resume='auto'))
    assert_same_weights(weights(tmp_path), weights(uninterrupted))
    resumed, plain = (load_weights_only(str(folder / 'iter_20.pth')) for folder in (tmp_path, uninterrupted))
    for name, moment in plain['optimizer']['state'][2].items():
        assert torch.equal(resumed['optimizer']['state'][2][name], moment), name
    assert resumed['param_schedulers'] == plain['param_schedulers']
    assert losses(tmp_path) == losses(uninterrupted)


def test_different_noise_would_be_noticed(tmp_path: Path, uninterrupted: Path) -> None:
    """The comparison above has teeth: another order of samples ends elsewhere."""
    toy_runner(tmp_path, {'randomness.seed': 1}).train()
    assert not torch.equal(weights(tmp_path)['first.weight'], weights(uninterrupted)['first.weight'])


@pytest.mark.slow
def test_kill_while_saving_then_resume(tmp_path: Path, uninterrupted: Path) -> None:
    words = [CONFIG, '--work-dir', tmp_path]
    options = ['--cfg-options', 'model.ballast=40_000_000', 'default_hooks.checkpoint.max_keep_ckpts=1']
    process = ForkedTool('train.py', *words, *options, cwd=tmp_path, log=tmp_path / 'killed.log')
    partial = tmp_path / 'iter_10.pth.stream.tmp'
    deadline = time.monotonic() + 120
    while not (partial.exists() and partial.stat().st_size > 1_000_000):
        assert process.poll() is None and time.monotonic() < deadline, process.communicate()
        time.sleep(0.001)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    assert partial.exists() and not (tmp_path / 'iter_10.pth').exists()
    assert (tmp_path / 'last_checkpoint').read_text() == str(tmp_path / 'iter_5.pth')
    output = run_forked('train.py', *words, '--resume', *options, cwd=tmp_path)
    assert f'Deleting {partial}' in output
    assert 'resumed epoch: 0, iter: 5' in output
    assert_same_weights(weights(tmp_path), weights(uninterrupted))
    assert list(tmp_path.glob('*.tmp')) == []


@pytest.mark.slow
def test_two_processes_train_like_one_with_the_doubled_batch(tmp_path, uninterrupted) -> None:
    options = ['--cfg-options', 'train_dataloader.batch_size=2']
    options.append('default_hooks.checkpoint.max_keep_ckpts=9')

    def run(tool: str, *words: object) -> str:
        return run_forked(tool, CONFIG, *words, '--work-dir', tmp_path, cwd=tmp_path, processes=2)

    run('train.py', *options, 'train_cfg.max_iters=10')
    run('train.py', '--resume', *options)
    assert losses(tmp_path) == pytest.approx(losses(uninterrupted), rel=0, abs=1e-5)
    assert len(losses(tmp_path)) == 20
    for name, value in weights(uninterrupted).items():
        assert torch.allclose(weights(tmp_path)[name], value, rtol=0, atol=1e-5), name
    # And with the number of processes changed on the way: the same samples, sums in another order.
    middle = str(tmp_path / 'iter_10.pth')
    toy_runner(tmp_path / 'one', resume=True, load_from=middle).train()
    for name, value in weights(uninterrupted).items():
        assert torch.allclose(weights(tmp_path / 'one')[name], value, rtol=0, atol=1e-5), name
    assert losses(tmp_path / 'one') == pytest.approx(losses(uninterrupted)[10:], rel=0, abs=1e-5)
    output = run('test.py', tmp_path / 'iter_20.pth')
    assert 'toy/num_samples: 10' in output  # none is counted twice


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != 'linux', reason='the kernel of Linux does it')
def test_killing_torchrun_ends_its_processes(tmp_path: Path) -> None:
    script = TOOLS / 'dist_train.sh'
    process = start(script, CONFIG, 2, '--work-dir', tmp_path, '--cfg-options', 'train_cfg.max_iters=99999')
    deadline = time.monotonic() + 120
    while not (tmp_path / 'iter_10.pth').exists():
        assert process.poll() is None and time.monotonic() < deadline, process.communicate()
        time.sleep(0.01)
    process.kill()  # torchrun alone
    process.communicate(timeout=20)  # the end of the output: nobody writes to it any more
    assert process.returncode == -signal.SIGKILL
