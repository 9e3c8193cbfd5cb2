"""Makes, repairs or checks the environment; called by tools/setup_env.sh, which found a Python.

--make creates .venv if need be and then runs the same program inside it; --fill does the work in the
environment whose Python runs it; --check only looks (exit code 0: whole).
"""

import argparse
import fcntl
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import mmcv_wheel
import state

HERE = Path(__file__).resolve().parent
ROOT = state.ROOT
AGAIN = 'then call tools/setup_env.sh again'
NEEDED_GIB = 4  # .venv with torch's CPU build, pip's downloads, the compiler
CUDA_GIB = 12
IMPORTS = 'torch mmcv._ext cv2 mmcv.ops mmdet.models mmseg.models diffusers transformers'

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
        'the package index has no such version for this Python; choose another with GENSEG_PYTHON',
    ),
    (r'Python\.h: No such file', 'the headers of Python are missing; apt-get install python3-dev'),
    (r'Killed signal|out of memory|[Cc]annot allocate memory', 'memory ran out; set MAX_JOBS=1'),
    (r'Permission denied', 'this user may not write there'),
)


class SetupError(Exception):
    """What went wrong and what to do about it, for the user."""


def explain(what: str, log: Path) -> SetupError:
    """The error for a failed command: a remedy if its log names a known cause, and the log's end."""
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
                cwd=ROOT,
                start_new_session=True,  # so that stop() reaches the compilers as well
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
    # Byte code is written in parallel by `compile_job`; pip needs twice as long with it.
    quiet = ('--disable-pip-version-check', '--no-input', '--progress-bar', 'off')
    extra = ('--no-compile',) if arguments[0] == 'install' else ()
    run(what, '-m', 'pip', arguments[0], *extra, *quiet, *arguments[1:])


def compile_job() -> Job:
    command = python('-m', 'compileall', '-q', '-j', '0', str(state.SITE))
    return Job('byte code', ['nice', *command], 'genseg_mm_compileall.log')


# ------------------------------------------------------------------------------- the steps


def install_torch(wanted: dict) -> None:
    if state.missing(wanted['build']):
        with step('pip, setuptools, ninja'):
            pip('the build tools', 'install', *wanted['build'])
    # The override may hold options of pip, such as --index-url.
    requirement = shlex.split(wanted['torch'])
    if state.missing(requirement[:1]):
        with step(wanted['torch']):
            pip(wanted['torch'], 'install', *requirement)


def mmcv_fits(wanted: dict) -> bool:
    """Whether mmcv is installed with operators that were compiled for the installed torch."""
    if state.missing([wanted['mmcv']]) or not list(state.SITE.glob('mmcv/_ext*')):
        return False
    source = state.mmcv_source()
    if '/genseg_mm/wheels/' in source:
        return f'-torch{state.torch_version()}-' in source
    load = 'import torch, mmcv._ext'  # of unknown origin: see whether it loads
    return subprocess.run(python('-c', load), capture_output=True).returncode == 0


def install_mmcv(job: Job) -> None:
    with step('mmcv with operators (compiled meanwhile, if not kept from before)'):
        job.wait()
        *notes, wheel = job.log.read_text().splitlines()
        pip('mmcv', 'install', '--no-deps', '--force-reinstall', wheel)
    for note in notes:
        if note.startswith('note: '):
            print(f'    {note}')


def fix_opencv(wanted: dict) -> None:
    """mmcv and mmseg ask for opencv-python, which overwrites the headless build and needs libGL."""
    if state.has_second_opencv() or state.missing([wanted['opencv']]):
        with step('OpenCV without windows'):
            pip('OpenCV', 'uninstall', '-y', 'opencv-python', 'opencv-python-headless')
            pip('OpenCV', 'install', '--no-deps', wanted['opencv'])


def check_imports() -> None:
    code = (
        'import importlib, importlib.util, sys\n'
        'for name in sys.argv[1:]:\n'
        '    print(name, flush=True)\n'
        '    importlib.import_module(name)\n'
        "assert importlib.util.find_spec('genseg_mm'), 'genseg_mm is not installed'\n"
    )
    with step(f'import {IMPORTS}'):
        run('an import', '-W', 'ignore', '-c', code, *IMPORTS.split())


def fill(wanted: dict) -> None:
    """Brings the environment of this Python to what is wanted."""
    state.STAMP.unlink(missing_ok=True)
    if Path(sys.prefix) == ROOT / '.venv':  # somebody else's environment is not cleaned up
        for name in state.forget_incomplete():
            print(f'  {name} is incomplete: it is installed anew')
    with ExitStack() as stack:
        install_torch(wanted)
        build = None
        if not mmcv_fits(wanted):
            wheel = python(str(HERE / 'mmcv_wheel.py'), wanted['mmcv'])
            build = Job('compiling mmcv', wheel, 'genseg_mm_mmcv.log')
            stack.callback(build.stop)
        stack.callback(compile_job().stop)  # on the core that pip leaves idle
        if state.missing(wanted['packages']):
            with step('OpenMMLab, diffusers, transformers and the test tools'):
                pip('the packages', 'install', *wanted['packages'])
        if build:
            install_mmcv(build)
        rest = compile_job()
        stack.callback(rest.stop)
        fix_opencv(wanted)
        with step('genseg_mm, editable'):
            options = ('--no-deps', '--no-build-isolation', '--use-pep517')
            pip('genseg_mm', 'install', *options, '-e', str(ROOT))
        with step('byte code'):
            rest.wait()
    check_imports()
    state.write_stamp()
