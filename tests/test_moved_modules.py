"""Old module paths: each gives the very module that holds its contents now, never a second copy of it."""

import subprocess
import sys
from importlib import import_module

import pytest

from genseg_mm.moved_modules import MOVED


@pytest.mark.parametrize('old', MOVED)
def test_an_old_path_is_the_new_module(old):
    assert import_module(old) is import_module(MOVED[old])


def test_classes_of_a_package_that_is_gone_are_registered_once():
    script = (
        'import genseg_mm.evaluation\n'
        'from genseg_mm.evaluation.edges.edge_metric import EdgeMetric\n'
        'from genseg_mm.registry import METRICS\n'
        "assert METRICS.get('genseg_mm.EdgeMetric') is EdgeMetric is genseg_mm.evaluation.EdgeMetric\n"
    )
    subprocess.run([sys.executable, '-c', script], check=True)


def test_what_never_was_is_an_import_error():
    with pytest.raises(ModuleNotFoundError, match='nothing_of_the_kind'):
        import_module('genseg_mm.evaluation.edges.nothing_of_the_kind')
