"""Sharded checkpoints: written by some processes and read by others, whole or not at all."""

import itertools
import os
import pickle
import random
import re
import resource
import shutil
import signal
import time
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from rank_forks import on_ranks, start_ranks
from torch import Tensor, nn
from torch.distributed.checkpoint.filesystem import _StorageInfo
from torch.distributed.checkpoint.metadata import (
    BytesStorageMetadata,
    Metadata,
    MetadataIndex,
    TensorProperties,
    TensorStorageMetadata,
)
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.nn.parallel import DistributedDataParallel

from genseg_mm.checkpoint import check_whole, find_resumable, load_weights_only
from genseg_mm.files.background import SAVES
from genseg_mm.files.whole_files import WriteError
from genseg_mm.files.whole_folders import RECORD, crc32_of, write_record
from genseg_mm.models.pretrained_parts import leave_out_of_checkpoints
from genseg_mm.sharding.sharded_checkpoints import load_sharded, save_sharded


class Net(nn.Module):
    """Odd sizes, a buffer, a frozen part that leaves itself out, and a parameter that is never used."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList([nn.Linear(5, 3), nn.Linear(3, 7), nn.Linear(7, 1)])
        self.register_buffer('count', torch.zeros((), dtype=torch.int64))
        self.unused = nn.Linear(2, 3)
        self.frozen = nn.Linear(5, 5).requires_grad_(False)
        leave_out_of_checkpoints(self.frozen)

    def forward(self, x: Tensor) -> Tensor:
        self.count += 1
        x = self.frozen(x)
        for layer in self.layers:
            x = layer(x).tanh()
        return x.pow(2).mean()


class Training:
    """AdamW over two groups; ``kind`` is 'plain', 'ddp' or 'fsdp'."""

    def __init__(self, kind: str, seed: int = 0) -> None:
        torch.manual_seed(seed)
        self.model = net = Net()
        torch.manual_seed(0)
        nn.init.normal_(net.frozen.weight)
        nn.init.zeros_(net.frozen.bias)
        if kind == 'fsdp':
            mesh = init_device_mesh('cpu', (dist.get_world_size(),))
            for layer in net.layers:
                fully_shard(layer, mesh=mesh)
            fully_shard(net, mesh=mesh)
        biases = [own for name, own in net.named_parameters() if own.requires_grad and name.endswith('bias')]
        others = [own for name, own in net.named_parameters() if own.requires_grad and not name.endswith('bias')]
        self.optimizer = torch.optim.AdamW([dict(params=others), dict(params=biases, weight_decay=0.0)], lr=0.05)
        if kind == 'ddp':
            self.model = DistributedDataParallel(net, find_unused_parameters=True, broadcast_buffers=False)

    def steps(self, num: int) -> None:
        for number in range(num):
            x = torch.randn(4, 5, generator=torch.Generator().manual_seed(number))
            self.model(x).backward()
            self.optimizer.step()
            self.optimizer.zero_grad()

    def state(self) -> dict[str, Tensor]:
        net = getattr(self.model, 'module', self.model)
        return {name: whole(own) for name, own in net.state_dict().items()}


def whole(tensor: Tensor) -> Tensor:
    return (tensor.full_tensor() if hasattr(tensor, 'full_tensor') else tensor).detach().clone()


def saved(path: Path, kind: str, asynchronous: bool = False, steps: int = 2) -> dict[str, Tensor]:
    """Trains, saves, and trains two steps more; the weights then."""
    training = Training(kind)
    training.steps(steps)
    net = getattr(training.model, 'module', training.model)
    average = {name: own.detach() * 2 for name, own in net.named_parameters() if own.requires_grad}
    extra = dict(meta=dict(iter=steps, time=f'{steps}'), message_hub=dict(log=[1.0]), ema_state_dict=average)
    save_sharded(path, training.model, training.optimizer, extra, asynchronous=asynchronous)
    training.steps(2)
    SAVES.wait()
    return training.state()


def resumed(path: Path, kind: str) -> dict[str, Any]:
    """Loads into a model of other weights and trains two steps more."""
    training = Training(kind, seed=1)
    extra = load_sharded(path, training.model, training.optimizer)
    average = extra.pop('ema_state_dict')
    doubled = {name: own.data * 2 for name, own in training.state().items() if name in average}
    extra['average'] = max((whole(average[name]) - own).abs().max().item() for name, own in doubled.items())
    extra['states'] = len(training.optimizer.state)
    training.steps(2)
    return dict(state=training.state(), extra=extra)


def largest_difference(first: dict[str, Tensor], second: dict[str, Tensor]) -> float:
    assert first.keys() == second.keys()
    return max((own.double() - second[name].double()).abs().max().item() for name, own in first.items())


@pytest.mark.parametrize(
    ('world', 'kind', 'asynchronous', 'readers'),
    [
        (4, 'fsdp', False, [(2, 'fsdp'), (1, 'plain'), (2, 'ddp')]),
        (1, 'plain', False, [(2, 'fsdp')]),
        (2, 'ddp', True, [(1, 'plain')]),
        (2, 'fsdp', True, [(4, 'fsdp')]),
    ],
)
def test_any_number_of_processes_goes_on_where_another_one_was(tmp_path, world, kind, asynchronous, readers):
    path = tmp_path / 'iter_2'
    expected = on_ranks(world, saved, path, kind, asynchronous)[0]
    assert not (tmp_path / 'iter_2.tmp').exists()
    for other, as_kind in readers:
        for answer in on_ranks(other, resumed, path, as_kind):
            assert largest_difference(answer['state'], expected) == 0.0
            assert answer['extra'] == dict(
                meta=dict(iter=2, time='2'), message_hub=dict(log=[1.0]), average=0.0, states=6
            )


@pytest.fixture(scope='module')
def checkpoint(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp('saved') / 'iter_2'
    on_ranks(2, saved, path, 'fsdp')
    return path


def test_one_file_and_one_folder_hold_the_same(tmp_path, checkpoint):
    """A folder is read as the .pth that a runner would have written, by everything that reads one."""
    training = Training('plain')
    training.steps(2)
    read = load_weights_only(str(checkpoint))
    own = training.optimizer.state_dict()
    assert read.keys() == {'meta', 'message_hub', 'ema_state_dict', 'state_dict', 'optimizer'}
    assert largest_difference(read['state_dict'], training.model.state_dict()) == 0.0
    assert read['optimizer']['param_groups'] == own['param_groups']
    assert read['optimizer']['state'].keys() == own['state'].keys()
    for number, state in own['state'].items():
        assert largest_difference(read['optimizer']['state'][number], state) == 0.0
    assert not any(name.startswith('frozen') for name in read['state_dict'])
    shutil.copytree(checkpoint, tmp_path / 'copy')
    assert load_weights_only(str(tmp_path / 'copy'))['meta'] == dict(iter=2, time='2')


def damaged(tmp_path: Path, checkpoint: Path) -> Path:
    folder = tmp_path / checkpoint.name
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(checkpoint, folder)
    return folder


def record_again(folder: Path) -> None:
    """Makes a folder whole in the eyes of its record, as somebody would who wants it to be opened."""
    names = [own.name for own in folder.iterdir() if own.name != RECORD]
    write_record(folder, {name: ((folder / name).stat().st_size, crc32_of(folder / name)) for name in names})


class Runs:
    def __reduce__(self) -> tuple:
        return exec, ("raise SystemExit('it was run')",)


def test_a_table_of_tensors_may_name_nothing_but_tensors(tmp_path, checkpoint):
    """torch's own reader would run it."""
    place = _StorageInfo('../outside', 0, 10)
    tensor = TensorStorageMetadata(TensorProperties(), torch.Size([2**40]), [])
    index = MetadataIndex('state_dict.x', torch.Size([0]))
    cases = {
        'it asks to load builtins.exec': Runs(),
        'a dict': {},
        'bytes 0 to 10 of': Metadata({}, {}, {index: place}),
        r'state_dict.x of shape \(1099511627776,\), but 0 bytes of it': Metadata({'state_dict.x': tensor}, {}, {}),
        'a BytesStorageMetadata of': Metadata({'state_dict.x': BytesStorageMetadata()}, {}, {}),
        'its parts|bytes of tensors, more than': Metadata(
            {}, {}, {MetadataIndex(f'{name}'): _StorageInfo('extra.pth', 0, 500) for name in range(10**4)}
        ),
    }
    for message, content in cases.items():
        folder = damaged(tmp_path, checkpoint)
        (folder / '.metadata').write_bytes(pickle.dumps(content))
        record_again(folder)
        for read in (lambda: load_weights_only(str(folder)), lambda: load_sharded(folder, Net())):  # noqa: B023
            with pytest.raises(ValueError, match=f'.metadata was refused.*{message}'):
                read()
    for name in ('extra.pth', '__1_0.distcp'):
        folder = damaged(tmp_path, checkpoint)
        parts = (folder / name).read_bytes()
        torch.save(Runs(), folder / name)
        (folder / name).write_bytes((folder / name).read_bytes().ljust(len(parts), b'\0'))
        record_again(folder)
        with pytest.raises(ValueError, match=name.replace('.', r'\.')):
            load_sharded(folder, Net())


def test_torn_and_missing_parts_are_named(tmp_path, checkpoint):
    for name in ('__0_0.distcp', '__1_0.distcp', '.metadata', 'extra.pth'):
        folder = damaged(tmp_path, checkpoint)
        content = (folder / name).read_bytes()
        (folder / name).write_bytes(content[:-1])
        with pytest.raises(ValueError, match=f'{re.escape(name)} is truncated, expected') as error:
            load_sharded(folder, Net())
        assert '\n' not in str(error.value)
        (folder / name).write_bytes(content[:-9] + bytes(9))
        with pytest.raises(ValueError, match=f'wrong checksum of {re.escape(name)}'):
            check_whole(str(folder))
        (folder / name).unlink()
        with pytest.raises(ValueError, match=f'expected {re.escape(name)} of .* bytes, but it is missing'):
            check_whole(str(folder))


def test_other_models_and_optimizers_are_told_by_name(checkpoint):
    training = Training('plain')
    training.model.layers[1] = nn.Linear(3, 8)
    with pytest.raises(ValueError, match=r'layers.1.weight has shape \(7, 3\) in the file, \(8, 3\)'):
        load_sharded(checkpoint, training.model)
    training = Training('plain')
    training.model.more = nn.Linear(1, 1)
    with pytest.raises(ValueError, match='2 missing keys.*more.bias'):
        load_sharded(checkpoint, training.model)
    assert load_sharded(checkpoint, training.model, strict=False)['meta']['iter'] == 2
    with pytest.raises(ValueError, match='has nothing for this model'):
        load_sharded(checkpoint, nn.Sequential(nn.Linear(5, 3)), strict=False)
    training = Training('plain')
    with pytest.raises(ValueError, match='expected 1 groups of 10 parameters as the config makes them, but got 2 of 8'):
        load_sharded(checkpoint, training.model, torch.optim.AdamW(training.model.parameters()))
    with pytest.raises(FileNotFoundError, match='does not exist'):
        load_sharded(checkpoint.with_name('iter_3'), training.model)


def fails_to_write(path: Path, kind: str, asynchronous: bool) -> str:
    training = Training(kind)
    training.steps(1)
    if dist.get_rank() == 1:
        resource.setrlimit(resource.RLIMIT_FSIZE, (100, resource.RLIM_INFINITY))
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        save_sharded(path, training.model, training.optimizer, dict(meta={}), asynchronous=asynchronous)
        training.steps(1)
        SAVES.wait()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    return 'nothing was said'


@pytest.mark.parametrize('asynchronous', [False, True])
def test_a_full_disk_of_one_process_is_one_line_in_all_and_the_old_one_stays(tmp_path, checkpoint, asynchronous):
    folder = damaged(tmp_path, checkpoint)
    for error in on_ranks(2, fails_to_write, folder, 'fsdp', asynchronous, errors=True):
        assert type(error) is WriteError and '\n' not in str(error)
        assert f'{folder} could not be written: File too large' in str(error)
        assert 'the old one is untouched' in str(error)
    check_whole(str(folder))
    assert [own.name for own in tmp_path.iterdir()] == [folder.name]


def test_the_newest_whole_one_is_found_among_files_and_folders(tmp_path, checkpoint, caplog):
    def state(number: int) -> dict:
        return dict(meta=dict(iter=number, time=f'{number}'), message_hub={}, state_dict={}, optimizer={})

    torch.save(state(1), tmp_path / 'iter_1.pth')
    shutil.copytree(checkpoint, tmp_path / 'iter_2')
    torch.save(state(3), tmp_path / 'iter_3.pth')
    assert find_resumable(str(tmp_path)) == str(tmp_path / 'iter_3.pth')
    (tmp_path / 'iter_3.pth').write_bytes((tmp_path / 'iter_3.pth').read_bytes()[:-30])
    assert find_resumable(str(tmp_path)) == str(tmp_path / 'iter_2')
    # Killed after the last byte, while it was written, and with the name but cut off when it was copied.
    shutil.copytree(checkpoint, tmp_path / 'iter_4.tmp')
    shutil.copytree(checkpoint, tmp_path / 'iter_5.tmp')
    (tmp_path / 'iter_5.tmp' / RECORD).unlink()
    shutil.copytree(checkpoint, tmp_path / 'iter_6')
    (tmp_path / 'iter_6/__1_0.distcp').unlink()
    (tmp_path / 'iter_7.tmp.mine').mkdir()
    (tmp_path / 'vis_data').mkdir()
    assert find_resumable(str(tmp_path)) in (str(tmp_path / 'iter_2'), str(tmp_path / 'iter_4'))
    names = {own.name for own in tmp_path.iterdir()}
    assert names == {'iter_1.pth', 'iter_2', 'iter_3.pth', 'iter_4', 'iter_6', 'iter_7.tmp.mine', 'vis_data'}
    (tmp_path / 'iter_2/__0_0.distcp').write_bytes((tmp_path / 'iter_2/__0_0.distcp').read_bytes()[:-1] + b'x')
    shutil.rmtree(tmp_path / 'iter_4')
    assert find_resumable(str(tmp_path)) == str(tmp_path / 'iter_1.pth')


def saves_on_and_on(folder: Path, kind: str) -> None:
    """Each checkpoint before the one before the last goes, as with max_keep_ckpts=1."""
    training = Training(kind)
    for number in itertools.count(1):
        training.steps(1)
        extra = dict(meta=dict(iter=number, time=f'{number:09}'), message_hub={})
        save_sharded(folder / f'iter_{number}', training.model, training.optimizer, extra, asynchronous=number % 2 == 0)
        SAVES.wait()
        if number > 1 and dist.get_rank() == 0:
            shutil.rmtree(folder / f'iter_{number - 1}')


@pytest.mark.parametrize(('kind', 'kills'), [('fsdp', 2), pytest.param('fsdp', 20, marks=pytest.mark.slow)])
def test_kills_during_saves_lose_nothing(tmp_path, kind, kills):
    rng = random.Random(0)
    for number in range(kills):
        folder, logs = tmp_path / str(number), tmp_path / f'logs{number}'
        folder.mkdir()
        logs.mkdir()
        children, seen, deadline = start_ranks(2, saves_on_and_on, folder, kind, folder=logs), 0, time.monotonic() + 120
        at, delay = rng.randrange(2, 6), rng.uniform(0, 0.03)
        while not (folder / f'iter_{at}.tmp').exists() and time.monotonic() < deadline:
            seen = max([seen, *(int(own.parent.name[5:]) for own in folder.glob('iter_?/complete.json'))])
            time.sleep(0.0005)
        time.sleep(delay)
        rng.shuffle(children)
        for child in children:  # the second one may have seen that the first one is gone
            os.kill(child, signal.SIGKILL)
        for child in children:
            os.waitpid(child, 0)
        assert seen >= 1, ''.join(own.read_text() for own in logs.iterdir())
        found = find_resumable(str(folder))
        assert found is not None and int(Path(found).name.removeprefix('iter_')) >= max(seen, at - 1)
        training = Training('plain')
        assert load_sharded(found, training.model, training.optimizer)['meta']['iter'] >= seen
        assert not list(folder.glob('*.tmp'))
