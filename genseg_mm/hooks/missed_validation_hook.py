"""A validation that a kill interrupted is made up for when the training is resumed."""

from pathlib import Path

from mmengine.dist import broadcast_object_list, is_main_process
from mmengine.hooks import Hook
from mmengine.runner import BaseLoop, IterBasedTrainLoop, Runner

from genseg_mm.registry import HOOKS
from genseg_mm.whole_files import whole_file

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
        training = isinstance(runner._train_loop, BaseLoop) and runner.iter > 0
        if training and is_main_process():
            path = Path(runner.work_dir, _NOTE)
            with whole_file(path, f'{path}.tmp') as temporary:
                temporary.write_text(str(runner.iter))


def _noted(note: Path) -> int:
    try:
        return int(note.read_text())
    except (FileNotFoundError, ValueError):  # an earlier version's run
        return -1
