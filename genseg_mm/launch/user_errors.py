"""Turning mistakes of the user into one line; everything else keeps its traceback."""

import atexit
import os
import re
import sys
import traceback
from collections.abc import Callable
from pathlib import Path

from genseg_mm.hub_files import hub_message
from genseg_mm.stopping import exit_code, terminable
from genseg_mm.whole_files import FULL, WriteError

_PACKAGE = Path(__file__).resolve().parents[1]
_TOOLS = _PACKAGE.parent / 'tools'
_BUILDER = os.path.join('mmengine', 'registry', 'build_functions.py')
_ELSEWHERE = 'another process has stopped; its error is the one to look at'
_LOST_PEER = ('Connection closed by peer', 'Connection reset by peer')
_MISSING_FILE = (
    FileNotFoundError, FileExistsError, NotADirectoryError, IsADirectoryError, PermissionError,
)  # fmt: skip
# What a class raises for arguments that it does not take.
_REFUSALS = (ValueError, TypeError, AssertionError, NotImplementedError)
# Packages whose name for pip is another one, or which belong to an extra of ours.
_DISTRIBUTIONS = dict(
    cv2='opencv-python-headless', yaml='pyyaml', PIL='pillow', sklearn='scikit-learn',
    tensorboard='tensorboard', mmdet='onedl-mmdetection', mmseg='onedl-mmsegmentation',
    mmcv='onedl-mmcv (through tools/setup_env.sh)', skimage='scikit-image',
)  # fmt: skip


def run_tool(main: Callable[[], None]) -> None:
    """Runs the main function of a tool; mistakes end it with ``error: ...`` and exit code 2.

    ``GENSEG_TRACEBACK=1`` in the environment shows the traceback as well. With several processes,
    an error that all of them meet before they are connected (a missing config, say) is printed
    once. Ctrl-C and SIGTERM end it with a line and exit codes 130 and 143.
    """
    try:
        with terminable():
            main()
    except KeyboardInterrupt as error:
        if int(os.environ.get('RANK', 0)) == 0:
            print(str(error) or 'interrupted', file=sys.stderr)
        _leave(exit_code(error))
    except Exception as error:
        message = user_message(error)
        if message is None or os.environ.get('GENSEG_TRACEBACK', '0') not in ('', '0'):
            raise
        rank = int(os.environ.get('RANK', 0))
        if rank == 0 or (_is_distributed() and message != _ELSEWHERE):
            where = f' (process {rank})' if rank else ''
            print(f'error{where}: {message}', file=sys.stderr)
        _leave(2)
    if _is_distributed():
        _leave(0)


def _is_distributed() -> bool:
    """Whether several processes are joined; without torch none are."""
    if 'torch' not in sys.modules:
        return False
    from mmengine.dist import is_distributed

    return is_distributed()


def _leave(code: int) -> None:
    """Ends the process; one of several with gloo without finalizing Python.

    Python aborts a process (exit code -6, and torchrun then calls the training failed) that it
    finalizes while a thread of gloo still holds the tensor of the last message. Without this, one
    run in five ended so (see also pytorch/pytorch#179291).
    """
    if not _is_distributed():
        sys.exit(code)
    import torch.distributed as dist

    if code == 0 and dist.get_backend() != 'gloo':
        dist.destroy_process_group()
        return
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def user_message(error: BaseException) -> str | None:
    """The message for an error the user can mend, or None for one that only its traceback explains.

    The user's are: files and folders that are missing, forbidden or of the wrong kind; missing packages; what cannot
    be fetched; ``ValueError`` raised by this package (also in a worker of a DataLoader); names and arguments in a
    config that the registries, or what they build, do not take.
    """
    text = str(error)
    if text.startswith('Caught ') and 'Original Traceback' in text:
        return _worker_message(text)
    frames = [frame.filename for frame in traceback.extract_tb(error.__traceback__)]
    raised_in = frames[-1] if frames else ''
    if _is_distributed() and any(sign in text for sign in _LOST_PEER):
        return _ELSEWHERE
    if isinstance(error, RuntimeError) and text.startswith('the main process failed'):
        return _ELSEWHERE
    if isinstance(error, WriteError):
        return text
    if getattr(error, 'filename', None) is None and getattr(error, 'errno', None) in FULL:
        return f'a file could not be written: {_one_line(text)}'
    if isinstance(error, ImportError):
        return _missing_package(error, raised_in)
    of_hub = hub_message(error)
    if of_hub is not None:
        return of_hub
    if isinstance(error, OSError):
        return _file_message(error)
    if isinstance(error, ValueError) and _is_ours(raised_in):
        return _one_line(text)
    if isinstance(error, (KeyError, TypeError)) and raised_in.endswith(_BUILDER):
        # KeyError prints its argument quoted.
        return 'in the config: ' + _one_line(str(error.args[0]))
    if isinstance(error, _REFUSALS) and any(frame.endswith(_BUILDER) for frame in frames):
        return _refused_by(error, text)
    return None


def _file_message(error: OSError) -> str | None:
    """One line for a file, folder or address that could not be used; None for a failure of another kind."""
    text = _one_line(str(error))
    if error.filename is not None and error.strerror:
        return f'{error.strerror}: {_one_line(str(error.filename))}'
    if isinstance(error, (*_MISSING_FILE, *_network_errors())):
        return text
    frames = traceback.extract_tb(error.__traceback__)
    return text if frames and _is_ours(frames[-1].filename) else None


def _network_errors() -> tuple[type, ...]:
    from urllib.error import URLError

    return (URLError, ConnectionError, TimeoutError)


def _missing_package(error: ImportError, raised_in: str) -> str | None:
    """One line for a package that is not installed; None for an import that is a fault of ours."""
    package = (error.name or '').partition('.')[0]
    if isinstance(error, ModuleNotFoundError) and package not in ('', 'genseg_mm'):
        return (
            f'the package {package} is not installed, which this needs: pip install '
            f'{_DISTRIBUTIONS.get(package, package)}'
        )
    if package == 'genseg_mm':
        return None
    said_by_us = error.name is None and _is_ours(raised_in)
    return _one_line(str(error)) if said_by_us or 'install' in str(error) else None


def _refused_by(error: BaseException, text: str) -> str:
    """What a class of another package said of its arguments, with the type that the config names."""
    node, name = error.__traceback__, None
    while node is not None:
        if node.tb_frame.f_code.co_filename.endswith(_BUILDER):
            found = node.tb_frame.f_locals.get('obj_cls')
            name = getattr(found, '__name__', name)
        node = node.tb_next
    kind = type(error).__name__
    return f'in the config, type={name!r} refuses its arguments: {kind}: {_one_line(text)}'


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
