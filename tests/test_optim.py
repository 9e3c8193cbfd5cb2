"""bfloat16 training on any device; Muon: what it steps, beside torch's own, resumed; where gradients of DDP are."""

from copy import deepcopy
from types import SimpleNamespace

import pytest
import torch
import torch.distributed as dist
from mmengine.model import MMDistributedDataParallel
from torch import nn

from genseg_mm.devices import device_of
from genseg_mm.optim import Float32Muon, MuonOptimWrapperConstructor, orthogonalized, zero_in_place
from genseg_mm.registry import OPTIM_WRAPPERS, OPTIMIZERS


def build(model: nn.Module, **kwargs: object):
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
    return OPTIM_WRAPPERS.build(dict(type='genseg_mm.AutocastOptimWrapper', optimizer=optimizer, **kwargs))


def test_computes_in_bfloat16_and_updates_in_float32() -> None:
    model = nn.Linear(3, 1, bias=False)
    nn.init.constant_(model.weight, 1 / 3)
    wrapper = build(model)
    inputs = torch.tensor([[1.0, 2.0, 4.0]])
    with wrapper.optim_context(model):
        output = model(inputs)
    assert output.dtype == torch.bfloat16
    # 7 times 1/3 rounded to 8 bits of mantissa, 0.333984375, rounded again.
    assert output.item() == torch.tensor(7 * 0.333984375).bfloat16().item() == 2.34375
    wrapper.update_params(output.float().sum())
    assert model.weight.dtype == torch.float32
    expected = torch.tensor([[1 / 3 - 0.5, 1 / 3 - 1, 1 / 3 - 2]])
    assert torch.allclose(model.weight, expected, rtol=0, atol=1e-7)
    assert torch.nn.functional.linear(inputs, inputs).dtype == torch.float32  # the context has ended


def test_accumulates_like_the_plain_wrapper() -> None:
    model = nn.Linear(1, 1, bias=False)
    nn.init.zeros_(model.weight)
    wrapper = build(model, accumulative_counts=2)
    wrapper.initialize_count_status(model, 0, 4)
    weights = []
    for value in (1.0, 3.0, 2.0, 2.0):
        with wrapper.optim_context(model):
            loss = model(torch.tensor([[value]])).float().sum()
        wrapper.update_params(loss)
        weights.append(model.weight.item())
    assert weights == [0.0, -1.0, -1.0, -2.0]  # steps of 0.5 times the mean of two gradients


def test_float16_is_refused_with_the_way_out() -> None:
    with pytest.raises(ValueError, match="'bfloat16' only, but got 'float16'.*AmpOptimWrapper"):
        build(nn.Linear(1, 1), dtype='float16')


class Blocks(nn.Module):
    """Two matrices inside layers, and what is not Muon's: a bias, an embedding, a head, a frozen matrix."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(4, 4) for _ in range(3))
        self.layers[2].requires_grad_(False)
        self.embedding = nn.Parameter(torch.randn(4, 4))
        self.head = nn.Linear(4, 2)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        for layer in self.layers:
            inputs = torch.tanh(layer(inputs + self.embedding))
        return self.head(inputs).square().mean()


def muon(model: nn.Module, **paramwise: object):
    cfg = dict(
        type='OptimWrapper', optimizer=dict(type='genseg_mm.MuonAdamW', lr=0.02, weight_decay=0.1, betas=(0.9, 0.98))
    )
    return MuonOptimWrapperConstructor(cfg, paramwise)(model)


def test_muon_gets_the_matrices_of_the_layers_and_each_part_steps_as_torch_does() -> None:
    torch.manual_seed(0)
    model, inputs = Blocks(), torch.randn(3, 4, 4)
    twin = Blocks()
    twin.load_state_dict(model.state_dict())
    wrapper = muon(model)
    hidden = [twin.layers[0].weight, twin.layers[1].weight]
    others = [p for p in twin.parameters() if p.requires_grad and all(p is not q for q in hidden)]
    parts = [
        Float32Muon(hidden, lr=0.02, weight_decay=0.1, adjust_lr_fn='match_rms_adamw'),
        torch.optim.AdamW(others, lr=0.02, weight_decay=0.1, betas=(0.9, 0.98), fused=True),
    ]
    assert wrapper.get_lr()['base_lr'] == [0.02]
    frozen = model.layers[2].weight.clone()
    for _ in range(3):
        wrapper.update_params(model(inputs))
        twin(inputs).backward()
        for part in parts:
            part.step()
            part.zero_grad()
    for (name, own), other in zip(model.named_parameters(), twin.parameters(), strict=True):
        assert torch.equal(own, other), name
    assert torch.equal(model.layers[2].weight, frozen)


@pytest.mark.parametrize('shape', [(6, 14), (14, 6), (9, 9)])
@pytest.mark.parametrize('adjust_lr_fn', ['original', 'match_rms_adamw'])
def test_float32_muon_is_torchs_but_for_the_rounding_of_bfloat16(shape, adjust_lr_fn) -> None:
    torch.manual_seed(0)
    start, gradients = torch.randn(shape), torch.randn(4, *shape)
    moved = []
    for kind in (torch.optim.Muon, Float32Muon):
        weight = nn.Parameter(start.clone())
        optimizer = kind([weight], lr=0.1, weight_decay=0.2, adjust_lr_fn=adjust_lr_fn)
        for gradient in gradients:
            weight.grad = gradient.clone()
            optimizer.step()
        moved.append(weight.detach() - start)
    assert (moved[0] - moved[1]).norm() < 0.02 * moved[1].norm()
    assert optimizer.state_dict()['state'][0].keys() == {'momentum_buffer'}


@pytest.mark.parametrize('shape', [(5, 8), (8, 5)])
def test_orthogonalized_maps_singular_values_by_the_quintic(shape) -> None:
    torch.manual_seed(0)
    matrix = torch.randn(shape, dtype=torch.float64)
    a, b, c = 3.4445, -4.775, 2.0315
    u, expected, v = torch.linalg.svd(matrix / matrix.norm(), full_matrices=False)
    for _ in range(5):
        expected = a * expected + b * expected**3 + c * expected**5
    found = orthogonalized(matrix, (a, b, c), 5, 1e-7)
    assert torch.allclose(found, u @ torch.diag(expected) @ v, atol=1e-10)
    assert ((expected > 0.6) & (expected < 1.3)).all()


def test_muon_continues_from_its_state_and_follows_a_schedule() -> None:
    torch.manual_seed(0)
    model, inputs = Blocks(), torch.randn(3, 4, 4)
    wrapper = muon(model)
    wrapper.update_params(model(inputs))
    resumed = Blocks()
    resumed.load_state_dict(model.state_dict())
    other = muon(resumed)
    other.load_state_dict(deepcopy(wrapper.state_dict()))  # torch keeps the tensors of a state dict
    for own in (wrapper, other):
        for group in own.param_groups:
            group['lr'] = 0.005  # what a scheduler does
    for _ in range(2):
        wrapper.update_params(model(inputs))
        other.update_params(resumed(inputs))
    for (name, own), again in zip(model.named_parameters(), resumed.parameters(), strict=True):
        assert torch.equal(own, again), name
    assert {group['use_muon'] for group in other.optimizer.param_groups} == {True, False}


def test_muon_refuses_what_it_cannot_do() -> None:
    with pytest.raises(ValueError, match="needs parameter groups with 'use_muon'"):
        OPTIMIZERS.build(dict(type='genseg_mm.MuonAdamW', params=[dict(params=[nn.Parameter(torch.ones(2, 2))])]))
    with pytest.raises(ValueError, match='matrices only, but got shapes such as \\(3,\\)'):
        group = dict(params=[nn.Parameter(torch.ones(3))], use_muon=True)
        OPTIMIZERS.build(dict(type='genseg_mm.MuonAdamW', params=[group]))
    with pytest.raises(ValueError, match='match none of the 7 trained parameters, such as embedding'):
        muon(Blocks(), muon_keys=['nothing'])
    with pytest.raises(ValueError, match="knows muon_keys only, but got \\['norm_decay'\\]"):
        muon(Blocks(), norm_decay=0)


class TestGradientsOfDDP:
    """One process of gloo: its buckets are those of many."""

    @pytest.fixture(autouse=True)
    def group(self):
        dist.init_process_group('gloo', store=dist.HashStore(), rank=0, world_size=1)
        yield
        dist.destroy_process_group()

    def train(self, settings: dict | None, updates: int = 3, counts: int = 3, model: nn.Module | None = None):
        """Weights after some updates, and in how many places gradients were in each micro-batch of the last."""
        torch.manual_seed(0)
        model = model or nn.Sequential(nn.Linear(6, 5), nn.GELU(), nn.Linear(5, 4), nn.Linear(4, 2))
        trained = model if settings is None else MMDistributedDataParallel(model, broadcast_buffers=False, **settings)
        optimizer = torch.optim.AdamW(model.parameters(), lr=0.1)
        wrapper = OPTIM_WRAPPERS.build(
            dict(type='OptimWrapper', optimizer=optimizer, accumulative_counts=counts, clip_grad=dict(max_norm=0.1))
        )
        assert zero_in_place(wrapper, trained) is wrapper
        wrapper.initialize_count_status(trained, 0, updates * counts)
        for _ in range(updates):
            places = []
            for _ in range(counts):
                with wrapper.optim_context(trained):
                    loss = trained(torch.randn(4, 6)).square().mean()
                wrapper.backward(wrapper.scale_loss(loss))
                grads = [own.grad for own in model.parameters() if own.grad is not None]
                places.append(len({own.untyped_storage().data_ptr() for own in grads}))
            wrapper.step()
            wrapper.zero_grad()
        return torch.cat([own.detach().flatten() for own in model.parameters()]), places

    def test_they_are_there_once_over_all_micro_batches(self) -> None:
        expected, places = self.train(None)
        assert places == [6, 6, 6]
        for settings, kept in (
            (dict(gradient_as_bucket_view=True), [1, 1, 1]),
            (dict(gradient_as_bucket_view=True, find_unused_parameters=True), [6, 6, 1]),
            (dict(), [6, 6, 6]),
        ):
            weights, places = self.train(settings)
            assert places == kept, settings
            torch.testing.assert_close(weights, expected, rtol=0, atol=1e-6)
        expected, _ = self.train(None, counts=1)  # static graphs know no micro-batches
        weights, places = self.train(dict(gradient_as_bucket_view=True, static_graph=True), counts=1)
        assert places == [1]
        torch.testing.assert_close(weights, expected, rtol=0, atol=1e-6)

    def test_an_unused_parameter_is_not_decayed(self) -> None:
        settings = dict(gradient_as_bucket_view=True, find_unused_parameters=True)
        model = nn.Sequential(nn.Linear(6, 2))
        model.unused = nn.Parameter(torch.ones(3))
        model.forward = lambda inputs: model[0](inputs)
        self.train(settings, model=model)
        assert model.unused.tolist() == [1, 1, 1]


@pytest.mark.parametrize('frozen', [True, False])
def test_batch_norm_of_frozen_parts_is_not_warned_of(monkeypatch, frozen):
    """Also by strategies, which tell the wrapper of the model themselves."""
    messages = []
    monkeypatch.setattr('mmengine.optim.optimizer.optimizer_wrapper.print_log', lambda text, **_: messages.append(text))
    model = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2).train(not frozen))
    build(model, accumulative_counts=2).initialize_count_status(model, 0, 4)
    assert ['BatchNorm layers' in text for text in messages] == ([] if frozen else [True])


def test_the_device_of_shards_that_wait_on_the_host_is_the_one_of_their_mesh():
    model = nn.Linear(2, 2)
    assert device_of(model) == torch.device('cpu')
    model.weight.device_mesh = SimpleNamespace(device_type='meta')  # in place of cuda
    assert device_of(model) == torch.device('meta')
