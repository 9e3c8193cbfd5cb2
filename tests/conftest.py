"""What a test may change in the process, and the next one must not see."""

import os

import pytest

VARIABLE = 'TORCH_FORCE_WEIGHTS_ONLY_LOAD'
BEFORE = os.environ.get(VARIABLE)


@pytest.fixture(autouse=True)
def torch_loads_as_it_did_at_the_start(monkeypatch):
    """A training has every ``torch.load`` in its process refuse code, see ``use_safe_loading``."""
    monkeypatch.delenv(VARIABLE, raising=False)
    if BEFORE is not None:
        monkeypatch.setenv(VARIABLE, BEFORE)
