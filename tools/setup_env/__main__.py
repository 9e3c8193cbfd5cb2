"""Makes, repairs or checks the environment; called by tools/setup_env.sh, which found a Python.

--make creates .venv if need be and then runs the same program inside it; --fill does the work in
the environment whose Python runs it; --check only looks (exit code 0: whole).
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
import ownership
import state
from running import AGAIN, Job, SetupError, compile_job, pip, python, run, step

HERE = Path(__file__).resolve().parent
ROOT = state.ROOT
NEEDED_GIB = 4  # .venv with torch's CPU build, pip's downloads, the compiler
CUDA_GIB = 12
IMPORTS = 'torch mmcv._ext cv2 mmcv.ops mmdet.models mmseg.models diffusers transformers'


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
    problem = ownership.refusal(home, ROOT)
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
            state.write_marker(home / ownership.MARKER, {'wanted': {}, 'files': None})
            ownership.clear(home)
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
    other = ownership.is_of_another_project(home, ROOT)
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


@contextmanager
def only_one(folder: Path) -> Iterator[None]:
    """Waits for another set-up in the same place; the lock outlives execv."""
    handle = os.open(folder, os.O_RDONLY)
    os.set_inheritable(handle, True)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        print(f'  waiting for another set-up in {folder}', flush=True)
        fcntl.flock(handle, fcntl.LOCK_EX)
    try:
        yield
    finally:
        os.close(handle)


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
        with only_one(ROOT if mode == 'make' else Path(sys.prefix)):
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
