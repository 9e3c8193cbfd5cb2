"""Writing beside the training: one write at a time, whose end and errors are not lost (stdlib only)."""

import threading
from collections.abc import Callable


class BackgroundWriter:
    """Runs one write at a time in a thread.

    An error of the thread is raised by the next :meth:`check`, :meth:`wait` or :meth:`start`, once.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._is_busy = False
        self._following: list[Callable[[], None]] = []
        self._error: BaseException | None = None

    @property
    def is_busy(self) -> bool:
        """Whether a write is running."""
        return self._is_busy

    def start(self, write: Callable[[], None]) -> None:
        """Begins a write, once the one before it has ended."""
        self.wait()
        self._is_busy = True
        # A daemon: a program that is stopped at once does not wait for a disk.
        self._thread = threading.Thread(target=self._run, args=(write,), name='checkpoint', daemon=True)
        self._thread.start()

    def then(self, action: Callable[[], None]) -> None:
        """Does something when the write that is running has succeeded; now if none is running."""
        with self._lock:
            if self._is_busy:
                self._following.append(action)
                return
        self.check()
        action()

    def check(self) -> None:
        """Raises the error of a write that has failed."""
        error, self._error = self._error, None
        if error is not None:
            raise error

    def wait(self) -> None:
        """Waits for the end of the write that is running."""
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        self.check()

    def _run(self, write: Callable[[], None]) -> None:
        try:
            write()
            while True:
                with self._lock:
                    if not self._following:
                        self._is_busy = False
                        return
                    action = self._following.pop(0)
                action()
        except BaseException as error:  # whatever it is, the training has to hear of it
            with self._lock:
                self._following.clear()
                self._error, self._is_busy = error, False


SAVES = BackgroundWriter()  # checkpoints of this process
