"""Loops are compiled where that is possible, and run as they are elsewhere."""

import pytest

from genseg_mm import compiled_loops


@pytest.mark.parametrize('kept', [True, False])
def test_compiled_code_that_cannot_be_kept_runs_all_the_same(monkeypatch, kept):
    asked = []

    def njit(cache=False, **settings):
        def compiled(function):
            asked.append(cache)
            assert settings == dict(nogil=True, error_model='numpy')
            if cache and not kept:
                raise RuntimeError('cannot cache function: no locator available')
            return lambda value: function(value) * 10

        return compiled

    monkeypatch.setattr(compiled_loops, 'njit', njit)
    assert compiled_loops.compiled(lambda value: value + 1)(2) == 30
    assert asked == ([True] if kept else [True, False])


def test_without_numba_a_function_stays_as_it_is(monkeypatch):
    def function(value):
        return value

    monkeypatch.setattr(compiled_loops, 'njit', None)
    assert compiled_loops.compiled(function) is function
