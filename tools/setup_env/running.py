"""Running pip and the compiler: progress, logs, and errors that say what to do (stdlib only)."""

import ctypes
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import state

AGAIN = 'then call tools/setup_env.sh again'
# What the output of pip or the compiler says, and what the user can do about it.
REMEDIES = (
    (r'No space left on device', 'the disk is full; free some space'),
    (
        r'Temporary failure in name resolution|Name or service not known|Network is unreachable|'
        r'NewConnectionError|Failed to establish a new connection|ConnectTimeout|Read timed out|'
        r'Connection (refused|reset)|Max retries exceeded|ProxyError',
        'the package index cannot be reached; check the network, the proxy and `pip config list`',
    ),
    (
        r'CERTIFICATE_VERIFY_FAILED|SSLError',
        'the certificate of the package index is not trusted; see `pip config set global.cert`',
    ),
    (
        r'No matching distribution found|Could not find a version',
        'the package index has no such version for this Python; GENSEG_PYTHON names another '
        'Python, GENSEG_TORCH another torch',
    ),
    (r'Python\.h: No such file', 'the headers of Python are missing; apt-get install python3-dev'),
    (r'Killed signal|out of memory|[Cc]annot allocate memory', 'memory ran out; set MAX_JOBS=1'),
    (
        r'externally-managed-environment',
        'this Python belongs to the system; activate an environment, or leave out --active',
    ),
    (r'Permission denied', 'this user may not write there'),
)


class SetupError(Exception):
    """What went wrong and what to do about it, for the user."""


def explain(what: str, log: Path) -> SetupError:
    """The error for a failed command: the remedy, if its log names a known cause, and its end."""
    text = log.read_text(errors='replace')
    remedy = next((hint for cause, hint in REMEDIES if re.search(cause, text[-20000:])), None)
    hint = f': {remedy}, {AGAIN}' if remedy else ''
    tail = '\n'.join('    | ' + line[:160] for line in text.splitlines()[-12:])
    return SetupError(f'{what} failed{hint}\n{tail}\n    the whole log: {log}')


@contextmanager
def step(title: str) -> Iterator[None]:
    """One line of progress: the title when it starts, the duration when it is done."""
    print(f'  {title} ... ', end='', flush=True)
    start = time.monotonic()
    try:
        yield
    except BaseException:
        print('failed', flush=True)
        raise
    print(f'{time.monotonic() - start:.1f} s', flush=True)


def _end_with_parent() -> None:
    """Has the kernel end the command when set-up is killed: two of pip would spoil the environment."""
    if sys.platform == 'linux':
        ctypes.CDLL(None).prctl(1, signal.SIGTERM)  # PR_SET_PDEATHSIG


class Job:
    """A command in the background whose output goes to a log in the environment."""

    def __init__(self, what: str, command: list[str], log: str) -> None:
        self.what = what
        self.log = Path(sys.prefix) / log
        with self.log.open('w') as out:
            self.process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                cwd=state.ROOT,
                start_new_session=True,  # so that stop() reaches the compilers as well
                preexec_fn=_end_with_parent,
            )

    def wait(self) -> None:
        if self.process.wait():
            raise explain(self.what, self.log)

    def stop(self) -> None:
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGTERM)
            self.process.wait()


def python(*arguments: str) -> list[str]:
    return [sys.executable, '-Es', *arguments]


def run(what: str, *arguments: str) -> None:
    job = Job(what, python(*arguments), 'genseg_mm_setup.log')
    try:
        job.wait()
    finally:
        job.stop()


def pip(what: str, *arguments: str) -> None:
    options = ['--disable-pip-version-check', '--no-input']
    if arguments[0] == 'install':
        # pip takes twice as long when it writes the byte code itself; see `compile_job`.
        options += ['--no-compile', '--progress-bar', 'off']
    run(what, '-m', 'pip', arguments[0], *options, *arguments[1:])


def compile_job() -> Job:
    """Compiles all but tests and transformers' 2500 model files, of which a run needs a few.

    Its exit code says nothing: some packages carry templates that are no valid Python.
    """
    command = ['nice', *python('-m', 'compileall', '-qq', '-j', '0', str(state.SITE))]
    command += ['-x', '/tests/|/transformers/models/']
    return Job('byte code', command, 'genseg_mm_compileall.log')
