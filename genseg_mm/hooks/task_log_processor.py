"""Losses of tasks in the log: means over the samples of the task, however many a batch has."""

from collections.abc import Iterator, Sequence
from typing import Any

from mmengine.runner import LogProcessor, Runner

from genseg_mm.registry import LOG_PROCESSORS

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
