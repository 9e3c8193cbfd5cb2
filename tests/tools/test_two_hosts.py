"""Training and benchmarks on two machines: two network namespaces, launch scripts in each, torchrun between them."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from short_runs import run_forked
from two_hosts import run, start, two_hosts, why_not

from genseg_mm.checkpoint import load_weights_only

ROOT = Path(__file__).parents[2]
CONFIG = ROOT / 'tests' / 'data' / 'toy_config.py'
ENVIRONMENT = {
    'PYTHONPATH': f'{ROOT / "tests"}{os.pathsep}{ROOT}',
    'PYTHON': sys.executable,
    'OMP_NUM_THREADS': '1',
    'HF_HUB_OFFLINE': '1',
}


@pytest.fixture(scope='module', autouse=True)
def hosts_are_possible():
    if reason := why_not():
        pytest.skip(reason)


def weights(work_dir: Path, iteration: int) -> dict[str, torch.Tensor]:
    return load_weights_only(str(work_dir / f'iter_{iteration}.pth'))['state_dict']


def options(work_dir: Path) -> list[str]:
    words = ['train_cfg.max_iters=100', 'train_cfg.val_interval=100', 'default_hooks.checkpoint.interval=20']
    return ['--work-dir', str(work_dir), '--cfg-options', *words]


def training(work_dir: Path) -> list[str]:
    """With one process of each host."""
    return [str(ROOT / 'tools' / 'dist_train.sh'), str(CONFIG), '1', *options(work_dir)]


@pytest.fixture(scope='module')
def one_host(tmp_path_factory) -> Path:
    work_dir = tmp_path_factory.mktemp('one_host')
    run_forked('train.py', CONFIG, *options(work_dir), cwd=work_dir, processes=2)
    return work_dir


def test_hosts_reach_each_other_and_nothing_else():
    with two_hosts() as hosts:
        (first, _), (second, _) = hosts
        routes = subprocess.check_output(['ip', '-n', first, 'route'], text=True)
        assert 'default' not in routes and '10.231.7.0/24' in routes
        code = "import socket; own = socket.create_server(('10.231.7.1', 5000)); own.accept()[0].sendall(b'hello')"
        server = subprocess.Popen(['ip', 'netns', 'exec', first, sys.executable, '-c', code])
        ask = (
            'import socket, time\n'
            'for _ in range(100):\n'
            '    try: print(socket.create_connection(("10.231.7.1", 5000)).recv(9)); break\n'
            '    except OSError: time.sleep(0.1)'
        )
        said = subprocess.check_output(['ip', 'netns', 'exec', second, sys.executable, '-c', ask], text=True)
        assert (said, server.wait(10)) == ("b'hello'\n", 0)


@pytest.mark.slow
def test_training_on_two_hosts_is_that_on_one_bit_for_bit(tmp_path, one_host):
    logs = [tmp_path / 'first.log', tmp_path / 'second.log']
    codes = run(training(tmp_path / 'run'), logs, 300, **ENVIRONMENT)
    assert codes == [0, 0], ''.join(log.read_text()[-2000:] for log in logs)
    for name, value in weights(one_host, 100).items():
        assert torch.equal(weights(tmp_path / 'run', 100)[name], value), name


@pytest.mark.slow
def test_a_process_killed_on_the_second_host_brings_both_back(tmp_path, one_host):
    work_dir, environment = tmp_path / 'run', {**ENVIRONMENT, 'MAX_RESTARTS': '2'}
    logs = [tmp_path / 'first.log', tmp_path / 'second.log']
    with two_hosts() as hosts:
        jobs = [
            start(hosts, number, training(work_dir), log.open('w'), **environment) for number, log in enumerate(logs)
        ]
        try:
            end = time.monotonic() + 240
            while not (work_dir / 'iter_40.pth').is_file() and time.monotonic() < end:
                time.sleep(0.05)
            os.kill(int(children(jobs[1].pid)[0]), signal.SIGKILL)
            codes = [job.wait(300) for job in jobs]
        finally:
            for job in jobs:
                if job.poll() is None:
                    os.killpg(job.pid, signal.SIGKILL)
    assert codes == [0, 0], ''.join(log.read_text()[-2000:] for log in logs)
    for name, value in weights(one_host, 100).items():
        assert torch.equal(weights(work_dir, 100)[name], value), name
    assert len(list(work_dir.glob('*/vis_data/scalars.json'))) == 2


def children(pid: int) -> list[str]:
    """Of the process that `ip netns exec` has become, torchrun's."""
    return Path(f'/proc/{pid}/task/{pid}/children').read_text().split()


@pytest.mark.slow
def test_a_suite_on_two_hosts_has_the_numbers_of_one(tmp_path):
    def words(out: str) -> list[str]:
        few = ['--cfg-options', 'benchmarks.shapes_referring.dataset.num_scenes=10']
        return ['shipped_genmask', '--only', 'shapes_referring', '--no-examples', '--out', str(tmp_path / out), *few]

    suite = str(ROOT / 'configs' / 'benchmarks' / 'tiny.py')
    logs = [tmp_path / 'first.log', tmp_path / 'second.log']
    command = [str(ROOT / 'tools' / 'dist_benchmark.sh'), suite, '1', *words('two')]
    codes = run(command, logs, 400, **ENVIRONMENT)
    assert codes == [0, 0], ''.join(log.read_text()[-2000:] for log in logs)
    run_forked('benchmark.py', suite, *words('one'), cwd=ROOT, processes=2, logs=tmp_path)
    metrics = [
        [json.loads(own.read_text())['metrics'] for own in sorted((tmp_path / out).glob('*/*/result.json'))]
        for out in ('one', 'two')
    ]
    assert metrics[0] and metrics[0] == metrics[1]
