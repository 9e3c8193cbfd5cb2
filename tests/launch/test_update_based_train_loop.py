"""Updates that are the same however they are split over processes and micro-batches."""

import json
import signal
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.optim import BaseOptimWrapper
from mmengine.registry import OPTIM_WRAPPERS
from mmengine.runner import Runner
from short_runs import run_forked
from tiny_models import build, genmask_config
from toy_parts import toy_runner

from genseg_mm.checkpoint import load_weights_only
from genseg_mm.launch.config import override_config
from genseg_mm.launch.config_checks import check_config, check_global_batch_size
from genseg_mm.launch.update_based_train_loop import joined_outputs, num_micro_batches
from genseg_mm.stopping import StoppedBySignal

ROOT = Path(__file__).parents[2]
UPDATES = {'train_cfg.type': 'genseg_mm.UpdateBasedTrainLoop'}
NUM_UPDATES, NUM_SAMPLES = 10, 16
# Processes, batch size of each, samples of one task in a row.
LAYOUTS = {'1 x 16': (1, 16, 1), '1 x 4 x 4': (1, 4, 1), '2 x 4 x 2': (2, 4, 1), '2 x 4 of one task x 2': (2, 4, None)}


@pytest.fixture(scope='module')
def config(tmp_path_factory) -> Path:
    """The tiny Sana on drawn scenes, half of them text-to-image."""
    folder = tmp_path_factory.mktemp('config')
    bases = ('default_runtime', 'datasets/shapes_referring', 'schedules/adamw_cosine_tiny')
    (folder / 'bases.py').write_text(f'_base_ = {[f"{ROOT}/configs/_base_/{name}.py" for name in bases]}\n')
    cfg = Config.fromfile(folder / 'bases.py')
    parts = cfg.train_dataloader.dataset.datasets
    for part in parts:
        part.update(num_scenes=12)
    cfg.merge_from_dict(
        {
            'model': genmask_config('sana'),
            'global_batch_size': NUM_SAMPLES,
            'train_cfg.max_iters': NUM_UPDATES,
            'train_dataloader.sampler': dict(ratio=[1, 1], exact=True),
            'optim_wrapper.optimizer': dict(type='SGD', lr=0.1, momentum=0.9, _delete_=True),  # AdamW blows noise up
            'param_scheduler': [dict(type='LinearLR', start_factor=0.1, by_epoch=False, end=5)],
            'default_hooks.logger.interval': 5,
            'default_hooks.checkpoint': dict(interval=4, max_keep_ckpts=-1),
            'log_processor.window_size': 5,
        }
    )
    for key in ('val_dataloader', 'val_cfg', 'val_evaluator', 'test_dataloader', 'test_cfg', 'test_evaluator'):
        cfg[key] = None
    cfg.dump(folder / 'updates.py')
    build('sana')  # imported once, not in each of the processes that are forked
    return folder / 'updates.py'


def train(config: Path, work_dir: Path, layout: str, *words: object) -> Path:
    processes, batch_size, group = LAYOUTS[layout]
    work_dir.mkdir(exist_ok=True)
    options = [f'train_dataloader.batch_size={batch_size}', f'train_dataloader.sampler.group={group}']
    run_forked(
        'train.py', config, '--work-dir', work_dir, *words, '--cfg-options', *options,
        cwd=work_dir, processes=0 if processes == 1 else processes,
    )  # fmt: skip
    return work_dir


def weights(folder: Path, name: str = f'iter_{NUM_UPDATES}.pth') -> dict[str, torch.Tensor]:
    return load_weights_only(str(folder / name))['state_dict']


def largest_difference(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> float:
    assert one.keys() == other.keys()
    return max((one[name] - other[name]).abs().max().item() for name in one)


def log_of(folder: Path) -> dict[int, dict]:
    text = ''.join(file.read_text() for file in sorted(folder.glob('*/vis_data/scalars.json')))
    return {line['step']: line for line in map(json.loads, text.splitlines()) if 'loss' in line}


@pytest.fixture(scope='module')
def whole(config, tmp_path_factory) -> Path:
    return train(config, tmp_path_factory.mktemp('whole'), '1 x 16')


@pytest.mark.parametrize(
    'layout', ['1 x 4 x 4', pytest.param('2 x 4 x 2', marks=pytest.mark.slow), '2 x 4 of one task x 2']
)
def test_an_update_is_the_same_however_it_is_split(config, whole, tmp_path, layout):
    split = train(config, tmp_path / 'split', layout)
    assert largest_difference(weights(whole), weights(whole, 'iter_4.pth')) > 1e-3
    assert largest_difference(weights(whole), weights(split)) < 1e-6
    one, other = log_of(whole), log_of(split)
    for step in (5, 10):
        line = one[step]
        for name in ('loss', 'loss_mask', 'loss_image', 'lr', 'grad_norm'):
            assert other[step][name] == pytest.approx(line[name], rel=1e-5), (step, name)


def test_a_training_goes_on_with_other_processes_and_batches(config, whole, tmp_path):
    half = train(config, tmp_path / 'half', '2 x 4 x 2', '--resume', whole / 'iter_4.pth')
    assert largest_difference(weights(whole), weights(half)) < 1e-6
    assert weights(half, 'iter_8.pth') and not (half / 'iter_4.pth').exists()


class Note(Hook):
    """Calls of a training loop, and a signal within an update."""

    def __init__(self, stop_at: int | None = None) -> None:
        self.calls, self.stop_at = [], stop_at

    def before_train_iter(self, runner: Runner, batch_idx: int, data_batch=None) -> None:
        self.calls.append(('before', batch_idx, runner.iter, len(data_batch['inputs'])))
        if batch_idx == self.stop_at:
            step, calls = runner.model.train_step, []

            def train_step(*args, **kwargs) -> dict:
                calls.append(0)
                if len(calls) == 2:
                    signal.raise_signal(signal.SIGTERM)
                return step(*args, **kwargs)

            runner.model.train_step = train_step

    def after_train_iter(self, runner: Runner, batch_idx: int, data_batch=None, outputs=None) -> None:
        assert runner.optim_wrapper.should_update()
        self.calls.append(('after', batch_idx, runner.iter, list(outputs)))


def updates_of(work_dir: Path, global_batch_size: int | None = 12, **changes) -> Runner:
    return toy_runner(work_dir, {**UPDATES, **changes}, global_batch_size=global_batch_size)


def test_everything_counts_updates(tmp_path):
    runner, note = updates_of(tmp_path), Note()
    runner.register_hook(note)
    runner.train()
    assert note.calls[::2] == [('before', number, number, 4) for number in range(20)]
    assert note.calls[1::2] == [('after', number, number, ['loss']) for number in range(20)]
    steps = {int(state['step']) for state in runner.optim_wrapper.optimizer.state.values()}
    assert (steps, runner.param_schedulers[0].last_step, runner.optim_wrapper._inner_count) == ({20}, 9, 60)
    assert sorted(int(file.stem[5:]) for file in tmp_path.glob('iter_*.pth')) == [15, 20]
    sampler = runner.train_dataloader.sampler
    assert [sampler.places(7), sampler._update_size] == [list(range(12)), (12, 4)]
    history = {name: own.data[0] for name, own in runner.message_hub.log_scalars.items()}
    assert {len(history[f'train/{name}']) for name in ('loss', 'time', 'data_time', 'lr')} == {20}
    assert (history['train/data_time'] < history['train/time']).all()
    assert runner.message_hub.get_info('samples_per_update') == 12
    assert runner.message_hub.get_info('places_in_update') is None
    assert 'places_in_update' not in runner.message_hub.state_dict()['resumed_keys']  # of which resuming would warn


def test_the_time_for_data_is_that_of_all_micro_batches(tmp_path, monkeypatch):
    import toy_parts

    load, now = toy_parts.ToyDataset.prepare_data, [0.0]

    def slow(self, idx: int) -> dict:
        now[0] += 1.0
        return load(self, idx)

    monkeypatch.setattr(toy_parts.ToyDataset, 'prepare_data', slow)
    monkeypatch.setattr('time.time', lambda: now[0])
    runner = updates_of(tmp_path)
    runner.train()
    waited = runner.message_hub.get_scalar('train/data_time').data[0]
    assert waited[:9].tolist() == [12.0] * 9  # a second per sample


def test_a_signal_within_an_update_ends_the_training_after_it(tmp_path, monkeypatch):
    runner = updates_of(tmp_path / 'stopped')
    runner.register_hook(Note(stop_at=6))
    with pytest.raises(StoppedBySignal, match=r'after iteration 7 of 20, checkpoint .*iter_7\.pth'):
        runner.train()
    runner, messages = toy_runner(tmp_path / 'stopped', UPDATES, global_batch_size=12, resume='auto'), []
    monkeypatch.setattr('mmengine.optim.optimizer.optimizer_wrapper.print_log', lambda text, **_: messages.append(text))
    runner.train()
    assert messages == []  # that gradients of iterations are lost, as MMEngine says of updates
    updates_of(tmp_path / 'plain').train()
    one, other = (load_weights_only(str(tmp_path / name / 'iter_20.pth')) for name in ('stopped', 'plain'))
    assert largest_difference(one['state_dict'], other['state_dict']) == 0
    assert one['param_schedulers'] == other['param_schedulers']


@pytest.mark.parametrize(
    'sampler', ['genseg_mm.RatioInfiniteSampler', pytest.param('InfiniteSampler', marks=pytest.mark.slow)]
)
def test_one_micro_batch_is_the_loop_of_mmengine(tmp_path, sampler):
    options = {'train_dataloader.sampler.type': sampler, 'model.dropout': 0.5}
    toy_runner(tmp_path / 'plain', options).train()
    updates_of(tmp_path / 'update', None, **options).train()
    updates_of(tmp_path / 'fixed', 4, **options).train()
    states = [weights(tmp_path / name, 'iter_20.pth') for name in ('plain', 'update', 'fixed')]
    assert [largest_difference(states[0], own) for own in states[1:]] == [0, 0]


class FrozenNorm(torch.nn.BatchNorm2d):
    def train(self, mode: bool = True) -> 'FrozenNorm':
        return super().train(False)


@pytest.mark.parametrize(('norm', 'warned'), [(FrozenNorm, False), (torch.nn.BatchNorm2d, True)])
def test_only_batch_norm_that_learns_is_warned_of(tmp_path, monkeypatch, norm, warned):
    runner, messages = updates_of(tmp_path, **{'train_cfg.max_iters': 1}), []
    runner.model.autoencoder_norm = norm(3)
    monkeypatch.setattr('mmengine.optim.optimizer.optimizer_wrapper.print_log', lambda text, **_: messages.append(text))
    runner.train()
    assert ['BatchNorm layers' in text for text in messages] == [True] * warned


def test_other_counts_are_not_resumed(tmp_path):
    """Neither updates of another size, nor iterations that were micro-batches."""
    old = {'optim_wrapper.accumulative_counts': 3, 'default_hooks.checkpoint.interval': 12}
    toy_runner(tmp_path / 'old', old).train()
    updates_of(tmp_path / 'new').train()
    for folder, size, message in (
        ('old', 12, r'but got 12 iterations, 3 to an update, of an earlier version; .* load_from=FILE'),
        ('old', None, '3 to an update'),
        ('new', 8, r'expected 8 samples per update .* but it was trained with 12; to go on: global_batch_size=12'),
    ):
        file = str(tmp_path / folder / ('iter_12.pth' if folder == 'old' else 'iter_15.pth'))
        runner = toy_runner(tmp_path / 'rest', UPDATES, global_batch_size=size, resume=True, load_from=file)
        with pytest.raises(ValueError, match=message) as refused:
            runner.train()
        assert str(refused.value).startswith(file) and '\n' not in str(refused.value)


@pytest.mark.parametrize(
    ('sizes', 'expected'),
    [((1024, 8, 8), 16), ((1024, 8, 128), 1), ((1024, 2, 1), 512), ((8, 2, 4), 1), ((8, 2, 1), 4)],
)
def test_the_number_of_micro_batches(sizes, expected):
    assert num_micro_batches(*sizes) == expected


@pytest.mark.parametrize(
    ('sizes', 'message'),
    [
        ((1024, 8, 6), r'a multiple of 48 \(6 processes x train_dataloader.batch_size 8\), but got 1024; '
                       r'with batch_size 8 1, 2, 4 or 8 processes would do'),
        ((1024, 12, 8), r'but got 1024; with 8 processes train_dataloader.batch_size 2, 4, 8 or 16 would do'),
        ((1000, 12, 16), r'but got 1000; global_batch_size 960 would do'),
        ((8, 2, 8), r'with 8 processes train_dataloader.batch_size 1; or with batch_size 2 1, 2 or 4 processes would'),
    ],
)  # fmt: skip
def test_an_update_that_cannot_be_split_is_refused(sizes, message):
    with pytest.raises(ValueError, match=message):
        num_micro_batches(*sizes)


def test_losses_of_an_update_are_means_over_its_samples():
    micro = [
        dict(loss=torch.tensor(2.0), loss_mask=torch.tensor(2.0), num_samples_mask=torch.tensor(8.0)),
        dict(loss=torch.tensor(4.0), loss_mask=torch.tensor(0.0), num_samples_mask=torch.tensor(0.0)),
    ]
    found = {name: value.item() for name, value in joined_outputs(micro).items()}
    assert found == dict(loss=3.0, loss_mask=1.0, num_samples_mask=8.0)
    assert joined_outputs(micro[:1]) is micro[0]


def genmask(*options: tuple[str, object], launcher: str = 'none') -> Config:
    cfg = Config.fromfile(ROOT / 'configs/genmask/refcoco.py')
    override_config(cfg, dict(options))
    cfg.launcher = launcher
    return cfg


@pytest.mark.parametrize(('processes', 'batch_size'), [(1, 8), (8, 8), (8, 64), (64, 8), (128, 4), (16, 32)])
def test_the_config_runs_on_one_node_or_sixteen(monkeypatch, processes, batch_size):
    monkeypatch.setenv('WORLD_SIZE', str(processes))
    cfg = genmask(('train_dataloader.batch_size', batch_size), launcher='pytorch')
    check_config(cfg, 'refcoco.py', 'train')


@pytest.mark.parametrize(
    ('processes', 'options', 'message'),
    [
        (6, [], r'a multiple of 48 \(6 processes x train_dataloader.batch_size 8\), but got 1024'),
        (128, [], r'multiples of 1024 \(128 processes x 8 samples of one source\), but got 512 : 512 of '
                  r'global_batch_size=1024; set train_dataloader.batch_size=4 \(or 2, 1\)'),
        (8, [('train_dataloader.sampler.ratio', [2, 1])], r'but got 682.667 : 341.333 \(ratio \[2, 1\] of global'),
        (8, [('global_batch_size', 0)], 'global_batch_size: expected an integer of at least 1, but got 0'),
        (8, [('train_cfg.type', 'IterBasedTrainLoop')], "global_batch_size: expected train_cfg.type='genseg_mm.Upd"),
        (8, [('optim_wrapper.accumulative_counts', 16)], 'but got 16; set global_batch_size'),
    ],
)  # fmt: skip
def test_what_cannot_be_split_is_refused_before_anything_is_built(monkeypatch, processes, options, message):
    monkeypatch.setenv('WORLD_SIZE', str(processes))
    cfg = genmask(*options, launcher='pytorch')
    with pytest.raises(ValueError, match=message) as refused:
        check_config(cfg, 'refcoco.py', 'train')
    assert '\n' not in str(refused.value)


@OPTIM_WRAPPERS.register_module()
class OtherOptimWrapper(BaseOptimWrapper):
    """As DeepSpeed's of MMEngine, which leaves the accumulation to an engine."""

    def update_params(self, loss: torch.Tensor) -> None:
        raise AssertionError

    backward = zero_grad = step = update_params


def test_a_wrapper_that_does_not_accumulate_is_refused(tmp_path):
    wrapper = dict(type='OtherOptimWrapper', optimizer=dict(type='SGD', lr=0.1))
    with pytest.raises(ValueError, match=r'optim_wrapper.type: expected an OptimWrapper .* but got OtherOptimWrapper'):
        toy_runner(tmp_path, UPDATES, optim_wrapper=wrapper, strategy=dict(type='SingleDeviceStrategy')).train()


def test_a_sampler_that_ends_is_refused(tmp_path):
    options = {**UPDATES, 'train_dataloader.sampler': dict(type='DefaultSampler', shuffle=True, _delete_=True)}
    runner = toy_runner(tmp_path, options, global_batch_size=8)
    check_global_batch_size(runner.cfg)
    with pytest.raises(ValueError, match='expected an endless sampler .* but got VisitSampler in train_dataloader'):
        runner.train()
