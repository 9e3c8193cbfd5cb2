"""Memory of the DiT families: hand-counted bytes and parameters, estimates against real passes, made-up tables."""

from pathlib import Path

import measure_families
import pytest
import torch
import torch.nn.functional as F
from measure_families import TINY
from torch import nn

from genseg_mm.models.dit_families import FAMILIES
from genseg_mm.planning.kept_bytes import SavedBytes, ShapesOnly, blocks, largest_block

ROOT = Path(__file__).parents[2]


def kept(model: nn.Module, run, shapes_only: bool = False, autocast: bool = False) -> int:
    saved = SavedBytes(model)
    if shapes_only:
        with ShapesOnly(autocast), saved:
            run()
    else:
        with torch.autocast('cpu', torch.bfloat16, enabled=autocast), saved:
            run()
    return saved.total


@pytest.mark.parametrize('device', ['cpu', 'meta'])
def test_bytes_of_a_hand_counted_module(device):
    layer = nn.Linear(3, 5, device=device)
    data = torch.ones(2, 3, device=device)
    # Linear keeps its input, 2 * 3 floats; its weight is a parameter.
    assert kept(layer, lambda: layer(data).sum()) == 24
    # ReLU keeps its output, 2 * 5 floats, and the square its input, which is the same tensor.
    assert kept(layer, lambda: layer(data).relu().square().sum()) == 24 + 40
    # A view keeps the whole storage: 2 * 3 floats, although the layer sees one row.
    assert kept(layer, lambda: layer(data[:1]).sum()) == 24
    assert kept(layer, lambda: (layer(data).sum(), layer(data).sum())) == 24


@pytest.mark.parametrize('device', ['cpu', 'meta'])
def test_attention_keeps_no_weights(device):
    query = torch.ones(1, 2, 8, 4, device=device, requires_grad=True)
    key = torch.ones(1, 2, 6, 4, device=device, requires_grad=True)

    def attend(mask=None):
        return F.scaled_dot_product_attention(query, key, key, attn_mask=mask)

    # 64 query and 48 key floats, the output, one log-sum per query: 4 * (64 + 48 + 64 + 16) bytes.
    assert kept(nn.Identity(), attend, device == 'meta') == 768
    # A mask of booleans becomes one of 8 * 6 floats.
    mask = torch.ones(8, 6, dtype=torch.bool)
    assert kept(nn.Identity(), lambda: attend(mask), device == 'meta') == 768 + 4 * 48


@pytest.mark.parametrize('device', ['cpu', 'meta'])
def test_autocast_keeps_bfloat16_copies(device):
    layer = nn.Linear(4, 6, device=device)
    data = torch.ones(2, 4, device=device, requires_grad=True)

    def once():
        return layer(data * 1)

    # Copies of the input, 2 * 4 halves, and of the weight, 6 * 4 halves.
    assert kept(layer, once, device == 'meta', autocast=True) == 16 + 48
    # The weight is copied once, every input by itself.
    assert kept(layer, lambda: (once(), once()), device == 'meta', autocast=True) == 2 * 16 + 48


def test_real_masks_keep_their_values_beside_the_meta_device():
    data, chosen = torch.ones(4, 3, device='meta'), torch.tensor([True, False, True, True])
    with ShapesOnly():
        assert chosen.any() and not chosen.all()
        assert data[chosen].shape == (3, 3) and data[chosen].is_meta
        whole = torch.empty(4, 3, device='meta')
        whole[chosen] = data[chosen]
        assert torch.where(chosen[:, None], whole, 0).is_meta


class Stack(nn.Module):
    """Two lists of blocks and a layer beside them."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.ModuleList([nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 4))])
        self.second = nn.ModuleList([nn.Linear(4, 4), nn.Linear(4, 4)])
        self.last = nn.Linear(4, 1)

    def forward(self, data):
        for block in [*self.first, *self.second, self.last]:
            data = block(data)
        return data


def test_the_largest_block_of_a_hand_counted_stack():
    model, data = Stack(), torch.ones(2, 4)
    assert list(blocks(model)) == [model.first[0], model.second[0], model.second[1]]
    saved = SavedBytes(model)
    with saved, largest_block(model, saved) as largest:
        model(data).sum()
    # Input 2 * 4, hidden 2 * 8 (ReLU's output is the next input); then an input of 2 * 4 for each of three layers.
    assert largest['bytes'] == 4 * (8 + 16)
    assert saved.total == 4 * (8 + 16 + 3 * 8)
    assert not model.first[0]._forward_hooks and not model.first[0]._forward_pre_hooks


def test_every_family_has_a_tiny_model():
    assert set(TINY) == set(FAMILIES)


@pytest.mark.parametrize('family', sorted(TINY))
def test_the_estimate_is_what_a_real_pass_keeps(family):
    found = {}
    for device in ('cpu', 'meta'):
        plain, checkpointed = (
            measure_families.build(family, TINY[family], device, gradient_checkpointing=on) for on in (False, True)
        )
        shape = (device, 2, 8, 6)
        found[device] = [measure_families.kept_bytes(plain, *shape), measure_families.kept_bytes(checkpointed, *shape)]
        found[device, 'autocast'] = measure_families.kept_bytes(plain, *shape, autocast=True)['total']
    assert found['cpu'] == found['meta']
    (off, on), autocast = found['cpu'], found['cpu', 'autocast']
    assert on['block'] == 0 and 0 < on['total'] < off['total'] / 2
    assert 0 < off['block'] < off['total']
    assert found['meta', 'autocast'] == pytest.approx(autocast, rel=0.01)


def test_the_peak_of_a_real_step_is_near_the_estimate():
    model = measure_families.build('sana', TINY['sana'], 'cpu')
    total = measure_families.kept_bytes(model, 'cpu', 8, 8, 6)['total']
    assert total <= measure_families.peak_bytes(model, 8, 8, 6) < 1.2 * total
    assert all(p.grad is None for p in model.parameters())


def test_a_tiny_family_is_measured():
    result = measure_families.measure_tiny('pixart', iters=1, batch=2, size=8, text_length=6)
    for key in ('off', 'on'):
        assert result['measured'][key] == result['estimated'][key]
    assert list(result['seconds']) == ['forward', 'backward', 'optimizer']
    model = measure_families.build('pixart', TINY['pixart'], 'cpu')
    assert result['parameters'] == sum(p.numel() for p in model.parameters())


def test_the_table_of_a_made_up_tiny_model():
    memory = dict(off=2_500_000, on=500_000, autocast=1_250_000, peak_off=3_000_000, peak_on=1_000_000)
    model = dict(
        family='wan', parameters=1234, measured=memory, estimated={**memory, 'peak_off': 2_750_000},
        seconds=dict(forward=0.01, backward=0.02, optimizer=0.0005),
    )  # fmt: skip
    assert measure_families.tiny_table([model]).splitlines()[2] == (
        '| wan | 1234 | 2.50 (2.50) | 0.50 (0.50) | 1.25 (1.25) | 3.00 (2.75) | 1.00 (1.00) | 30.5 | 10.0 | 20.0 | '
        '0.5 |'
    )
