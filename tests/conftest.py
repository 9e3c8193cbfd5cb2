"""What a test may change in the process, and the next one must not see."""

import gc
import os
from types import SimpleNamespace

import pytest

gc.disable()  # until all tests are imported
VARIABLE = 'TORCH_FORCE_WEIGHTS_ONLY_LOAD'
BEFORE = os.environ.get(VARIABLE)
# Files with the longest tests, those first that take most; begun last, one of them would keep a single core busy.
LONGEST = [
    'test_rehearse.py', 'test_training_plan.py', 'test_documented_commands.py', 'test_exporting.py',
    'test_kill_campaign.py', 'test_built_pages.py', 'test_mixed_training.py', 'test_packaging.py', 'test_notebook.py',
    'test_two_hosts.py', 'test_restarts.py', 'test_fsdp2_strategy.py', 'test_benchmark_tool.py', 'test_determinism.py',
    'test_resume.py', 'test_configs.py',
]  # fmt: skip


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Slow tests first, as ordered above; those of a file stay together, for they share what is made for them."""
    ranks = {name: rank for rank, name in enumerate(LONGEST)}
    last = len(ranks) + 1
    items.sort(key=lambda own: ranks.get(own.path.name, last - 1) if own.get_closest_marker('slow') else last)


def pytest_collection_finish() -> None:
    """Takes what the imports made out of garbage collection, and lets Python alone say when there is one.

    MMEngine goes through the whole process whenever it builds a dataset: up to 0.3 s with all that tests import.
    """
    from mmengine.dataset import base_dataset

    base_dataset.gc = SimpleNamespace(collect=lambda: 0)
    gc.collect()
    gc.freeze()
    gc.enable()


@pytest.fixture(autouse=True)
def torch_loads_as_it_did_at_the_start(monkeypatch):
    """A training has every ``torch.load`` in its process refuse code, see ``use_safe_loading``."""
    monkeypatch.delenv(VARIABLE, raising=False)
    if BEFORE is not None:
        monkeypatch.setenv(VARIABLE, BEFORE)


@pytest.fixture(scope='module', autouse=True)
def scope_and_loaders_of_this_file_alone():
    """A runner leaves its scope and its loaders of checkpoints behind; names mean others in another scope."""
    # Not imported above: the process that only hands out tests would wait for torch before it starts any other.
    from mmengine.registry import DefaultScope
    from mmengine.runner import CheckpointLoader

    scopes, schemes = dict(DefaultScope._instance_dict), dict(CheckpointLoader._schemes)
    yield
    DefaultScope._instance_dict.clear()
    DefaultScope._instance_dict.update(scopes)
    CheckpointLoader._schemes = schemes
