"""Tensors on disk: whole, readable by others, and nothing beside them that a kill would leave."""

import os
import re
import resource
import signal
import time
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file

from genseg_mm.files import WriteError
from genseg_mm.files.tensors import write_tensors

ROOT = Path(__file__).parents[2]


def test_a_file_is_whole_and_as_open_as_any(tmp_path):
    path = tmp_path / 'new' / 'a.safetensors'
    write_tensors(path, dict(a=torch.arange(3.0)), dict(of='us'))
    assert load_file(path)['a'].tolist() == [0, 1, 2]
    with safe_open(path, 'pt') as file:
        assert file.metadata() == dict(of='us')
    (path.parent / 'plain').touch()
    assert path.stat().st_mode == (path.parent / 'plain').stat().st_mode
    assert sorted(os.listdir(path.parent)) == ['a.safetensors', 'plain']


def test_a_limit_is_one_line_and_leaves_nothing(tmp_path):
    pid = os.fork()
    if pid == 0:
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
        with pytest.raises(WriteError, match='could not be written: File too large .*it needs 4,000 bytes'):
            write_tensors(tmp_path / 'a.safetensors', dict(a=torch.ones(1000)))
        os._exit(0)
    assert os.waitpid(pid, 0)[1] == 0
    assert not os.listdir(tmp_path)


def test_what_a_kill_leaves_goes_with_the_next_attempt(tmp_path):
    path = tmp_path / 'a.safetensors'
    pid = os.fork()
    if pid == 0:
        write_tensors(path, dict(a=torch.zeros(100_000_000)))
        os._exit(0)
    while not list(tmp_path.glob('.*.part')):
        time.sleep(0.001)
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    assert [own.name for own in tmp_path.iterdir()] == [f'.a.safetensors.{pid}.part']
    write_tensors(path, dict(a=torch.ones(2)))
    assert os.listdir(tmp_path) == ['a.safetensors']
    assert load_file(path)['a'].tolist() == [1, 1]


def test_nobody_writes_them_otherwise():
    """safetensors leaves a file of a random name behind where it is killed, and keeps files to their owner."""
    files = [own for room in ('genseg_mm', 'tools') for own in (ROOT / room).rglob('*.py')]
    found = {own.name for own in files if re.search(r'\b(save_file|serialize_file)\b', own.read_text())}
    assert len(files) > 200
    assert found == {'tensors.py'}
