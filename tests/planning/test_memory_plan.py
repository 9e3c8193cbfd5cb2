"""Memory of a training: each term beside the bytes of real ones on the CPU, the shares of many cards by hand."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from costs import most_held
from mmengine.config import Config
from mmengine.optim import build_optim_wrapper

from genseg_mm.planning.memory_plan import (
    Activations,
    Setup,
    Sizes,
    bytes_before,
    checkpoint_bytes,
    fits,
    forward,
    host_bytes,
    knobs,
    measure_activations,
    measured_sizes,
    optimizer_bytes,
    per_card,
    switch_checkpointing,
)
from genseg_mm.registry import MODELS

ROOT = Path(__file__).parents[2]
TINY = {
    'genmask/genmask_sana_shapes_tiny.py': (64, 64),
    'genmask/genmask_wan_shapes_tiny.py': (64, 64),
    'gen2seg/gen2seg_unet_shapes_tiny.py': (64, 64),
    'gen2seg/gen2seg_mae_shapes_tiny.py': (48, 48),
}
BATCH, LENGTH = 4, 24


@pytest.mark.parametrize('path', TINY)
def test_every_term_beside_a_real_step(path, tmp_path):
    cfg = Config.fromfile(ROOT / 'configs' / path)
    torch.manual_seed(0)
    model = MODELS.build(cfg.model).train()
    wrapper = dict(type='OptimWrapper', optimizer=dict(type='AdamW', lr=1e-3))
    optimizer = build_optim_wrapper(model, wrapper)
    sizes = measured_sizes(model, wrapper)

    forward(model, BATCH, TINY[path], LENGTH, torch.device('cpu')).backward()
    gradients = [own.grad for own in model.parameters() if own.grad is not None]
    used = [own for own in model.parameters() if own.requires_grad and own.grad is not None]
    assert bytes_of(gradients) == bytes_of(used)
    optimizer.step()
    moments = [own for state in optimizer.optimizer.state.values() for own in state.values() if own.ndim]
    unused = bytes_of([own for own in model.parameters() if own.requires_grad]) - bytes_of(used)
    assert bytes_of(moments) == sizes.optimizer - 2 * unused  # a prompt encoder that is trained here gets no gradient
    assert sizes.trained == bytes_of(own for own in model.parameters() if own.requires_grad)
    held = bytes_of(model.parameters()) + bytes_of(model.buffers())
    assert sizes.trained + sum(sizes.frozen.values()) == pytest.approx(held, rel=1e-3)

    torch.save(dict(state_dict=model.state_dict(), optimizer=optimizer.state_dict()), tmp_path / 'whole.pth')
    whole = checkpoint_bytes(sizes, Setup()) - 2 * unused + sum(sizes.frozen.values())
    assert (tmp_path / 'whole.pth').stat().st_size == pytest.approx(whole, rel=0.1)  # names of 0.2 MB of tensors


@pytest.mark.parametrize(('path', 'checkpointing'), [([*TINY][1], True), ([*TINY][2], False)])
def test_activations_beside_the_allocator(path, checkpointing):
    cfg = Config.fromfile(ROOT / 'configs' / path)
    torch.manual_seed(0)
    model = MODELS.build(cfg.model).train()
    estimate = measure_activations(model, TINY[path], LENGTH, low=False)[checkpointing].of(BATCH)
    switch_checkpointing(model, checkpointing)

    def step():
        forward(model, BATCH, TINY[path], LENGTH, torch.device('cpu')).backward()

    step()  # gradients are there
    assert most_held(step) == pytest.approx(estimate, rel=0.2)


def test_meta_device_says_the_same():
    cfg = Config.fromfile(ROOT / 'configs' / 'genmask/genmask_wan_shapes_tiny.py')
    cfg.model.codec.autoencoder = dict(type='diffusers.AutoencoderKL', latent_channels=20, block_out_channels=(32,) * 4)
    cfg.model.codec.autoencoder.update(down_block_types=('DownEncoderBlock2D',) * 4)
    cfg.model.codec.autoencoder.update(up_block_types=('UpDecoderBlock2D',) * 4)
    real = MODELS.build(cfg.model).train()
    with torch.device('meta'):
        empty = MODELS.build(cfg.model).train()
    wrapper = dict(type='genseg_mm.AutocastOptimWrapper', optimizer=dict(type='AdamW'))
    assert measured_sizes(empty, wrapper) == measured_sizes(real, wrapper)
    for low in (False, True):
        own, expected = (measure_activations(each, (64, 64), LENGTH, low) for each in (empty, real))
        for on in (False, True):
            assert own[on].of(8) == pytest.approx(expected[on].of(8), rel=0.02)


def test_shares_of_many_cards_by_hand():
    sizes = Sizes(
        trained=4000, optimizer=8000, frozen=dict(codec=100, prompt_encoder=1000), block=50, block_gradients=100,
        root=30, frozen_block=300,
    )  # fmt: skip
    activations = Activations(fixed=10, per_picture=5)
    one = per_card(sizes, Setup(batch=2), activations)
    assert one == {
        'weights': 4000, 'gradients': 4000, 'optimizer': 8000, 'frozen codec': 100, 'frozen prompt_encoder': 1000,
        'activations': 20,
    }  # fmt: skip
    ddp = per_card(sizes, Setup(gpus=8, batch=2), activations)
    assert ddp == {**one, 'DDP buckets': 3980}  # made anew while the old ones are there, before the activations
    large = activations._replace(per_picture=3000)
    assert 'DDP buckets' not in per_card(sizes, Setup(gpus=8, batch=2), large)
    copied = Setup(gpus=8, batch=2, views=False)
    assert per_card(sizes, copied, activations) == {**one, 'DDP buckets': 4000}
    cached = Setup(batch=2, cached=('codec', 'prompt_encoder'))
    states = {name: own for name, own in one.items() if not name.startswith('frozen')}
    assert per_card(sizes, cached, activations) == {**states, 'frozen, in validation': 1080}  # no activations then
    assert per_card(sizes, replace(cached, validates=False), activations) == states
    assert sum(per_card(sizes, replace(cached, gpus=8), activations).values()) == sum(states.values()) + 3980
    assert bytes_before(sizes, replace(cached, gpus=8), activations) == 16010
    sharded = Setup(gpus=8, batch=2, sharded=True)
    shares = per_card(sizes, sharded, activations)
    assert shares['weights'] == 500 and shares['optimizer'] == 1000 and shares['frozen prompt_encoder'] == 125
    assert shares['gathered'] == 600  # two blocks of the prompt encoder are more than 30 + 2 * 50 + 100
    assert 'unreduced gradients' not in shares and 'DDP buckets' not in shares
    many = Setup(gpus=8, sharded=True, accumulation=4)
    assert per_card(sizes, many, activations)['unreduced gradients'] == 4000
    each = Setup(gpus=8, sharded=True, accumulation=4, reduce_each_micro_batch=True)
    assert 'unreduced gradients' not in per_card(sizes, each, activations)
    assert per_card(sizes, replace(each, cached=cached.cached), activations) == per_card(sizes, each, activations)
    offloaded = per_card(sizes, Setup(gpus=8, sharded=True, offload=True), activations)
    assert set(offloaded) == {'gathered', 'activations'}

    assert host_bytes(sizes, Setup(gpus=16)) == 8 * 5100  # eight ranks of a machine read it each
    assert host_bytes(sizes, sharded) == 5100
    assert host_bytes(sizes, Setup(gpus=16, sharded=True, offload=True)) == (2 * 4000 + 8000 + 1100) // 2
    assert checkpoint_bytes(sizes, Setup(ema=True)) == 16000
    assert fits(one, 17120) and not fits(one, 17119)


def test_knobs_are_turned_from_the_cheapest_on():
    setup = Setup(gpus=8, batch=8, accumulation=16, checkpointing=False)
    turned = list(knobs(setup))
    assert turned[0][1] == Setup(gpus=8, batch=8, accumulation=16)
    assert turned[1] == ('gradient_checkpointing=True (a third more time), batch 4', Setup(8, batch=4, accumulation=32))
    sizes = [own.batch * own.accumulation * own.gpus for _, own in turned]
    assert set(sizes) == {1024}, 'an update stays as it is'
    words = [text for text, _ in turned]
    assert ['fsdp2' in text for text in words].index(True) < ['offload' in text for text in words].index(True)
    assert all(own.sharded for text, own in turned if 'FSDP2' in text)
    assert next(own.cached for text, own in turned if 'from a cache' in text) == ('codec', 'prompt_encoder')


def test_optimizers_and_one_that_is_not_known():
    model = torch.nn.Linear(10, 3)
    assert [optimizer_bytes(dict(optimizer=own), model) for own in (
        dict(type='AdamW'), dict(type='SGD'), dict(type='SGD', momentum=0.9),
    )] == [264, 0, 132]  # fmt: skip
    muon = dict(optimizer=dict(type='genseg_mm.MuonAdamW'), paramwise_cfg=dict(muon_keys=['weight']))
    assert optimizer_bytes(muon, model) == 2 * 132 - 120
    with pytest.raises(ValueError, match=r'states are known \(.*AdamW.*\), but got .Lion'):
        optimizer_bytes(dict(optimizer=dict(type='Lion')), model)


def bytes_of(tensors):
    return sum(own.numel() * own.element_size() for own in tensors)
