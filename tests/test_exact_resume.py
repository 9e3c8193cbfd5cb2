"""Whatever draws, averages or accumulates in a training, a resumed one ends with the same bits."""

from pathlib import Path

import pytest
import torch
from toy_parts import toy_runner

from genseg_mm.checkpoint import load_weights_only

FOREIGN = {
    'train_dataloader.dataset': dict(type='ToyDataset', jitter=True, _delete_=True),
    'train_dataloader.sampler': dict(type='InfiniteSampler', _delete_=True),
}
BY_EPOCH = {
    'train_cfg': dict(type='EpochBasedTrainLoop', max_epochs=4, val_interval=2, _delete_=True),
    'train_dataloader.sampler': dict(type='DefaultSampler', shuffle=True, _delete_=True),
    'train_dataloader.dataset': dict(type='ToyDataset', jitter=True, _delete_=True),
    'default_hooks.checkpoint': dict(
        type='genseg_mm.SafeCheckpointHook', interval=1, _delete_=True
    ),
}
SITUATIONS = {
    'dropout': {'model.dropout': 0.5},
    'foreign dataset and sampler': FOREIGN,
    'sampler without skip': {
        'train_dataloader.dataset': dict(
            type='ToyDataset', num_samples=48, jitter=True, _delete_=True
        ),
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
    ('counts', 'interval', 'expected'),
    [(4, 5, [8, 12, 16, 20]), (3, 5, [6, 12, 15, 20]), (1, 5, [5, 10, 15, 20])],
)
def test_checkpoints_wait_for_the_end_of_an_update(
    tmp_path, counts, interval, expected, monkeypatch
) -> None:
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
