"""Tools run the genseg_mm of their own checkout: they import what is installed, and refuse another one."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_no_tool_changes_the_path_of_imports():
    found = [path.name for path in (ROOT / 'tools').rglob('*.py') if 'sys.path' in path.read_text()]
    assert found == []


def test_a_tool_refuses_the_package_of_another_checkout(tmp_path: Path):
    other = tmp_path / 'other'
    (other / 'genseg_mm').mkdir(parents=True)
    (other / 'genseg_mm' / '__init__.py').touch()
    (other / 'tools').mkdir()
    tool = shutil.copy2(ROOT / 'tools' / 'train.py', other / 'tools')
    environment = {**os.environ, 'PYTHONPATH': str(ROOT)}
    said = subprocess.run([sys.executable, tool, '--help'], capture_output=True, text=True, env=environment)
    assert (said.returncode, said.stdout) == (2, '')
    assert said.stderr == (
        f'error: {tool} is of {other}, but this Python has genseg_mm of {ROOT}: set PYTHONPATH={other}, or take the '
        f'environment that `bash {other}/tools/setup_env.sh` makes\n'
    )
    # A copy outside of any checkout, such as that of an installed package, runs what is installed.
    shutil.rmtree(other / 'genseg_mm')
    said = subprocess.run([sys.executable, tool, 'no.py'], capture_output=True, text=True, env=environment)
    assert (said.returncode, said.stderr) == (2, 'error: config no.py does not exist\n')
