"""torchrun (same arguments) that ends with one line and the exit code of the failed process, not a traceback.

Ctrl-C and SIGTERM are passed on to the processes, which then have time for a checkpoint (600 s, else
``TORCH_ELASTIC_SHUTDOWN_TIMEOUT``); the second one ends all at once. When a process fails, or torchrun
itself is killed, the others end with it. ``GENSEG_TRACEBACK=1`` shows what torchrun says itself.
"""

import functools
import logging
import os
import signal
import subprocess
import sys
from typing import Any

if __name__ == '__main__':
    signal.signal(signal.SIGINT, lambda *_: os._exit(130))  # torch's import takes seconds
os.environ.setdefault('TORCH_ELASTIC_SHUTDOWN_TIMEOUT', '600')

from torch.distributed.elastic.multiprocessing.api import SignalException, SubprocessContext
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
from torch.distributed.elastic.multiprocessing.subprocess_handler import SubprocessHandler
from torch.distributed.run import main

from genseg_mm.stopping import end_with_parent

_AFTER_FAILURE = 10  # seconds that processes have which may hang, waiting for the failed one
_close = SubprocessContext._close
_send = SubprocessHandler.close


def _popen(handler: SubprocessHandler, args: tuple, env: dict[str, str]) -> subprocess.Popen:
    """A process in a session of its own, so that Ctrl-C reaches it once, which the kernel ends with torchrun."""
    return subprocess.Popen(
        args,
        env=env,
        stdout=handler._stdout,
        stderr=handler._stderr,
        start_new_session=True,
        preexec_fn=functools.partial(end_with_parent, signal.SIGKILL),
    )


def _send_signal(handler: SubprocessHandler, death_sig: signal.Signals | None = None) -> None:
    """Signals the process, not the workers of its loaders, which it needs for the running iteration."""
    if death_sig in (signal.SIGINT, signal.SIGTERM):
        handler.proc.send_signal(death_sig)
    else:
        _send(handler, death_sig)


def _close_all(context: SubprocessContext, death_sig: signal.Signals, timeout: int = 30) -> None:
    stopped = isinstance(sys.exc_info()[1], SignalException)
    _close(context, death_sig, timeout if stopped else _AFTER_FAILURE)


def _be_quiet() -> None:
    """torchrun's own lines come from a dozen loggers, each with its level."""
    for name in [*logging.root.manager.loggerDict]:
        if name.startswith('torch.distributed.elastic'):
            logging.getLogger(name).setLevel(logging.CRITICAL)


def run() -> Any:
    """Runs torchrun; its exit code."""
    try:
        main()
    except ChildFailedError as error:
        rank, failure = error.get_first_failure()
        code = failure.exitcode
        if code in (130, 138, 143):  # stopped by a signal, and said so
            return code
        print(f'process {rank} failed (exit code {code})', file=sys.stderr)
        return code if code > 0 else 1
    except SignalException as error:
        return 128 + int(error.sigval)
    return 0


if __name__ == '__main__':
    SubprocessHandler._popen, SubprocessHandler.close = _popen, _send_signal
    SubprocessContext._close = _close_all
    if os.environ.get('GENSEG_TRACEBACK', '0') in ('', '0'):
        _be_quiet()
    sys.exit(run())
