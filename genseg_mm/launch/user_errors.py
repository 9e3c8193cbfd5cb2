"""Turning mistakes of the user into one line; everything else keeps its traceback."""

import atexit
import os
import re
import sys
import traceback
from collections.abc import Callable
from pathlib import Path

import torch.distributed as dist
from mmengine.dist import is_distributed

_PACKAGE = Path(__file__).resolve().parents[1]
_TOOLS = _PACKAGE.parent / 'tools'
_BUILDER = os.path.join('mmengine', 'registry', 'build_functions.py')
_LOST_PEER = ('Connection closed by peer', 'Connection reset by peer')
_MISSING_FILE = (FileNotFoundError, NotADirectoryError, IsADirectoryError, PermissionError)


def run_tool(main: Callable[[], None]) -> None:
    """Runs the main function of a tool; mistakes end it with ``error: ...`` and exit code 2.

    ``GENSEG_TRACEBACK=1`` in the environment shows the traceback as well. With several processes,
    an error that all of them meet before they are connected (a missing config, say) is printed
    once.
    """
    try:
        main()
    except Exception as error:
        message = user_message(error)
        if message is None or os.environ.get('GENSEG_TRACEBACK', '0') not in ('', '0'):
            raise
        rank = int(os.environ.get('RANK', 0))
        if rank == 0 or is_distributed():
            where = f' (process {rank})' if rank else ''
            print(f'error{where}: {message}', file=sys.stderr)
            print('GENSEG_TRACEBACK=1 shows where this was raised.', file=sys.stderr)
        _leave(2)
    if is_distributed():
        _leave(0)


def _leave(code: int) -> None:
    """Ends the process; one of several with gloo without finalizing Python.

    Python aborts a process (exit code -6, and torchrun then calls the training failed) that it
    finalizes while a thread of gloo still holds the tensor of the last message. Without this, one
    run in five ended so (see also pytorch/pytorch#179291).
    """
    if not is_distributed():
        sys.exit(code)
    if code == 0 and dist.get_backend() != 'gloo':
        dist.destroy_process_group()
        return
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def user_message(error: Exception) -> str | None:
    """The message for an error the user can mend, or None for one that only its traceback explains.

    The user's are: missing or forbidden files; ``ValueError`` raised by this package (also in a
    worker of a DataLoader); names and arguments in a config that the registries do not know.
    """
    text = str(error)
    if text.startswith('Caught ') and 'Original Traceback' in text:
        return _worker_message(text)
    frames = traceback.extract_tb(error.__traceback__)
    raised_in = frames[-1].filename if frames else ''
    if is_distributed() and any(sign in text for sign in _LOST_PEER):
        return 'another process has stopped; its error is the one to look at'
    if isinstance(error, _MISSING_FILE):
        if error.filename is None:
            return _one_line(text)
        return f'{error.strerror}: {error.filename}'
    if isinstance(error, ValueError) and _is_ours(raised_in):
        return _one_line(text)
    if isinstance(error, (KeyError, TypeError)) and raised_in.endswith(_BUILDER):
        # KeyError prints its argument quoted.
        return 'in the config: ' + _one_line(str(error.args[0]))
    return None


def _worker_message(text: str) -> str | None:
    """The same for an error that torch carried over from a worker process as text."""
    *_, raised_in = re.findall(r'^ +File "(.+?)", line \d+', text, re.MULTILINE) or ['']
    # Below the last frame stands 'Kind: message', the message on one line or on several.
    last = re.search(r'^(?:\w+\.)*(\w+): (.*)', text[text.rindex(raised_in) :], re.M | re.S)
    if last is None:
        return None
    kind, message = last.group(1), _one_line(last.group(2))
    if kind in {missing.__name__ for missing in _MISSING_FILE}:
        return message
    if kind == 'ValueError' and _is_ours(raised_in):
        return message
    return None


def _is_ours(filename: str) -> bool:
    path = Path(filename).resolve()
    return _PACKAGE in path.parents or _TOOLS in path.parents


def _one_line(text: str) -> str:
    return ' '.join(text.split())
