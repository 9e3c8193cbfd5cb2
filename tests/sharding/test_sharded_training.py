"""Trainings whose checkpoints are folders: kept, found, resumed and tested as files are; errors beside the training."""

import shutil
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from mmengine.hooks import Hook
from mmengine.runner import CheckpointLoader
from toy_parts import toy_runner

from genseg_mm.checkpoint import check_whole, load_weights_only, use_safe_loading
from genseg_mm.files.background import SAVES
from genseg_mm.files.whole_files import WriteError
from genseg_mm.sharding import sharded_checkpoints

OPTIONS = {'default_hooks.checkpoint.max_keep_ckpts': 2, 'default_hooks.visualization': None}


def runner_of(folder: Path, asynchronous: bool = False, kind: str = 'sharded', options: dict | None = None, **changes):
    strategy = dict(type='genseg_mm.FSDP2Strategy', checkpoint=kind, asynchronous=asynchronous)
    return toy_runner(folder, {**OPTIONS, **(options or {})}, strategy=strategy, **changes)


@pytest.fixture(autouse=True)
def safe_loading(monkeypatch) -> None:
    """As in the tools."""
    monkeypatch.setattr(CheckpointLoader, '_schemes', OrderedDict(CheckpointLoader._schemes))
    monkeypatch.setenv('TORCH_FORCE_WEIGHTS_ONLY_LOAD', '1')
    use_safe_loading()


def weights(path: Path) -> dict[str, torch.Tensor]:
    return load_weights_only(str(path))['state_dict']


def same(first: dict, second: dict) -> bool:
    return first.keys() == second.keys() and all(torch.equal(own, second[name]) for name, own in first.items())


@pytest.fixture(scope='module', params=[False, True], ids=['at once', 'beside'])
def training(request, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp('training')
    runner_of(folder, request.param).train()
    return folder


def test_folders_are_kept_and_pointed_to_as_files_are(training):
    """All is there when the training has ended, and each says its own iteration, also one saved at a validation."""
    folders = {own.parent.name for own in training.glob('*/complete.json')}
    best = next(name for name in folders if name.startswith('best_'))
    assert folders == {best, 'iter_15', 'iter_20'} and best.startswith('best_toy_oIoU_iter_')
    assert not list(training.glob('*.tmp')) and not list(training.glob('*.pth'))
    assert (training / 'last_checkpoint').read_text() == str(training / 'iter_20')
    for name in sorted(folders):
        check_whole(str(training / name))
        saved = load_weights_only(str(training / name))
        assert saved['meta']['iter'] == int(name.rpartition('_')[2])
        assert ('optimizer' in saved) == (name != best)
    assert same(weights(training / best), weights(training / best.removeprefix('best_toy_oIoU_')))


@pytest.mark.parametrize('reader', ['sharded', 'full', 'plain'])
def test_every_runner_resumes_from_a_folder_exactly(training, tmp_path, reader):
    shutil.copytree(training / 'iter_15', tmp_path / 'iter_15')
    changes = dict(resume='auto')
    runner = (
        toy_runner(tmp_path, OPTIONS, **changes) if reader == 'plain' else runner_of(tmp_path, kind=reader, **changes)
    )
    runner.train()
    last = tmp_path / ('iter_20' if reader == 'sharded' else 'iter_20.pth')
    assert same(weights(last), weights(training / 'iter_20'))
    assert (tmp_path / 'last_checkpoint').read_text() == str(last)


def test_a_folder_is_tested_and_started_from_by_every_runner(training, tmp_path):
    names = [own.parent.name for own in training.glob('best_*/complete.json')]
    expected = load_weights_only(str(training / names[0]))['message_hub']['runtime_info']['best_score']
    for number, make in enumerate((toy_runner, runner_of)):
        runner = make(tmp_path / str(number), load_from=str(training / names[0]))
        assert runner.test()['toy/oIoU'] == expected
    runner = runner_of(tmp_path / 'best', resume=True, load_from=str(training / names[0]))
    with pytest.raises(ValueError, match=f'{names[0]} holds .*cannot be resumed from'):
        runner.train()


def test_training_goes_on_while_a_checkpoint_is_written(tmp_path, monkeypatch):
    publish, ends, iterations = sharded_checkpoints.publish_folder, [], []

    def slowly(path: Path) -> None:
        time.sleep(0.5)
        ends.append((path.name, iterations[-1]))
        publish(path)

    class Note(Hook):
        def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None) -> None:
            iterations.append(runner.iter + 1)

    monkeypatch.setattr(sharded_checkpoints, 'publish_folder', slowly)
    options = {'default_hooks.checkpoint.save_best': None}
    runner = runner_of(tmp_path, True, options=options, val_dataloader=None, val_cfg=None, val_evaluator=None)
    runner.register_hook(Note())
    runner.train()
    assert [name for name, _ in ends] == ['iter_5', 'iter_10', 'iter_15', 'iter_20']
    assert ends[0][1] > 5  # the next save waits for it, so at most 10
    assert max(own for _, own in ends) == 20 and (tmp_path / 'iter_20/complete.json').is_file()


class Fail(Hook):
    """Stops the training after the seventh iteration, while something is being written beside it."""

    def __init__(self, error: BaseException, write: Callable[[], None] | None = None) -> None:
        self.error, self.write = error, write

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None) -> None:
        if runner.iter == 6:
            if self.write is not None:
                SAVES.start(self.write)
            raise self.error


@pytest.mark.parametrize('runner', ['sharded', 'plain'])
@pytest.mark.parametrize('error', [ValueError('broken'), KeyboardInterrupt()], ids=['error', 'Ctrl-C'])
def test_a_failed_training_finishes_the_checkpoint_that_is_being_written(tmp_path, monkeypatch, runner, error):
    written = []
    options = {'default_hooks.stop_on_signal': None} if isinstance(error, KeyboardInterrupt) else {}

    def slowly(path: Path | None = None) -> None:
        time.sleep(0.5)
        written.append(path)
        if path is not None:
            publish(path)

    if runner == 'plain':
        training, failure = toy_runner(tmp_path, {**OPTIONS, **options}), Fail(error, slowly)
    else:
        publish = sharded_checkpoints.publish_folder
        monkeypatch.setattr(sharded_checkpoints, 'publish_folder', slowly)
        training, failure = runner_of(tmp_path, True, options=options), Fail(error)
    training.register_hook(failure, 'LOWEST')
    with pytest.raises(type(error)) as raised:
        training.train()
    assert raised.value is error and len(written) == 1 and not SAVES.is_busy
    last = tmp_path / ('iter_5.pth' if runner == 'plain' else 'iter_5')
    assert (tmp_path / 'last_checkpoint').read_text() == str(last)
    check_whole(str(last))


def test_a_second_signal_and_a_failing_save_leave_the_first_error(tmp_path, monkeypatch):
    """The signal does not wait for the disk; an error of the disk does not hide that of the training."""
    blocked = threading.Event()
    training = toy_runner(tmp_path / 'signal', OPTIONS)
    training.register_hook(Fail(KeyboardInterrupt(), lambda: blocked.wait(60)), 'LOWEST')
    try:
        with pytest.raises(KeyboardInterrupt):
            training.train()
        assert SAVES.is_busy
    finally:
        blocked.set()
        SAVES.wait()

    def fail() -> None:
        time.sleep(0.2)
        raise WriteError('no space left')

    training = toy_runner(tmp_path / 'disk', OPTIONS)
    training.register_hook(Fail(ValueError('broken'), fail), 'LOWEST')
    told = []
    monkeypatch.setattr(training.logger, 'error', told.append)
    with pytest.raises(ValueError, match='broken'):
        training.train()
    assert told == ['The checkpoint that was being written is lost: no space left']
    SAVES.check()


def test_an_error_beside_the_training_stops_it_at_its_next_iteration(tmp_path, monkeypatch):
    publish = sharded_checkpoints.publish_folder

    def fail(path: Path) -> None:
        if path.name == 'iter_10':
            raise OSError(28, 'No space left on device')
        publish(path)

    monkeypatch.setattr(sharded_checkpoints, 'publish_folder', fail)
    runner = runner_of(tmp_path, True)
    with pytest.raises(WriteError, match='iter_10 could not be written: No space left on device') as error:
        runner.train()
    assert '\n' not in str(error.value) and 10 <= runner.iter <= 15
    assert (tmp_path / 'last_checkpoint').read_text() == str(tmp_path / 'iter_5')
    check_whole(str(tmp_path / 'iter_5'))
    assert not (tmp_path / 'iter_10').exists() and not (tmp_path / 'iter_10.tmp').exists()
