"""One writer at a time, over all that write into a folder for long."""

import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from mmengine.config import Config
from toy_parts import CONFIG

from genseg_mm.benchmarking import run_suite
from genseg_mm.benchmarking.suite import Suite
from genseg_mm.datasets.encoding_cache import EncodingCacheWriter
from genseg_mm.files.write_lock import WriteLock
from genseg_mm.launch import build_runner, run_tool

ROOT = Path(__file__).parents[2]
# Holds the lock named by its arguments until it is killed.
HOLDER = (
    'import importlib.util, sys, time\n'
    'spec = importlib.util.spec_from_file_location("lock", sys.argv[1])\n'
    'lock = importlib.util.module_from_spec(spec)\n'
    'spec.loader.exec_module(lock)\n'
    'held = lock.WriteLock(sys.argv[2], "", folder=sys.argv[3] == "folder")\n'
    'print("held", flush=True)\n'
    'time.sleep(600)\n'
)


class Holder:
    """Another process that writes to a place."""

    def __init__(self, place: Path, kind: str = 'folder') -> None:
        command = [sys.executable, '-S', '-c', HOLDER, ROOT / 'genseg_mm/files/write_lock.py', place, kind]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert self.process.stdout.readline() == 'held\n'

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()
        self.process.stdout.close()


@pytest.fixture
def hold() -> Callable[..., Holder]:
    holders = []

    def start(*where: object) -> Holder:
        holders.append(Holder(*where))
        return holders[-1]

    yield start
    for holder in holders:
        holder.kill()


@pytest.mark.parametrize('kind', ['folder', 'file'])
def test_the_holder_is_named_and_a_kill_frees_the_place(tmp_path, hold, kind):
    place = tmp_path / 'deep' / 'place'
    other = hold(place, kind)
    with pytest.raises(ValueError) as refused:
        WriteLock(place, 'choose another --out', folder=kind == 'folder')
    known = rf'process {other.process.pid} on {socket.gethostname()} since \d{{4}}-\d\d-\d\d \d\d:\d\d:\d\d \('
    assert re.match(f'{place} is being written by {known}', str(refused.value))
    assert str(refused.value).endswith('); choose another --out') and '\n' not in str(refused.value)
    other.kill()
    with WriteLock(place, '', folder=kind == 'folder') as own:
        assert own.path.read_text().startswith(f'{{"pid": {os.getpid()}, ')
    assert own.path.exists()  # alone it means nothing


def test_forked_workers_do_not_keep_it(tmp_path):
    lock = WriteLock(tmp_path, '')
    reading, writing = os.pipe()
    worker = os.fork()
    if worker == 0:
        os.read(reading, 1)  # lives on
        os._exit(0)
    lock.release()
    Holder(tmp_path).kill()
    os.write(writing, b'x')
    os.waitpid(worker, 0)


def test_the_same_process_takes_it_again_only_where_that_is_meant(tmp_path):
    lock = WriteLock(tmp_path, 'no')
    with pytest.raises(ValueError, match='by this very process; no'):
        WriteLock(tmp_path, 'no')
    WriteLock(tmp_path, '', reentrant=True).release()
    with pytest.raises(ValueError, match='by this very process'):  # still held
        WriteLock(tmp_path, '')
    lock.release()
    WriteLock(tmp_path, '').release()


def test_waiting_says_for_whom(tmp_path, hold, capfd):
    other = hold(tmp_path)
    before = signal.signal(signal.SIGALRM, lambda *_: other.kill())
    signal.setitimer(signal.ITIMER_REAL, 0.2)
    WriteLock(tmp_path, '', wait=True).release()
    signal.signal(signal.SIGALRM, before)
    assert f'waiting for process {other.process.pid} ' in capfd.readouterr().out


def test_a_file_in_the_place_of_the_folder_is_named(tmp_path):
    (tmp_path / 'file').touch()
    for place in (tmp_path / 'file', tmp_path / 'file' / 'below'):
        with pytest.raises(NotADirectoryError, match=f'expected {place} to be a folder'):
            WriteLock(place, '')


def train(folder: Path) -> None:
    cfg = Config.fromfile(CONFIG)
    cfg.update(work_dir=str(folder), launcher='none')
    build_runner(cfg)


def encode(folder: Path) -> None:
    EncodingCacheWriter(folder, dict(encoders={}, pipelines={}, dtype='float32'))


def measure(folder: Path) -> None:
    words = type('Words', (), dict(list=False, out=str(folder)))
    run_suite.lock_out(Suite.__new__(Suite), words)


@pytest.mark.parametrize('use', [train, encode, measure], ids=lambda use: use.__name__)
def test_a_second_run_is_refused_in_one_line(tmp_path, hold, capfd, monkeypatch, use):
    monkeypatch.setattr('genseg_mm.launch.runner.use_safe_loading', lambda: None)  # changes the environment
    other = hold(tmp_path)
    before = sorted(path.name for path in tmp_path.iterdir())
    with pytest.raises(SystemExit) as end:
        run_tool(lambda: use(tmp_path))
    line = capfd.readouterr().err.splitlines()[0]
    assert end.value.code == 2
    assert line.startswith(f'error: {tmp_path} is being written by process {other.process.pid} on ')
    assert 'choose another --' in line
    assert sorted(path.name for path in tmp_path.iterdir()) == before


def test_all_tools_that_write_for_long_take_the_lock():
    """Each says so in its own text or in that of the part it writes with."""
    parts = dict(
        train='genseg_mm/launch/runner.py',
        test='genseg_mm/launch/runner.py',
        benchmark='genseg_mm/benchmarking/run_suite.py',
        cache_encodings='genseg_mm/datasets/encoding_cache.py',
        write_descriptions='tools/dataset_tools/write_descriptions.py',
        quickstart='tools/quickstart.py',
    )
    for name, part in parts.items():
        assert re.search(r'\bWriteLock\(', (ROOT / part).read_text()), name
