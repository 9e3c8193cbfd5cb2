"""The tool that says whether the memory of a training grows."""

import runpy
from pathlib import Path

import numpy as np
import pytest
from peak_memory import memory_now

TOOL = runpy.run_path(str(Path(__file__).parents[2] / 'tools' / 'analysis_tools' / 'measure_training_memory.py'))


def test_growth_leaves_the_first_number_out():
    assert TOOL['growth']([100, 500, 1000, 2000], [10, 50, 51, 53]) == pytest.approx(2.0)
    assert TOOL['growth']([100, 500], [10, 50]) == 0.0


def test_resident_memory_follows_what_is_held():
    memory_now()  # or what earlier tests left would be freed meanwhile
    before = TOOL['resident_mib']()
    held = np.ones(50 << 20, np.uint8)
    assert TOOL['resident_mib']() - before == pytest.approx(50, abs=10)
    del held
