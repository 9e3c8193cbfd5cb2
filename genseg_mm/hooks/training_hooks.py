"""What stops, seeds, checks and logs a training between its updates."""

import math
import os
import random
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from mmengine.dist import broadcast_object_list, get_rank, is_distributed, is_main_process
from mmengine.hooks import CheckpointHook, Hook
from mmengine.runner import BaseLoop, IterBasedTrainLoop, LogProcessor, Runner

from genseg_mm.files.background import SAVES
from genseg_mm.files.whole_files import whole_file
from genseg_mm.hooks.safe_checkpoint_hook import ends_update
from genseg_mm.registry import HOOKS, LOG_PROCESSORS
from genseg_mm.stopping import StoppedBySignal, StopRequest, name_of, resume_command


@HOOKS.register_module()
class StopOnSignalHook(Hook):
    """Ctrl-C, SIGTERM and SIGUSR1 end a training after the running iteration.

    With accumulated gradients it goes on to the next update. Then a checkpoint is written, and ``StoppedBySignal``
    says how to go on; ``run_tool`` prints it and exits with 130, 143 or 138. All processes stop at the same iteration,
    whichever of them got the signal. A second signal stops at once. A validation that runs is ended at once if the
    checkpoint of its iteration is there (resuming repeats it), else finished.

    Loops by epoch cannot go on within one, so nothing is written for them: they go on from the last epoch's checkpoint.
    """

    priority = 'LOWEST'  # when schedulers, averages and regular checkpoints of the iteration are done

    def __init__(self) -> None:
        self._request = StopRequest()
        self._group = None

    def before_train(self, runner: Runner) -> None:
        """Takes the signals over."""
        self._request = StopRequest()
        self._request.listen()
        if is_distributed() and dist.get_backend() != 'gloo':
            # Numbers on the CPU: to ask the GPU at each iteration would hold it up.
            self._group = dist.new_group(backend='gloo')

    def after_train_iter(self, runner: Runner, batch_idx: int, data_batch=None, outputs=None) -> None:  # noqa: ANN001
        """Stops at the first update after a signal."""
        if ends_update(runner):
            self._stop_if_asked(runner, runner.iter + 1)

    def after_val_iter(self, runner: Runner, batch_idx: int, data_batch=None, outputs=None) -> None:  # noqa: ANN001
        """Stops within a validation whose training state is on disk."""
        if self._request.received and not is_distributed() and _is_training(runner):
            hook = _checkpoint_hook(runner)
            if hook is not None and _is_saved(hook, runner.iter):
                self._raise(runner, self._request.received, runner.iter)

    def after_val_epoch(self, runner: Runner, metrics=None) -> None:  # noqa: ANN001
        """Stops after a validation, during which the signal came."""
        if _is_training(runner):
            self._stop_if_asked(runner, runner.iter)

    def after_train(self, runner: Runner) -> None:
        """Gives the signals back."""
        self.restore()

    def restore(self) -> None:
        """Gives the signals back, also after an error."""
        self._request.restore()

    def stopped_by_lost_workers(self, runner: Runner, error: BaseException) -> StoppedBySignal | None:
        """What an error means that came when the processes of a loader had got the signal as well, None if nothing."""
        if not self._request.received or 'DataLoader worker' not in str(error) or is_distributed():
            return None
        number, step = self._request.received, runner.iter
        if ends_update(runner):
            try:
                self._stop(runner, number, step)
            except StoppedBySignal as stopped:
                return stopped
        return StoppedBySignal(number, self._line(runner, number, step))

    def _stop_if_asked(self, runner: Runner, step: int) -> None:
        number = self._request.received
        if is_distributed():
            everywhere = torch.tensor([number])
            dist.all_reduce(everywhere, dist.ReduceOp.MAX, group=self._group)
            number = int(everywhere)
        if number:
            self._stop(runner, number, step)

    def _stop(self, runner: Runner, number: int, step: int) -> None:
        hook = _checkpoint_hook(runner)
        if hook is not None and isinstance(runner.train_loop, IterBasedTrainLoop) and not _is_saved(hook, step):
            runner.logger.info(f'{name_of(number)}: saving a checkpoint at iteration {step}')
            hook._save_checkpoint_with_step(runner, step, dict(epoch=runner.epoch, iter=step))
        self._raise(runner, number, step)

    def _raise(self, runner: Runner, number: int, step: int) -> None:
        SAVES.wait()
        raise StoppedBySignal(number, self._line(runner, number, step))

    def _line(self, runner: Runner, number: int, step: int) -> str:
        hook = _checkpoint_hook(runner)
        last = getattr(hook, 'last_ckpt', None)
        saved = f'checkpoint {last}' if last else f'no checkpoint in {runner.work_dir} yet'
        if last and not _is_saved(hook, step):
            saved = f'last {saved}'
        return (
            f'stopped by {name_of(number)} after iteration {step} of {runner.max_iters}, {saved}; to go on: '
            f'{resume_command()}'
        )


def _is_training(runner: Runner) -> bool:
    return isinstance(runner._train_loop, BaseLoop) and runner.iter > 0


def _checkpoint_hook(runner: Runner) -> CheckpointHook | None:
    hooks = [hook for hook in runner.hooks if isinstance(hook, CheckpointHook)]
    return next((hook for hook in hooks if not hook.by_epoch and hook.interval > 0), None)


def _is_saved(hook: CheckpointHook, step: int) -> bool:
    return hook.last_ckpt is not None and os.path.basename(hook.last_ckpt) == hook.filename_tmpl.format(step)


_NOTE = 'last_validation'


@HOOKS.register_module()
class MissedValidationHook(Hook):
    """Notes the iteration of each finished validation in ``last_validation`` of the work dir.

    A checkpoint is written before the validation of its iteration. Where the training is killed in between, MMEngine
    resumes behind it, and the best checkpoint may be another one than without the kill.
    """

    priority = 'LOWEST'  # after the best checkpoint is in place

    def before_train_epoch(self, runner: Runner) -> None:
        """Validates first if the last run did not come to it."""
        loop, note = runner.train_loop, Path(runner.work_dir, _NOTE)
        if not runner._resume and is_main_process():
            note.unlink(missing_ok=True)
        if not runner._resume or runner.val_loop is None or not isinstance(loop, IterBasedTrainLoop):
            return
        loop._decide_current_val_interval()
        due = loop.iter % loop.val_interval == 0 or loop.iter == loop.max_iters
        if loop.iter < max(loop.val_begin, 1) or not due:
            return
        noted = [_noted(note) if is_main_process() else None]
        broadcast_object_list(noted)
        if noted[0] == loop.iter:
            return
        runner.logger.info(
            f'No validation at iteration {loop.iter} was finished in {runner.work_dir}: validating first.'
        )
        # As after the last training iteration, whose number draws of the model may depend on.
        runner.message_hub.update_info('iter', loop.iter - 1)
        runner.val_loop.run()

    def after_val_epoch(self, runner: Runner, metrics=None) -> None:  # noqa: ANN001
        """Notes that this one is done."""
        if _is_training(runner) and is_main_process():
            # Behind a checkpoint that is being written beside: a kill before its end loses what the validation found.
            SAVES.then(partial(_note, Path(runner.work_dir, _NOTE), runner.iter))


def _note(path: Path, iteration: int) -> None:
    with whole_file(path, f'{path}.tmp') as temporary:
        temporary.write_text(str(iteration))


def _noted(note: Path) -> int:
    try:
        return int(note.read_text())
    except (FileNotFoundError, ValueError):  # an earlier version's run
        return -1


@HOOKS.register_module()
class FiniteLossHook(Hook):
    """Stops at the first loss that is NaN or infinite, before such weights are saved."""

    def after_train_iter(self, runner: Runner, batch_idx: int, data_batch=None, outputs=None) -> None:  # noqa: ANN001
        """Checks every loss of the iteration.

        Raises:
            ValueError: Naming the iteration and all losses.
        """
        losses = {
            name: float(torch.as_tensor(value).detach().mean())
            for name, value in (outputs or {}).items()
            if 'loss' in name
        }
        if all(map(math.isfinite, losses.values())):
            return
        listed = ', '.join(f'{name}={value:g}' for name, value in losses.items())
        rate = runner.optim_wrapper.param_groups[0]['lr']
        raise ValueError(
            f'the loss is not finite at iteration {runner.iter + 1} ({listed}; learning rate '
            f'{rate:g}): lower the learning rate, clip gradients '
            '(optim_wrapper.clip_grad.max_norm=1) or check the data; then resume'
        )


_STREAM = 3  # of the seeds; keeps these draws apart from those of the samples, which start from the same seed


@HOOKS.register_module()
class IterationSeedHook(Hook):
    """Sets the global random states from (seed, iteration, rank) before each training iteration.

    Modules draw from them without a generator of their own: dropout, drop path, samplers of proposals. A resumed
    training then draws what an uninterrupted one does, whatever was drawn before it.
    """

    priority = 'VERY_HIGH'

    def before_train_iter(self, runner: Runner, batch_idx: int, data_batch: dict | None = None) -> None:
        """Sets the states of PyTorch (all devices), NumPy and Python."""
        key = [runner.seed, _STREAM, runner.iter, get_rank()]
        words = np.random.SeedSequence(key).generate_state(4)
        torch.manual_seed(int(words[0]) << 31 | int(words[1]) >> 1)
        np.random.seed(words)
        random.seed(words.tobytes())


_COUNT = 'num_samples_'


@LOG_PROCESSORS.register_module()
class TaskLogProcessor(LogProcessor):
    """MMEngine's ``LogProcessor``, for which a task that a batch does not have is no loss of 0.

    Where a model gives ``loss_<task>``, its share of the mean over the whole batch, and ``num_samples_<task>``, the
    number of samples of the task on all ranks, the log has the sum of the task's losses over its samples in the
    window, divided by their number. A task without any in the window is left out of the line, and so are the counts.

    The arguments are MMEngine's.
    """

    def _collect_scalars(
        self, custom_cfg: list[dict], runner: Runner, mode: str, reserve_prefix: bool = False
    ) -> dict[str, Any]:
        tag = super()._collect_scalars(custom_cfg, runner, mode, reserve_prefix)
        prefix, scalars = f'{mode}/', runner.message_hub.log_scalars
        shown = prefix if reserve_prefix else ''
        counts = {
            name.removeprefix(prefix + _COUNT): buffer.data[0]
            for name, buffer in scalars.items()
            if name.startswith(prefix + _COUNT)
        }
        for task, count in counts.items():
            tag.pop(f'{shown}{_COUNT}{task}', None)
            losses = scalars[f'{prefix}loss_{task}'].data[0]
            for name, window in self._windows(f'loss_{task}', custom_cfg):
                # A run of before there were counts may have been resumed.
                num = min(len(count), window or len(count))
                total = sum(own[-num:] for own in counts.values())
                if count[-num:].sum():
                    tag[shown + name] = (losses[-num:] * total).sum() / count[-num:].sum()
                else:
                    tag.pop(shown + name, None)
        return tag

    def _windows(self, source: str, custom_cfg: Sequence[dict]) -> Iterator[tuple[str, int | None]]:
        """Names and windows under which the means of a scalar are logged."""
        custom = [own for own in custom_cfg if own['data_src'] == source]
        if all(own.get('log_name', source) != source for own in custom):
            yield source, self.window_size
        for own in custom:
            if own['method_name'] == 'mean':
                yield own.get('log_name', source), own.get('window_size')
