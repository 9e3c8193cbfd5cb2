"""Encoders that a training from a cache never asks wait in the memory of the host (models/cached_inputs.py)."""

from pathlib import Path

import pytest
import torch
from cached_data import batch, data_config, encoder, losses, make_cache, make_tiny_refcoco, set_hub, write_config
from mmengine.config import Config
from short_runs import run_forked
from tiny_models import build, genmask_config

from genseg_mm.devices import device_of

ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def fresh_hub():
    set_hub()


@pytest.fixture(scope='module')
def coco(tmp_path_factory):
    return make_tiny_refcoco(tmp_path_factory.mktemp('data') / 'coco')


def devices(module):
    return {own.device.type for own in (*module.parameters(), *module.buffers())}


def test_encoders_wait_on_the_host_until_they_are_asked_for(coco, tmp_path):
    """The meta device stands for a card: what waits keeps its values, all else follows."""
    make_cache(write_config(tmp_path / 'c.py', coco, 'wan'), tmp_path / 'cache')
    plain, cached = data_config(coco), data_config(coco, tmp_path / 'cache')
    for kinds, waiting in ((('image',), ()), (('prompt',), ('prompt_encoder',)), (('image', 'mask'), ('codec',))):
        model = build('wan', prompt_encoder=encoder('wan')).train()
        assert model.leave_encoders_on_host(kinds) == waiting
        model.to('meta').bfloat16()
        parts = dict(codec=model.codec.autoencoder, prompt_encoder=model.prompt_encoder.encoder)
        assert {name for name, own in parts.items() if devices(own) == {'cpu'}} == set(waiting)
        assert {own.dtype for part in parts.values() for own in part.parameters()} == {torch.bfloat16}
        assert devices(model.backbone) == {'meta'} == {model.codec.latents_mean.device.type}
        assert device_of(model).type == 'meta'
        ignored = model._ddp_params_and_buffers_to_ignore
        assert {name.split('.')[0] for name in ignored} == set(waiting) and 'codec.latents_mean' not in ignored
    latents = model.eval().codec.encode(torch.empty(2, 3, 32, 32, device='meta'))
    assert latents.shape[0] == 2 and devices(model.codec) == {'meta'}
    model = build('wan', prompt_encoder=encoder('wan')).train()
    model.leave_encoders_on_host({'prompt'})
    with model.to('meta').prompt_encoder.eval().running():
        assert model.prompt_encoder.device.type == 'meta'

    usual, model = (build('wan', prompt_encoder=encoder('wan')) for _ in range(2))
    model.leave_encoders_on_host({'image', 'mask', 'prompt'})
    for turn in (1, 2):  # of training and validation
        assert losses(model.train(), batch(cached, visit=turn)) == losses(usual.train(), batch(cached, visit=turn))
        assert model.codec._home is not None and model.prompt_encoder._home is not None
        own, expected = (
            one.eval()(**one.data_preprocessor(batch(plain, (0, 3))), mode='predict') for one in (model, usual)
        )
        for sample, other in zip(own, expected, strict=True):
            assert torch.equal(sample.seg_logits.data, other.seg_logits.data)
        assert model.codec._home is None and model.prompt_encoder._home is None
    assert losses(model.train(), batch(plain)) == losses(usual.train(), batch(plain))  # in the midst of a training
    model.train()
    assert model.codec._home is None and model.prompt_encoder._home is None  # and there they stay


@pytest.mark.gpu
def test_encoders_that_wait_take_nothing_of_a_card():
    model = build('wan', prompt_encoder=encoder('wan')).train()
    model.leave_encoders_on_host({'image', 'mask', 'prompt'})
    model.to('cuda')
    part = model.codec.autoencoder
    assert devices(part) == {'cpu'} == devices(model.prompt_encoder.encoder)
    before = torch.cuda.memory_allocated()
    model.eval().codec.encode(torch.zeros(1, 3, 32, 32, device='cuda'))
    assert devices(part) == {'cuda'} and devices(model.prompt_encoder.encoder) == {'cpu'}
    taken = torch.cuda.memory_allocated()
    size = sum(own.numel() * own.element_size() for own in part.parameters())
    model.train()
    assert devices(part) == {'cpu'}
    assert taken - before >= size and taken - torch.cuda.memory_allocated() >= size


@pytest.mark.slow
def test_training_from_a_cache_in_two_processes_is_training_without(coco, tmp_path):
    """DDP, validation that asks for the encoders, and a resume, with and without encoders that wait."""
    make_cache(write_config(tmp_path / 'c.py', coco, 'wan'), tmp_path / 'cache')
    weights = []
    for name, folder in (('plain', None), ('cached', tmp_path / 'cache')):
        torch.manual_seed(0)
        cfg = Config.fromfile(ROOT / 'configs/genmask/genmask_wan_shapes_tiny.py')
        model = genmask_config('wan', prompt_encoder=encoder('wan'), image_prompt_drop_prob=0.5)
        cfg.model, cfg.custom_hooks, cfg.param_scheduler, cfg.global_batch_size = model, [], [], 8
        data = data_config(coco, folder)
        sampler = dict(type='genseg_mm.RatioInfiniteSampler', ratio=[1, 1], group=2)
        cfg.train_dataloader = dict(batch_size=2, num_workers=0, sampler=sampler, dataset=data)
        cfg.val_dataloader.dataset = data_config(coco)['datasets'][0]
        text, load, mask, resize, pack = cfg.val_dataloader.dataset.pipeline
        cfg.val_dataloader.dataset.update(test_mode=True, indices=4, pipeline=[text, load, resize, mask, pack])
        cfg.val_dataloader.update(num_workers=0, persistent_workers=False)
        cfg.val_evaluator = dict(type=cfg.val_evaluator.type)
        cfg.optim_wrapper = dict(type='OptimWrapper', optimizer=dict(type='SGD', lr=0.1, momentum=0.9))
        cfg.train_cfg.update(max_iters=4, val_interval=2)
        cfg.default_hooks.checkpoint.update(interval=2, save_best=None)
        cfg.dump(tmp_path / f'{name}.py')
        work_dir = tmp_path / name
        arguments = ['train.py', tmp_path / f'{name}.py', '--work-dir', work_dir]
        text = run_forked(*arguments, '--cfg-options', 'train_cfg.max_iters=2', cwd=tmp_path, processes=2)
        assert ('codec and prompt_encoder wait in the memory of the host' in text) == (folder is not None)
        run_forked(*arguments, '--resume', cwd=tmp_path, processes=2)
        state = torch.load(work_dir / 'iter_4.pth', weights_only=False)['state_dict']
        weights.append(state)
    for name, own in weights[0].items():
        torch.testing.assert_close(weights[1][name], own, rtol=1e-4, atol=1e-5, msg=name)
