"""Referring segmentation and text-to-image generation trained together, in one process and in two."""

import json
import runpy
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.logging import MessageHub
from short_runs import run_forked
from tiny_models import batch, build, genmask_config

ROOT = Path(__file__).parents[2]
NUM_ITERS = 12
MIXES = (['mask'] * 4, ['image'] * 4, ['mask', 'image', 'image', 'mask'])


@pytest.mark.parametrize('family', ['sana', 'wan'])
def test_every_mix_gives_the_same_keys_and_finite_gradients(family):
    model = build(family)
    model.train()
    logged = []
    for tasks in MIXES:
        MessageHub.get_current_instance().update_info('iter', 0)
        model.zero_grad()
        losses = model(**model.data_preprocessor(batch(tasks), True), mode='loss')
        total, log_vars = model.parse_losses(losses)
        total.backward()
        gradients = {name: p.grad for name, p in model.named_parameters() if p.requires_grad}
        assert [n for n, g in gradients.items() if g is None or not g.isfinite().all()] == []
        assert sum(gradient.abs().sum() for gradient in gradients.values()) > 0
        logged.append({key: value.item() for key, value in log_vars.items()})
    counts = ('num_samples_mask', 'num_samples_image')
    assert {tuple(losses) for losses in logged} == {('loss', 'loss_mask', 'loss_image', *counts)}
    assert [[own[name] for name in counts] for own in logged] == [[4, 0], [0, 4], [2, 2]]
    masks, images, mixed = logged
    assert masks['loss_image'] == images['loss_mask'] == 0
    for losses in logged:
        assert losses['loss'] == pytest.approx(losses['loss_mask'] + losses['loss_image'], rel=1e-6)
    # Samples 0 and 3 are masks in two of the mixes, 1 and 2 images in two, with the noise of their position.
    assert 0 < mixed['loss_mask'] < masks['loss_mask']
    assert 0 < mixed['loss_image'] < images['loss_image']


def test_prompts_are_dropped_for_image_samples_alone(monkeypatch):
    model, seen = build('sana', image_prompt_drop_prob=0.5), []
    encode = model.prompt_encoder.forward
    monkeypatch.setattr(model.prompt_encoder, 'forward', lambda texts, *args, **kw: seen.append(texts) or encode(texts))
    tasks, hub = ['mask', 'image'] * 2, MessageHub.get_current_instance()
    for iteration in range(50):
        hub.update_info('iter', iteration)
        with torch.no_grad():
            model(**model.data_preprocessor(batch(tasks), True), mode='loss')
    dropped = [[text == '' for text in texts] for texts in seen]
    assert len(dropped) == 50
    assert [sum(own[index] for own in dropped) for index in (0, 2)] == [0, 0]
    for index in (1, 3):
        assert abs(sum(own[index] for own in dropped) - 25) < 5 * (50 / 4) ** 0.5


@pytest.fixture(scope='module')
def config(tmp_path_factory) -> Path:
    """Tiny referring data and captions, and the tiny Sana."""
    root = tmp_path_factory.mktemp('joint')
    for name in ('refcoco', 'captions'):
        tool = runpy.run_path(str(ROOT / f'tools/dataset_tools/make_tiny_{name}.py'))
        tool[f'make_tiny_{name}'](root / 'coco' if name == 'refcoco' else root)
    load, pack = (
        [dict(type='genseg_mm.LoadImage')],
        [dict(type='genseg_mm.TextPrompt'), dict(type='genseg_mm.PackGenSegInputs')],
    )
    referring = dict(
        type='genseg_mm.RefCOCODataset',
        data_root=str(root / 'coco'),
        pipeline=[
            *load,
            dict(type='genseg_mm.LoadReferringMask'),
            dict(type='mmcv.Resize', scale=(32, 32), keep_ratio=False),
            *pack,
        ],
    )
    captions = dict(
        type='genseg_mm.CocoCaptionsDataset',
        data_root=str(root / 'coco'),
        exclude_images='refcoco/refs(unc).p',
        pipeline=[
            *load,
            dict(type='mmcv.Resize', scale=(32, 10**6), keep_ratio=True, interpolation='area'),
            dict(type='mmcv.CenterCrop', crop_size=32),
            *pack,
        ],
    )
    (root / 'base.py').write_text(f'_base_ = [{f"{ROOT}/configs/_base_/default_runtime.py"!r}]\n')
    cfg = Config.fromfile(root / 'base.py')
    cfg.merge_from_dict(
        dict(
            model=genmask_config('sana'),
            train_cfg=dict(type='IterBasedTrainLoop', max_iters=NUM_ITERS),
            # Without a ratio each process draws from both parts on its own, so their mixes differ.
            train_dataloader=dict(
                batch_size=2,
                num_workers=0,
                sampler=dict(type='genseg_mm.RatioInfiniteSampler', seed=4),
                dataset=dict(type='genseg_mm.MixedDataset', datasets=[referring, captions]),
            ),
            optim_wrapper=dict(type='OptimWrapper', optimizer=dict(type='AdamW', lr=1e-3)),
            custom_imports=dict(imports=['joint_parts'], allow_failed_imports=False),
            custom_hooks=[dict(type='mmengine.NoteTasksHook')],
        )
    )
    cfg.randomness = dict(seed=0)
    cfg.dump(root / 'joint.py')
    return root / 'joint.py'


def train(num: int, config: Path, work_dir: Path, *options: str) -> list[list[dict]]:
    """What each of ``num`` processes noted."""
    work_dir.mkdir(exist_ok=True)
    run_forked('train.py', config, '--work-dir', work_dir, *options, cwd=work_dir, processes=num)
    noted = [(work_dir / f'tasks{rank}.txt').read_text().splitlines() for rank in range(num)]
    return [list(map(json.loads, lines)) for lines in noted]


def assert_means_over_samples(work_dir: Path, noted: list[list[dict]], window: int) -> None:
    """Compares the log with sums over the samples of all processes, of which batches hold ``size`` each."""
    text = next(work_dir.glob('*/vis_data/scalars.json')).read_text()
    lines = [line for line in map(json.loads, text.splitlines()) if 'loss' in line]
    assert len(lines) == NUM_ITERS
    absent = 0
    for line in lines:
        stop = line['step']
        for task in ('mask', 'image'):
            total = count = 0
            for number in range(max(stop - window, 0), stop):
                batches = [own[number]['tasks'] for own in noted]
                total += noted[0][number]['losses'][f'loss_{task}'] * sum(map(len, batches))
                count += sum(tasks.count(task) for tasks in batches)
            absent += not count
            assert line.get(f'loss_{task}') == (pytest.approx(total / count, rel=1e-4) if count else None)
    assert absent == sum(f'loss_{task}' not in line for line in lines for task in ('mask', 'image'))


@pytest.mark.slow
def test_two_processes_with_different_mixes_train_as_one_does(config, tmp_path):
    options = ['log_processor.window_size=3', 'default_hooks.logger.interval=1']
    first, second = train(2, config, tmp_path / 'two', '--cfg-options', *options)
    assert len(first) == len(second) == NUM_ITERS
    sorted_tasks = [(sorted(a['tasks']), sorted(b['tasks'])) for a, b in zip(first, second, strict=True)]
    assert sum(a != b for a, b in sorted_tasks) >= 3
    alone = (['mask'] * 2, ['image'] * 2)
    assert any((a, b) in (alone, alone[::-1]) for a, b in sorted_tasks)
    for own, other in zip(first, second, strict=True):
        assert list(own['losses'])[:3] == ['loss', 'loss_mask', 'loss_image']
        assert own['losses'] == other['losses']  # means over both
    assert_means_over_samples(tmp_path / 'two', [first, second], window=3)
    (one,) = train(1, config, tmp_path / 'one', '--cfg-options', 'train_dataloader.batch_size=4')
    for whole, *parts in zip(one, first, second, strict=True):
        assert sorted(whole['tasks']) == sorted(parts[0]['tasks'] + parts[1]['tasks'])
        for key, value in whole['losses'].items():
            assert parts[0]['losses'][key] == pytest.approx(value, rel=2e-3, abs=1e-5)


@pytest.mark.slow
def test_one_to_one_by_the_ratio_sampler(config, tmp_path):
    options = ['train_dataloader.sampler.ratio=[1,1]', 'train_cfg.max_iters=20']
    first, second = train(2, config, tmp_path, '--cfg-options', *options)
    # A position of the batch has one source in all processes: none waits for a longer text than the other.
    assert [own['tasks'] for own in first] == [own['tasks'] for own in second]
    tasks = [task for own in first for task in own['tasks']]
    assert abs(tasks.count('image') - 20) < 5 * 10**0.5


@pytest.mark.slow
def test_wan_with_checkpointing_and_a_trained_layer_hangs_on_no_mix(config, tmp_path):
    model = genmask_config('wan', mask_head=dict(type='genseg_mm.BCEMaskHead', through='linear'))
    model['backbone'].update(gradient_checkpointing=True)
    cfg = Config.fromfile(config)
    cfg.merge_from_dict(dict(model=dict(model, _delete_=True)))
    cfg.optim_wrapper.type = 'genseg_mm.AutocastOptimWrapper'
    cfg.dump(config.with_name('wan.py'))
    first, second = train(2, config.with_name('wan.py'), tmp_path)
    kinds = {(len(set(a['tasks'])), len(set(b['tasks']))) for a, b in zip(first, second, strict=True)}
    # One forward pass in one process and two in the other, two in both, one in both.
    assert kinds >= {(1, 2), (2, 1), (1, 1)}
    for own, other in zip(first, second, strict=True):
        assert list(own['losses'])[:3] == ['loss', 'loss_mask', 'loss_image']
        assert own['losses'] == other['losses']
