"""Files that are there whole or not at all, and one line on why one could not be written (stdlib only)."""

import errno
import glob
import os
import re
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)  # what a write may say without naming its file
_FULL = 'make room, then go on'
_FORBIDDEN = 'get the permission, or choose another folder'
_REMEDIES = {
    errno.ENOSPC: _FULL,
    errno.EDQUOT: _FULL,
    errno.EFBIG: 'raise `ulimit -f`, then go on',
    errno.EROFS: _FORBIDDEN,
    errno.EACCES: _FORBIDDEN,
    errno.EPERM: _FORBIDDEN,
    errno.EIO: 'check the disk',
}
# Libraries that write in C++ or Rust say it in their own words, with other types.
_WORDS = re.compile(r'PytorchStreamWriter|inline_container|requested and \d+ written|IoError\(|I/O error')
_OPEN_FILES = re.compile(r'/proc/\d+(/task/\d+)?/fd')


class WriteError(OSError):
    """A file could not be written: one line with path, reason, bytes needed and bytes free."""


@contextmanager
def whole_file(
    path: str | os.PathLike, temporary: str | os.PathLike | None = None, needed: int | None = None, durable: bool = True
) -> Iterator[Path]:
    """Gives a path to write to; what is written appears under its name at the end, once it is on disk.

    If anything goes wrong, also the disk being full, an earlier file stays as it was and nothing else is left.

    Args:
        path: The file; its folder is made.
        temporary: What to write to (default: a hidden file beside it).
        needed: Bytes that it will have, for the message.
        durable: Wait until it is on disk; without, a power cut may leave an empty file.

    Raises:
        WriteError: If it cannot be written.
    """
    path = Path(path)
    if path.is_dir() or is_stream(path):  # a device would become a file
        raise WriteError(f'{path} could not be written: expected a file, but it is a {_kind(path)}')
    if temporary is None:
        _remove_leftovers(path)
        temporary = path.with_name(f'.{path.name}.{os.getpid()}.part')
    temporary = Path(temporary)
    with explained(path, temporary, lambda: needed):
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            yield temporary
            publish(temporary, path) if durable else os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)


@contextmanager
def explained(
    path: str | os.PathLike, temporary: str | os.PathLike | None = None, needed: Callable[[], int | None] = lambda: None
) -> Iterator[None]:
    """Turns errors of writing a file into a ``WriteError``.

    Args:
        path: The file.
        temporary: What is written to, if it is another one.
        needed: Bytes that the file will have, as far as is known when it has failed.
    """
    try:
        yield
    except WriteError:
        raise
    except Exception as error:
        failure = write_failure(error)
        if failure is None:
            raise
        text = _message(Path(path), Path(temporary or path), failure, needed())
        raise WriteError(text) from error


def write_failure(error: Exception) -> tuple[str, str] | None:
    """Why a file could not be written and what to do; None if an error is of another kind."""
    code = getattr(error, 'errno', None)
    if code is None:
        of_library = isinstance(error, OSError | RuntimeError)
        if not of_library and type(error).__name__ != 'SafetensorError':
            return None
        if not _WORDS.search(str(error)):
            return None
        named = re.search(r'(?:code: |os error )(\d+)', str(error))
        if named is None:
            return 'it could not be written whole', _FULL
        code = int(named.group(1))
    return (os.strerror(code), _REMEDIES[code]) if code in _REMEDIES else None


def _message(path: Path, temporary: Path, failure: tuple[str, str], needed: int | None) -> str:
    folder = next(own for own in path.absolute().parents if own.exists())
    free = shutil.disk_usage(folder).free
    parts = [f'{free:,} bytes are free in {folder}']
    if needed is not None:
        parts.insert(0, f'it needs {needed:,} bytes')
    elif temporary.is_file():
        parts.insert(0, f'{temporary.stat().st_size:,} bytes were written')
    limit = _size_limit()
    if limit is not None:
        parts.append(f'files may have {limit:,}')
    stays = 'the old one is untouched' if path.exists() else 'nothing of it is left'
    reason, remedy = failure
    return f'{path} could not be written: {reason} ({", ".join(parts)}); {stays}: {remedy}'


def _size_limit() -> int | None:
    if sys.platform == 'win32':
        return None
    import resource

    limit = resource.getrlimit(resource.RLIMIT_FSIZE)[0]
    return None if limit == resource.RLIM_INFINITY else limit


def publish(temporary: str | os.PathLike, path: str | os.PathLike) -> None:
    """Gives a finished file its name, with the contents on disk first, in case of a power cut."""
    sync(temporary)
    os.replace(temporary, path)
    sync(os.path.dirname(os.path.abspath(path)))


def sync(path: str | os.PathLike) -> None:
    """Waits until a file, or the names in a folder, are on disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def scratch_folder(path: str | os.PathLike) -> Iterator[Path]:
    """Gives a hidden folder beside a file or folder that is being written; at the end it is gone.

    What is moved from there to its name is on the same disk. What killed processes have left of it goes first.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    _remove_leftovers(path)
    place = path.with_name(f'.{path.name}.{os.getpid()}.part')
    place.mkdir()
    try:
        yield place
    finally:
        shutil.rmtree(place, ignore_errors=True)


def _remove_leftovers(path: Path) -> None:
    """Removes what killed processes have left of earlier attempts at this file or folder."""
    for leftover in path.parent.glob(f'.{glob.escape(path.name)}.*.part'):
        pid = leftover.name.split('.')[-2]
        if pid.isdigit() and int(pid) != os.getpid() and not _is_alive(int(pid)):
            if leftover.is_dir() and not leftover.is_symlink():
                shutil.rmtree(leftover, ignore_errors=True)
            else:
                leftover.unlink(missing_ok=True)


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def check_writable(folder: str | os.PathLike, what: str) -> Path:
    """Refuses a folder of results that cannot be one, before anything is computed for it.

    Args:
        folder: It need not exist yet.
        what: The switch that names it, for the message.

    Returns:
        The folder, with ``~`` as the home that was checked.

    Raises:
        NotADirectoryError: If it, or what it should lie in, is a file.
        PermissionError: If nothing can be written there.
        ValueError: If it is not a path.
    """
    if not isinstance(folder, (str, os.PathLike)) or not os.fspath(folder) or '\0' in os.fspath(folder):
        raise ValueError(f'{what} expects the name of a folder, but got {folder!r}')
    path = Path(os.path.expanduser(folder))
    there = next(place for place in (path, *path.absolute().parents) if os.path.lexists(place))
    if not there.is_dir():
        kind = 'file' if there.exists() else 'link to nothing'
        raise NotADirectoryError(f'{what} {folder}: {there} is a {kind}, expected a folder')
    if not os.access(there, os.W_OK | os.X_OK):
        raise PermissionError(f'{what} {folder}: nothing can be written in {there}')
    return path


def check_new_file(path: str | os.PathLike, what: str, force: bool | None = None) -> Path:
    """Refuses a file of results that cannot be written, before anything is computed for it.

    Args:
        path: It need not exist yet, nor its folder.
        what: The switch that names it, for the message.
        force: Whether a file that is there may go; None: it may, and there is no switch ``--force``.

    Returns:
        The file, with ``~`` as the home that was checked.

    Raises:
        FileExistsError: If it is there, and may not go.
        IsADirectoryError: If it is a folder or device.
        NotADirectoryError: If what it should lie in is a file.
        PermissionError: If nothing can be written there.
    """
    path = Path(os.path.expanduser(path))
    if path.is_dir() or is_stream(path):
        raise IsADirectoryError(f'{what}: expected a file, but {path} is a {_kind(path)}')
    check_writable(path.parent, f'{what} {path}: its folder')
    if force is False and os.path.lexists(path):
        raise FileExistsError(f'{what}: {path} is there already: choose another name, or --force replaces it')
    return path


def is_stream(path: str | os.PathLike) -> bool:
    """Whether it is a device, a pipe or an open file of this process, such as ``/dev/stdout`` after ``> out.txt``."""
    if not os.path.exists(path) or os.path.isdir(path):
        return False
    if not os.path.isfile(path):
        return True
    places = [os.path.abspath(path)]
    while os.path.islink(places[-1]) and len(places) < 9:
        folder = os.path.dirname(places[-1])
        places.append(os.path.join(folder, os.readlink(places[-1])))
    return any(_OPEN_FILES.fullmatch(os.path.realpath(os.path.dirname(own))) for own in places)


def _kind(path: Path) -> str:
    return 'folder' if path.is_dir() else 'device or pipe'


def write_text(path: str | Path, text: str) -> None:
    """Writes a text file through a temporary one beside it, so that it is never half written.

    A device, pipe or open file, such as ``/dev/null``, takes the text as it is, and ``-`` is the standard output.
    """
    if str(path) == '-' or (is_stream(path) and os.path.samestat(os.stat(path), os.fstat(1))):
        print(text, end='', flush=True)  # opened again, it would begin at its start
        return
    if is_stream(path):
        with open(path, 'a', encoding='utf-8', newline='') as file:
            file.write(text)
        return
    with whole_file(path) as temporary:
        temporary.write_text(text, encoding='utf-8', newline='')
