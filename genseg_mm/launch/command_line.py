"""The command lines of all tools: mistakes in them are one line. Only the standard library is imported at first."""

import argparse
import difflib
import math
import re
from collections.abc import Iterable, Sequence
from typing import Any, NoReturn

_LARGEST = 2**32 - 1  # of a seed; nothing else comes near it
_MAY_BE_ZERO = {
    'seed', 'seeds', 'workers', 'warmup', 'threads', 'indices', 'start_iter', 'local_rank', 'min_instances',
    'min_scene_instances', 'num_prompts', 'first', 'max_items', 'processing_size',
}  # fmt: skip


class ToolParser(argparse.ArgumentParser):
    """argparse's parser whose mistakes are ``error: ...`` in one line, exit code 2, with the switch that was meant.

    All tools count with integers that are not negative (and not 0, but for seeds, workers and the like), so that is
    checked here, as are ``--device`` and numbers that are none (nan, inf).
    """

    def parse_args(self, args: Sequence[str] | None = None, namespace: Any = None) -> Any:
        """As argparse's, with the values checked."""
        return self._checked(super().parse_args(args, namespace))

    def parse_intermixed_args(self, args: Sequence[str] | None = None, namespace: Any = None) -> Any:
        """As argparse's, with the values checked."""
        return self._checked(super().parse_intermixed_args(args, namespace))

    def error(self, message: str) -> NoReturn:
        """Ends the tool with one line."""
        unknown = re.match(r'unrecognized arguments: (--[\w-]+)', message)
        if unknown:
            switches = [own for own in self._option_string_actions if own.startswith('--')]
            message += did_you_mean(unknown.group(1), switches)
        line = ' '.join(message.split())
        self.exit(2, f'error: {line} (--help lists what {self.prog} takes)\n')

    def _checked(self, found: argparse.Namespace) -> argparse.Namespace:
        parts = [own for action in self._actions for own in _parsers_of(action)]
        for action in (action for parser in (self, *parts) for action in parser._actions):
            if action.type not in (int, float):
                continue
            values = getattr(found, action.dest, None)
            for value in values if isinstance(values, (list, tuple)) else [values]:
                expected = None if value is None else _expected(action, value)
                if expected:
                    name = action.option_strings[-1] if action.option_strings else action.dest
                    self.error(f'argument {name}: expected {expected}, but got {value!r}')
        if getattr(found, 'device', None) is not None:
            from genseg_mm.devices import checked_device

            try:
                checked_device(found.device)
            except ValueError as error:
                self.error(f'argument --device: {error}')
        return found


def _parsers_of(action: argparse.Action) -> list[argparse.ArgumentParser]:
    """Those of the tasks that a tool has, such as ``analyze_logs.py plot_curve``."""
    choices = action.choices.values() if isinstance(action.choices, dict) else ()
    return [own for own in choices if isinstance(own, argparse.ArgumentParser)]


def _expected(action: argparse.Action, value: float) -> str | None:
    if action.type is float:
        return None if math.isfinite(value) else 'a finite number'
    least = 0 if action.dest in _MAY_BE_ZERO else 1
    return None if least <= value <= _LARGEST else f'an integer from {least} to {_LARGEST}'


def did_you_mean(name: str, names: Iterable[str]) -> str:
    """``; did you mean 'x'?`` for a name that is nearly one of these (three at most, one if it is very near)."""
    names = sorted({str(own) for own in names})
    close = difflib.get_close_matches(str(name), names, 1, 0.85)
    close = close or difflib.get_close_matches(str(name), names, 3)
    return f'; did you mean {" or ".join(map(repr, close))}?' if close else ''
