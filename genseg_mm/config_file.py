"""Finding and reading of config files, with errors of one line that name file, line and what was meant."""

import difflib
import os
import re
import traceback
from functools import cache
from pathlib import Path

from mmengine.config import Config
from mmengine.config.utils import ConfigParsingError

from genseg_mm.command import shipped_root

_SUFFIXES = ('.py', '.yml', '.yaml', '.json')


def read_config_file(path: str | os.PathLike) -> Config:
    """The config of a file, or of a name in ``configs/``; see :func:`find_config`.

    Raises:
        FileNotFoundError: If there is no such config, or one it inherits from is missing.
        ImportError: If a package that it imports or inherits from is not installed.
        ValueError: If it is no config, or its code fails; with the line.
    """
    found = find_config(path)
    if not found.endswith(_SUFFIXES):
        raise ValueError(f'{found} is not a config (.py, .yml, .yaml or .json)')
    try:
        return Config.fromfile(found)
    except (Exception, SystemExit) as error:  # a config is code, which may raise anything
        raise _readable(error, found) from error


def find_config(name: str | os.PathLike) -> str:
    """Path of a config: a file, or the name of one that the repository or the installed package ships.

    Args:
        name: Path; or a name such as ``genmask_sana_shapes_tiny``, ``refcoco.py`` or ``genmask/refcoco``, which is
            looked for in ``configs/`` of the checkout, else of the installed package.

    Raises:
        FileNotFoundError: If there is neither a file nor a config of this name; with the nearest names.
    """
    given = os.path.expanduser(os.fspath(name))
    if os.path.isfile(given):
        return given
    if os.path.isdir(given):
        raise FileNotFoundError(f'config {given} is a folder, but a config is a file of Python')
    known = shipped_configs()
    wanted = Path(given).as_posix()
    wanted = wanted.removeprefix('./').removeprefix('configs/').removesuffix('.py')
    if wanted in known:
        return str(known[wanted])
    close = difflib.get_close_matches(wanted, known, 3, 0.7)
    if not close and '/' in wanted:
        close = difflib.get_close_matches(wanted.rpartition('/')[2], known, 3, 0.7)
    hint = f'; did you mean {" or ".join(close)}?' if close else ''
    raise FileNotFoundError(f'config {given} does not exist{hint}')


@cache
def shipped_configs() -> dict[str, Path]:
    """Configs that can be named: the name, and the name within ``configs/``, both without ``.py``, -> file."""
    root, found = shipped_root() / 'configs', {}
    for path in sorted(root.rglob('*.py')):
        inside = path.relative_to(root)
        found[inside.as_posix()[:-3]] = path
        if '_base_' not in inside.parts:
            found.setdefault(inside.name[:-3], path)
    return found


def _readable(error: BaseException, path: str) -> Exception:
    """What reading a config raised, as one line of the kind that fits."""
    file, line = _place_of(error, path)
    text = ' '.join(str(error).split())
    heir = '' if os.path.abspath(file) == os.path.abspath(path) else f' ({path} inherits from it)'
    where = f'{file}{heir}'
    if isinstance(error, FileNotFoundError):
        missing = error.filename or (re.findall(r'"(.+?)"', text) or [text])[0]
        return FileNotFoundError(f'{path}: {missing} does not exist, which this config reads or inherits from (_base_)')
    if isinstance(error, ImportError):
        needs = f'it needs {error.name}, which is not installed or not on PYTHONPATH'
        return ImportError(f'{where}: {needs if error.name else text.partition(", the current sys.path")[0]}')
    if isinstance(error, RecursionError):
        text = 'it inherits from itself (_base_), or calls itself'
    elif isinstance(error, SystemExit):
        text = f'it ends the program (exit {error.code})'
    elif isinstance(error, SyntaxError):
        line, text = line or error.lineno, error.msg
    elif isinstance(error, AttributeError) and not path.endswith('.py'):
        text = 'expected keys with values at its top, but got something else'
    elif not isinstance(error, ConfigParsingError):
        text = f'{type(error).__name__}: {text}'.removesuffix(': ')
    number = f'line {line}: ' if line else ''
    return ValueError(f'{where} is not a valid config: {number}{text}')


def _place_of(error: BaseException, path: str) -> tuple[str, int | None]:
    """The file that was being read, the config or one that it inherits from, and the line that failed."""
    file, line = path, None
    for frame, number in traceback.walk_tb(error.__traceback__):
        if frame.f_code.co_name == '_file2dict' and isinstance(frame.f_locals.get('filename'), str):
            file, line = frame.f_locals['filename'], None
        elif os.path.abspath(frame.f_code.co_filename) == os.path.abspath(file):
            line = number
    return file, line
