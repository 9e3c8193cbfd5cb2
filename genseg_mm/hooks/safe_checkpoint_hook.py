"""Checkpoints that survive a kill at any moment."""

import os
import re
from collections import deque
from collections.abc import Iterator
from functools import partial

import torch
from mmengine.dist import is_main_process
from mmengine.fileio import LocalBackend
from mmengine.hooks import CheckpointHook, Hook
from mmengine.optim import OptimWrapperDict
from mmengine.runner import Runner

from genseg_mm.files.background import SAVES
from genseg_mm.files.whole_files import explained, publish, whole_file
from genseg_mm.files.whole_folders import remove_folder
from genseg_mm.registry import HOOKS


@HOOKS.register_module()
class SafeCheckpointHook(CheckpointHook):
    """MMEngine's ``CheckpointHook``, safe against being killed and lean in memory.

    A file appears under its name only when it is whole and on disk; an old checkpoint is deleted
    only after the new one and ``last_checkpoint`` are in place. The disk therefore holds one
    checkpoint more than ``max_keep_ckpts`` for a moment; what a kill left of such a moment is
    deleted when the training is resumed. Tensors go straight to the file instead of through a copy
    of the whole checkpoint in memory. A disk that is full is an error of one line, which leaves the
    old checkpoint as it is. Where gradients are accumulated, which no file holds, a checkpoint that
    falls between two updates waits for the end of the iterations that make up the next one.

    A strategy that says ``saves_folders`` writes folders (``iter_8000``) that all processes fill, published in the same
    way. It may write them beside the training: then ``last_checkpoint`` and the deletion of old ones wait for that, and
    so do the next checkpoint, the end of the training, its failure and a signal; an error of the write stops the
    training at its next iteration.

    The arguments are those of ``CheckpointHook``; ``save_best`` also knows that more is better for
    the metrics of this package. Remote storage (``backend_args``) is left to MMEngine.
    """

    _default_greater_keys = [*CheckpointHook._default_greater_keys, 'IoU', 'Pr@', 'ODS', 'OIS', 'F1']

    # Set when a training begins.
    file_backend: LocalBackend | None = None

    # Where `before_save_checkpoint` writes; set only while this hook saves.
    _stream: str | None = None
    _needed: int | None = None  # bytes of the tensors that are being saved
    _saves_folders = False
    _place: dict = {}  # epoch and iteration of the checkpoint that is being saved

    def before_train(self, runner: Runner) -> None:
        """Takes up a resumed training: its last checkpoint, and what a kill left behind."""
        super().before_train(runner)
        self._saves_folders = getattr(getattr(runner, 'strategy', None), 'saves_folders', False)
        if self._saves_folders:
            if not isinstance(self.file_backend, LocalBackend):
                raise ValueError(
                    f'default_hooks.checkpoint.out_dir: expected a folder of a disk for sharded checkpoints, but got '
                    f'{self.out_dir}'
                )
            self.filename_tmpl = self.filename_tmpl.removesuffix('.pth')
        last = runner.message_hub.runtime_info.get('last_ckpt')
        if not runner._resume or last is None or not isinstance(self.file_backend, LocalBackend):
            return
        name = os.path.basename(last)
        here = os.path.realpath(self.out_dir)
        # A training that goes on in another folder has left nothing here.
        if os.path.realpath(os.path.dirname(str(runner._load_from))) != here:
            return
        if os.path.exists(os.path.join(self.out_dir, name)):
            self.last_ckpt = os.path.join(self.out_dir, name)
        if is_main_process():
            if os.path.basename(str(runner._load_from)) == name:
                self._point(runner, self.last_ckpt)  # a kill may have come before that
            leaked = sorted(self._leaked(runner))
            for name in leaked:
                self._remove(os.path.join(self.out_dir, name))
            if leaked:
                runner.logger.info(f'Deleted from {self.out_dir}, left by a killed run: {", ".join(leaked)}')

    def _leaked(self, runner: Runner) -> Iterator[str]:
        """Files of this hook that it would have deleted, or finished, had the run not been killed.

        Names that it does not make are never among them, nor what lies ahead of the resumed iteration.
        """
        info = runner.message_hub.runtime_info
        step = runner.epoch if self.by_epoch else runner.iter
        kept = info.get('keep_ckpt_ids') if self.max_keep_ckpts > 0 else None
        best = {
            self._best_start(key): os.path.basename(str(info.get(self._info_name('best_ckpt', key))))
            for key in (self.key_indicators if self.save_best else ())
            if key != 'auto' and info.get(self._info_name('best_ckpt', key))
        }
        for name in os.listdir(self.out_dir):
            whole = re.sub(r'(\.stream|\.old)?\.tmp$', '', name)
            start = next((own for own in best if whole.startswith(own)), '')
            found = self._step_of(whole.removeprefix(start))
            if name == 'last_checkpoint.tmp' or (found is not None and name != whole):
                yield name
            elif found is None or found >= step:
                continue
            elif best[start] != name if start else kept is not None and found not in kept:
                yield name

    def _point(self, runner: Runner, path: str) -> None:
        """Names the last checkpoint in ``last_checkpoint``."""
        pointer = os.path.join(runner.work_dir, 'last_checkpoint')
        with whole_file(pointer, f'{pointer}.tmp') as temporary:
            temporary.write_text(path)

    def _step_of(self, name: str) -> int | None:
        numbers = map(int, re.findall(r'\d+', name))
        return next((own for own in numbers if self.filename_tmpl.format(own) == name), None)

    # A checkpoint that waits for an update, and whether that was announced.
    _is_due = _said_so = False

    def after_train_iter(self, runner: Runner, batch_idx: int, data_batch=None, outputs=None) -> None:  # noqa: ANN001
        """Saves every ``interval`` iterations and after the last one, at the end of an update."""
        SAVES.check()
        if self.by_epoch:
            return
        is_due = self.every_n_train_iters(runner, self.interval, self.save_begin)
        if is_due or (self.save_last and self.is_last_train_iter(runner)):
            self._is_due = True
        if self._is_due and self._ends_update(runner, runner.iter + 1):
            self._is_due = False
            runner.logger.info(f'Saving checkpoint at {runner.iter + 1} iterations')
            self._save_checkpoint(runner)

    def after_train(self, runner: Runner) -> None:
        """Waits for the last checkpoint."""
        SAVES.wait()
        super().after_train(runner)

    def _ends_update(self, runner: Runner, done: int) -> bool:
        """``ends_update``, which says once, after ``done`` iterations, that checkpoints wait for it."""
        if ends_update(runner):
            return True
        if not self._said_so:
            self._said_so = True
            runner.logger.info(
                f'Iteration {done} lies between two updates, whose accumulated gradients no checkpoint holds: this '
                'and all such checkpoints are saved at the end of the update.'
            )
        return False

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Writes the finished checkpoint to its file and leaves the runner nothing to serialise."""
        checkpoint['meta'].update(self._place)  # of a save after a validation FlexibleRunner counts one iteration more
        self._needed = sum(own.nbytes for own in _tensors(checkpoint))
        if self._stream is not None:
            torch.save(checkpoint, self._stream)
            checkpoint.clear()

    def _save_checkpoint_with_step(self, runner: Runner, step: int, meta: dict) -> None:
        outdated = []
        if self.max_keep_ckpts > 0:
            kept = [*(old for old in self.keep_ckpt_ids if old != step), step]
            outdated, kept = kept[: -self.max_keep_ckpts], kept[-self.max_keep_ckpts :]
            self.keep_ckpt_ids = deque(kept, self.max_keep_ckpts)
            runner.message_hub.update_info('keep_ckpt_ids', kept)
        name = self.filename_tmpl.format(step)
        self.last_ckpt = self.file_backend.join_path(self.out_dir, name)
        runner.message_hub.update_info('last_ckpt', self.last_ckpt)
        self._save(
            runner,
            name,
            meta=meta,
            by_epoch=self.by_epoch,
            save_optimizer=self.save_optimizer,
            save_param_scheduler=self.save_param_scheduler,
            **self.args,
        )
        if is_main_process():
            names = map(self.filename_tmpl.format, outdated)
            paths = [self.file_backend.join_path(self.out_dir, own) for own in names]
            SAVES.then(partial(self._finish, runner, self.last_ckpt, paths))

    def _finish(self, runner: Runner, path: str, outdated: list[str]) -> None:
        """After a checkpoint is in place."""
        self._point(runner, path)
        for old in outdated:
            self._remove(old)

    def _save_best_checkpoint(self, runner: Runner, metrics: dict) -> None:
        if not self.save_best or self.file_backend is None:
            return
        if 'auto' in self.key_indicators:
            self._init_rule(self.rules, [next(iter(metrics))])
        step = runner.epoch if self.by_epoch else runner.iter
        meta = dict(epoch=runner.epoch, iter=runner.iter)
        improved = [
            key
            for key, rule in zip(self.key_indicators, self.rules, strict=True)
            if self._improves(runner, metrics, key, rule)
        ]
        outdated = []
        for key in improved:
            name = self._best_start(key) + self.filename_tmpl.format(step)
            outdated.append(self._replace_best(runner, key, name))
            self._save(runner, name, meta=dict(meta), by_epoch=False, save_optimizer=False, save_param_scheduler=False)
            runner.logger.info(f'{key} {metrics[key]:.4f} is the best so far, saved to {name}.')
        if improved and self.last_ckpt is not None:
            # The training state saved before this evaluation does not know the new best yet.
            if self._ends_update(runner, step):
                self._save_checkpoint_with_step(runner, step, meta)
            else:
                self._is_due = True
        if is_main_process():
            for path in filter(None, outdated):
                SAVES.then(partial(self._remove, path))

    def _improves(self, runner: Runner, metrics: dict, key: str, rule: str) -> bool:
        if key not in metrics:
            raise ValueError(
                f'save_best names the metric {key!r}, but the evaluation returned {", ".join(map(repr, metrics))}'
            )
        name = self._info_name('best_score', key)
        best = self.init_value_map[rule]
        if name in runner.message_hub.runtime_info:
            best = runner.message_hub.get_info(name)
        if metrics[key] is None or not self.is_better_than[key](metrics[key], best):
            return False
        runner.message_hub.update_info(name, metrics[key])
        return True

    def _replace_best(self, runner: Runner, key: str, name: str) -> str | None:
        """Notes the new best file of a metric and returns the one it replaces."""
        path = self.file_backend.join_path(self.out_dir, name)
        if len(self.key_indicators) == 1:
            old, self.best_ckpt_path = self.best_ckpt_path, path
        else:
            old = self.best_ckpt_path_dict.get(key)
            self.best_ckpt_path_dict[key] = path
        runner.message_hub.update_info(self._info_name('best_ckpt', key), path)
        return None if old == path else old

    def _best_start(self, key: str) -> str:
        """How the names of a metric's best checkpoints begin."""
        return f'best_{key}_'.replace('/', '_')

    def _info_name(self, name: str, key: str) -> str:
        return name if len(self.key_indicators) == 1 else f'{name}_{key}'

    def _save(self, runner: Runner, name: str, **options) -> None:
        """``runner.save_checkpoint`` whose file appears only when it is whole."""
        self._place = {key: options['meta'][key] for key in ('epoch', 'iter')}
        try:
            self._save_whole(runner, name, **options)
        finally:
            self._place = {}

    def _save_whole(self, runner: Runner, name: str, **options) -> None:
        if self.file_client_args is not None or not isinstance(self.file_backend, LocalBackend):
            runner.save_checkpoint(self.out_dir, name, self.file_client_args, backend_args=self.backend_args, **options)
            return
        if self._saves_folders:
            runner.save_checkpoint(self.out_dir, name, **options)
            return
        path = os.path.join(self.out_dir, name)
        unfinished, stream = f'{path}.tmp', f'{path}.stream.tmp'
        self._stream = stream if self._writes_last(runner) else None
        self._needed = None
        try:
            with explained(path, stream, lambda: self._needed):
                os.makedirs(self.out_dir, exist_ok=True)
                runner.save_checkpoint(self.out_dir, f'{name}.tmp', backend_args=self.backend_args, **options)
                if is_main_process():
                    publish(unfinished if self._stream is None else stream, path)
        finally:
            self._stream = None
            if is_main_process():
                for leftover in (unfinished, stream):
                    self._remove(leftover)

    def _writes_last(self, runner: Runner) -> bool:
        """Whether the checkpoint is complete when this hook sees it.

        Other runners (strategies) write sharded or in other forms, and a hook after this one may
        still add to it.
        """
        later = runner.hooks[runner.hooks.index(self) + 1 :]
        return isinstance(runner, Runner) and all(
            type(hook).before_save_checkpoint is Hook.before_save_checkpoint for hook in later
        )

    def _remove(self, path: str) -> None:
        if self.file_backend.isfile(path):
            self.file_backend.remove(path)
        elif isinstance(self.file_backend, LocalBackend):  # a sharded checkpoint
            remove_folder(path)
        elif self.file_backend.isdir(path):
            self.file_backend.rmtree(path)


def ends_update(runner: Runner) -> bool:
    """Whether the iteration that just ended made an update, so that no accumulated gradient is waiting for one."""
    wrapper = runner.optim_wrapper
    wrappers = wrapper.values() if isinstance(wrapper, OptimWrapperDict) else [wrapper]
    return all(own.should_update() for own in wrappers)


def _tensors(value: object) -> Iterator[torch.Tensor]:
    """All tensors in dicts and lists."""
    if isinstance(value, torch.Tensor):
        yield value
    elif isinstance(value, dict | list | tuple):
        for own in value.values() if isinstance(value, dict) else value:
            yield from _tensors(own)
