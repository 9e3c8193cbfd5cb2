"""Compiles the operators of onedl-mmcv once and keeps the wheel.

Run with the Python of an environment that has torch and the [build] extra of setup.py:

    .venv/bin/python tools/setup_env/mmcv_wheel.py onedl-mmcv==2.3.6

The last line of the output is the path of the wheel, which lies under
${XDG_CACHE_HOME:-~/.cache}/genseg_mm/wheels/<key>/; the key names Python, torch, mmcv and CUDA.
pip alone builds onedl-mmcv in isolation, without torch, and then leaves the operators out.
"""

import argparse
import fcntl
import os
import platform
import re
import runpy
import shlex
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import tempfile
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

# CFLAGS in the environment replace those of Python, so the ones that matter are repeated. Without
# -g0 half of the time and 98 % of the wheel go to debug information.
FLAGS = '-DNDEBUG -fwrapv -O2 -g0'
HEADER = 'mmcv/ops/csrc/common/pytorch_cpp_helper.hpp'  # included by every source file
GIB = 2**30


class BuildError(Exception):
    """What went wrong and what to do about it, for the user."""


def cache_folder() -> Path:
    base = os.environ.get('XDG_CACHE_HOME') or Path.home() / '.cache'
    return Path(base) / 'genseg_mm' / 'wheels'


def python_tag() -> str:
    return f'cp{sys.version_info[0]}{sys.version_info[1]}-{sysconfig.get_platform()}'


def mmcv_tag(requirement: str) -> str:
    return 'mmcv' + re.sub(r'[^\w.+]+', '_', requirement.partition('mmcv')[2].lstrip('='))


def has_operators(wheel: Path) -> bool:
    """Whether the file is a whole wheel with the compiled extension inside."""
    if not zipfile.is_zipfile(wheel):
        return False
    with zipfile.ZipFile(wheel) as archive:
        return any(name.startswith('mmcv/_ext') for name in archive.namelist())


def kept_wheel(folder: Path) -> Path | None:
    return next((wheel for wheel in sorted(folder.glob('*.whl')) if has_operators(wheel)), None)


def may_need_compiler(requirement: str) -> bool:
    """Whether no kept wheel can fit this Python, whatever torch it will get."""
    pattern = f'{python_tag()}-torch*-{mmcv_tag(requirement)}-*'
    return not any(kept_wheel(folder) for folder in cache_folder().glob(pattern))


def find_compiler() -> str:
    """The C++ compiler to use.

    Raises:
        BuildError: If there is no compiler, or no Python headers.
    """
    names = [os.environ['CXX']] if os.environ.get('CXX') else ['c++', 'g++', 'clang++']
    compiler = next((path for path in map(shutil.which, names) if path), None)
    if compiler is None:
        raise BuildError(
            f'no C++ compiler found (looked for {", ".join(names)}); the operators of onedl-mmcv '
            'need one. Install it (Debian/Ubuntu: apt-get install g++; Fedora: dnf install '
            'gcc-c++; conda: conda install gxx) or set CXX, then call tools/setup_env.sh again'
        )
    header = Path(sysconfig.get_path('include')) / 'Python.h'
    if not header.is_file():
        version = f'{sys.version_info[0]}.{sys.version_info[1]}'
        raise BuildError(
            f'the headers of Python {version} are missing (expected {header}); the operators of '
            f'onedl-mmcv need them. Install them (Debian/Ubuntu: apt-get install '
            f'python{version}-dev; Fedora: dnf install python3-devel) or set GENSEG_PYTHON to '
            'another Python, then call tools/setup_env.sh again'
        )
    return compiler


def torch_versions() -> tuple[str, str | None]:
    """(version with local part, CUDA version or None), read without the cost of importing torch."""
    spec = find_spec('torch')
    if spec is None:
        raise BuildError('torch is not installed; install it first, mmcv compiles against it')
    facts = runpy.run_path(str(Path(spec.origin).with_name('version.py')))
    return str(facts['__version__']), facts['cuda']


def choose_device(cuda: str | None) -> str:
    """'cpu' or 'cu<version>': for which device to compile. Says so when a GPU stays unused."""
    forced = os.environ.get('FORCE_CUDA') == '1'
    if cuda is None:
        if forced:
            raise BuildError('FORCE_CUDA=1, but the installed torch is a CPU build')
        return 'cpu'
    import torch
    from torch.utils.cpp_extension import CUDA_HOME

    if not forced and not torch.cuda.is_available():
        return 'cpu'
    found = None
    if CUDA_HOME and (Path(CUDA_HOME) / 'bin' / 'nvcc').exists():
        nvcc = [f'{CUDA_HOME}/bin/nvcc', '--version']
        said = subprocess.run(nvcc, capture_output=True, text=True).stdout
        found = re.search(r'release (\d+)\.\d+', said)
    if found and found.group(1) == cuda.split('.')[0]:
        return 'cu' + cuda.replace('.', '')
    have = f'nvcc {found.group(0)}' if found else 'no nvcc'
    problem = f'torch is built for CUDA {cuda}, but {have} was found (CUDA_HOME={CUDA_HOME})'
    if forced:
        raise BuildError(f'FORCE_CUDA=1: {problem}; install the matching CUDA toolkit or unset it')
    print(
        f'mmcv operators: for the CPU only, because {problem}. No model of genseg_mm needs them on '
        'the GPU; for mmdet detectors install that CUDA toolkit and call again with FORCE_CUDA=1'
    )
    return 'cpu'


def wheel_folder(requirement: str, version: str, device: str) -> Path:
    arch = os.environ.get('TORCH_CUDA_ARCH_LIST', '') if device != 'cpu' else ''
    arch = '-' + re.sub(r'[^\w.+]+', '_', arch) if arch else ''
    key = f'{python_tag()}-torch{version}-{mmcv_tag(requirement)}-{device}{arch}'
    return cache_folder() / key


def num_jobs() -> int:
    """Parallel compilers: one per core, but each takes up to 1.5 GiB."""
    memory = os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_AVPHYS_PAGES')
    return max(1, min(len(os.sched_getaffinity(0)), memory * 2 // (3 * GIB)))


@contextmanager
def only_one(folder: Path, waiting: str) -> Iterator[None]:
    """Waits for another process that holds this folder, and says so; the lock outlives execv."""
    handle = os.open(folder, os.O_RDONLY)
    os.set_inheritable(handle, True)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print(waiting, flush=True)
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def precompile_header(source: Path, target: Path, compiler: str) -> bool:
    """Compiles the shared header to `target`.gch (GCC only), which saves 3/4 of the time of a file.

    GCC takes it only if the macros and the code generation flags are those of the files that use
    it; else it reads `target`, a copy of the header, and nothing but time is lost.
    """
    asked = subprocess.run([compiler, '-dM', '-E', '-x', 'c++', '/dev/null'], capture_output=True, text=True)
    if asked.returncode or '__clang__' in asked.stdout:
        print('note: no precompiled header, the compiler is not GCC')
        return False
    from torch.utils.cpp_extension import include_paths

    shutil.copy2(source, target)
    include = [sysconfig.get_path('include'), *include_paths()]
    command = [compiler, *FLAGS.split(), '-fPIC', '-std=c++17', '-w']
    # The macros that torch's BuildExtension defines.
    command += ['-DTORCH_API_INCLUDE_EXTENSION_H', '-DTORCH_EXTENSION_NAME=_ext']
    command += [f'-I{path}' for path in include]
    command += ['-x', 'c++-header', str(target), '-o', f'{target}.gch']
    made = subprocess.run(command, stdout=sys.stderr, stderr=sys.stderr)
    if made.returncode:
        print('note: no precompiled header (it failed), so compiling takes longer')
    return made.returncode == 0


def pip(*arguments: str, env: dict[str, str] | None = None) -> None:
    command = [sys.executable, '-m', 'pip', *arguments]
    if subprocess.run(command, stdout=sys.stderr, stderr=sys.stderr, env=env).returncode:
        raise BuildError(f'`pip {arguments[0]}` failed for onedl-mmcv')


def build(requirement: str, device: str, work: Path) -> Path:
    """Builds the wheel inside `work` and returns its path."""
    compiler = find_compiler()
    no_isolation = ('--no-deps', '--no-build-isolation')
    pip('download', *no_isolation, '--no-binary', 'onedl-mmcv', '-d', str(work), requirement)
    archive = next(work.glob('*.tar.gz'))
    with tarfile.open(archive) as files:
        files.extractall(work, filter='data')
    source = work / archive.name.removesuffix('.tar.gz')
    flags = FLAGS
    copy = work / 'precompiled.hpp'
    unquoted = shlex.quote(str(copy)) == str(copy)  # flags with quotes do not survive the build
    if device == 'cpu' and unquoted and precompile_header(source / HEADER, copy, compiler):
        flags = f'{FLAGS} -w -include {copy}'
    env = os.environ | {'CFLAGS': flags, 'CXXFLAGS': flags, 'CXX': compiler}
    env.setdefault('MAX_JOBS', str(num_jobs()))
    if device == 'cpu':
        env |= {'CUDA_VISIBLE_DEVICES': '', 'FORCE_CUDA': '0'}
    else:
        env['FORCE_CUDA'] = '1'
    pip('wheel', '-v', *no_isolation, '--no-cache-dir', '-w', str(work), str(source), env=env)
    wheel = next(work.glob('*.whl'))
    if not has_operators(wheel):
        raise BuildError(f'{wheel.name} holds no mmcv/_ext*: nothing was compiled')
    return wheel


def cached_wheel(requirement: str) -> Path:
    """The wheel for this Python and torch, built if it is not kept yet."""
    version, cuda = torch_versions()
    device = choose_device(cuda)
    folder = wheel_folder(requirement, version, device)
    folder.mkdir(parents=True, exist_ok=True)
    with only_one(folder, f'note: waited for another build in {folder}'):
        wheel = kept_wheel(folder)
        if wheel is None:
            for left in folder.iterdir():  # of a build that was killed
                shutil.rmtree(left) if left.is_dir() else left.unlink()
            print(f'note: compiled for torch {version}, {device}, with {find_compiler()}')
            with tempfile.TemporaryDirectory(prefix='build-', dir=folder) as work:
                built = build(requirement, device, Path(work))
                wheel = built.replace(folder / built.name)  # at once: never half a wheel
    return wheel


def main() -> None:
    layout = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=layout)
    parser.add_argument('requirement', help="for example 'onedl-mmcv==2.3.6'")
    if platform.system() != 'Linux':
        sys.exit(f'error: Linux is needed, but this is {platform.system()}')
    try:
        print(cached_wheel(parser.parse_args().requirement))
    except BuildError as error:
        sys.exit(f'error: {error}')


if __name__ == '__main__':
    main()
