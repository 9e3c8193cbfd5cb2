"""Makes, repairs or checks the environment; called by tools/setup_env.sh, which found a Python.

--make creates .venv if need be and then runs the same program inside it; --fill does the work in
the environment whose Python runs it; --check only looks (exit code 0: whole).
"""

import argparse
import ctypes
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
NEEDED_GIB = 4  # .venv with torch's CPU build, pip's downloads, the compiler
CUDA_GIB = 12
IMPORTS = 'torch mmcv._ext cv2 mmcv.ops mmdet.models mmseg.models diffusers transformers'
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


def install_torch(wanted: dict) -> None:
    if state.missing(wanted['build']):
        with step('pip, setuptools, ninja'):
            pip('the build tools', 'install', *wanted['build'])
    # The override may hold options of pip, such as --index-url.
    requirement = shlex.split(wanted['torch'])
    before = state.read_stamp().get('wanted', {}).get('torch', wanted['torch'])
    other_build = ['--force-reinstall'] if before != wanted['torch'] else []
    if other_build or state.missing(requirement[:1]):
        with step(wanted['torch']):
            pip(wanted['torch'], 'install', *other_build, *requirement)


def mmcv_fits(wanted: dict) -> bool:
    """Whether mmcv is installed with operators that were compiled for the installed torch."""
    if state.missing([wanted['mmcv']]) or not list(state.SITE.glob('mmcv/_ext*')):
        return False
    source = state.mmcv_source()
    if '/genseg_mm/wheels/' in source:
        return f'-torch{state.torch_version()}-' in source
    load = 'import torch, mmcv._ext'  # of unknown origin: see whether it loads
    return subprocess.run(python('-c', load), capture_output=True).returncode == 0


def wait_for_compiler(job: Job) -> None:
    with step(f'{job.what} (one file takes 2 to 10 s of CPU time)'):
        while job.process.poll() is None:
            done = re.findall(r'\[(\d+/\d+)\]', job.log.read_text(errors='replace'))
            if done and sys.stdout.isatty():
                print(f'\r  {job.what} {done[-1]} ... ', end='', flush=True)
            time.sleep(1)
        job.wait()


def install_mmcv(job: Job) -> None:
    if job.process.poll() is None:
        wait_for_compiler(job)
    job.wait()
    with step('mmcv with operators'):
        lines = job.log.read_text(errors='replace').splitlines()
        pip('mmcv', 'install', '--no-deps', '--force-reinstall', lines[-1])
    for line in lines:
        if line.startswith('note: '):
            print(f'    {line.removeprefix("note: ")}')


def fix_opencv(wanted: dict) -> None:
    """mmcv and mmseg ask for opencv-python, which overwrites the headless build and needs libGL.

    Where the user had it before, it stays, and no other build is put over it.
    """
    if state.is_foreign('opencv-python'):
        return
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


def fill() -> None:
    """Brings the environment of this Python to what is wanted."""
    wanted = state.wanted()
    state.note_guests()
    state.write_stamp(state.read_stamp().get('wanted', {}), files=None)
    if state.is_own():  # somebody else's environment is not cleaned up
        for name in state.forget_incomplete():
            print(f'  {name} is incomplete and will be installed anew')
    with ExitStack() as jobs:
        install_torch(wanted)
        state.write_stamp(wanted, files=None)  # only now: the override may have been wrong
        first = compile_job()  # on the core that pip leaves idle
        jobs.callback(first.stop)
        build = None
        if not mmcv_fits(wanted):
            wheel = python(str(HERE / 'mmcv_wheel.py'), wanted['mmcv'])
            build = Job('mmcv operators: compiling', wheel, 'genseg_mm_mmcv.log')
            jobs.callback(build.stop)
        if state.missing(wanted['packages']):
            with step('OpenMMLab, diffusers, transformers, the test tools'):
                pip('the packages', 'install', *wanted['packages'])
        if build:
            install_mmcv(build)
        rest = compile_job()
        jobs.callback(rest.stop)
        fix_opencv(wanted)
        with step('genseg_mm, editable'):
            options = ('--no-deps', '--no-build-isolation', '--use-pep517')
            pip('genseg_mm', 'install', *options, '-e', str(ROOT))
        with step('byte code'):
            first.process.wait()
            rest.process.wait()
    check_imports()
    state.write_stamp(wanted, state.inventory())


def make() -> None:
    """Creates .venv, or creates it anew if it cannot be repaired, and goes on inside it.

    Raises:
        SetupError: If what lies there is not ours; nothing has been touched then.
    """
    home = ROOT / '.venv'
    problem = state.refusal(home, ROOT)
    if problem:
        raise SetupError(problem)
    inner = home / 'bin' / 'python'
    problem = 'there is none'
    if inner.exists():
        problem = venv_problem(inner)
        if problem:
            print(f'  {home} is made anew: {problem}')
    if problem:
        check_room()
        require_compiler()
        with step(f'{home} with Python {sys.version.split()[0]}'):
            home.mkdir(exist_ok=True)
            state.write_marker(home / state.MARKER, {'wanted': {}, 'files': None})
            state.clear(home)
            made = [sys.executable, '-Es', '-m', 'venv', str(home)]
            said = subprocess.run(made, capture_output=True, text=True)
            if said.returncode:
                raise SetupError(f'`{" ".join(made)}` failed:\n{said.stdout}{said.stderr}')
    os.execv(inner, [str(inner), '-Es', str(HERE), '--fill'])


def venv_problem(inner: Path) -> str | None:
    """Why an existing .venv is of no use, or None."""
    code = 'import pip, sys; print(sys.prefix, sys.version, sep="\\n"); sys.exit(sys.version_info < (3, 11))'
    said = subprocess.run([inner, '-Es', '-c', code], capture_output=True, text=True)
    if said.returncode:
        return 'its Python does not run, is older than 3.11 or has no pip'
    where, version = said.stdout.split('\n', 1)
    stamp = state.read_stamp(inner.parents[1] / 'genseg_mm.json')
    if where != str(inner.parents[1]) or stamp.get('wanted', {}).get('prefix', where) != where:
        return 'it was moved'
    if os.environ.get('GENSEG_PYTHON') and version.strip() != sys.version:
        return f'GENSEG_PYTHON asks for {sys.version.split()[0]}'
    return None


def refuse_other_project(home: Path) -> None:
    """Refuses, with --active, to turn another project's .venv into one of this project."""
    other = state.is_of_another_project(home, ROOT)
    if other:
        raise SetupError(
            f'{home} is the environment of the project in {other}; leave out --active, or activate another environment'
        )


def check_room() -> None:
    free = shutil.disk_usage(ROOT).free / 2**30
    if free < NEEDED_GIB:
        raise SetupError(
            f'too little disk space: the environment needs {NEEDED_GIB} GiB ({CUDA_GIB} GiB with '
            f'the CUDA build of torch), but {ROOT} has only {free:.1f} GiB; free some, {AGAIN}'
        )
    if free < CUDA_GIB:
        print(f'  {free:.1f} GiB are free: enough for the CPU build of torch, not for CUDA')


def require_compiler() -> None:
    """Fails before anything is downloaded, not after."""
    requirement = state.wanted()['mmcv']
    if mmcv_wheel.may_need_compiler(requirement):
        mmcv_wheel.find_compiler()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    mode = parser.add_mutually_exclusive_group(required=True)
    for name in ('make', 'fill', 'check'):
        mode.add_argument(f'--{name}', dest='mode', action='store_const', const=name)
    mode = parser.parse_args().mode
    if mode == 'check':
        defect = state.first_defect()
        sys.exit(defect and f'the environment in {sys.prefix} needs work: {defect}')
    start = float(os.environ.setdefault('GENSEG_SETUP_START', str(time.time())))  # across execv
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        place = ROOT if mode == 'make' else Path(sys.prefix)
        with mmcv_wheel.only_one(place, f'  waiting for another set-up in {place}'):
            if mode == 'make':
                make()
            elif state.first_defect():
                refuse_other_project(Path(sys.prefix))
                fill()
    except (SetupError, mmcv_wheel.BuildError) as error:
        sys.exit(f'error: {error}')
    except OSError as error:  # no right to write, no room left, no such program
        sys.exit(f'error: {error}; mend that, {AGAIN}')
    except KeyboardInterrupt:
        sys.exit('interrupted; call tools/setup_env.sh to go on')
    print(f'  whole after {time.time() - start:.0f} s; to use it: source {sys.prefix}/bin/activate')


if __name__ == '__main__':
    main()
