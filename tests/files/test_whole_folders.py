"""Folders with a record of what is in them, and writing beside the training."""

import ast
import re
import threading
from pathlib import Path

import pytest

import genseg_mm
from genseg_mm.files.background import BackgroundWriter
from genseg_mm.files.whole_folders import (
    RECORD,
    check_folder,
    check_sizes,
    crc32_of,
    publish_folder,
    recover_folders,
    whole_folder,
    write_record,
)

PACKAGE = Path(genseg_mm.__file__).parent


def fill(folder: Path, content: bytes = b'weights') -> Path:
    """A whole folder that lacks its name at most."""
    folder.mkdir()
    (folder / 'a.bin').write_bytes(content)
    (folder / 'b.bin').write_bytes(b'')
    files = {name: ((folder / name).stat().st_size, crc32_of(folder / name)) for name in ('a.bin', 'b.bin')}
    write_record(folder, files, iter=3)
    return folder


def test_crc32_is_that_of_the_standard(tmp_path):
    (tmp_path / 'a').write_bytes(b'123456789')
    assert crc32_of(tmp_path / 'a') == 0xCBF43926


def test_each_damage_is_named(tmp_path):
    assert check_folder(fill(tmp_path / 'whole'))['iter'] == 3
    damage = {
        r'truncated\b.*expected 7 bytes, but got 6': lambda own: (own / 'a.bin').write_bytes(b'weight'),
        'a.bin is another file, expected 7 bytes, but got 8': lambda own: (own / 'a.bin').write_bytes(b'weights2'),
        'b.bin of 0 bytes, but it is missing': lambda own: (own / 'b.bin').unlink(),
        'expected complete.json, which is written last': lambda own: (own / RECORD).unlink(),
        'complete.json is no valid JSON|complete.json': lambda own: (own / RECORD).write_text('{"format": 1,'),
        'format 1, but got another': lambda own: (own / RECORD).write_text('{"format": 1, "files": {"../x": [1, 2]}}'),
    }
    for number, (message, do) in enumerate(damage.items()):
        folder = fill(tmp_path / f'{number}')
        do(folder)
        with pytest.raises(ValueError, match=message) as error:
            check_sizes(folder)
        assert '\n' not in str(error.value) and str(folder) in str(error.value)
    folder = fill(tmp_path / 'one bit')
    (folder / 'a.bin').write_bytes(b'Weights')
    assert check_sizes(folder)['files']['a.bin'][0] == 7
    with pytest.raises(ValueError, match=re.escape(f'{folder} is corrupt: wrong checksum of a.bin')):
        check_folder(folder)


def test_a_folder_is_replaced_whole_or_stays(tmp_path, monkeypatch):
    path, rename = tmp_path / 'saved', Path.rename

    def content() -> list[str]:
        assert [own.name for own in tmp_path.iterdir()] == ['saved']
        return [own.read_text() for own in path.iterdir()]

    def write(text: str) -> None:
        with whole_folder(path) as place:
            (place / 'file').write_text(text)

    write('old')
    with pytest.raises(ZeroDivisionError), whole_folder(path) as place:
        (place / 'file').write_text('half')
        raise ZeroDivisionError
    assert content() == ['old']
    with monkeypatch.context() as patched:  # the new one cannot be renamed
        patched.setattr(Path, 'rename', lambda own, new: rename(own, new if own.suffix != '.part' else 'no/such'))
        with pytest.raises(FileNotFoundError):
            write('lost')
    assert content() == ['old']
    path.rename(tmp_path / '.saved.before')  # a kill between two renames, then an error
    with pytest.raises(ZeroDivisionError), whole_folder(path):
        raise ZeroDivisionError
    assert content() == ['old']
    (tmp_path / '.saved.before').mkdir()  # a kill behind them
    write('new')
    assert content() == ['new']
    (tmp_path / 'file').write_text('mine')
    with (
        pytest.raises(NotADirectoryError, match='expected a folder, but .*file is a file'),
        whole_folder(tmp_path / 'file'),
    ):
        pass
    assert (tmp_path / 'file').read_text() == 'mine'


def test_what_is_moved_to_its_name_is_written_where_the_next_run_finds_it():
    """tempfile's folders beside a result have names that nobody removes after a kill."""
    for root in (PACKAGE, PACKAGE.parent / 'tools'):
        for path in root.rglob('*.py'):
            if path.name == 'mmcv_wheel.py':  # which empties its folder itself, before the package is there
                continue
            for node in ast.walk(ast.parse(path.read_text(encoding='utf-8'))):
                if isinstance(node, ast.Call) and ast.unparse(node.func).startswith('tempfile.'):
                    assert 'dir' not in [own.arg for own in node.keywords], f'{path}: scratch_folder, whole_folder'


def test_a_kill_between_any_two_steps_of_publishing_loses_nothing(tmp_path, monkeypatch):
    """The folder that was there, or the new one, is there afterwards; nothing else is."""
    import os
    import shutil

    class Kill(BaseException):
        pass

    steps = ['rmtree', 'rename', 'rename', 'rmtree']
    for number in range(len(steps) + 1):
        work = tmp_path / str(number)
        work.mkdir()
        fill(work / 'iter_3', b'old')
        fill(work / 'iter_3.tmp', b'new')
        left = [number]

        def counted(function, left=left):
            def call(*args, **kwargs):
                if left[0] == 0:
                    raise Kill
                left[0] -= 1
                return function(*args, **kwargs)

            return call

        with monkeypatch.context() as patch:
            patch.setattr(os, 'rename', counted(os.rename))
            patch.setattr(shutil, 'rmtree', counted(shutil.rmtree))
            try:
                publish_folder(work / 'iter_3')
            except Kill:
                pass
        recover_folders([own for own in work.iterdir() if own.name.endswith('.tmp')])
        assert [own.name for own in work.iterdir()] == ['iter_3']
        check_folder(work / 'iter_3')
        assert (work / 'iter_3/a.bin').read_bytes() == (b'new' if number >= 2 else b'old')


def test_what_was_never_completed_is_deleted_and_said(tmp_path):
    fill(tmp_path / 'iter_1.tmp')
    (tmp_path / 'iter_1.tmp' / RECORD).unlink()
    fill(tmp_path / 'iter_2.tmp')
    lines = recover_folders(sorted(tmp_path.iterdir()))
    assert [own.name for own in tmp_path.iterdir()] == ['iter_2']
    assert [line.split()[0] for line in lines] == ['Deleting', 'Publishing']


class TestBackgroundWriter:
    def test_one_write_at_a_time_and_what_follows_it(self):
        writer, gate, order = BackgroundWriter(), threading.Event(), []
        writer.start(lambda: (gate.wait(), order.append('first')))
        writer.then(lambda: order.append('after first'))
        assert order == []
        gate.set()
        writer.start(lambda: order.append('second'))
        writer.wait()
        writer.then(lambda: order.append('at once'))
        assert order == ['first', 'after first', 'second', 'at once']

    def test_an_error_is_raised_once_and_nothing_follows(self):
        writer, followed = BackgroundWriter(), []
        gate = threading.Event()

        def fail() -> None:
            gate.wait()
            raise OSError('disk full')

        writer.start(fail)
        writer.then(lambda: followed.append(1))
        writer.check()
        gate.set()
        with pytest.raises(OSError, match='disk full'):
            writer.wait()
        writer.check()
        assert followed == []
