"""setup.py: the version requirements, and what wheels and editable installs hold."""

import importlib
import os
import re
import runpy
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from PIL import Image
from short_runs import small_data

from genseg_mm.config_file import read_config_file
from genseg_mm.datasets import ShapesDataset

ROOT = Path(__file__).resolve().parents[1]
# Runs commands in forks of a process that has imported what takes long.
FORKS = """
import os, sys
import genseg_mm.inferencers, genseg_mm.launch.runner, genseg_mm.models
from genseg_mm.command import main
for words in {commands}:
    if not os.fork():
        try:
            main(words)
        finally:
            sys.stdout.flush()
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.wait()[1]) == 0, words
"""
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


@pytest.fixture(scope='module')
def built(tmp_path_factory) -> tuple[Path, Path]:
    """Folder of the sources, and the wheel that is built of their sdist."""
    tmp_path = tmp_path_factory.mktemp('wheel')
    source = tmp_path / 'source'
    ignored = shutil.ignore_patterns('__pycache__', '.mim')
    for name in ('genseg_mm', 'configs', 'tools'):
        shutil.copytree(ROOT / name, source / name, ignore=ignored)
    for name in ('setup.py', 'MANIFEST.in', 'model-index.yml', 'LICENSE', 'README.md', 'CHANGELOG.md'):
        shutil.copy2(ROOT / name, source / name)
    (source / 'genseg_mm' / 'data').mkdir()
    (source / 'genseg_mm' / 'data' / 'probe.safetensors').write_bytes(b'1234')
    quiet = {'check': True, 'cwd': source, 'capture_output': True}
    subprocess.run([sys.executable, 'setup.py', '-q', 'sdist', '-d', tmp_path], **quiet)
    sdist = tmp_path / f'genseg_mm-{SETUP["version"]()}.tar.gz'
    pip = [sys.executable, '-m', 'pip', 'wheel', '--no-deps', '--no-build-isolation']
    subprocess.run([*pip, '-w', tmp_path, sdist], **quiet)
    return source, next(tmp_path.glob('*.whl'))


def test_wheel_from_sdist_holds_configs_tools_and_weights(built: tuple[Path, Path]):
    source, path = built
    with zipfile.ZipFile(path) as wheel:
        names = set(wheel.namelist())
        points = wheel.read(f'genseg_mm-{SETUP["version"]()}.dist-info/entry_points.txt').decode()
        assert points.split() == ['[console_scripts]', 'genseg', '=', 'genseg_mm.command:main']
        assert wheel.read('genseg_mm/data/probe.safetensors') == b'1234'
    data = {str(path.relative_to(source)) for path in (source / 'genseg_mm').rglob('*') if path.is_file()}
    data = {name for name in data if not name.endswith(('.py', '.pyc'))}
    assert {f'genseg_mm/leaderboard/page.{ending}' for ending in ('html', 'css', 'js')} < data
    assert 'genseg_mm/py.typed' in data
    assert data - names == set()
    for folder in ('configs', 'tools'):
        files = [path for path in (source / folder).rglob('*') if path.is_file()]
        expected = {f'genseg_mm/.mim/{path.relative_to(source)}' for path in files}
        assert expected - names == set()
    assert 'genseg_mm/.mim/model-index.yml' in names
    assert [name for name in names if name.startswith(('tests/', 'tools/', 'configs/'))] == []


@pytest.mark.slow
def test_the_wheel_works_without_a_checkout(built: tuple[Path, Path], tmp_path: Path):
    """In a folder of its own: configs and weights by name, and nothing is written beside the package."""
    package, place = tmp_path / 'site', tmp_path / 'place'
    shutil.unpack_archive(built[1], package, 'zip')
    place.mkdir()
    before = sorted(package.rglob('*'))
    environment = {**os.environ, 'PYTHONPATH': str(package), 'PYTHONDONTWRITEBYTECODE': '1', 'OMP_NUM_THREADS': '1'}
    scene = ShapesDataset(num_scenes=1, task='instance', split='test').scene(0)
    Image.fromarray(scene.image[..., ::-1]).save(place / 'photo.png')
    short = ['train_cfg.max_iters=2', 'train_dataloader.batch_size=2', 'default_hooks.checkpoint.interval=2']
    few = small_data(read_config_file('gen2seg_unet_shapes_tiny'))
    commands = [
        ['predict', 'photo.png', 'gen2seg_unet_shapes_long_tiny', '--automatic'],
        ['train', 'gen2seg_unet_shapes_tiny', '--cfg-options', *short, 'train_cfg.val_interval=2', *few],
        ['test', 'gen2seg_unet_shapes_long_tiny', '--cfg-options', *few],
    ]
    code = FORKS.format(commands=commands)
    done = subprocess.run([sys.executable, '-c', code], cwd=place, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    said = done.stdout
    found = int(re.search(r'^images: 1, masks: (\d+), written to: outputs/vis, outputs/preds$', said, re.MULTILINE)[1])
    assert abs(found - len(set(scene.ids.flat) - {0})) <= 1
    assert f'weights: {package.resolve()}/genseg_mm/weights/gen2seg_unet_shapes.safetensors' in said
    assert {path.name for path in place.iterdir()} == {'photo.png', 'outputs', 'work_dirs'}
    assert (place / 'work_dirs/gen2seg_unet_shapes_tiny/iter_2.pth').is_file()
    assert sorted(package.rglob('*')) == before


def test_editable_install_links_the_mim_files(tmp_path: Path):
    SETUP['ship_mim_files'](tmp_path, link=True)
    SETUP['ship_mim_files'](tmp_path, link=True)  # a second time over the first
    assert sorted(path.name for path in (tmp_path / '.mim').iterdir()) == ['configs', 'model-index.yml', 'tools']
    assert (tmp_path / '.mim' / 'tools').resolve() == ROOT / 'tools'
