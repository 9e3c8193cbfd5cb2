"""What is sharded, how it gets its values, and what sharding must not change."""

import pytest
import torch
import torch.distributed as dist
from rank_forks import on_ranks
from sharded_models import released, strategy
from tiny_dit import dit_inputs, saved, tiny_backbone
from tiny_models import TRANSFORMERS, batch, genmask_config
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule
from torch.distributed.tensor import DTensor

from genseg_mm.models.dit_backbone import DiTBackbone
from genseg_mm.models.pretrained_parts import without_values
from genseg_mm.sharded_tensors import gather_on_main, local_of, part_of, sharded_as, whole_of
from genseg_mm.sharding.shard_model import blocks_of, library_parts, shard_model


@pytest.mark.parametrize('family', TRANSFORMERS)
def test_blocks_are_those_of_the_library(family):
    transformer = tiny_backbone(family).transformer
    found = {type(block).__name__ for block in blocks_of(transformer)}
    assert found and all('Block' in name for name in found)
    assert found <= set(transformer._no_split_modules) | set(getattr(transformer, '_repeated_blocks', None) or ())
    num_blocks = sum(len(own) for own in transformer.modules() if isinstance(own, nn.ModuleList))
    assert 0 < len(list(blocks_of(transformer))) <= num_blocks


def _values(folder, config, arguments):
    own = strategy(folder, **arguments)
    torch.manual_seed(dist.get_rank())  # what is drawn at random differs by rank
    own.prepare(config)
    model = own.model
    parameters = dict(model.named_parameters())
    sharded = sorted(name for name, value in parameters.items() if isinstance(value, DTensor))
    wholes = {name: whole_of(value.detach()).clone() for name, value in parameters.items()}
    locals_ = sum(local_of(value).numel() for value in parameters.values())
    units = [type(module).__name__ for module in model.modules() if isinstance(module, FSDPModule)]
    return wholes | dict(model.named_buffers()), sharded, locals_, units


@pytest.mark.parametrize('copies', [1, 2])
def test_all_ranks_have_the_values_of_rank_0(tmp_path, copies):
    config = released(tmp_path)
    first, second = on_ranks(2, _values, tmp_path, config, dict(copies=copies))
    values, sharded, num_local, units = first
    assert units == second[3]
    assert sum('Block' in name for name in units) >= 2
    expected = DiTBackbone('wan', config['backbone']['transformer']).transformer
    for name, value in expected.named_parameters():
        assert torch.equal(values[f'backbone.transformer.{name}'], value), name
    for name, value in values.items():
        assert torch.equal(value, second[0][name]), name
    trained = [name for name in values if name.startswith(('backbone.', 'prompt_encoder.'))]
    assert set(sharded) <= set(trained) and len(sharded) > 20
    sizes = {name: value.numel() for name, value in values.items()}
    whole = sum(size for name, size in sizes.items() if name.startswith('codec.autoencoder.'))
    shares = num_local - whole
    assert num_local + second[2] == 2 * whole + copies * sum(sizes[name] for name in sharded)
    assert copies == 2 or shares < 0.6 * sum(sizes[name] for name in sharded)


def test_a_model_without_values_is_the_one_with_them(tmp_path):
    for family in TRANSFORMERS:
        source = saved(tiny_backbone(family).transformer, tmp_path / family)
        whole = DiTBackbone(family, source, prompt_dims=20)
        with without_values():
            shapes = DiTBackbone(family, source, prompt_dims=20)
        assert all(own.is_meta for own in shapes.parameters())
        for (name, own), (other, value) in zip(whole.named_parameters(), shapes.named_parameters(), strict=True):
            assert (name, own.shape, own.requires_grad) == (other, value.shape, value.requires_grad)
        buffers = dict(shapes.named_buffers())
        for name, own in whole.named_buffers():
            assert torch.equal(own, buffers[name]), (family, name)
    assert not nn.Linear(2, 2).weight.is_meta


def _timesteps(family):
    torch.manual_seed(0)
    backbone = tiny_backbone(family)
    shard_model(backbone, init_device_mesh('cpu', (2,)), param_dtype=torch.bfloat16)
    seen, dtypes = [], []
    for module in backbone.modules():
        if type(module).__name__ in ('Timesteps', 'TimestepEmbedder'):
            module.register_forward_pre_hook(lambda _, args: seen.append(args[0].detach().clone()))
        if isinstance(module, nn.Linear):
            module.register_forward_pre_hook(lambda own, _: dtypes.append(own.weight.dtype))
    noisy, _, prompt, image = dit_inputs(backbone)
    with torch.autocast('cpu', torch.bfloat16):
        velocity = backbone(noisy, torch.tensor([1.0, 0.998, 0.9]), prompt, image)
    velocity.square().mean().backward()
    gradients = {own.grad.dtype for own in backbone.parameters() if own.grad is not None}
    return seen[0], set(dtypes), gradients


@pytest.mark.parametrize('family', ['wan', 'flux', 'qwen_image'])
def test_no_timestep_is_cast(family):
    seen, dtypes, gradients = on_ranks(2, _timesteps, family)[0]
    assert dtypes == {torch.bfloat16} and gradients == {torch.float32}
    scale = 1 if family == 'qwen_image' else 1000
    assert seen.dtype == torch.float32
    levels = torch.tensor([0.998 * scale, 0.9 * scale])
    assert all((seen.flatten() - level).abs().min() < 1e-3 * scale**0.5 / 30 for level in levels)


def _step(folder, config, tasks):
    own = strategy(folder)
    own.prepare(config, optim_wrapper=dict(type='OptimWrapper', optimizer=dict(type='SGD', lr=0.1)))
    own.model.train()
    return own.model.train_step(batch(tasks[dist.get_rank()]), own.optim_wrapper)['loss'].item()


def test_ranks_with_other_tasks_are_refused_before_they_hang(tmp_path):
    config = genmask_config('wan')
    errors = on_ranks(2, _step, tmp_path, config, [['mask'] * 4, ['mask', 'image'] * 2], errors=True)
    for error in errors:
        assert isinstance(error, ValueError) and 'train_dataloader.sampler' in str(error)
    losses = on_ranks(2, _step, tmp_path, config, [['mask', 'image'] * 2] * 2)
    assert losses[0] == losses[1] > 0


def _another(folder, configs):
    strategy(folder).prepare(configs[dist.get_rank()])


def test_ranks_with_other_models_are_told(tmp_path):
    configs = [genmask_config('wan'), genmask_config('wan')]
    configs[1]['prompt_encoder'] = {**configs[1]['prompt_encoder'], 'trainable': False}
    for error in on_ranks(2, _another, tmp_path, configs, errors=True):
        assert 'rank 1 has built another model than rank 0' in str(error)


def _parts(_):
    mesh = init_device_mesh('cpu', (2,))
    layer = nn.Linear(3, 5)
    whole = {name: own.detach().clone() for name, own in layer.named_parameters()}
    for own in whole.values():
        dist.broadcast(own, 0)
    from torch.distributed.fsdp import fully_shard

    fully_shard(layer, mesh=mesh)
    for name, own in layer.named_parameters():
        again = sharded_as(whole[name], own.detach())
        assert torch.equal(part_of(whole[name], own), local_of(again))
        assert torch.equal(whole_of(again), whole[name])
    gathered = gather_on_main(dict(a=[again], b=1))
    return [local_of(again).shape, gathered['a'][0].shape, gathered['b']]


def test_parts_of_a_tensor():
    first, second = on_ranks(2, _parts, None)
    assert first == [torch.Size([3]), torch.Size([5]), 1]
    assert second == [torch.Size([2]), torch.Size([0]), 1]


def test_what_cannot_be_sharded_is_said(tmp_path):
    with pytest.raises(ValueError, match=r"strategy.checkpoint: expected 'full' or 'sharded', but got 'x'"):
        strategy(tmp_path, checkpoint='x')
    with pytest.raises(ValueError, match='strategy.copies: expected a divisor of 1 ranks, but got 2'):
        strategy(tmp_path, copies=2)
    with pytest.raises(ValueError, match='but got AmpOptimWrapper'):
        strategy(tmp_path).prepare(nn.Linear(1, 1), optim_wrapper=dict(type='AmpOptimWrapper'))
    with pytest.raises(
        ValueError, match=r"strategy.blocks: .* \['Nothing'\]; the libraries name \['WanTransformerBlock'\]"
    ):
        shard_model(tiny_backbone('wan'), None, blocks=['Nothing'])
    assert list(library_parts(tiny_backbone('sana'))) != []
