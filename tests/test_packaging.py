"""setup.py: the version requirements, and what wheels and editable installs hold."""

import importlib
import re
import runpy
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

from packaging.requirements import Requirement

ROOT = Path(__file__).resolve().parents[1]
SETUP = runpy.run_path(str(ROOT / 'setup.py'), run_name='requirements')


def test_requirements_parse_and_pin_the_tested_stack():
    extras = {name: list(map(Requirement, lines)) for name, lines in SETUP['EXTRAS'].items()}
    pins = {wish.name: str(wish.specifier) for wish in extras['mm'] + extras['torch']}
    for name in ('torch', 'onedl-mmcv', 'onedl-mmengine', 'diffusers', 'transformers', 'numpy'):
        assert re.fullmatch(r'==[\d.]+', pins[name]), f'{name} is not pinned: {pins[name]}'
    assert Requirement('opencv-python-headless<4.13').specifier.contains(
        pins['opencv-python-headless'].removeprefix('==')
    )  # what imaug accepts
    names = {wish.name for wishes in extras.values() for wish in wishes}
    assert names & {'torchvision', 'opencv-python'} == set()


def test_pins_lie_within_the_ranges_of_the_package():
    pins = {}
    for line in SETUP['EXTRAS']['mm'] + SETUP['EXTRAS']['torch']:
        name, _, version = line.partition('==')
        pins[name] = version
    checked = 0
    for wish in map(Requirement, SETUP['INSTALL_REQUIRES']):
        if pins.get(wish.name):
            assert wish.specifier.contains(pins[wish.name]), f'{wish} excludes {pins[wish.name]}'
            checked += 1
    assert checked == 6


def test_version_is_the_same_everywhere():
    version = SETUP['version']()
    assert f'\nversion: {version}\n' in (ROOT / 'CITATION.cff').read_text()
    assert importlib.import_module('genseg_mm').__version__ == version


def test_model_index_names_existing_files():
    lines = (ROOT / 'model-index.yml').read_text().splitlines()
    assert lines[0] == 'Import:'
    found = [line.removeprefix('  - ') for line in lines[1:]]
    assert found == ['configs/genmask/metafile.yaml', 'configs/gen2seg/metafile.yaml']
    assert [path for path in found if not (ROOT / path).is_file()] == []


def test_wheel_from_sdist_holds_configs_tools_and_weights(tmp_path: Path):
    source = tmp_path / 'source'
    ignored = shutil.ignore_patterns('__pycache__', '.mim')
    for name in ('genseg_mm', 'configs', 'tools'):
        shutil.copytree(ROOT / name, source / name, ignore=ignored)
    for name in ('setup.py', 'MANIFEST.in', 'model-index.yml', 'LICENSE', 'README.md'):
        shutil.copy2(ROOT / name, source / name)
    (source / 'genseg_mm' / 'weights').mkdir(exist_ok=True)
    (source / 'genseg_mm' / 'weights' / 'probe.safetensors').write_bytes(b'1234')
    quiet = {'check': True, 'cwd': source, 'capture_output': True}
    subprocess.run([sys.executable, 'setup.py', '-q', 'sdist', '-d', tmp_path], **quiet)
    sdist = tmp_path / f'genseg_mm-{SETUP["version"]()}.tar.gz'
    pip = [sys.executable, '-m', 'pip', 'wheel', '--no-deps', '--no-build-isolation']
    subprocess.run([*pip, '-w', tmp_path, sdist], **quiet)
    with zipfile.ZipFile(next(tmp_path.glob('*.whl'))) as wheel:
        names = set(wheel.namelist())
        assert wheel.read('genseg_mm/weights/probe.safetensors') == b'1234'
    data = {str(path.relative_to(source)) for path in (source / 'genseg_mm').rglob('*') if path.is_file()}
    data = {name for name in data if not name.endswith(('.py', '.pyc'))}
    assert {f'genseg_mm/leaderboard/page.{ending}' for ending in ('html', 'css', 'js')} < data
    assert data - names == set()
    for folder in ('configs', 'tools'):
        files = [path for path in (source / folder).rglob('*') if path.is_file()]
        expected = {f'genseg_mm/.mim/{path.relative_to(source)}' for path in files}
        assert expected - names == set()
    assert 'genseg_mm/.mim/model-index.yml' in names
    assert [name for name in names if name.startswith(('tests/', 'tools/', 'configs/'))] == []


def test_editable_install_links_the_mim_files(tmp_path: Path):
    SETUP['ship_mim_files'](tmp_path, link=True)
    SETUP['ship_mim_files'](tmp_path, link=True)  # a second time over the first
    assert sorted(path.name for path in (tmp_path / '.mim').iterdir()) == ['configs', 'model-index.yml', 'tools']
    assert (tmp_path / '.mim' / 'tools').resolve() == ROOT / 'tools'
