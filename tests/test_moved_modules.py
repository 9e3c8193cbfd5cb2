"""Old module paths: each gives the very module that holds its contents now, never a second copy of it."""

import re
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

from genseg_mm.moved_modules import MOVED

ROOT = Path(__file__).parents[1]


@pytest.mark.parametrize('old', MOVED)
def test_an_old_path_is_the_new_module(old):
    assert import_module(old) is import_module(MOVED[old])


def test_classes_of_a_package_that_is_gone_are_registered_once_and_the_old_path_says_where():
    script = (
        'import genseg_mm.evaluation\n'
        'from genseg_mm.evaluation.edges.edge_metric import EdgeMetric\n'
        'from genseg_mm.registry import METRICS\n'
        "assert METRICS.get('genseg_mm.EdgeMetric') is EdgeMetric is genseg_mm.evaluation.EdgeMetric\n"
    )
    words = [sys.executable, '-W', 'always::DeprecationWarning', '-c', script]
    run = subprocess.run(words, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    assert 'genseg_mm.evaluation.edges.edge_metric is genseg_mm.evaluation.edge_metric now' in run.stderr


def test_nothing_of_the_project_takes_an_old_path():
    # Whole paths only: genseg_mm.files.images is no genseg_mm.files.
    old = re.compile('|'.join(rf'\b{re.escape(path)}\b(?![.\w])' for path in sorted(MOVED, key=len, reverse=True)))
    files = [path for room in ('genseg_mm', 'tools', 'tests', 'configs') for path in (ROOT / room).rglob('*.py')]
    files += [ROOT / 'README.md', *(ROOT / 'configs').rglob('*.md')]
    own = {ROOT / 'genseg_mm/moved_modules.py', Path(__file__)}
    found = {str(path.relative_to(ROOT)): old.findall(path.read_text()) for path in files if path not in own}
    assert len(files) > 300
    assert {name: paths for name, paths in found.items() if paths} == {}


def test_what_never_was_is_an_import_error():
    with pytest.raises(ModuleNotFoundError, match='nothing_of_the_kind'):
        import_module('genseg_mm.evaluation.edges.nothing_of_the_kind')
