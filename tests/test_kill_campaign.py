"""A short campaign of kills; tests/kill_campaign.py by hand is the long one."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

TESTS = Path(__file__).parent


@pytest.mark.slow
def test_kills_cost_nothing(tmp_path: Path):
    command = [sys.executable, '-W', 'ignore', TESTS / 'kill_campaign.py', '--kills', '8', '--other-kills', '4']
    command += ['--sharded-kills', '8']
    environment = {**os.environ, 'PYTHONPATH': str(TESTS.parent), 'OMP_NUM_THREADS': '1'}
    done = subprocess.run([*command, '--out', tmp_path], env=environment, capture_output=True, text=True, timeout=1500)
    assert done.returncode == 0, done.stderr[-2000:]
    lines = [line for line in done.stdout.splitlines() if ' kills ' in line]
    assert [line.split('  ')[0] for line in lines] == [
        'training, keep 1', 'training, keep 2', 'sharded, at once', 'sharded, beside', 'benchmark', 'encodings',
    ]  # fmt: skip
    for line in lines:
        kills, _, lost, leaked, identical, ends = map(int, re.findall(r'(\d+)', line.split('kills', 1)[1]))
        assert (lost, leaked) == (0, 0), done.stdout
        assert kills >= 4 and identical == ends >= 1, done.stdout
    assert sum(int(re.search(r'in a save +(\d+)', line).group(1)) for line in lines) >= 4, done.stdout
