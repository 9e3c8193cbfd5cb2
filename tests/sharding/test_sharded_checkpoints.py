"""Sharded checkpoints: written by some processes and read by others, whole or not at all."""

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from rank_forks import on_ranks
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.nn.parallel import DistributedDataParallel

from genseg_mm.checkpoint import load_weights_only
from genseg_mm.files.background import SAVES
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
