"""Reading checkpoints safely, and finding the newest whole one."""

import logging
import os
import pickle
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.logging import HistoryBuffer
from mmengine.runner import CheckpointLoader
from mmengine.runner.checkpoint import load_checkpoint
from safetensors.torch import save_file
from torch import nn

from genseg_mm import checkpoint as module
from genseg_mm.checkpoint import check_whole, find_resumable, load_weights_only, use_safe_loading
from genseg_mm.inference.build_model import load_weights


class Runs:
    """Unpickles by calling a function."""

    def __init__(self, function: object, *args: object) -> None:
        self.function, self.args = function, args

    def __reduce__(self) -> tuple:
        return self.function, self.args


def save(path: Path, iteration: int, time: str = '20260101_000000', **more: object) -> Path:
    """A training state such as a runner writes."""
    history = HistoryBuffer()
    history.update(2.0)
    history.update(4.0)
    state = dict(
        meta=dict(iter=iteration, epoch=0, time=time),
        message_hub=dict(log_scalars={'train/loss': history}, runtime_info=dict(best=np.float64(7))),
        state_dict=dict(weight=torch.arange(1000.0)),
        optimizer=dict(state={}, param_groups=[]),
        **more,
    )
    torch.save(state, path)
    return path


@pytest.fixture
def warnings(monkeypatch) -> list[str]:
    """What was logged as a warning."""
    messages = []

    def record(message: str, logger: object = None, level: int = logging.INFO) -> None:
        if level == logging.WARNING:
            messages.append(message)

    monkeypatch.setattr(module, 'print_log', record)
    return messages


class TestLoadWeightsOnly:
    def test_reads_what_a_runner_writes(self, tmp_path: Path) -> None:
        read = load_weights_only(str(save(tmp_path / 'a.pth', 5)))
        assert torch.equal(read['state_dict']['weight'], torch.arange(1000.0))
        assert read['message_hub']['log_scalars']['train/loss'].mean() == 3.0
        assert read['message_hub']['runtime_info']['best'] == 7
        assert read['meta']['iter'] == 5

    @pytest.mark.parametrize(
        ('culprit', 'name'),
        [
            (Runs(os.system, 'touch {}'), 'posix.system'),
            (Runs(eval, "open('{}', 'w')"), 'eval'),
            (Runs(getattr, HistoryBuffer, '__init__'), 'builtins.getattr'),
            (Runs(getattr, torch.Tensor, 'add_'), 'builtins.getattr'),
        ],
    )
    def test_refuses_to_run_code_and_names_it(self, tmp_path: Path, culprit: Runs, name: str) -> None:
        trace = tmp_path / 'trace'
        culprit.args = tuple(a.format(trace) if isinstance(a, str) else a for a in culprit.args)
        path = save(tmp_path / 'evil.pth', 1, extra=culprit)
        with pytest.raises(ValueError, match=f'evil.pth was refused: loading it would need {name}'):
            load_weights_only(str(path))
        assert not trace.exists()

    def test_refuses_a_bare_pickle_too(self, tmp_path: Path) -> None:
        path = tmp_path / 'bare.pth'
        path.write_bytes(pickle.dumps(Runs(os.system, f'touch {tmp_path}/trace'), protocol=2))
        with pytest.raises(ValueError, match=r'bare\.pth'):
            load_weights_only(str(path))
        assert not (tmp_path / 'trace').exists()

    @pytest.mark.parametrize('size', [0, 1, 100, 3000, -30, -1])
    def test_truncated_files_are_named_with_their_size(self, tmp_path: Path, size: int) -> None:
        whole = save(tmp_path / 'a.pth', 5).read_bytes()
        path = tmp_path / 'cut.pth'
        path.write_bytes(whole[:size])
        expected = size if size >= 0 else len(whole) + size
        for read in (load_weights_only, check_whole):
            with pytest.raises(ValueError, match=rf'cut\.pth is truncated.*\({expected} bytes\)'):
                read(str(path))

    @pytest.mark.parametrize('content', [b'hello', b'<html>404</html>', bytes(range(256))])
    def test_other_files_are_no_checkpoints(self, tmp_path: Path, content: bytes) -> None:
        path = tmp_path / 'other.pth'
        path.write_bytes(content)
        with pytest.raises(ValueError, match=r'other\.pth is truncated, or not a file of torch'):
            load_weights_only(str(path))

    def test_a_device_that_is_not_here_is_no_damage(self, tmp_path: Path) -> None:
        save(tmp_path / 'a.pth', 5)
        save_file({'weight': torch.ones(2)}, tmp_path / 'a.safetensors')
        missing = f'cuda:{torch.cuda.device_count()}'
        for name in ('a.pth', 'a.safetensors'):
            for device in (missing, torch.device(missing)):
                with pytest.raises(ValueError, match=f'device {missing} is not here'):
                    load_weights_only(str(tmp_path / name), device)

    def test_missing_file(self, tmp_path: Path) -> None:
        for read in (load_weights_only, check_whole):
            with pytest.raises(FileNotFoundError, match=r'no\.pth does not exist'):
                read(str(tmp_path / 'no.pth'))


def test_check_whole_sees_a_single_wrong_byte(tmp_path: Path) -> None:
    path = save(tmp_path / 'a.pth', 5)
    check_whole(str(path))
    content = bytearray(path.read_bytes())
    content[content.index(np.float32(500).tobytes())] ^= 1
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r'a\.pth is corrupt: wrong checksum of .*data/'):
        check_whole(str(path))


def test_safe_loading_reaches_every_mmengine_user(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(CheckpointLoader, '_schemes', dict(CheckpointLoader._schemes))
    monkeypatch.setenv('TORCH_FORCE_WEIGHTS_ONLY_LOAD', '0')
    use_safe_loading()
    model = nn.Linear(2, 1)
    path = tmp_path / 'evil.pth'
    torch.save(dict(state_dict=model.state_dict(), extra=Runs(os.system, 'true')), path)
    with pytest.raises(ValueError, match='was refused'):
        load_checkpoint(model, str(path))
    with pytest.raises(pickle.UnpicklingError):
        torch.load(path, weights_only=False)
    torch.save(torch.zeros(3), path)
    with pytest.raises(ValueError, match='must hold a dict, but got Tensor'):
        load_checkpoint(model, str(path))
    torch.save(dict(state_dict=dict(weight=torch.ones(1, 2), bias=torch.zeros(1))), path)
    load_checkpoint(model, str(path))
    assert model.weight.tolist() == [[1.0, 1.0]]


class TestFindResumable:
    def test_newest_goes_by_the_time_inside(self, tmp_path: Path) -> None:
        save(tmp_path / 'iter_900.pth', 900, '20260101_000000')  # of an older training in this folder
        newest = save(tmp_path / 'iter_20.pth', 20, '20260102_000001')
        save(tmp_path / 'iter_10.pth', 10, '20260102_000001')  # within the same second
        os.utime(newest, (0, 0))  # a copied folder
        assert find_resumable(str(tmp_path)) == str(newest)

    def test_falls_back_over_broken_ones_and_names_them(self, tmp_path: Path, warnings) -> None:
        good = save(tmp_path / 'iter_1.pth', 1, '20260101_000001')
        damaged = save(tmp_path / 'iter_2.pth', 2, '20260101_000002')
        content = bytearray(damaged.read_bytes())
        content[content.index(np.float32(500).tobytes())] ^= 1
        damaged.write_bytes(content)
        cut = save(tmp_path / 'iter_3.pth', 3, '20260101_000003')
        cut.write_bytes(cut.read_bytes()[:2000])
        (tmp_path / 'last_checkpoint').write_text(str(cut))
        assert find_resumable(str(tmp_path)) == str(good)
        assert len(warnings) == 2
        assert 'iter_3.pth is truncated' in warnings[0] and '(2000 bytes)' in warnings[0]
        assert 'iter_2.pth is corrupt' in warnings[1]
        assert cut.exists() and damaged.exists()

    def test_cleans_up_after_an_interrupted_save(self, tmp_path: Path) -> None:
        good = save(tmp_path / 'iter_1.pth', 1)
        for name in ('iter_2.pth.tmp', 'iter_2.pth.stream.tmp', 'last_checkpoint.tmp', 'mine.tmp'):
            (tmp_path / name).write_bytes(b'PK')
        assert find_resumable(str(tmp_path)) == str(good)
        assert sorted(path.name for path in tmp_path.iterdir()) == ['iter_1.pth', 'mine.tmp']

    def test_ignores_what_holds_no_training_state(self, tmp_path: Path, warnings) -> None:
        good = save(tmp_path / 'iter_1.pth', 1)
        save(tmp_path / 'best_oIoU_iter_9.pth', 9, '20270101_000000')
        torch.save(dict(state_dict={}), tmp_path / 'published.pth')
        for number, meta in enumerate((None, {}, dict(iter='9'))):
            torch.save(dict(meta=meta, message_hub={}), tmp_path / f'other_{number}.pth')
        assert find_resumable(str(tmp_path)) == str(good)
        assert warnings == []

    def test_looks_where_last_checkpoint_points_to(self, tmp_path: Path) -> None:
        (tmp_path / 'work').mkdir()
        (tmp_path / 'big_disk').mkdir()
        there = save(tmp_path / 'big_disk' / 'iter_5.pth', 5)
        (tmp_path / 'work' / 'last_checkpoint').write_text(str(there))
        assert find_resumable(str(tmp_path / 'work')) == str(there)

    @pytest.mark.parametrize('content', ['', '\n', '\0' * 40], ids=['empty', 'blank', 'zeros'])
    def test_an_empty_last_checkpoint_does_not_mean_the_current_folder(
        self, tmp_path: Path, monkeypatch, content: str
    ) -> None:
        (tmp_path / 'work').mkdir()
        (tmp_path / 'work' / 'last_checkpoint').write_text(content)
        save(tmp_path / 'iter_5.pth', 5)  # of another training
        (tmp_path / 'iter_6.pth.tmp').write_bytes(b'PK')
        monkeypatch.chdir(tmp_path)
        assert find_resumable('work') is None
        assert (tmp_path / 'iter_6.pth.tmp').exists()

    def test_nothing_at_all_is_no_error_but_only_broken_ones_are(self, tmp_path: Path, warnings) -> None:
        assert find_resumable(str(tmp_path / 'none')) is None
        assert find_resumable(str(tmp_path)) is None
        for name in ('iter_1.pth', 'iter_2.pth'):
            (tmp_path / name).write_bytes(b'PK')
        with pytest.raises(ValueError, match=r'no whole checkpoint .*iter_1\.pth, .*iter_2\.pth'):
            find_resumable(str(tmp_path))


def test_safetensors_files_are_read(tmp_path, monkeypatch):
    monkeypatch.setattr(CheckpointLoader, '_schemes', dict(CheckpointLoader._schemes))
    monkeypatch.setenv('TORCH_FORCE_WEIGHTS_ONLY_LOAD', '0')
    path = tmp_path / 'weights.safetensors'
    weight = torch.arange(6.0).reshape(2, 3)
    save_file({'weight': weight, 'bias': torch.zeros(2)}, path)
    model = torch.nn.Linear(3, 2)
    use_safe_loading()
    checkpoint = load_checkpoint(model, str(path), strict=True)
    assert checkpoint['meta']['dataset_meta']['classes'] == ('background', 'target')  # as mmseg's init_model asks
    assert torch.equal(model.weight, weight)
    meta = CheckpointLoader.load_checkpoint(str(path), logger=None)['meta']
    assert meta['dataset_meta']['classes'] == ('background', 'target')  # asked for by mmseg's init_model
    path.write_bytes(path.read_bytes()[:-4])
    with pytest.raises(ValueError, match=r'weights.safetensors is truncated, or not a file of safetensors \(\d+ bytes'):
        load_weights_only(str(path))


class TestOlderFormat:
    """torch's format before archives, which many published files and mmdet's publish_model.py have."""

    def write(self, path: Path, **more: object) -> Path:
        state = torch.load(save(path, 5), weights_only=False)
        torch.save({**state, **more}, path, _use_new_zipfile_serialization=False)
        return path

    def test_every_reader_takes_it(self, tmp_path: Path) -> None:
        path = self.write(tmp_path / 'iter_5.pth')
        for mmap in (False, True):
            read = load_weights_only(str(path), mmap=mmap)
            assert torch.equal(read['state_dict']['weight'], torch.arange(1000.0))
        check_whole(str(path))
        assert find_resumable(str(tmp_path)) == str(path)
        model = nn.Linear(3, 2)
        torch.save(model.state_dict(), tmp_path / 'w.pth', _use_new_zipfile_serialization=False)
        other = nn.Linear(3, 2)
        load_weights(other, tmp_path / 'w.pth')
        assert torch.equal(other.weight, model.weight)

    def test_code_is_refused(self, tmp_path: Path) -> None:
        path = self.write(tmp_path / 'evil.pth', extra=Runs(os.system, f'touch {tmp_path}/trace'))
        for read in (load_weights_only, check_whole):
            with pytest.raises(ValueError, match=r'evil\.pth was refused: .*posix\.system'):
                read(str(path))
        assert not (tmp_path / 'trace').exists()

    def test_damage_is_one_line_that_names_the_file(self, tmp_path: Path) -> None:
        whole = {
            'older': self.write(tmp_path / 'a.pth').read_bytes(),
            'archive': save(tmp_path / 'a.pth', 5).read_bytes(),
        }
        generator, path, refused = np.random.default_rng(0), tmp_path / 'b.pth', 0
        for number in range(100):
            content = bytearray(whole[('older', 'archive')[number % 2]])
            place = int(generator.integers(0, len(content) - 8))
            if number % 4 < 2:
                content = content[:place]
            else:
                content[place : place + 8] = generator.bytes(8)
            path.write_bytes(content)
            for read in (load_weights_only, check_whole):
                try:
                    read(str(path))
                except ValueError as error:
                    assert 'b.pth' in str(error) and '\n' not in str(error)
                    refused += 1
        assert refused > 100

    def test_an_archive_that_unpacks_to_more_is_refused(self, tmp_path: Path) -> None:
        torch.save(dict(weight=torch.zeros(1_000_000)), tmp_path / 'a.pth')
        packed = tmp_path / 'b.pth'
        with (
            zipfile.ZipFile(tmp_path / 'a.pth') as source,
            zipfile.ZipFile(packed, 'w', zipfile.ZIP_DEFLATED) as target,
        ):
            for part in source.namelist():
                target.writestr(part, source.read(part))
        with pytest.raises(ValueError, match=r'b\.pth was refused: its parts claim 400\d+ bytes'):
            load_weights_only(str(packed))


def endless(count: int) -> bytes:
    """A dict whose key is a tuple of the same tuple twice, and so on: ``2**count`` to hash."""
    joins = (b'h%ch%c\x86q%c' % (own, own, own + 1) for own in range(count))
    return b'\x80\x02)q\x00' + b''.join(joins) + b'}h%cK\x01s.' % count


COSTLY = {
    'tuples that double': (endless(60), 'written out has no end'),
    'deep tuples': (b'\x80\x02})' + b'\x85' * 500_000 + b'K\x01s.', 'nested deeper than 100'),
    'numbers of one hash': (
        b'\x80\x02}('
        + b''.join(b'\x8a\x0a' + (own * (2**61 - 1)).to_bytes(10, 'little') + b'N' for own in range(10**4))
        + b'u.',
        'more than 64 bits',
    ),
    'a number of a megabyte': (b'\x80\x02\x8b\x00\x00\x10\x00' + b'\x7f' * 2**20 + b'.', 'more than 64 bits'),
}


@pytest.mark.parametrize('name', COSTLY)
@pytest.mark.parametrize('older', [False, True])
def test_pickles_that_would_never_end_are_refused(tmp_path: Path, name: str, older: bool) -> None:
    content, reason = COSTLY[name]
    path = tmp_path / 'a.pth'
    if older:
        torch.save({}, path, _use_new_zipfile_serialization=False)
        start = path.read_bytes().rpartition(b'\x80\x02}q')[0]  # the content, and the keys of its storages
        path.write_bytes(start.rpartition(b'\x80\x02}q')[0] + content)
    else:
        with zipfile.ZipFile(path, 'w') as archive:
            archive.writestr('a/data.pkl', content)
            archive.writestr('a/version', '3\n')
    with pytest.raises(ValueError, match=rf'a\.pth is truncated, or not a file .*{reason}') as error:
        load_weights_only(str(path))
    assert '\n' not in str(error.value)


def test_shared_and_nested_tuples_of_ordinary_size_are_read(tmp_path: Path) -> None:
    shared = tuple(range(1000))
    content = dict(states=[shared] * 50, nested=(1, (2, (3, (4,)))), seed=2**127, keys={(1, (2, 3)): 'a'})
    for zipped in (True, False):
        torch.save(content, tmp_path / 'a.pth', _use_new_zipfile_serialization=zipped)
        assert load_weights_only(str(tmp_path / 'a.pth')) == content


def test_archives_of_the_first_torch_say_what_they_are(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / 'a.pth', 'w') as archive:
        archive.addfile(tarfile.TarInfo('pickle'))
    with pytest.raises(ValueError, match=r'a\.pth: expected a file of torch.save, but got a tar archive'):
        load_weights_only(str(tmp_path / 'a.pth'))
