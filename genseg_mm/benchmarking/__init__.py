"""Running of benchmark suites: which model is measured on what, and where every number comes from.

The loop and its models are imported when they are first asked for: a suite is read, and a wrong one refused, before.
"""

from importlib import import_module
from typing import Any

_PLACES = dict(BenchmarkLoop='loop')

__all__ = list(_PLACES)


def __getattr__(name: str) -> Any:
    if name in _PLACES:
        return getattr(import_module(f'{__name__}.{_PLACES[name]}'), name)
    raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
