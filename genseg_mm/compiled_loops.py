"""Loops that Numba compiles where it is installed; elsewhere Python runs the same code, slowly."""

from collections.abc import Callable
from typing import Any

try:
    from numba import njit
except ImportError:
    njit = None


def compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    """A function as machine code, made at its first call with some types and kept on disk; other threads run beside it.

    Divisions by zero give infinity or NaN, as NumPy's do.
    """
    if njit is None:
        return function
    settings = dict(nogil=True, error_model='numpy')  # a check for zeros would keep loops from being vectorized
    try:
        return njit(cache=True, **settings)(function)
    except RuntimeError:  # there is no folder for compiled code that it may write to
        return njit(**settings)(function)
