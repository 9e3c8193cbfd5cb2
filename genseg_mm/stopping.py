"""Ctrl-C, SIGTERM and slurm's SIGUSR1: an exception that says how to go on, exit codes, handlers (stdlib only)."""

import ctypes
import os
import shlex
import signal
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from genseg_mm import command

GRACEFUL = tuple(getattr(signal, name) for name in ('SIGINT', 'SIGTERM', 'SIGUSR1') if hasattr(signal, name))
_PR_SET_PDEATHSIG = 1  # linux/prctl.h
# `timeout`, and a terminal whose group gets what the launcher passes on as well, signal twice at once.
_SAME_SIGNAL = 1.0  # seconds
_received: list[int] = []  # by terminable()


class StoppedBySignal(KeyboardInterrupt):
    """The user stopped the program; the message is one line on what stays and how to go on.

    Args:
        number: The signal.
        message: The line.
    """

    def __init__(self, number: int, message: str) -> None:
        super().__init__(message)
        self.number = number


def exit_code(error: KeyboardInterrupt) -> int:
    """130 for Ctrl-C, 143 for SIGTERM, as a shell reports them."""
    return 128 + int(getattr(error, 'number', signal.SIGINT))


def name_of(number: int) -> str:
    """Such as SIGINT."""
    return signal.Signals(number).name


class StopRequest:
    """Notes the first signal for the program to see when it suits; the second one stops at once.

    Attributes:
        received: The signal, 0 as long as there was none.
    """

    def __init__(self) -> None:
        self.received = 0
        self._time, self._pid, self._before = 0.0, os.getpid(), {}

    def listen(self, *numbers: int) -> None:
        """Takes the signals over; only the main thread may, from others nothing changes."""
        for number in numbers or GRACEFUL:
            try:
                self._before[number] = signal.signal(number, self._note)
            except ValueError:  # not the main thread
                return

    def restore(self) -> None:
        """Gives the signals back."""
        while self._before:
            signal.signal(*self._before.popitem())

    def _note(self, number: int, _: Any) -> None:
        if os.getpid() != self._pid:  # a forked worker: its parent ends it
            return
        if not self.received:
            self.received, self._time = int(number), time.monotonic()
            if hasattr(signal, 'SIGCHLD'):
                # Workers that got the signal, too, may end now; torch would raise here and now because of it.
                self._before[signal.SIGCHLD] = signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            if int(os.environ.get('RANK', 0)) == 0:
                os.write(2, f'\n{name_of(number)}: stopping after this iteration; once more: at once\n'.encode())
        elif time.monotonic() - self._time > _SAME_SIGNAL:
            raise StoppedBySignal(number, f'stopped at once by a second {name_of(number)}')


def end_with_parent(number: int = signal.SIGTERM) -> None:
    """Has the kernel signal this process when the one that started it dies; on Linux only."""
    if sys.platform == 'linux':
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, number)


def ending_with_parent(command: Sequence[str]) -> list[str]:
    """A command that does so by itself, for processes with threads, where nothing of Python may run after a fork."""
    code = f'import ctypes, os, sys; ctypes.CDLL(None).prctl({_PR_SET_PDEATHSIG}, {int(signal.SIGTERM)}); '
    code += 'os.execvp(sys.argv[1], sys.argv[1:])'
    return [sys.executable, '-I', '-c', code, *command] if sys.platform == 'linux' else list(command)


@contextmanager
def terminable() -> Iterator[None]:
    """Has SIGTERM stop the program as Ctrl-C does, with a line and not silently."""
    owner = os.getpid()
    if threading.current_thread() is not threading.main_thread():  # only it may
        yield
        return
    _received.clear()

    def interrupt(number: int, _: Any) -> None:
        _received.append(number)
        raise KeyboardInterrupt

    def stop(number: int, _: Any) -> None:
        if os.getpid() != owner:  # a worker: as if nobody had taken the signal over
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
            return
        _received.append(number)
        raise StoppedBySignal(number, 'stopped by SIGTERM')

    before = {
        number: signal.signal(number, own) for number, own in ((signal.SIGINT, interrupt), (signal.SIGTERM, stop))
    }
    try:
        yield
    finally:
        for number, own in before.items():
            signal.signal(number, own)


def signal_received() -> bool:
    """Whether a signal has stopped what runs in :func:`terminable`: some libraries make an error of their own of it."""
    return bool(_received)


def resume_command(option: str = '--resume') -> str:
    """The command line of this run, for going on: with the option, whatever it was started with.

    A launcher script names itself in ``GENSEG_COMMAND``.
    """
    words = shlex.split(os.environ.get('GENSEG_COMMAND', '')) or command.typed_words(
        os.path.basename(sys.executable or 'python')
    )
    kept: list[str] = []
    words = iter(words)
    word = next(words, None)
    while word is not None:
        following = next(words, None)
        if word == option:
            if following is not None and not following.startswith('-'):
                following = next(words, None)  # its value
        elif not word.startswith(f'{option}='):
            kept.append(word)
        word = following
    return shlex.join([*kept, option])
