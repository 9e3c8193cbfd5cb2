"""What tools/setup_env.sh says and does when something is wrong."""

import csv
import importlib
import json
import os
import re
import runpy
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[2]
SETUP = runpy.run_path(str(ROOT / 'setup.py'), run_name='requirements')
SCRIPTS = sorted([*(ROOT / 'tools').rglob('*.sh'), ROOT / '.ci' / 'run'])


def import_tool(name: str) -> ModuleType:
    module = importlib.import_module(name)
    assert Path(module.__file__).parent == ROOT / 'tools' / 'setup_env'
    return module


@pytest.fixture(autouse=True)
def tools_on_path(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    before = set(sys.modules)
    monkeypatch.syspath_prepend(str(ROOT / 'tools' / 'setup_env'))
    yield
    for name in {'state', 'mmcv_wheel'} - before:
        sys.modules.pop(name, None)


# ------------------------------------------------------------------------------ the scripts


@pytest.mark.parametrize('script', SCRIPTS, ids=lambda path: path.name)
def test_shell_syntax(script: Path):
    said = subprocess.run(['bash', '-n', script], capture_output=True, text=True)
    assert (said.returncode, said.stderr) == (0, '')


@pytest.fixture
def bare_machine(tmp_path: Path) -> Path:
    """A project without environment, and a PATH with bash and nothing that compiles."""
    project, bin_folder = tmp_path / 'project', tmp_path / 'bin'
    ignored = shutil.ignore_patterns('__pycache__')
    shutil.copytree(ROOT / 'tools' / 'setup_env', project / 'tools' / 'setup_env', ignore=ignored)
    shutil.copy2(ROOT / 'tools' / 'setup_env.sh', project / 'tools' / 'setup_env.sh')
    shutil.copy2(ROOT / 'setup.py', project / 'setup.py')
    (project / 'genseg_mm').mkdir()
    shutil.copy2(ROOT / 'genseg_mm' / '__init__.py', project / 'genseg_mm' / '__init__.py')  # the version
    bin_folder.mkdir()
    for name in ('bash', 'dirname', 'cat'):
        (bin_folder / name).symlink_to(shutil.which(name))
    return project


def call_setup(project: Path, *arguments: str, **variables: str) -> subprocess.CompletedProcess:
    folder = project.parent
    env = {'PATH': f'{folder}/bin', 'HOME': str(folder), 'XDG_CACHE_HOME': f'{folder}/cache'}
    command = [shutil.which('bash'), str(project / 'tools' / 'setup_env.sh'), *arguments]
    return subprocess.run(command, env=env | variables, capture_output=True, text=True, timeout=60)


def stub_python(project: Path, text: str) -> Path:
    path = project.parent / 'bin' / 'python3'
    path.write_text(f'#!{shutil.which("bash")}\n{text}\n')
    path.chmod(0o755)
    return path


def test_old_python_is_named(bare_machine: Path):
    python = stub_python(bare_machine, '[ "$1" != --version ] || echo Python 3.9.2; exit 1')
    said = call_setup(bare_machine)
    assert said.returncode == 1
    assert said.stderr.startswith(
        f'error: genseg_mm needs Python 3.11 or newer, with venv, but found {python} (Python 3.9.2)'
    )
    assert 'GENSEG_PYTHON' in said.stderr


def test_missing_venv_module_is_named(bare_machine: Path):
    stub_python(bare_machine, 'case $2 in *ensurepip*) exit 1 ;; esac')
    said = call_setup(bare_machine)
    assert said.returncode == 1
    assert 'apt-get install python3-venv' in said.stderr


def test_no_python_and_unknown_argument(bare_machine: Path):
    said = call_setup(bare_machine)
    assert (said.returncode, 'but found none of python3' in said.stderr) == (1, True)
    said = call_setup(bare_machine, '--actve')
    assert (said.returncode, "unknown argument '--actve'" in said.stderr) == (1, True)
    said = call_setup(bare_machine, '--help')
    assert (said.returncode, said.stdout[:31]) == (0, 'usage: bash tools/setup_env.sh ')


def test_objects_are_fetched_where_a_network_is_at_hand(bare_machine: Path):
    stub_python(bare_machine, '')
    (bare_machine.parent / 'bin' / 'python').symlink_to(bare_machine.parent / 'bin' / 'python3')
    stub_python(
        bare_machine,
        'case "$*" in *"prepare_objects.py --sentence-encoder") echo one; echo "$SAYS"; exit "$CODE" ;; esac',
    )
    said = call_setup(bare_machine, '--active', '--objects', SAYS='wrote it: 3 objects', CODE='0')
    assert (said.returncode, said.stdout.splitlines()[-1]) == (0, 'objects: one; wrote it: 3 objects')
    said = call_setup(bare_machine, '--active', '--objects', SAYS='error: no network', CODE='2')
    assert said.returncode == 0
    assert said.stdout.splitlines()[-1] == (
        'objects: not whole, scenes of shapes go on without them (error: no network)'
    )
    assert 'objects: ' not in call_setup(bare_machine, '--active').stdout


def test_missing_compiler_is_named_before_anything_is_made(bare_machine: Path):
    said = call_setup(bare_machine, GENSEG_PYTHON=sys.executable)
    assert said.returncode == 1
    assert 'error: no C++ compiler found (looked for c++, g++, clang++)' in said.stderr
    assert 'apt-get install g++' in said.stderr
    assert not (bare_machine / '.venv').exists()


def test_this_environment_meets_the_requirements():
    state = import_tool('state')
    wanted = [line for name in SETUP['TESTED'] for line in SETUP['EXTRAS'][name]]
    assert len(wanted) > 20
    assert state.missing([line for line in wanted if 'mmcv' not in line]) == []
    wishes = ['torch>=99', 'numpy>=1', 'no-such-thing']
    assert sorted(state.missing(wishes)) == ['no-such-thing', 'torch>=99']


# ---------------------------------------------------------------- whose the environment is


def contents(folder: Path) -> dict[str, object]:
    """All that lies below a folder, byte code of tools aside: targets of links, bytes, times."""
    found = {}
    for path in sorted(own for own in folder.rglob('*') if 'tools' not in own.parts):
        own = path.lstat()
        data = os.readlink(path) if path.is_symlink() else path.is_file() and path.read_bytes()
        found[str(path.relative_to(folder))] = (data, own.st_mtime_ns, own.st_mode)
    return found


def mark(home: Path, project: object, **facts: object) -> None:
    home.mkdir(parents=True, exist_ok=True)
    stamp = {'wanted': {}, 'files': None, 'project': str(project), **facts}
    (home / 'genseg_mm.json').write_text(json.dumps(stamp))


def other_environment(folder: Path) -> Path:
    """A whole one, of somebody else, whose Python runs."""
    (folder / 'bin').mkdir(parents=True)
    (folder / 'lib').mkdir()
    (folder / 'bin' / 'python').symlink_to(sys.executable)
    (folder / 'precious.txt').write_text('keep')
    return folder


def linked(home: Path) -> None:
    home.symlink_to(other_environment(home.parents[1] / 'other'))


def linked_to_our_own_kind(home: Path) -> None:
    linked(home)
    mark(home, home.parent)


def dangling(home: Path) -> None:
    home.symlink_to(home.parents[1] / 'nowhere')


def a_file(home: Path) -> None:
    home.write_text('keep')


def conda(home: Path) -> None:
    (other_environment(home) / 'conda-meta').mkdir()


def plain_venv(home: Path) -> None:
    (other_environment(home) / 'pyvenv.cfg').write_text('home = /usr/bin')


def notes(home: Path) -> None:
    home.mkdir()
    (home / 'precious.txt').write_text('keep')


def of_another_checkout(home: Path) -> None:
    mark(other_environment(home), home.parents[1] / 'elsewhere')


def moved(home: Path) -> None:
    """As written before the project was named in its own place."""
    (other_environment(home) / 'genseg_mm.json').write_text(
        json.dumps({'wanted': {'project': '/before', 'prefix': '/before/.venv'}, 'files': ['x']})
    )


def broken_marker(home: Path) -> None:
    (other_environment(home) / 'genseg_mm.json').write_text('{"project": ')


def leads_out(home: Path) -> None:
    mark(home, home.parent)
    outside = other_environment(home.parents[1] / 'other')
    (home / 'lib').symlink_to(outside / 'lib')


FOREIGN = {
    linked: '.venv is a link',
    linked_to_our_own_kind: '.venv is a link',
    dangling: '.venv is a link',
    a_file: '.venv is a file',
    conda: 'is a conda environment that set-up did not make',
    plain_venv: 'is an environment that set-up did not make',
    notes: 'is a folder that set-up did not make',
    of_another_checkout: 'was made for the project in',
    moved: 'was made for the project in /before',
    broken_marker: 'is a folder that set-up did not make',
    leads_out: 'outside of the environment',
}


@pytest.mark.parametrize('make', FOREIGN, ids=lambda make: make.__name__)
def test_what_setup_did_not_make_stays_untouched(bare_machine: Path, make: Callable):
    stub_python(bare_machine, f'exec {sys.executable} -B "$@"')
    make(bare_machine / '.venv')
    before = contents(bare_machine.parent)
    said = call_setup(bare_machine)
    assert said.returncode == 1
    error = said.stderr.splitlines()[-1]
    assert error.startswith('error: ') and FOREIGN[make] in error
    assert any(word in error for word in ('--active', 'call tools/setup_env.sh again'))
    assert len([line for line in said.stderr.splitlines() if 'error' in line]) == 1
    assert contents(bare_machine.parent) == before


def nothing(home: Path) -> None:
    pass


def broken_own(home: Path) -> None:
    mark(home, home.parent)
    (home / 'lib').mkdir()


@pytest.mark.parametrize('make', [nothing, Path.mkdir, broken_own], ids=lambda make: make.__name__)
def test_what_is_free_or_its_own_setup_takes(bare_machine: Path, make: Callable):
    stub_python(bare_machine, f'exec {sys.executable} -B "$@"')
    make(bare_machine / '.venv')
    assert 'no C++ compiler found' in call_setup(bare_machine).stderr  # the next step


def test_remaking_empties_its_own_environment_and_nothing_behind_links(tmp_path: Path):
    state = import_tool('state')
    home, outside = tmp_path / '.venv', other_environment(tmp_path / 'other')
    mark(home, tmp_path)
    (home / 'lib' / 'deep').mkdir(parents=True)
    (home / 'lib64').symlink_to(outside)
    before = contents(outside)
    state.clear(home)
    assert [path.name for path in home.iterdir()] == ['genseg_mm.json']
    assert contents(outside) == before
    assert state.refusal(home, tmp_path) is None


def test_tools_behind_a_link_would_set_up_another_project(bare_machine: Path):
    other = bare_machine.parent / 'linking'
    other.mkdir()
    (other / 'tools').symlink_to(bare_machine / 'tools')
    said = call_setup(other)
    assert (said.returncode, 'tools is a link to' in said.stderr) == (1, True)
    assert not (bare_machine / '.venv').exists()
    through = bare_machine.parent / 'through'  # the whole project behind a link is no danger
    through.symlink_to(bare_machine)
    assert 'but found none of python3' in call_setup(through).stderr


def test_active_leaves_the_environment_of_another_checkout_alone(bare_machine: Path):
    home = bare_machine.parent / 'elsewhere' / '.venv'
    subprocess.run([sys.executable, '-m', 'venv', '--without-pip', home], check=True)
    mark(home, home.parent)
    before = contents(home)
    path = f'{home}/bin:{bare_machine.parent}/bin'
    said = call_setup(bare_machine, '--active', PATH=path, PYTHONDONTWRITEBYTECODE='1')
    assert said.returncode == 1
    assert f'is the environment of the project in {home.parent}' in said.stderr.splitlines()[-1]
    assert contents(home) == before


def test_active_removes_nothing_that_was_there_before(tmp_path: Path, monkeypatch):
    state = import_tool('state')
    monkeypatch.setattr(state, 'SITE', tmp_path)
    monkeypatch.setattr(state, 'STAMP', tmp_path / 'stamp.json')
    monkeypatch.setattr(state, 'is_own', lambda: False)  # whatever Python runs the tests
    main = runpy.run_path(str(ROOT / 'tools/setup_env/__main__.py'))
    calls = []
    monkeypatch.setitem(main['fix_opencv'].__globals__, 'pip', lambda *words: calls.append(words))
    write_distribution(tmp_path, 'opencv_python', {'cv2/__init__.py': b'x'})
    state.note_guests()
    main['fix_opencv'](state.wanted())
    assert calls == [] and state.has_second_opencv() is False
    # What pip brought along later is ours to take away.
    (tmp_path / 'stamp.json').unlink()
    (tmp_path / 'opencv_python-1.0.dist-info').rename(tmp_path / 'aside')
    state.note_guests()
    (tmp_path / 'aside').rename(tmp_path / 'opencv_python-1.0.dist-info')
    assert state.has_second_opencv() is True
    main['fix_opencv'](state.wanted())
    assert [call[1] for call in calls] == ['uninstall', 'install']


# ------------------------------------------------------------------- what is wrong, and why


@pytest.mark.parametrize(
    ('output', 'remedy'),
    [
        ('OSError: [Errno 28] No space left on device', 'free some space'),
        ("NewConnectionError('<...>: [Errno 111] Connection refused')\nNo matching distribution "
         'found for torch==2.13.0', 'check the network'),
        ('ERROR: No matching distribution found for torch==2.13.0', 'GENSEG_PYTHON'),
        ('fatal error: Python.h: No such file or directory', 'python3-dev'),
        ('g++: fatal error: Killed signal terminated program cc1plus', 'MAX_JOBS=1'),
        ('something nobody foresaw', None),
    ],
)  # fmt: skip
def test_errors_carry_a_remedy_and_the_end_of_the_log(tmp_path: Path, output: str, remedy: str):
    log = tmp_path / 'log'
    log.write_text('noise\n' * 50 + output)
    main = runpy.run_path(str(ROOT / 'tools/setup_env/__main__.py'))
    error = str(main['explain']('torch', log))
    first, *tail = error.splitlines()
    assert first == 'torch failed' if remedy is None else remedy in first
    assert tail[-1] == f'    the whole log: {log}'
    assert tail[-2] == '    | ' + output.splitlines()[-1]
    assert len(tail) == 13


def write_distribution(site: Path, name: str, files: dict[str, bytes]) -> Path:
    folder = site / f'{name}-1.0.dist-info'
    folder.mkdir(parents=True)
    (folder / 'METADATA').write_text(f'Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n')
    with (folder / 'RECORD').open('w', newline='') as out:
        rows = csv.writer(out)
        for path, data in files.items():
            (site / path).parent.mkdir(exist_ok=True)
            (site / path).write_bytes(data)
            rows.writerow([path, 'sha256=0', len(data)])
        rows.writerow([f'{folder.name}/RECORD', '', ''])
    return folder


def test_incomplete_distributions_are_forgotten(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    state = import_tool('state')
    monkeypatch.setattr(state, 'SITE', tmp_path)
    for name in ('whole', 'cut', 'gone', 'unrecorded', 'opencv_python'):
        write_distribution(tmp_path, name, {f'{name}/__init__.py': b'x = 1\n'})
    (tmp_path / 'cut' / '__init__.py').write_bytes(b'x')
    (tmp_path / 'gone' / '__init__.py').unlink()
    (tmp_path / 'unrecorded-1.0.dist-info' / 'RECORD').unlink()
    (tmp_path / '~ut').mkdir()
    assert state.forget_incomplete() == ['cut-1.0', 'gone-1.0', 'unrecorded-1.0']
    assert sorted(path.name for path in tmp_path.glob('*.dist-info')) == [
        'opencv_python-1.0.dist-info',
        'whole-1.0.dist-info',
    ]
    assert not (tmp_path / '~ut').exists()


def test_defects_are_found_one_by_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    state = import_tool('state')
    monkeypatch.setattr(state, 'SITE', tmp_path)
    monkeypatch.setattr(state, 'STAMP', tmp_path / 'stamp.json')
    monkeypatch.delenv('GENSEG_TORCH', raising=False)
    write_distribution(tmp_path, 'whole', {'whole/__init__.py': b'x = 1\n'})
    assert state.first_defect() == 'no set-up was finished in it'
    state.write_stamp(state.wanted(), files=None)
    assert state.first_defect() == 'no set-up was finished in it'
    state.write_stamp(state.wanted(), state.inventory())
    assert state.first_defect() is None
    assert json.loads(state.STAMP.read_text())['project'] == str(ROOT)
    assert json.loads(state.STAMP.read_text())['files'] == [
        'whole',
        'whole-1.0.dist-info',
        'whole-1.0.dist-info/RECORD',
    ]
    write_distribution(tmp_path, 'opencv_python', {})
    assert state.first_defect() == 'opencv-python was installed over the headless build'
    shutil.rmtree(tmp_path / 'whole')
    assert state.first_defect() == 'whole is missing'
    monkeypatch.setenv('GENSEG_TORCH', 'torch==9.9')
    assert state.first_defect() == 'another override is wanted'


def test_torch_override_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    state = import_tool('state')
    monkeypatch.setattr(state, 'STAMP', tmp_path / 'stamp.json')
    monkeypatch.delenv('GENSEG_TORCH', raising=False)
    assert state.wanted()['torch'] == SETUP['EXTRAS']['torch'][0]
    monkeypatch.setenv('GENSEG_TORCH', 'torch==2.12.0 --index-url file:///wheels')
    state.write_stamp(state.wanted(), files=None)
    monkeypatch.delenv('GENSEG_TORCH')
    assert state.wanted()['torch'] == 'torch==2.12.0 --index-url file:///wheels'


# ------------------------------------------------------------------------- the kept wheel


def write_wheel(path: Path, *names: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, 'w') as wheel:
        for name in names:
            wheel.writestr(name, 'x')
    return path


def test_only_whole_wheels_with_operators_are_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    mmcv_wheel = import_tool('mmcv_wheel')
    monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path))
    requirement = 'onedl-mmcv==2.3.6'
    folder = mmcv_wheel.wheel_folder(requirement, '2.13.0+cpu', 'cpu')
    tag = f'cp{sys.version_info[0]}{sys.version_info[1]}'
    assert folder.parent == tmp_path / 'genseg_mm' / 'wheels'
    assert re.fullmatch(rf'{tag}-[\w.-]+-torch2\.13\.0\+cpu-mmcv2\.3\.6-cpu', folder.name)
    assert mmcv_wheel.may_need_compiler(requirement)
    write_wheel(folder / 'a.whl', 'mmcv/__init__.py')  # pip's isolated build makes such a one
    (folder / 'b.whl').write_bytes(b'PK cut short')
    assert mmcv_wheel.kept_wheel(folder) is None
    good = write_wheel(folder / 'c.whl', 'mmcv/__init__.py', f'mmcv/_ext.{tag}.so')
    assert mmcv_wheel.kept_wheel(folder) == good
    assert not mmcv_wheel.may_need_compiler(requirement)
    assert mmcv_wheel.may_need_compiler('onedl-mmcv==2.3.7')
    monkeypatch.setenv('TORCH_CUDA_ARCH_LIST', '8.0;9.0')
    other = mmcv_wheel.wheel_folder(requirement, '2.13.0', 'cu130')
    assert other.name.endswith('-torch2.13.0-mmcv2.3.6-cu130-8.0_9.0')


def test_missing_python_headers_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    mmcv_wheel = import_tool('mmcv_wheel')
    (tmp_path / 'c++').write_text('#!/bin/sh\n')
    (tmp_path / 'c++').chmod(0o755)
    monkeypatch.setenv('PATH', f'{tmp_path}{os.pathsep}{os.environ["PATH"]}')
    monkeypatch.delenv('CXX', raising=False)
    monkeypatch.setattr(mmcv_wheel.sysconfig, 'get_path', lambda name: str(tmp_path))
    version = f'{sys.version_info[0]}.{sys.version_info[1]}'
    with pytest.raises(mmcv_wheel.BuildError, match=rf'apt-get install python{version}-dev'):
        mmcv_wheel.find_compiler()


def test_forced_cuda_needs_a_cuda_torch(monkeypatch: pytest.MonkeyPatch):
    mmcv_wheel = import_tool('mmcv_wheel')
    monkeypatch.delenv('FORCE_CUDA', raising=False)
    assert mmcv_wheel.choose_device(None) == 'cpu'
    monkeypatch.setenv('FORCE_CUDA', '1')
    with pytest.raises(mmcv_wheel.BuildError, match='the installed torch is a CPU build'):
        mmcv_wheel.choose_device(None)
