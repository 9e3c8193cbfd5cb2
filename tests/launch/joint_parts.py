"""A hook for test_joint_training.py, which finds it on PYTHONPATH."""

import json
from pathlib import Path

from mmengine.dist import get_rank
from mmengine.hooks import Hook
from mmengine.registry import HOOKS


@HOOKS.register_module()
class NoteTasksHook(Hook):
    """Writes a line per iteration and process: the tasks of its samples, and the losses that were logged."""

    def after_train_iter(
        self, runner, batch_idx: int, data_batch: dict | None = None, outputs: dict | None = None
    ) -> None:
        tasks = [sample.task for sample in data_batch['data_samples']]
        line = dict(tasks=tasks, losses={key: value.item() for key, value in outputs.items()})
        with Path(runner.work_dir, f'tasks{get_rank()}.txt').open('a') as file:
            file.write(json.dumps(line) + '\n')
