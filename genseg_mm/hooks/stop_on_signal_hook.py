"""A training that is stopped ends between two updates, with a checkpoint."""

import os

import torch
import torch.distributed as dist
from mmengine.dist import is_distributed
from mmengine.hooks import CheckpointHook, Hook
from mmengine.runner import BaseLoop, IterBasedTrainLoop, Runner

from genseg_mm.hooks.safe_checkpoint_hook import ends_update
from genseg_mm.registry import HOOKS
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
