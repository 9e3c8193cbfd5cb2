"""Ctrl-C and signals: what is written, what is said, how a training goes on."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from mmengine.hooks import Hook
from mmengine.runner import Runner
from toy_parts import CONFIG, toy_runner

from genseg_mm import stopping
from genseg_mm.checkpoint import load_weights_only
from genseg_mm.launch import run_tool
from genseg_mm.stopping import StoppedBySignal, StopRequest, resume_command

TESTS = Path(__file__).parent
TOOLS = TESTS.parent / 'tools'
QUIET = {'default_hooks.visualization': None, 'default_hooks.logger.interval': 10}


class Send(Hook):
    """Sends a signal to this process in a training iteration, or in the second batch of a validation."""

    def __init__(self, number: int, iteration: int | None = None) -> None:
        self.number, self.iteration = number, iteration

    def before_train_iter(self, runner: Runner, batch_idx: int, data_batch=None) -> None:
        if batch_idx == self.iteration:
            os.kill(os.getpid(), self.number)

    def before_val_iter(self, runner: Runner, batch_idx: int, data_batch=None) -> None:
        if self.iteration is None and batch_idx == 1:
            os.kill(os.getpid(), self.number)


def stop(work_dir: Path, options: dict, *when: int) -> StoppedBySignal:
    runner = toy_runner(work_dir, options)
    runner.register_hook(Send(*when))
    with pytest.raises(StoppedBySignal) as stopped:
        runner.train()
    return stopped.value


def state(path: Path) -> dict:
    return load_weights_only(str(path))


def same(first: object, second: object) -> bool:
    if isinstance(first, torch.Tensor):
        return torch.equal(first, second)
    if isinstance(first, dict):
        return first.keys() == second.keys() and all(same(first[key], second[key]) for key in first)
    if isinstance(first, list):
        return len(first) == len(second) and all(map(same, first, second))
    return first == second


def assert_same_end(first: Path, second: Path) -> None:
    names = [sorted(path.name for path in folder.glob('*.pth')) for folder in (first, second)]
    assert names[0] == names[1]
    for name in names[0]:
        one, other = state(first / name), state(second / name)
        for key in ('state_dict', 'optimizer', 'param_schedulers'):
            assert same(one.get(key), other.get(key)), (name, key)


@pytest.mark.parametrize(
    ('when', 'counts', 'last'),
    [
        ((signal.SIGTERM, 5), 4, 8),  # to the end of the update
        ((signal.SIGUSR1, 9), 1, 10),  # where a validation is due, which resuming makes up for
        ((signal.SIGINT,), 1, 10),  # in a validation whose checkpoint is there
    ],
    ids=['accumulation', 'before-validation', 'in-validation'],
)
def test_a_stopped_training_goes_on_to_the_same_end(tmp_path, capfd, when, counts, last):
    options = {**QUIET, 'optim_wrapper.accumulative_counts': counts}
    options['default_hooks.checkpoint.max_keep_ckpts'] = 1
    before = [signal.getsignal(number) for number in stopping.GRACEFUL]
    stopped = stop(tmp_path / 'stopped', options, *when)
    name = signal.Signals(when[0]).name
    file = tmp_path / 'stopped' / f'iter_{last}.pth'
    assert str(stopped).startswith(f'stopped by {name} after iteration {last} of 20, checkpoint {file}; to go on: ')
    assert str(stopped).endswith(' --resume') and '\n' not in str(stopped)
    assert (stopping.exit_code(stopped), state(file)['meta']['iter']) == (128 + when[0], last)
    assert [signal.getsignal(number) for number in stopping.GRACEFUL] == before
    assert f'{name}: stopping after this iteration' in capfd.readouterr().err
    toy_runner(tmp_path / 'stopped', options, resume='auto').train()
    toy_runner(tmp_path / 'plain', options).train()
    assert_same_end(tmp_path / 'stopped', tmp_path / 'plain')


def test_workers_that_end_with_the_signal_do_not_spoil_the_checkpoint(tmp_path):
    """`timeout` and schedulers signal a whole group; torch raises when a loader's workers are gone."""
    runner = toy_runner(tmp_path, QUIET)

    class Lost(Hook):
        def before_train_iter(self, runner: Runner, batch_idx: int, data_batch=None) -> None:
            if batch_idx == 7:
                os.kill(os.getpid(), signal.SIGTERM)
                raise RuntimeError('DataLoader worker (pid(s) 7) exited unexpectedly')

    runner.register_hook(Lost())
    with pytest.raises(StoppedBySignal, match=f'after iteration 7 of 20, checkpoint {tmp_path}/iter_7.pth'):
        runner.train()
    assert state(tmp_path / 'iter_7.pth')['meta']['iter'] == 7


def test_the_second_signal_stops_at_once_and_a_doubled_one_does_not(monkeypatch, capfd):
    now = [100.0]
    monkeypatch.setattr(stopping.time, 'monotonic', lambda: now[0])
    request = StopRequest()
    request.listen()
    try:
        os.kill(os.getpid(), signal.SIGTERM)
        now[0] += 0.5  # the terminal's group and the launcher pass on the same one
        os.kill(os.getpid(), signal.SIGTERM)
        assert request.received == signal.SIGTERM
        now[0] += 1
        with pytest.raises(StoppedBySignal, match='stopped at once by a second SIGINT'):
            os.kill(os.getpid(), signal.SIGINT)
        child = os.fork()
        if child == 0:  # a worker of a loader
            os.kill(os.getpid(), signal.SIGINT)
            os._exit(7)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
    finally:
        request.restore()
    assert capfd.readouterr().err.count('stopping after this iteration') == 1


@pytest.mark.parametrize(
    ('called', 'argv', 'expected'),
    [
        ('', ['tools/train.py', 'c.py'], 'python tools/train.py c.py --resume'),
        ('', ['t.py', 'c.py', '--resume', 'a b.pth', '--amp'], 'python t.py c.py --amp --resume'),
        ('', ['t.py', '--resume=x', 'c.py', '--resume'], 'python t.py c.py --resume'),
        ('tools/dist_train.sh my\\ c.py 2 --resume --amp ', ['x'], "tools/dist_train.sh 'my c.py' 2 --amp --resume"),
    ],
)  # fmt: skip
def test_the_command_for_going_on(monkeypatch, called, argv, expected):
    monkeypatch.setenv('GENSEG_COMMAND', called)
    monkeypatch.setattr(sys, 'argv', argv)
    monkeypatch.setattr(sys, 'executable', '/usr/bin/python')
    assert resume_command() == expected


def raise_interrupt() -> None:
    os.kill(os.getpid(), signal.SIGINT)
    time.sleep(5)


def terminate() -> None:
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(5)


@pytest.mark.parametrize(
    ('main', 'code', 'line'),
    [(raise_interrupt, 130, 'interrupted'), (terminate, 143, 'stopped by SIGTERM')],
    ids=['ctrl-c', 'sigterm'],
)
def test_any_tool_ends_with_one_line(capfd, main, code, line):
    with pytest.raises(SystemExit) as end:
        run_tool(main)
    assert (end.value.code, capfd.readouterr().err) == (code, f'{line}\n')


def start(*command: object) -> subprocess.Popen:
    environment = {**os.environ, 'PYTHONPATH': f'{TESTS}{os.pathsep}{TESTS.parent}', 'PYTHON': sys.executable}
    environment.setdefault('OMP_NUM_THREADS', '1')
    return subprocess.Popen(
        list(map(str, command)), env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )  # fmt: skip


def signal_when(process: subprocess.Popen, number: int, there: Path) -> str:
    deadline = time.monotonic() + 300
    while not there.exists():
        assert process.poll() is None and time.monotonic() < deadline, process.communicate()
        time.sleep(0.01)
    process.send_signal(number)
    return process.communicate(timeout=120)[0]


@pytest.mark.slow
@pytest.mark.parametrize(
    ('command', 'number'),
    [
        ([sys.executable, TOOLS / 'train.py', CONFIG], signal.SIGTERM),
        ([TOOLS / 'dist_train.sh', CONFIG, 2], signal.SIGINT),
    ],
    ids=['one', 'two'],
)
def test_a_training_tool_says_how_to_go_on(tmp_path, command, number):
    endless = ['train_cfg.max_iters=99999', 'train_cfg.val_interval=99999', 'train_dataloader.num_workers=1']
    command = [*command, '--work-dir', tmp_path, '--cfg-options', *endless]
    process = start(*command)
    output = signal_when(process, number, tmp_path / 'iter_5.pth')
    assert process.returncode == 128 + number, output
    assert 'Traceback' not in output
    last = output.strip().splitlines()[-1]
    file = (tmp_path / 'last_checkpoint').read_text()
    assert f'after iteration {state(Path(file))["meta"]["iter"]} of 99999, checkpoint {file}; to go on: ' in last
    assert last.endswith(f'{CONFIG} {"2 " * (number == signal.SIGINT)}--work-dir {tmp_path} --cfg-options '
                         f'{" ".join(endless)} --resume')  # fmt: skip
    assert list(tmp_path.glob('*.tmp')) == []


@pytest.mark.slow
@pytest.mark.parametrize(
    'tool', ['train.py', 'test.py', 'image_demo.py', 'benchmark.py', 'dataset_tools/cache_encodings.py']
)
def test_ctrl_c_while_a_tool_starts_prints_no_traceback(tool):
    process = start(sys.executable, '-X', 'importtime', TOOLS / tool, 'nothing.py', 'nothing.py')
    read = b''
    while b'mmengine' not in read:  # it has begun to import
        read += os.read(process.stdout.fileno(), 4096)
    process.send_signal(signal.SIGINT)
    output = process.communicate(timeout=60)[0]
    assert process.returncode == 130, output
    assert 'Traceback' not in output


@pytest.mark.skipif(sys.platform != 'linux', reason='the kernel of Linux does it')
def test_a_command_ends_with_the_one_that_started_it():
    code = (
        'import os, subprocess; from genseg_mm.stopping import ending_with_parent; '
        'print(subprocess.Popen(ending_with_parent(["sleep", "60"]), stdout=subprocess.DEVNULL).pid, flush=True); '
        'import time; time.sleep(0.5); os._exit(0)'
    )
    number = int(subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, check=True).stdout)

    def runs() -> bool:
        try:
            return (
                'sleep' in Path(f'/proc/{number}/cmdline').read_text()
                and '\nState:\tZ' not in Path(f'/proc/{number}/status').read_text()
            )
        except FileNotFoundError:
            return False

    deadline = time.monotonic() + 20
    while runs() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not runs()
