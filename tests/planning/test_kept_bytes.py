"""Rows of equal blocks of which three run: the bytes of all of them, or the word that they do not run in turn."""

from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from torch import nn

from genseg_mm.planning import memory_plan
from genseg_mm.planning.kept_bytes import SavedBytes, ShortRows
from genseg_mm.registry import MODELS

ROOT = Path(__file__).parents[2]


class Network(nn.Module):
    """Two rows of blocks, the second of two kinds, run in an order of their names and places."""

    def __init__(self, order: str = 'in turn') -> None:
        super().__init__()
        self.order = order
        self.first = nn.ModuleList(nn.Sequential(nn.Linear(8, 8), nn.GELU()) for _ in range(6))
        kinds = [nn.Linear(8, 8, bias=place < 5) for place in range(9)]
        self.second = nn.ModuleList(nn.Sequential(own, nn.Tanh()) for own in kinds)

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        shared = values.exp()  # kept once, whoever keeps it
        if self.order == 'alternating':
            for one, other in zip(self.first, self.second, strict=False):
                values = other(one(values) * shared)
            return values
        for block in [*self.first, *(self.first if self.order == 'twice' else []), *self.second]:
            values = block(values) * shared
        return values


def kept(network: nn.Module, shortened: bool) -> tuple[int, int | None, int]:
    """Bytes kept, those of what was left out, and how many blocks ran."""
    ran = []
    handles = [
        block.register_forward_hook(lambda own, args, output: ran.append(own))
        for block in (*network.first, *network.second)
    ]
    saved = SavedBytes(network)
    with saved, ShortRows([network] if shortened else [], saved) as rows:
        network(torch.randn(4, 8, requires_grad=True))
    for handle in handles:
        handle.remove()
    return saved.total, rows.left_out(), len(ran)


def test_three_blocks_of_a_row_stand_for_all():
    network = Network()
    blocks = [*network.first, *network.second]
    total, nothing, ran = kept(network, False)
    assert (nothing, ran) == (0, 15)
    short, left_out, ran = kept(network, True)
    assert ran == 3 + 3 + 3  # of the first row, and of either kind of the second
    assert short + left_out == total and left_out > 0
    assert [*network.first, *network.second] == blocks and not blocks[0]._forward_pre_hooks


@pytest.mark.parametrize('order', ['alternating', 'twice'])
def test_blocks_that_do_not_run_in_turn_are_told(order):
    assert kept(Network(order), True)[1] is None


@pytest.mark.parametrize('order', ['in turn', pytest.param('twice', marks=pytest.mark.slow)])
def test_a_dit_keeps_the_same_either_way(order, monkeypatch):
    cfg = Config.fromfile(ROOT / 'configs/genmask/genmask_wan_shapes_tiny.py')
    cfg.model.backbone.transformer.num_layers = 6
    with torch.device('meta'):
        model = MODELS.build(cfg.model).train()
    lengths, blocks = [], model.backbone.transformer.blocks
    if order == 'twice':
        forward = model.backbone.forward
        monkeypatch.setattr(model.backbone, 'forward', lambda *args: forward(*args) + forward(*args))
    enter = ShortRows.__enter__
    monkeypatch.setattr(
        ShortRows, '__enter__', lambda own: (enter(own), lengths.append(len(model.backbone.transformer.blocks)))[0]
    )
    short = memory_plan.measure_activations(model, (64, 64), 24, low=True)
    assert lengths == ([3] * 4 if order == 'in turn' else [3, 6] * 4)
    assert model.backbone.transformer.blocks is blocks
    monkeypatch.setattr(memory_plan, 'ShortRows', lambda networks, saved: ShortRows([], saved))
    assert memory_plan.measure_activations(model, (64, 64), 24, low=True) == short
