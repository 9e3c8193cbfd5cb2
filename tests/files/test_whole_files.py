"""A full disk, over all that writes results: one line, the old file stays, nothing else is left."""

import errno
import os
import resource
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from toy_parts import toy_runner

from genseg_mm.datasets.encoding_cache import EncodingCacheWriter
from genseg_mm.datasets.hypersim import write_index
from genseg_mm.datasets.transforms.referring import DescriptionFile
from genseg_mm.evaluation.sample_results import SampleResults
from genseg_mm.files.whole_files import WriteError, check_new_file, explained, scratch_folder, whole_file, write_text
from genseg_mm.hooks import PredictionGridHook
from genseg_mm.inference.results import save_picture
from genseg_mm.launch import user_message

LIMIT = 16 * 1024


@contextmanager
def small_files() -> Iterator[None]:
    """Files of this process may not grow beyond ``LIMIT`` bytes."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (LIMIT, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def noise(seed: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 255, shape, dtype=np.uint8)


def samples(folder: Path, seed: int) -> None:
    values = {'iou': np.random.default_rng(seed).random(9000)}
    items = [f'{row}.jpg' for row in range(9000)]
    SampleResults(items, np.arange(9000), values, {}, {'mIoU': ('mean', 'iou')}).save(folder / 'samples.npz')


def picture(folder: Path, seed: int) -> None:
    save_picture(noise(seed, 200, 200, 3), folder / 'picture.png')


def grid(folder: Path, seed: int) -> None:
    hook = PredictionGridHook()
    hook._rows, hook._captions = [{'image': noise(seed, 200, 200, 3)}], ['']
    hook._page = 1
    logger = SimpleNamespace(info=lambda text: None)
    hook._write(SimpleNamespace(iter=1, work_dir=str(folder), logger=logger), 'val')


def shard(folder: Path, seed: int) -> None:
    cache = EncodingCacheWriter(folder, dict(encoders={}, pipelines={}, dtype='float32'))
    try:
        cache.put('image', f'c{seed}', {'latents': torch.zeros(20_000)})
        cache.flush()
    finally:
        cache._lock.release()


def descriptions(folder: Path, seed: int) -> None:
    DescriptionFile(folder / 'd.json', {}, {'p': {'t': f'{seed}' * 40_000}}).save()


def leaderboard(folder: Path, seed: int) -> None:
    write_text(folder / 'leaderboard.md', f'{seed}' * 40_000)


def index(folder: Path, seed: int) -> None:
    facts = {f'f{number}': seed for number in range(4000)}
    write_index(folder / 'index.csv', {}, facts)


WRITERS = [samples, picture, grid, shard, descriptions, leaderboard, index]


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in folder.rglob('*') if path.is_file() and path.name != '.lock'}


@pytest.mark.parametrize('write', WRITERS, ids=lambda write: write.__name__)
def test_a_full_disk_is_one_line_and_the_old_file_stays(tmp_path: Path, write: Callable):
    write(tmp_path, 1)
    before = contents(tmp_path)
    with small_files(), pytest.raises(OSError) as failed:
        write(tmp_path, 2)
    assert contents(tmp_path) == before
    line = user_message(failed.value)
    assert str(tmp_path) in line and '\n' not in line
    assert 'bytes are free in' in line and f'files may have {LIMIT:,}' in line
    assert f'could not be written: {os.strerror(errno.EFBIG)} (' in line
    write(tmp_path, 2)  # there is room again
    assert contents(tmp_path) != before


def test_a_checkpoint_that_does_not_fit_leaves_the_old_one(tmp_path: Path):
    options = {
        'default_hooks.checkpoint.max_keep_ckpts': 1,
        'default_hooks.checkpoint.save_best': None,
        'default_hooks.visualization': None,
        'train_cfg.val_interval': 1000,
    }
    toy_runner(tmp_path, {**options, 'train_cfg.max_iters': 5}).train()
    old = (tmp_path / 'iter_5.pth').read_bytes()
    runner = toy_runner(tmp_path, options, resume='auto')
    runner.model.register_buffer('large', torch.zeros(100_000), persistent=False)
    runner.load_or_resume()
    runner.model._non_persistent_buffers_set.discard('large')
    with small_files(), pytest.raises(WriteError) as failed:
        runner.train()
    line = user_message(failed.value)
    assert line.startswith(f'{tmp_path}/iter_10.pth could not be written: ')
    needed = int(line.partition('it needs ')[2].partition(' bytes')[0].replace(',', ''))
    assert 400_000 < needed < 403_000 and '\n' not in line
    assert (tmp_path / 'iter_5.pth').read_bytes() == old
    assert [path.name for path in tmp_path.glob('*.pth*')] == ['iter_5.pth']
    assert (tmp_path / 'last_checkpoint').read_text() == str(tmp_path / 'iter_5.pth')


@pytest.mark.parametrize(
    ('code', 'remedy'),
    [
        (errno.ENOSPC, 'make room, then go on'),
        (errno.EDQUOT, 'make room, then go on'),
        (errno.EROFS, 'choose another folder'),
        (errno.EACCES, 'choose another folder'),
    ],
)
def test_the_reason_and_the_remedy_are_those_of_the_system(tmp_path: Path, code: int, remedy: str):
    with pytest.raises(WriteError) as failed, whole_file(tmp_path / 'new', needed=1234567) as part:
        part.write_text('x')
        raise OSError(code, os.strerror(code))
    line = str(failed.value)
    assert line.startswith(f'{tmp_path}/new could not be written: {os.strerror(code)} (it needs 1,234,567 bytes, ')
    assert line.endswith(remedy) and 'nothing of it is left' in line
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(FileNotFoundError), explained(tmp_path / 'new'):
        raise FileNotFoundError(errno.ENOENT, 'another kind of error')


def test_what_killed_writers_left_goes_with_the_next_attempt(tmp_path: Path):
    child = os.fork()
    if child == 0:
        os._exit(0)
    os.waitpid(child, 0)
    # Brackets mean something in a pattern of file names.
    left, running = tmp_path / f'.x[1].json.{child}.part', tmp_path / f'.x[1].json.{os.getppid()}.part'
    other = tmp_path / f'.x1.json.{child}.part'
    for folders in (False, True):
        for path in (left, running, other):
            path.mkdir() if folders else path.touch()
        if folders:
            (left / 'weights').touch()
        with scratch_folder(tmp_path / 'x[1].json') if folders else whole_file(tmp_path / 'x[1].json') as part:
            assert part.is_dir() is folders
            (part / 'weights' if folders else part).write_text('{}')
        assert sorted(tmp_path.iterdir()) == sorted([running, other, tmp_path / 'x[1].json'])
        for path in (running, other):
            path.rmdir() if folders else path.unlink()


def test_a_file_of_results_is_checked_before_anything_is_computed(tmp_path: Path, monkeypatch):
    monkeypatch.setenv('HOME', str(tmp_path))
    (tmp_path / 'file').write_text('mine')
    (tmp_path / 'link').symlink_to('nowhere')
    assert check_new_file('~/no/such/folder/a.json', '--out', False) == tmp_path / 'no/such/folder/a.json'
    assert not (tmp_path / 'no').exists()
    assert check_new_file(tmp_path / 'file', '--out') == check_new_file(tmp_path / 'file', '--out', True)
    for path, error, message in (
        ('file', FileExistsError, 'file is there already: choose another name, or --force replaces it'),
        ('link', FileExistsError, 'link is there already'),
        ('file/a.json', NotADirectoryError, 'file/a.json: its folder .*file is a file, expected a folder'),
        ('.', IsADirectoryError, r'--out: expected a file, but .* is a folder'),
        ('/dev/null', IsADirectoryError, '--out: expected a file, but /dev/null is a device or pipe'),
    ):
        with pytest.raises(error, match=message):
            check_new_file(tmp_path / path, '--out', False)


def test_a_device_stays_one(tmp_path: Path):
    os.mkfifo(tmp_path / 'pipe')
    message = 'pipe could not be written: expected a file, but it is a device or pipe'
    with pytest.raises(WriteError, match=message), whole_file(tmp_path / 'pipe') as temporary:
        temporary.write_text('text')
    assert [own.is_fifo() for own in tmp_path.iterdir()] == [True]


def test_text_goes_to_a_pipe_and_to_the_standard_output(tmp_path: Path, capsys):
    """As ``--json >(jq .)``, ``--json /dev/null`` and ``--json -`` do."""
    os.mkfifo(pipe := tmp_path / 'pipe')
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    write_text(pipe, 'ä')
    assert os.read(reader, 9) == 'ä'.encode() and pipe.is_fifo()
    os.close(reader)
    write_text('-', '1\n')
    assert capsys.readouterr().out == '1\n'


def test_what_is_redirected_to_a_file_stays_what_it_is(tmp_path: Path):
    """``--json /dev/stdout > out.txt``: the name is a link to the file, which must not take its place."""
    code = (
        "from genseg_mm.files import write_text; from genseg_mm.files.whole_files import *; print('before'); "
        "write_text('/dev/stdout', '1\\n'); print('after'); write_text('/dev/stderr', '2\\n')\n"
        "try: check_new_file('/dev/stdout', '--out')\nexcept IsADirectoryError: print('refused')"
    )
    out, err = tmp_path / 'out.txt', tmp_path / 'err.txt'
    with out.open('w') as first, err.open('w') as second:
        subprocess.run([sys.executable, '-c', code], stdout=first, stderr=second, check=True)
    assert out.read_text() == 'before\n1\nafter\nrefused\n' and err.read_text() == '2\n'
    assert Path('/dev/stdout').is_symlink()
    (tmp_path / 'link').symlink_to('out.txt')
    write_text(tmp_path / 'link', 'x')
    assert (tmp_path / 'link').read_text() == 'x'


def test_a_log_that_cannot_be_written_is_said_once_and_the_run_goes_on(tmp_path: Path, capfd):
    runner = toy_runner(tmp_path)
    handler = next(own for own in runner.logger.handlers if hasattr(own, 'baseFilename'))

    def full(text: str) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    runner.logger.setLevel('INFO')
    handler.setLevel('INFO')
    handler.stream.write = full
    for number in range(3):
        runner.logger.info(f'iteration {number}')
    said = capfd.readouterr().err
    assert said.count('could not be written: No space left on device') == 1
    assert handler.baseFilename in said and 'goes on without its log' in said and 'Traceback' not in said
