"""Whatever draws, averages or accumulates in a training, a resumed one ends with the same bits."""

import runpy
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from toy_parts import toy_runner

from genseg_mm.checkpoint import load_weights_only

ROOT = Path(__file__).parents[2]
FOREIGN = {
    'train_dataloader.dataset': dict(type='ToyDataset', jitter=True, _delete_=True),
    'train_dataloader.sampler': dict(type='InfiniteSampler', _delete_=True),
}
BY_EPOCH = {
    'train_cfg': dict(type='EpochBasedTrainLoop', max_epochs=4, val_interval=2, _delete_=True),
    'train_dataloader.sampler': dict(type='DefaultSampler', shuffle=True, _delete_=True),
    'train_dataloader.dataset': dict(type='ToyDataset', jitter=True, _delete_=True),
    'default_hooks.checkpoint': dict(type='genseg_mm.SafeCheckpointHook', interval=1, _delete_=True),
}
SITUATIONS = {
    'dropout': {'model.dropout': 0.5},
    'foreign dataset and sampler': FOREIGN,
    'sampler without skip': {
        'train_dataloader.dataset': dict(type='ToyDataset', num_samples=48, jitter=True, _delete_=True),
        'train_dataloader.sampler': dict(type='DefaultSampler', shuffle=True, _delete_=True),
    },
    'ema': {'custom_hooks': [dict(type='EMAHook', momentum=0.1)], 'model.dropout': 0.5},
    'accumulation': {'optim_wrapper.accumulative_counts': 4, **FOREIGN},
    'random seed': {'randomness': dict(seed=None, _delete_=True), **FOREIGN, 'model.dropout': 0.5},
    'whole epochs': {**BY_EPOCH, 'model.dropout': 0.5},
}


def state(folder: Path, name: str) -> dict:
    found = load_weights_only(str(folder / name))
    return {key: found[key] for key in ('state_dict', 'optimizer', 'param_schedulers')} | {
        'ema': found.get('ema_state_dict'),
        'losses': found['message_hub']['log_scalars']['train/loss'].data[0].tolist(),
    }


def assert_same(first: object, second: object, name: str = '') -> None:
    assert type(first) is type(second), name
    if isinstance(first, dict):
        assert first.keys() == second.keys(), name
        for key, value in first.items():
            assert_same(value, second[key], f'{name}.{key}')
    elif isinstance(first, list):
        assert len(first) == len(second), name
        for index, value in enumerate(first):
            assert_same(value, second[index], f'{name}.{index}')
    elif isinstance(first, torch.Tensor):
        assert torch.equal(first, second), name
    else:
        assert first == second, name


@pytest.mark.parametrize('situation', SITUATIONS)
def test_resumed_training_ends_with_the_same_bits(tmp_path, situation) -> None:
    options = {**SITUATIONS[situation], 'default_hooks.checkpoint.max_keep_ckpts': 9}
    toy_runner(tmp_path / 'whole', options).train()
    names = sorted(
        (file.name for file in (tmp_path / 'whole').glob('*_*.pth') if 'best' not in file.name),
        key=lambda name: int(name.split('_')[1].removesuffix('.pth')),
    )
    # Interrupted at the second checkpoint: a validation has taken place, or is about to.
    start = str(tmp_path / 'whole' / names[1])
    toy_runner(tmp_path / 'rest', options, resume=True, load_from=start).train()
    whole, rest = (state(tmp_path / folder, names[-1]) for folder in ('whole', 'rest'))
    assert len(set(whole['losses'])) == len(whole['losses']) >= 20
    assert_same(whole, rest)


@pytest.mark.parametrize(
    ('counts', 'interval', 'expected'), [(4, 5, [8, 12, 16, 20]), (3, 5, [6, 12, 15, 20]), (1, 5, [5, 10, 15, 20])]
)
def test_checkpoints_wait_for_the_end_of_an_update(tmp_path, counts, interval, expected, monkeypatch) -> None:
    options = {
        'optim_wrapper.accumulative_counts': counts,
        'default_hooks.checkpoint.interval': interval,
        'default_hooks.checkpoint.max_keep_ckpts': -1,
        'train_cfg.val_interval': 7,  # whose new bests are saved along with the training state
    }
    runner, messages = toy_runner(tmp_path, options), []
    monkeypatch.setattr(runner.logger, 'info', lambda text, *_: messages.append(text))
    runner.train()
    saved = sorted(int(file.stem.removeprefix('iter_')) for file in tmp_path.glob('iter_*.pth'))
    of_bests = {-(-step // counts) * counts for step in (7, 14)}
    assert set(expected) <= set(saved) <= {*expected, *of_bests}
    assert all(step % counts == 0 or step == 20 for step in saved)
    waits = [text for text in messages if 'lies between two updates' in text]
    assert len(waits) == (counts > 1) and all(text.startswith('Iteration 5 ') for text in waits)


EMA = {'custom_hooks': [dict(type='EMAHook', momentum=0.1)]}
FEW = {f'train_dataloader.dataset.datasets.{part}.num_scenes': 40 for part in (0, 1)}
# One config of each kind, with what its training may have switched on; all of them: the slow tests of configs.
KINDS = {
    'gen2seg/gen2seg_unet_shapes_tiny': {
        **EMA,
        'train_dataloader.dataset.num_scenes': 40,
        'global_batch_size': 16,
    },
    'gen2seg/gen2seg_vit_shapes_tiny': {
        'train_dataloader.dataset.num_scenes': 40,
        'model.backbone.drop_rate': 0.1,
        'model.backbone.drop_path_rate': 0.5,
    },
    'gen2seg/gen2seg_mae_pretrain_shapes_tiny': FEW,
    'genmask/genmask_sana_shapes_tiny': {**EMA, **FEW, 'model.prompt_encoder.encoder.dropout_rate': 0.3},
}


@pytest.mark.parametrize('name', KINDS)
def test_each_kind_of_config_resumes_exactly(name, tmp_path, monkeypatch) -> None:
    # The config goes into each checkpoint; formatting it takes longer than this training.
    monkeypatch.setattr(Config, 'pretty_text', 'formatted = False')
    tool = runpy.run_path(str(ROOT / 'tools/analysis_tools/check_resume.py'))
    workers = {'train_dataloader.num_workers': 1}
    found = tool['check_resume'](ROOT / f'configs/{name}.py', tmp_path, 5, 2, KINDS[name], resumed_options=workers)
    parts = {'state_dict', 'optimizer', 'param_schedulers', 'log'}
    parts |= {'ema_state_dict'} if 'custom_hooks' in KINDS[name] else set()
    assert {part.split('.')[0] for part in found} == parts
    assert {part: value for part, value in found.items() if value} == {}
    assert tool['largest'](found) == 0


def test_the_comparison_sees_a_difference(tmp_path) -> None:
    tool = runpy.run_path(str(ROOT / 'tools/analysis_tools/check_resume.py'))
    for name, shift in (('first', 0.0), ('second', 0.25)):
        state = dict(weight=torch.tensor([1.0, 2.0 + shift]), bias=torch.zeros(0))
        optimizer = dict(state={0: dict(step=torch.tensor(3.0 + 2 * shift))}, groups=[dict(lr=0.1)])
        checkpoint = dict(state_dict=state, optimizer=optimizer, message_hub=dict(log_scalars={}), meta={})
        state['broken'] = torch.tensor([float('nan'), float('inf'), 1.0])
        state['breaks'] = torch.tensor([float('nan') if shift else 1.0, 1.0])
        if shift:
            state['added'] = torch.zeros(1)
        torch.save(checkpoint, tmp_path / name)
    found = tool['differences'](tmp_path / 'first', tmp_path / 'second')
    assert {name: value for name, value in found.items() if value} == {
        'state_dict.weight': 0.25,
        'optimizer.state.0.step': 0.5,
        'state_dict.added': float('inf'),
        'state_dict.breaks': float('inf'),
    }
    assert tool['largest'](found, 'optimizer') == 0.5 and found['optimizer.groups.0.lr'] == 0
