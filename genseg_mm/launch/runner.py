"""The runner of tools/train.py and tools/test.py."""

import logging
import re
import sys
from collections.abc import Callable
from typing import Any

from mmengine.config import Config
from mmengine.evaluator import Evaluator
from mmengine.hooks import Hook
from mmengine.logging import MMLogger
from mmengine.model import is_model_wrapper
from mmengine.registry import DATA_SAMPLERS, DATASETS, RUNNERS, Registry
from mmengine.runner import BaseLoop, LogProcessor, Runner
from torch import nn
from torch.utils.data import IterableDataset

from genseg_mm.checkpoint import check_whole, find_resumable, load_weights_only, some_of, use_safe_loading
from genseg_mm.dataset_configs import fill_network_resize
from genseg_mm.datasets import RatioInfiniteSampler, SeededAccess, SeededDataset, VisitSampler
from genseg_mm.datasets.published_counts import warn_if_incomplete
from genseg_mm.files.whole_files import WriteError, explained
from genseg_mm.files.write_lock import WriteLock
from genseg_mm.hooks.training_hooks import StopOnSignalHook
from genseg_mm.launch.processes import connect_processes, on_main_process

_MMENGINE_HOOKS = ('runtime_info', 'timer', 'sampler_seed', 'logger', 'param_scheduler', 'checkpoint')


def build_runner(cfg: Config) -> Any:
    """The runner of the config (``runner_type``), else a ``SafeRunner``.

    Until this process ends, no other one can write to the work dir.

    Raises:
        ValueError: If another one does.
    """
    use_safe_loading()
    connect_processes(cfg)
    on_main_process(lambda: lock_work_dir(cfg.work_dir))
    if 'runner_type' in cfg:
        return RUNNERS.build(cfg)
    return SafeRunner.from_cfg(cfg)


def lock_work_dir(work_dir: str) -> None:
    """Makes the work dir of this process alone, until it ends."""
    with explained(work_dir):
        WriteLock(work_dir, 'wait for it, end it, or choose another --work-dir', reentrant=True)


class SafeRunner(Runner):
    """MMEngine's ``Runner``, strict about checkpoints, whose trainings resume exactly.

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

    def build_logger(self, log_level: int | str = 'INFO', **kwargs: Any) -> MMLogger:
        """MMEngine's logger, that says once, in one line, if its file cannot be written any more."""
        logger = super().build_logger(log_level=log_level, **kwargs)
        for handler in logger.handlers:
            if hasattr(handler, 'baseFilename'):
                handler.handleError = _LogFailure(handler.baseFilename)
        return logger

    def train(self) -> nn.Module:
        """Trains; a resumed training has the seed of its first run, also where that was drawn at random.

        Ctrl-C, SIGTERM and SIGUSR1 end it after the running iteration, with a checkpoint.

        Raises:
            StoppedBySignal: If a signal ended it.
        """
        self._find_checkpoint()
        is_random = self._randomness_cfg.get('seed') is None
        if self._resume and is_random and '://' not in self._load_from:
            seed = load_weights_only(self._load_from, mmap=True).get('meta', {}).get('seed')
            if seed is not None:
                self._randomness_cfg.update(seed=seed)
                self.set_randomness(**self._randomness_cfg)
        hooks = [hook for hook in self.hooks if isinstance(hook, StopOnSignalHook)]
        try:
            return super().train()
        except RuntimeError as error:
            for hook in hooks:
                stopped = hook.stopped_by_lost_workers(self, error)
                if stopped is not None:
                    raise stopped from error
            raise
        finally:
            for hook in hooks:
                hook.restore()

    def load_or_resume(self) -> None:
        """Finds the checkpoint to resume from before MMEngine loads it."""
        if self._has_loaded:
            return
        self._find_checkpoint()
        self._must_fit = self._must_fit or self._resume
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
        model = self.model.module if is_model_wrapper(self.model) else self.model
        names = {name.removeprefix('module.') for name in checkpoint.get('state_dict', checkpoint)}
        if not names & model.state_dict().keys():
            raise ValueError(
                f'{filename} has nothing for this model: its first names are '
                f'{some_of(sorted(names))}, those of the model {some_of(sorted(model.state_dict()))}'
            )
        if self._resume and not {'meta', 'message_hub', 'optimizer'} <= checkpoint.keys():
            raise ValueError(
                f'{filename} holds weights but no training state (best_*.pth and published files '
                'do not), so it cannot be resumed from; to start from its weights: '
                '--cfg-options load_from=FILE'
            )
        return checkpoint

    def scale_lr(self, optim_wrapper: Any, auto_scale_lr: dict | None = None) -> None:
        """MMEngine's, with the total batch of an update: ``base_batch_size`` counts accumulated iterations, too."""
        if auto_scale_lr and auto_scale_lr.get('enable'):
            counts = getattr(optim_wrapper, '_accumulative_counts', 1)
            base = auto_scale_lr['base_batch_size'] / counts
            auto_scale_lr = dict(auto_scale_lr, base_batch_size=base)
        super().scale_lr(optim_wrapper, auto_scale_lr)

    def build_val_loop(self, loop: Any) -> Any:
        """The loop, whose pictures have the size that the model asks for; its metrics have to fit its data."""
        self._val_dataloader = self._at_network_size(self._val_dataloader)
        loop = super().build_val_loop(loop)
        check_evaluator(loop.evaluator, loop.dataloader.dataset, 'val_evaluator')
        return loop

    def build_test_loop(self, loop: Any) -> Any:
        """The loop, whose pictures have the size that the model asks for; its metrics have to fit its data."""
        self._test_dataloader = self._at_network_size(self._test_dataloader)
        loop = super().build_test_loop(loop)
        check_evaluator(loop.evaluator, loop.dataloader.dataset, 'test_evaluator')
        return loop

    def _at_network_size(self, loader: Any) -> Any:
        if not isinstance(loader, dict):
            return loader
        model = self.model.module if is_model_wrapper(self.model) else self.model
        return fill_network_resize(loader, model)

    def test(self) -> dict:
        """Tests the model, whose checkpoint has to fit; warns if an evaluation set is not complete."""
        self._must_fit = True
        warn_if_incomplete(self.test_loop.dataloader.dataset)
        return super().test()

    def val(self) -> dict:
        """Validates the model, whose checkpoint has to fit."""
        self._must_fit = True
        return super().val()


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


def seed_samples(dataloader: dict[str, Any]) -> dict[str, Any]:
    """A dataloader config whose samples draw from (seed, index, visit), so that a resumed run repeats them.

    Datasets and samplers of this package do so on their own; others are wrapped.

    Args:
        dataloader: Config, as MMEngine's ``Runner.build_dataloader`` takes it.
    """
    dataset, sampler = dataloader.get('dataset'), dataloader.get('sampler')
    if not isinstance(dataset, dict) or not isinstance(sampler, dict):
        return dataloader  # built by the caller, or wrong, of which MMEngine tells
    if not issubclass(_class_of(dataset, DATASETS), (SeededAccess, IterableDataset)):
        dataset = dict(type=SeededDataset, dataset=dataset)
    if not issubclass(_class_of(sampler, DATA_SAMPLERS), RatioInfiniteSampler):
        sampler = dict(type=VisitSampler, sampler=sampler)
    return dict(dataloader, dataset=dataset, sampler=sampler)


def _class_of(config: dict[str, Any], registry: Registry) -> type:
    kind = config.get('type')
    found = registry.get(kind) if isinstance(kind, str) else kind
    return found if isinstance(found, type) else object  # a function, or unknown: MMEngine tells


def check_evaluator(evaluator: Evaluator, dataset: Any, where: str) -> None:
    """Refuses metrics that would fail, or silently mean nothing, at the end of the first validation.

    A metric answers for itself by a method ``check_dataset(dataset, where)``; of mmdet's and mmseg's it is known here.

    Args:
        evaluator: Of a validation or test loop, built.
        dataset: That it evaluates, built.
        where: Key of the evaluator in the config, for messages.

    Raises:
        ValueError: If a metric needs a subset, classes or categories that are not there.
    """
    classes = tuple((getattr(dataset, 'metainfo', None) or {}).get('classes') or ())
    for metric in evaluator.metrics:
        name = type(metric).__name__
        if hasattr(metric, 'check_dataset'):
            metric.check_dataset(dataset, where)
        elif name == 'CocoMetric' and getattr(metric, '_coco_api', None) is not None:
            _check_categories(metric._coco_api, classes, where)
        elif name == 'IoUMetric' and len(classes) < 2:
            raise ValueError(
                f'{where}: IoUMetric needs the names of at least two classes, such as '
                f"metainfo=dict(classes=('background', 'object')) in the dataset, but got {classes}"
            )


def _check_categories(coco: Any, classes: tuple[str, ...], where: str) -> None:
    names = [category['name'] for category in coco.dataset.get('categories', [])]
    if not set(names) & set(classes):
        shown = ', '.join(names[:5]) + (', ...' if len(names) > 5 else '')
        raise ValueError(
            f'{where}: CocoMetric(ann_file=...) looks for the classes {classes} of the dataset, but the file has '
            f'{shown}; leave ann_file out: the dataset gives its instances to the metric, as one class'
        )
