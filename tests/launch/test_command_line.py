"""What a command line may say: homes, outputs that can be written, names that are text."""

import os
from pathlib import Path

import pytest

from genseg_mm import launch
from genseg_mm.launch.config import CfgOptions

ROOT = Path(__file__).parents[2]


def test_the_home_is_meant_in_every_option(monkeypatch, tmp_path):
    monkeypatch.setenv('HOME', str(tmp_path))
    parser = launch.ToolParser(prog='tool')
    parser.add_argument('inputs')
    parser.add_argument('--out', type=Path)
    parser.add_argument('--texts', nargs='+')
    parser.add_argument('--cfg-options', nargs='+', action=CfgOptions)
    options = ['~/a.jpg', '--out=~/b/c', '--texts', '~5 cars', '~ 2', 'x ~/y', '--cfg-options', 'a.b=~/w', 'c=[~/d,1]']
    found = parser.parse_args(options)
    assert found.inputs == f'{tmp_path}/a.jpg' and found.out == tmp_path / 'b/c'
    assert found.texts == ['~5 cars', '~ 2', 'x ~/y']
    assert found.cfg_options == {'a.b': f'{tmp_path}/w', 'c': [f'{tmp_path}/d', 1]}


def test_outputs_that_can_be_written_are_taken(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv('HOME', str(tmp_path))
    Path('here').mkdir()
    Path('there').symlink_to('here')
    Path('a.json').touch()
    Path('b.json').symlink_to('a.json')
    os.mkfifo('pipe')
    kept = ('new', 'new/ä b/c', 'there/d', './-', '~no_such_user', '../x')
    cases = {
        'file': (*kept, 'a.json', 'b.json'),
        'text': (*kept, 'a.json', 'b.json', '-', 'pipe', '/dev/null', '/dev/stdout'),
        'folder': (*kept, 'here', 'there', '.', '/'),
        'either': (*kept, 'here', 'there', 'a.json'),
        ('.pkl', '.py'): ('a.pkl', 'new/b.py', '~no_such_user/.pkl.py'),
    }
    for writes, values in cases.items():
        parser = launch.ToolParser(prog='tool')
        parser.add_argument('--out', writes=writes)
        assert [parser.parse_args([f'--out={value}']).out for value in values] == list(values), writes
        assert parser.parse_args(['--out=~/a.py']).out == f'{tmp_path}/a.py'


def test_a_file_that_is_read_where_it_is_there_may_lie_where_nothing_can_be_written(tmp_path, monkeypatch, capsys):
    (tmp_path / 'a.pth').touch()
    monkeypatch.setattr(os, 'access', lambda *_: False)
    parser = launch.ToolParser(prog='tool')
    parser.add_argument('--classifier', writes='if absent')
    assert parser.parse_args(['--classifier', f'{tmp_path}/a.pth']).classifier == f'{tmp_path}/a.pth'
    with pytest.raises(SystemExit):
        parser.parse_args(['--classifier', f'{tmp_path}/b.pth'])
    assert 'nothing can be written in' in capsys.readouterr().err


def test_what_only_lists_may_name_results_that_nobody_may_change(tmp_path, monkeypatch, capsys):
    """As ``genseg benchmark SUITE --list --out FOLDER`` shows what another user has measured."""
    monkeypatch.setattr(os, 'access', lambda *_: False)
    parser = launch.ToolParser(prog='tool')
    parser.add_argument('--list', action='store_true')
    parser.add_argument('--out', writes='folder')
    assert parser.parse_args(['--list', '--out', str(tmp_path)]).out == str(tmp_path)
    with pytest.raises(SystemExit):
        parser.parse_args(['--out', str(tmp_path)])
    assert 'nothing can be written in' in capsys.readouterr().err


def test_no_path_needs_its_home_to_be_there() -> None:
    """``Path.expanduser`` fails for a file named ``~a.json``, ``os.path.expanduser`` leaves it as it is."""
    files = [*(ROOT / 'genseg_mm').rglob('*.py'), *(ROOT / 'tools').rglob('*.py')]
    assert [str(own) for own in files if '.expanduser()' in own.read_text()] == []


def test_names_that_are_no_text_are_refused_in_every_option(capsys):
    parser = launch.ToolParser(prog='tool')
    parser.add_argument('--out', type=Path)
    parser.add_argument('--texts', nargs='+')
    for words in (['--out', os.fsdecode(b'a\xff.json')], ['--texts', 'red', 'a\ud83d']):
        with pytest.raises(SystemExit):
            parser.parse_args(words)
        said = capsys.readouterr().err
        assert f'error: argument {words[0]}: expected text in UTF-8, but got {ascii(words[-1])}' in said


def test_a_file_whose_name_begins_with_a_dash_is_said(monkeypatch, tmp_path, capsys):
    monkeypatch.chdir(tmp_path)
    Path('-a b.jpg').touch()
    parser = launch.ToolParser(prog='tool')
    parser.add_argument('inputs')
    for words, hint in (
        ('-a b.jpg', '; a file of that name is given as ./-a b.jpg (--help'),
        ('-b.jpg', '-b.jpg (--help'),
    ):
        with pytest.raises(SystemExit):
            parser.parse_args(['x', words])
        assert hint in capsys.readouterr().err
    assert parser.parse_args(['./-a b.jpg']).inputs == './-a b.jpg'
