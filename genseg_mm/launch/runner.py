"""The runner of tools/train.py and tools/test.py."""

import copy
import gc
import logging
import os
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from mmengine._strategy import BaseStrategy, SingleDeviceStrategy
from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.logging import MMLogger
from mmengine.model import is_model_wrapper
from mmengine.optim import OptimWrapper, OptimWrapperDict
from mmengine.runner import BaseLoop, FlexibleRunner, LogProcessor, Runner
from torch import nn

from genseg_mm.checkpoint import (
    check_resumable,
    check_whole,
    find_resumable,
    load_weights_only,
    some_of,
    use_safe_loading,
)
from genseg_mm.checkpoint_folders import EXTRA
from genseg_mm.dataset_configs import fill_network_resize
from genseg_mm.datasets.cached_encodings import kinds_always_cached
from genseg_mm.datasets.published_counts import warn_if_incomplete
from genseg_mm.files.background import SAVES
from genseg_mm.files.whole_files import WriteError, explained
from genseg_mm.files.write_lock import WriteLock
from genseg_mm.hooks.training_hooks import StopOnSignalHook
from genseg_mm.launch.auto_timesteps import resolve_auto_timesteps
from genseg_mm.launch.evaluation_loops import check_loop, own_loop
from genseg_mm.launch.processes import connect_processes, on_main_process, one_copy_ddp
from genseg_mm.launch.restarts import resume_after_restart
from genseg_mm.launch.runner_checks import check_evaluator, seed_samples
from genseg_mm.launch.update_based_train_loop import UpdateBasedTrainLoop
from genseg_mm.optim import zero_in_place
from genseg_mm.registry import RUNNERS, class_name

_MMENGINE_HOOKS = ('runtime_info', 'timer', 'sampler_seed', 'logger', 'param_scheduler', 'checkpoint')


def build_runner(cfg: Config, restarts: bool = False) -> Any:
    """The runner of the config (``runner_type``), else a ``SafeRunner``.

    Until this process ends, no other one can write to the work dir.

    Args:
        cfg: The config; the launcher's part of it is filled in.
        restarts: Whether it is for a training, which goes on where it was when torchrun or slurm starts it again, and
            whose ``a='auto'`` is measured.

    Raises:
        ValueError: If another one does.
    """
    use_safe_loading()
    connect_processes(cfg)
    on_main_process(lambda: lock_work_dir(cfg.work_dir))
    if restarts:
        resume_after_restart(cfg)
    found = resolve_auto_timesteps(cfg) if restarts else None
    runner = RUNNERS.build(cfg) if 'runner_type' in cfg else SafeRunner.from_cfg(cfg)
    if found:
        runner.logger.info(found)
    if not gc.get_freeze_count():  # once in a process: what is garbage by then is never freed
        gc.freeze()  # MMEngine collects garbage for each dataset that it builds: what was imported is none
    return runner


def lock_work_dir(work_dir: str) -> None:
    """Makes the work dir of this process alone, until it ends."""
    with explained(work_dir):
        WriteLock(work_dir, 'wait for it, end it, or choose another --work-dir', reentrant=True)


class StrictRunnerMixin:
    """Makes a runner of MMEngine strict about checkpoints, and its trainings resume exactly.

    ``resume='auto'`` continues from the newest whole checkpoint of the work dir; where there is
    none at all it starts anew, from ``load_from`` if that is set. Resuming and testing need a
    checkpoint that fits the model exactly; starting from ``load_from`` may leave parts out, which
    are listed, but not everything. No state of a global random generator decides anything in a
    training: samples draw from (seed, index, visit), modules from (seed, iteration, rank).
    """

    _must_fit = False
    _found = False

    def build_log_processor(self, log_processor: LogProcessor | dict) -> LogProcessor:
        """Builds the log processor, by default a ``TaskLogProcessor``."""
        if isinstance(log_processor, dict):
            log_processor = dict(type='genseg_mm.TaskLogProcessor') | log_processor
        return super().build_log_processor(log_processor)

    def build_train_loop(self, loop: BaseLoop | dict) -> BaseLoop:
        """Builds the training loop over seeded samples."""
        if isinstance(self._train_dataloader, dict):
            self._train_dataloader = seed_samples(self._train_dataloader)
        return super().build_train_loop(loop)

    def register_default_hooks(self, hooks: dict[str, Hook | dict] | None = None) -> None:
        """Registers MMEngine's hooks and those that a training needs to be interrupted and resumed exactly.

        ``default_hooks.NAME=None`` leaves any of them out.
        """
        own = dict(
            iteration_seed=dict(type='genseg_mm.IterationSeedHook'),
            stop_on_signal=dict(type='genseg_mm.StopOnSignalHook'),
            missed_validation=dict(type='genseg_mm.MissedValidationHook'),
        )
        hooks = {**own, **(hooks or {})}
        # MMEngine leaves out, where the config says None, only hooks of its own.
        super().register_default_hooks(
            {name: hook for name, hook in hooks.items() if hook is not None or name in _MMENGINE_HOOKS}
        )

    def train(self) -> nn.Module:
        """Trains; a resumed training has the seed of its first run, also where that was drawn at random.

        Ctrl-C, SIGTERM and SIGUSR1 end it after the running iteration, with a checkpoint. A checkpoint that is being
        written beside the training when it fails is finished first; a second signal does not wait for it.

        Raises:
            StoppedBySignal: If a signal ended it.
        """
        self._find_checkpoint()
        is_random = self._randomness_cfg.get('seed') is None
        if self._resume and is_random and '://' not in self._load_from:
            # Of a folder the file without tensors.
            path = os.path.join(self._load_from, EXTRA) if os.path.isdir(self._load_from) else self._load_from
            seed = load_weights_only(path, mmap=True).get('meta', {}).get('seed')
            if seed is not None:
                self._randomness_cfg.update(seed=seed)
                self._set_seed()
        hooks = [hook for hook in self.hooks if isinstance(hook, StopOnSignalHook)]
        try:
            return super().train()
        except BaseException as error:
            found = [hook.stopped_by_lost_workers(self, error) for hook in hooks]
            for hook in hooks:
                hook.restore()  # a signal ends the waiting
            if not hooks or not isinstance(error, KeyboardInterrupt):  # a second signal, or the hook has waited
                self._finish_saves()
            for stopped in filter(None, found):
                raise stopped from error
            raise
        finally:
            for hook in hooks:
                hook.restore()

    def _finish_saves(self) -> None:
        """Waits, after an error, for the checkpoint that is being written; tells of an error of its own."""
        if SAVES.is_busy:
            self.logger.warning('The training failed while a checkpoint was being written: waiting for it.')
        try:
            SAVES.wait()
        except Exception as error:
            self.logger.error(f'The checkpoint that was being written is lost: {error}')

    def load_or_resume(self) -> None:
        """Finds the checkpoint to resume from before MMEngine loads it."""
        if self._has_loaded:
            return
        self._find_checkpoint()
        self._must_fit = self._must_fit or self._resume
        if isinstance(self._train_loop, UpdateBasedTrainLoop):
            self._train_loop.before_resuming()
        super().load_or_resume()

    def _find_checkpoint(self) -> None:
        if self._found:
            return
        self._found = True
        if self._resume and (self._resume == 'auto' or self._load_from is None):
            found = on_main_process(lambda: find_resumable(self.work_dir))
            if found is None:
                self.logger.info(f'Nothing to resume from in {self.work_dir}: starting anew.')
            self._resume, self._load_from = found is not None, found or self._load_from
        elif self._resume and '://' not in self._load_from:
            on_main_process(lambda: check_whole(self._load_from))

    def build_val_loop(self, loop: Any) -> Any:
        """The loop, whose pictures have the size that the model asks for; its metrics have to fit its data."""
        self._val_dataloader = self._at_network_size(self._val_dataloader)
        loop = super().build_val_loop(own_loop(loop, 'Val'))
        check_loop(loop, 'val_cfg')
        check_evaluator(loop.evaluator, loop.dataloader.dataset, 'val_evaluator')
        return loop

    def build_test_loop(self, loop: Any) -> Any:
        """The loop, whose pictures have the size that the model asks for; its metrics have to fit its data."""
        self._test_dataloader = self._at_network_size(self._test_dataloader)
        loop = super().build_test_loop(own_loop(loop, 'Test'))
        check_loop(loop, 'test_cfg')
        check_evaluator(loop.evaluator, loop.dataloader.dataset, 'test_evaluator')
        return loop

    def _at_network_size(self, loader: Any) -> Any:
        if not isinstance(loader, dict):
            return loader
        return fill_network_resize(loader, self._plain_model())

    def _plain_model(self) -> nn.Module:
        return self.model.module if is_model_wrapper(self.model) else self.model

    def _leave_encoders_on_host(self, model: nn.Module) -> None:
        """Keeps off the card what a training from a cache never runs, see ``GenMask.leave_encoders_on_host``."""
        loader = self._train_dataloader
        if isinstance(loader, dict) and hasattr(model, 'leave_encoders_on_host'):
            names = model.leave_encoders_on_host(kinds_always_cached(loader['dataset']))
            if names:
                self.logger.info(
                    f'All encodings of the training come from a cache: {" and ".join(names)} wait in the memory of '
                    'the host until they are asked for.'
                )

    def test(self) -> dict:
        """Tests the model, whose checkpoint has to fit; warns if an evaluation set is not complete."""
        self._must_fit = True
        warn_if_incomplete(self.test_loop.dataloader.dataset)
        return super().test()

    def val(self) -> dict:
        """Validates the model, whose checkpoint has to fit."""
        self._must_fit = True
        return super().val()


@RUNNERS.register_module()
class SafeRunner(StrictRunnerMixin, Runner):
    """MMEngine's ``Runner``, strict about checkpoints, whose trainings resume exactly."""

    def build_logger(self, log_level: int | str = 'INFO', **kwargs: Any) -> MMLogger:
        """MMEngine's logger, that says once, in one line, if its file cannot be written any more."""
        return _guarded(super().build_logger(log_level=log_level, **kwargs))

    def _set_seed(self) -> None:
        self.set_randomness(**self._randomness_cfg)

    def wrap_model(self, model_wrapper_cfg: dict | None, model: nn.Module) -> nn.Module:
        """MMEngine's; frozen encoders that a training never asks for do not come onto the card with the rest."""
        self._leave_encoders_on_host(model)
        return super().wrap_model(model_wrapper_cfg, model)

    def build_optim_wrapper(self, optim_wrapper: Any) -> OptimWrapper | OptimWrapperDict:
        """Builds the optimizer; gradients that are views of DDP's buckets stay views, see :func:`zero_in_place`."""
        return zero_in_place(super().build_optim_wrapper(optim_wrapper), self.model)

    def load_checkpoint(
        self, filename: str, map_location: str | Callable = 'cpu', strict: bool = False, **kwargs: Any
    ) -> dict:
        """Loads a checkpoint into the model.

        Raises:
            ValueError: If it does not fit the model; with the names of what is missing or left
                over.
        """
        strict = strict or self._must_fit
        try:
            checkpoint = super().load_checkpoint(filename, map_location, strict, **kwargs)
        except RuntimeError as error:
            if 'do not match exactly' not in str(error):
                raise
            raise ValueError(_mismatch(filename, str(error))) from error
        model = self._plain_model()
        names = {name.removeprefix('module.') for name in checkpoint.get('state_dict', checkpoint)}
        if not names & model.state_dict().keys():
            raise ValueError(
                f'{filename} has nothing for this model: its first names are '
                f'{some_of(sorted(names))}, those of the model {some_of(sorted(model.state_dict()))}'
            )
        if self._resume:
            check_resumable(checkpoint, filename)
        return checkpoint

    def scale_lr(self, optim_wrapper: Any, auto_scale_lr: dict | None = None) -> None:
        """MMEngine's, with the total batch of an update: ``base_batch_size`` counts accumulated iterations, too."""
        if auto_scale_lr and auto_scale_lr.get('enable'):
            counts = getattr(optim_wrapper, '_accumulative_counts', 1)
            base = auto_scale_lr['base_batch_size'] / counts
            auto_scale_lr = dict(auto_scale_lr, base_batch_size=base)
        super().scale_lr(optim_wrapper, auto_scale_lr)


@RUNNERS.register_module()
class SafeFlexibleRunner(StrictRunnerMixin, FlexibleRunner):
    """MMEngine's ``FlexibleRunner`` (``strategy``), strict about checkpoints, whose trainings resume exactly.

    Its checkpoints have the names of parameters that ``SafeRunner`` gives them, whatever wraps the model.
    """

    @classmethod
    def from_cfg(cls, cfg: Config) -> 'SafeFlexibleRunner':
        """The runner of a config."""
        cfg = copy.deepcopy(cfg)
        cfg.setdefault('env_cfg', dict(dist_cfg=dict(backend='nccl')))
        runner = super().from_cfg(cfg)
        runner._compile = cfg.get('compile') or False  # MMEngine leaves it out
        _guarded(runner.logger)
        return runner

    def build_strategy(self, strategy: Any = None, launcher: str = 'none', **kwargs: Any) -> BaseStrategy:
        """Builds the strategy; MMEngine's for DDP also without a GPU, and with gradients that are there once."""
        kind = class_name(strategy['type']) if isinstance(strategy, dict) else ''
        if launcher != 'none' and (strategy is None or kind == 'DDPStrategy'):
            wrapper = one_copy_ddp() if torch.cuda.is_available() else dict(one_copy_ddp(), device_ids=None)
            strategy = {'type': 'DDPStrategy', 'model_wrapper': wrapper, **(strategy or {})}
        return super().build_strategy(strategy, launcher=launcher, **kwargs)

    def build_train_loop(self, loop: BaseLoop | dict) -> BaseLoop:
        """Builds the training loop over seeded samples; where nothing is sharded, encoders may wait on the host."""
        if isinstance(self.strategy, SingleDeviceStrategy) and not getattr(self.strategy, 'is_sharded', False):
            self._leave_encoders_on_host(self._plain_model())
        return super().build_train_loop(loop)

    def _set_seed(self) -> None:
        self.strategy._randomness = self._randomness_cfg
        self.strategy._set_randomness(**self._randomness_cfg)

    def _plain_model(self) -> nn.Module:
        if isinstance(self.model, dict):  # of which a loop asks before the strategy builds it
            self.model = self.strategy.build_model(self.model)
        return super()._plain_model()

    def load_checkpoint(
        self, filename: str, map_location: str | Callable = 'cpu', strict: bool = False, **kwargs: Any
    ) -> None:
        """Loads a checkpoint into the model.

        Raises:
            ValueError: If it does not fit the model; with the names of what is missing or left over.
        """
        with self._strict_loading(filename):
            super().load_checkpoint(filename, map_location, strict or self._must_fit, **kwargs)

    def resume(self, filename: str, *args: Any, **kwargs: Any) -> None:
        """Resumes a training.

        Raises:
            ValueError: If the checkpoint does not fit the model, or holds no training state.
        """
        with self._strict_loading(filename):
            super().resume(filename, *args, **kwargs)

    @contextmanager
    def _strict_loading(self, filename: str) -> Iterator[None]:
        """Within it, strategies of MMEngine, too, load what fits exactly, where it has to."""
        load, must_fit = self.strategy.load_model_state_dict, self._must_fit
        self.strategy.load_model_state_dict = lambda state, **options: load(
            state, **{**options, 'strict': must_fit or options.get('strict', False)}
        )
        try:
            yield
        except RuntimeError as error:
            if 'do not match exactly' not in str(error):
                raise
            raise ValueError(_mismatch(filename, str(error))) from error
        finally:
            del self.strategy.load_model_state_dict

    def save_checkpoint(self, *args: Any, **kwargs: Any) -> None:
        """Saves a checkpoint, without a wrapper's prefix of names."""
        own, strategy = self.strategy.model_state_dict, self.strategy
        if is_model_wrapper(self.model):
            strategy.model_state_dict = lambda: {name.removeprefix('module.'): v for name, v in own().items()}
        try:
            super().save_checkpoint(*args, **kwargs)
        finally:
            strategy.__dict__.pop('model_state_dict', None)


def _guarded(logger: MMLogger) -> MMLogger:
    for handler in logger.handlers:
        if hasattr(handler, 'baseFilename'):
            handler.handleError = _LogFailure(handler.baseFilename)
    return logger


class _LogFailure:
    """What a log handler calls if it cannot write: one line, once; the training is worth more than its log."""

    def __init__(self, path: str) -> None:
        self.path, self.told = path, False

    def __call__(self, record: logging.LogRecord) -> None:
        error = sys.exc_info()[1]
        if self.told or error is None:
            return
        self.told = True
        try:
            with explained(self.path):
                raise error
        except WriteError as own:
            print(f'warning: {own}; until then the run goes on without its log', file=sys.stderr)


def _mismatch(filename: str, report: str) -> str:
    """MMEngine's report of a failed strict load, shortened to one line."""
    parts = []
    for line in filter(None, map(str.strip, report.splitlines()[1:])):
        what, _, names = line.partition(': ')
        if 'state_dict' in what:
            names = names.split(', ')
            what = f'{len(names)} {what.replace("source state_dict", "the file")}'
            parts.append(f'{what}: {some_of(names)}')
        else:
            parts.append(re.sub(r'torch\.Size\((.*?)\)', r'\1', line))
    return f'{filename} does not fit the model: ' + '; '.join(parts)
