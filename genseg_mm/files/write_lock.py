"""One writer at a time: a lock that the kernel takes back when its process ends, however it ends (stdlib only).

It is a POSIX record lock. Forked workers do not inherit it, a SIGKILL leaves none behind, and over NFS it is as good as
the server's lock service: a mount with ``nolock`` (or ``local_lock=all``) does not see other machines. The lock file
stays; alone it means nothing.
"""

import errno
import json
import os
import shlex
import socket
import sys
import time
import warnings
from pathlib import Path
from typing import Self, TextIO

_NO_LOCKS = (errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS)
_held: dict[str, 'WriteLock'] = {}


class WriteLock:
    """The right to write to a folder or a file, until the process ends or ``release``.

    Args:
        place: What is written. A folder is made, and has its lock file ``.lock`` inside; the lock file of a file lies
            beside it.
        advice: What to do if another process has it, e.g. "choose another --out".
        folder: Whether the place is a folder.
        reentrant: Whether this very process may take it again.
        wait: Wait for the other process instead, and say so.

    Raises:
        ValueError: If another process writes there; names it.
        NotADirectoryError: If the place has to be a folder, and is a file.
        OSError: If nothing can be written there.
    """

    def __init__(
        self, place: str | os.PathLike, advice: str, *, folder: bool = True, reentrant: bool = False, wait: bool = False
    ) -> None:
        place = Path(place)
        self.path = place / '.lock' if folder else place.with_name(f'.{place.name}.lock')
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
        except (FileExistsError, NotADirectoryError):
            raise NotADirectoryError(
                f'expected {self.path.parent} to be a folder, but it, or what it lies in, is a file'
            ) from None
        self._key, self._pid = os.path.realpath(self.path), os.getpid()
        own = _held.get(self._key)
        if own is not None and own._pid == self._pid:
            if not reentrant:
                raise ValueError(f'{place} is being written by this very process; {advice}')
            self._file = None
            return
        # Closing any handle of the file would give the lock back: this stays the only one.
        self._file: TextIO | None = open(self.path, 'a+')  # noqa: SIM115
        try:
            if not _lock(self._file, place, wait):
                raise ValueError(f'{place} is being written by {_holder(self._file)}; {advice}')
        except BaseException:
            self._file.close()
            raise
        _held[self._key] = self
        self._sign()

    def release(self) -> None:
        """Lets others write; a lock that was taken again by the same process is released by its first holder."""
        if self._file is not None and self._pid == os.getpid():
            _held.pop(self._key, None)
            self._file.close()
        self._file = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.release()

    def _sign(self) -> None:
        facts = dict(
            pid=os.getpid(),
            host=socket.gethostname(),
            since=time.strftime('%Y-%m-%d %H:%M:%S'),
            command=shlex.join(sys.argv)[:200],
        )
        self._file.truncate(0)
        self._file.write(json.dumps(facts) + '\n')
        self._file.flush()


def _lock(file: TextIO, place: Path, wait: bool) -> bool:
    import fcntl  # Windows has none

    try:
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in _NO_LOCKS:
            warnings.warn(f'{place}: its file system has no locks; see that nothing else writes there', stacklevel=4)
            return True
        if error.errno not in (errno.EACCES, errno.EAGAIN):
            raise
        if not wait:
            return False
        print(f'waiting for {_holder(file)} to finish {place}', flush=True)
        fcntl.lockf(file, fcntl.LOCK_EX)
    return True


def _holder(file: TextIO) -> str:
    """Who signed the lock file."""
    file.seek(0)
    try:
        facts = json.loads(file.read())
        return f'process {facts["pid"]} on {facts["host"]} since {facts["since"]} ({facts["command"]})'
    except (ValueError, KeyError, TypeError):  # it has only just got it
        return 'another process'
