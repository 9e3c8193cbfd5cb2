"""The command lines of all tools: a mistake of the user is one line, everything else keeps its traceback.

Only the standard library is imported at first.
"""

import argparse
import atexit
import difflib
import inspect
import math
import os
import re
import select
import sys
import traceback
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, NoReturn

from genseg_mm import command
from genseg_mm.files.hub_files import hub_message
from genseg_mm.files.texts import has_lone_surrogate
from genseg_mm.files.whole_files import FULL, WriteError, check_new_file, check_writable, is_stream
from genseg_mm.stopping import exit_code, terminable

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
    shtab="'genseg_mm[completion]'",
)  # fmt: skip


def run_tool(main: Callable[[], None]) -> None:
    """Runs the main function of a tool; mistakes end it with ``error: ...`` and exit code 2.

    ``GENSEG_TRACEBACK=1`` in the environment shows the traceback as well. With several processes,
    an error that all of them meet before they are connected (a missing config, say) is printed
    once. Ctrl-C and SIGTERM end it with a line and exit codes 130 and 143.
    """
    try:
        _refuse_other_checkout(inspect.unwrap(main).__globals__.get('__file__', ''))
        with terminable():
            main()
    except KeyboardInterrupt as error:
        if int(os.environ.get('RANK', 0)) == 0:
            print(str(error) or 'interrupted', file=sys.stderr)
        _leave(exit_code(error))
    except Exception as error:
        if isinstance(error, BrokenPipeError) and _reader_has_left():
            _leave(141)  # as of SIGPIPE
        message = user_message(error)
        if message is None or os.environ.get('GENSEG_TRACEBACK', '0') not in ('', '0'):
            raise
        rank = int(os.environ.get('RANK', 0))
        if rank == 0 or (_is_distributed() and message != _ELSEWHERE):
            where = f' (process {rank})' if rank else ''
            print(f'error{where}: {command.as_typed(message)}', file=sys.stderr)
        _leave(2)
    if _is_distributed():
        _leave(0)


def _reader_has_left() -> bool:
    """Whether nobody reads the standard output any more, as of ``... | head``; the rest of it goes nowhere then."""
    try:
        watched = select.poll()
        watched.register(sys.stdout.fileno(), 0)
        has_left = any(event & select.POLLERR for _, event in watched.poll(0))
    except (AttributeError, OSError, ValueError):  # no poll, as on Windows, or no file behind the output
        return False
    if has_left:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return has_left


def _refuse_other_checkout(tool: str) -> None:
    """A tool must not run the package of another checkout without a word, only because that one is installed."""
    package = Path(__file__).resolve().parents[1]
    own = (folder for folder in Path(tool).resolve().parents if (folder / 'genseg_mm' / '__init__.py').is_file())
    folder = next(own, package.parent)
    if folder != package.parent:
        raise ValueError(
            f'{tool} is of {folder}, but this Python has genseg_mm of {package.parent}: set PYTHONPATH={folder}, or '
            f'take the environment that `bash {folder}/tools/setup_env.sh` makes'
        )


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
    if error.name == 'mmcv._ext':
        return (
            'mmcv is installed without its compiled operators, which models and transforms of mmseg and mmdet need: '
            '`bash tools/setup_env.sh` of a checkout compiles them (--active: into your environment)'
        )
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
    last = re.search(r'^(?:\w+\.)*(\w+): (.*)', text[text.rindex(raised_in) :], re.MULTILINE | re.DOTALL)
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


_LARGEST = 2**32 - 1  # of a seed; nothing else comes near it
_MAY_BE_ZERO = {
    'seed', 'seeds', 'workers', 'warmup', 'threads', 'indices', 'start_iter', 'local_rank', 'min_instances',
    'min_scene_instances', 'num_prompts', 'first', 'max_items', 'processing_size', 'query_frame',
}  # fmt: skip


class ToolParser(argparse.ArgumentParser):
    """argparse's parser whose mistakes are ``error: ...`` in one line, exit code 2, with the switch that was meant.

    All tools count with integers that are not negative (and not 0, but for seeds, workers and the like), so that is
    checked here, as are ``--device`` and numbers that are none (nan, inf). ``~/`` is the home in every value, which the
    shell leaves as it is in ``--out=~/a.json``. Run by ``genseg``, its help has that name and an example.

    An argument that is written to says so: ``add_argument('--out', writes='file')``, ``'folder'``, ``'either'``, the
    endings of a file, such as ``('.pkl',)``, ``'if absent'`` for one that is read where it is there, or ``'text'`` of
    :func:`genseg_mm.files.write_text`, which may also go to a device, a pipe or, as ``-``, to the standard output.
    Where that cannot be is refused here, before anything is computed; missing folders are made when it is written.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        kwargs.setdefault('prog', command.typed_name())
        super().__init__(*args, **kwargs)
        # A point such as -5,240 is a value, as -5 is to argparse: what is wrong with it is said by who reads it.
        self._negative_number_matcher = re.compile(r'-\.?\d[\d.,;e+-]*$')

    def add_argument(self, *args: Any, writes: str | tuple[str, ...] | None = None, **kwargs: Any) -> argparse.Action:
        """As argparse's; ``writes``: see the class."""
        action = super().add_argument(*args, **kwargs)
        action.writes = writes
        return action

    def format_help(self) -> str:
        """As argparse's, with the names and the example of ``genseg``."""
        text = command.as_typed(super().format_help())
        shown = command.example() if self.prog == command.typed_name() else None
        return f'{text}\nexample: {shown}\n' if shown else text

    def parse_args(self, args: Sequence[str] | None = None, namespace: Any = None) -> Any:
        """As argparse's, with the values checked."""
        return self._checked(super().parse_args(args, namespace))

    def parse_intermixed_args(self, args: Sequence[str] | None = None, namespace: Any = None) -> Any:
        """As argparse's, with the values checked."""
        return self._checked(super().parse_intermixed_args(args, namespace))

    def error(self, message: str) -> NoReturn:
        """Ends the tool with one line."""
        unknown = re.match(r'unrecognized arguments: (--[\w-]+)', message)
        path = re.match(r'unrecognized arguments: (-[^-].*)', message)
        if path and os.path.exists(path.group(1)):
            message += f'; a file of that name is given as ./{path.group(1)}'
        if unknown:
            switches = [own for own in self._option_string_actions if own.startswith('--')]
            message += did_you_mean(unknown.group(1), switches)
        line = ' '.join(message.split())
        self.exit(2, f'error: {line} (--help lists what {self.prog} takes)\n')

    def _checked(self, found: argparse.Namespace) -> argparse.Namespace:
        parts = [own for action in self._actions for own in _parsers_of(action)]
        for action in (action for parser in (self, *parts) for action in parser._actions):
            if hasattr(found, action.dest):
                setattr(found, action.dest, self._at_home(action, getattr(found, action.dest)))
                if not getattr(found, 'list', False):  # which writes nothing
                    self._check_output(action, getattr(found, action.dest))
            if action.type not in (int, float):
                continue
            values = getattr(found, action.dest, None)
            for value in values if isinstance(values, (list, tuple)) else [values]:
                expected = None if value is None else _expected(action, value)
                if expected:
                    self.error(f'argument {_name_of(action)}: expected {expected}, but got {value!r}')
        if getattr(found, 'device', None) is not None:
            from genseg_mm.devices import checked_device

            try:
                checked_device(found.device)
            except ValueError as error:
                self.error(f'argument --device: {error}')
        return found

    def _check_output(self, action: argparse.Action, value: Any) -> None:
        writes = getattr(action, 'writes', None)
        if not writes or value is None:
            return
        name = f'argument {_name_of(action)}'
        try:
            if str(value) == '-':
                if writes == 'text':
                    return
                raise ValueError(f'{name}: only text goes to the standard output; what is called - is given as ./-')
            if writes == 'text' and is_stream(value) or writes == 'if absent' and os.path.isfile(value):
                return
            if isinstance(writes, tuple) and Path(value).suffix not in writes:
                raise ValueError(f'{name}: expected a file that ends in {" or ".join(writes)}, but got {value}')
            if writes == 'folder' or (writes == 'either' and os.path.isdir(value)):
                check_writable(value, f'{name}:')
            else:
                check_new_file(value, name)
        except (OSError, ValueError) as error:
            self.error(str(error))

    def _at_home(self, action: argparse.Action, value: Any) -> Any:
        """A value with the home in place of ``~`` in its paths; no file is written under a name that is no text."""
        if isinstance(value, (list, tuple)):
            return type(value)(self._at_home(action, own) for own in value)
        if isinstance(value, dict):  # of --cfg-options
            return {key: self._at_home(action, own) for key, own in value.items()}
        if not isinstance(value, (str, Path)):
            return value
        if has_lone_surrogate(str(value)):
            self.error(f'argument {_name_of(action)}: expected text in UTF-8, but got {ascii(str(value))}')
        is_of_home = getattr(action, 'writes', None) or re.match(r'~($|[\\/])', str(value))
        return type(value)(os.path.expanduser(value)) if is_of_home else value


def _name_of(action: argparse.Action) -> str:
    return action.option_strings[-1] if action.option_strings else action.dest


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
