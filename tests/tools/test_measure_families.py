"""Memory of the DiT families: hand-counted bytes and parameters, estimates against real passes, made-up tables."""

import sys
from pathlib import Path

import measure_families
import pytest
import torch
import torch.nn.functional as F
from released_families import FROZEN, FULL, TINY
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


def test_parameters_of_a_hand_counted_module():
    model = Stack()
    # 4 * 8 + 8 and 8 * 4 + 4, twice 4 * 4 + 4, 4 + 1
    assert measure_families.num_parameters(model) == 76 + 40 + 5
    model.first.requires_grad_(False)
    assert measure_families.num_parameters(model, trained_only=True) == 45


def test_every_family_has_a_tiny_and_a_released_model():
    assert set(TINY) == set(FAMILIES)
    assert {model['family'] for model in FULL.values()} == set(FAMILIES)
    named = {name for model in FULL.values() for name in (model['vae'], *model['encoders'])}
    assert named == set(FROZEN)


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


@pytest.mark.parametrize(
    ('name', 'parameters', 'buffers'),
    # Golden numbers, diffusers 0.42.1. Wan is called 1.3B; SD3.5 medium's table is of 384^2 positions of 1536 numbers.
    [
        ('Wan2.1 1.3B', 1_418_996_800, 0),
        ('PixArt-Sigma 0.6B', 610_856_096, 0),
        ('SD3.5 medium', 2_243_171_520, 384**2 * 1536),
    ],
)
def test_released_models_have_their_published_parameters(name, parameters, buffers):
    assert measure_families.released_numbers(FULL[name]) == (parameters, buffers)
    assert (parameters + buffers) / 1e9 == pytest.approx(FULL[name]['published'], rel=0.1)


def test_a_released_model_is_measured(monkeypatch):
    released = dict(TINY['sana'], in_channels=20, sample_size=16)
    model = dict(FULL['Sana 1.6B'], transformer=released, stride=16, vae='flux', encoders=['clip-l'])
    monkeypatch.setitem(FULL, 'small', model)
    command = ['tool', '--batch-sizes', '1', '2', '--size', '256', '--text-length', '8', '--lora-rank', '2']
    monkeypatch.setattr(sys, 'argv', command)
    result = measure_families.measure_full('small', measure_families.parse_args())
    # The patch embedding is widened: 20 more channels of 2 x 2 cells for 32 features.
    assert result['parameters'] - result['released_parameters'] == 20 * 4 * 32
    assert result['vae_bytes'] == 4 * 83_819_683 and result['encoder_bytes'] == 2 * 123_060_480
    # Rank 2 on 4 projections of 32 x 32 in 2 attentions of 2 blocks; the widened embedding is trained, too.
    assert result['adapters'] == 2 * 2 * 4 * 2 * (32 + 32) + 40 * 4 * 32 + 32
    assert set(result['fits'].values()) == {'1 card, batch 2'}
    shape = ('meta', 2, 16, 8)
    backbone = measure_families.build('sana', released, 'meta').to(torch.bfloat16)
    off = measure_families.kept_bytes(backbone, *shape)
    backbone.transformer.enable_gradient_checkpointing()
    on = measure_families.kept_bytes(backbone, *shape)
    assert result['activations']['pure']['2'] == dict(off=off['total'], on=on['total'] + off['block'])
    assert result['activations']['mixed']['2']['off'] > off['total']


@pytest.mark.parametrize('name', sorted(set(FROZEN) - {'qwen2.5-vl-7b'}))
def test_frozen_parts_have_their_published_parameters(name):
    assert measure_families.frozen_parameters(name) / 1e9 == pytest.approx(FROZEN[name][2], rel=0.005)


def test_state_bytes():
    assert measure_families.state_bytes('mixed', 1000) == 16_000
    assert measure_families.state_bytes('pure', 1000) == 8_000
    assert measure_families.state_bytes('lora', 1000, adapters=10) == 2_000 + 160
    with pytest.raises(ValueError, match="but got 'int8'"):
        measure_families.state_bytes('int8', 1000)


@pytest.mark.parametrize(
    ('states', 'gathered', 'activations', 'frozen', 'expected'),
    [
        (50, 4, {1: 1, 8: 8}, 20, '1 card, batch 8'),
        (50, 4, {1: 1, 8: 20}, 20, '1 card, batch 1'),
        (62, 4, {1: 1, 8: 20}, 20, '1 card, batch 1, cached encodings'),
        (80, 4, {1: 1, 8: 8}, 20, '8 cards, FSDP, batch 8 each'),
        (400, 4, {1: 1, 8: 8}, 20, '8 cards, FSDP, batch 1 each'),
        (480, 4, {1: 1, 8: 8}, 20, '8 cards, FSDP, batch 8 each, cached encodings'),
        (900, 4, {1: 1, 8: 8}, 20, 'more than 8 cards'),
    ],
)
def test_where_a_training_fits(states, gathered, activations, frozen, expected):
    limit = 80 if states != 400 else 78
    assert measure_families.where_it_fits(states, gathered, activations, frozen, limit) == expected


def made_up_model() -> dict:
    activations = {'1': dict(off=5e9, on=1e9), '8': dict(off=40e9, on=8e9)}
    return dict(
        name='Made-up 2B', family='wan', source='some/where', published=2,
        released_parameters=2_000_000_000, released_buffers=100_000_000,
        parameters=2_000_018_000, adapters=10_000_000, largest_block=60_000_000, vae_bytes=500_000_000,
        encoders=['t5-xxl', 'clip-l'], encoder_bytes=9_770_000_000,
        activations=dict(mixed=activations, pure=activations, lora=activations),
    )  # fmt: skip


def test_the_tables_of_made_up_numbers():
    model = made_up_model()
    assert measure_families.parameters_table([model]).splitlines()[2] == (
        '| Made-up 2B | wan | 2000.0 | 100.0 | 2 | +5.0 % | 18.0 | 10.0 | 0.50 | 9.77 (t5-xxl + clip-l) | some/where |'
    )
    # 16, 8 and 2 bytes per parameter, 16 per adapter
    assert measure_families.memory_table([model]).splitlines()[2] == (
        '| Made-up 2B | 32.0 | 16.0 | 4.2 | 5.0 | 1.0 | 1.0 | 1.0 | 40.0 | 8.0 | 8.0 | 8.0 |'
    )
    assert measure_families.fit_table([model]).splitlines()[2] == (
        '| Made-up 2B | 1 card, batch 8 | 1 card, batch 8 | 1 card, batch 8 |'
    )
    model.update(parameters=20_000_000_000)
    assert measure_families.fits(model) == dict(
        mixed='8 cards, FSDP, batch 8 each', pure='8 cards, FSDP, batch 8 each', lora='1 card, batch 8'
    )


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
