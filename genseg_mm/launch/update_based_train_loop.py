"""A training loop whose iterations are updates of the weights."""

import re
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from mmengine.dist import get_rank, get_world_size
from mmengine.optim import OptimWrapper, OptimWrapperDict
from mmengine.runner import IterBasedTrainLoop, Runner
from torch.utils.data import DataLoader

from genseg_mm.checkpoint import load_weights_only
from genseg_mm.optim import learning_batch_norms
from genseg_mm.registry import LOOPS

_SAMPLES = 'samples_per_update'  # in the message hub, and so in checkpoints
_PLACES = 'places_in_update'


@LOOPS.register_module()
class UpdateBasedTrainLoop(IterBasedTrainLoop):
    """MMEngine's ``IterBasedTrainLoop``, of which one iteration is one update of the weights.

    The config's ``global_batch_size`` says how many samples an update has. They are split evenly over the processes,
    and in each over as many micro-batches (``train_dataloader.batch_size``) as it takes, whose gradients are
    accumulated. So the length of a training, its schedules, intervals, logs, averages of weights and checkpoints are
    in updates, whatever it runs on. No checkpoint, validation or stop falls between the micro-batches of an update.

    An update has the same samples, noise and draws however it is split, if the sampler deals one stream out to the
    processes (:class:`~genseg_mm.datasets.samplers.RatioInfiniteSampler`; MMEngine's ``InfiniteSampler``), and a
    training resumes at the same sample on another number of processes. Dropout, which has no generator per sample, is
    another one in each split.

    Without ``global_batch_size`` an update is one batch of each process.

    Hooks are called once per update, with its first micro-batch, and with the means of the losses over all of them (the
    sums of ``num_samples_<task>``).

    Args:
        runner: Whose ``cfg`` has the ``global_batch_size``.
        dataloader: Or its config.
        max_iters: Number of updates.
        **kwargs: As for ``IterBasedTrainLoop``, intervals in updates.

    Raises:
        ValueError: If ``global_batch_size`` cannot be split, or the optimizer wrapper counts micro-batches itself.
    """

    def __init__(self, runner: Runner, dataloader: DataLoader | dict, max_iters: int, **kwargs: Any) -> None:
        super().__init__(runner, dataloader, max_iters, **kwargs)
        global_batch_size = runner.cfg.get('global_batch_size')
        self.batch_size, self.num_micro_batches = self.dataloader.batch_size, 1
        self._places_of = None
        if global_batch_size is not None:
            self._split(global_batch_size)
        _accumulate(runner.optim_wrapper, self.num_micro_batches)

    def _split(self, global_batch_size: int) -> None:
        sampler, processes = self.dataloader.sampler, get_world_size()
        if self.batch_size is None or not hasattr(sampler, 'skip'):
            kind = type(self.dataloader.batch_sampler if self.batch_size is None else sampler).__name__
            raise ValueError(
                'global_batch_size: expected an endless sampler and batches of one size (genseg_mm.RatioInfiniteSampler'
                f', mmengine.InfiniteSampler), but got {kind} in train_dataloader'
            )
        self.num_micro_batches = num_micro_batches(global_batch_size, self.batch_size, processes)
        if hasattr(sampler, 'set_update'):
            sampler.set_update(global_batch_size, self.batch_size)
            self._places_of = sampler.places
        else:
            rank, own = get_rank(), range(self.num_micro_batches * self.batch_size)
            self._places_of = lambda _: [place * processes + rank for place in own]

    @property
    def samples_per_update(self) -> int | None:
        """Samples of an update, of all processes; None where batches have no fixed size."""
        return self.batch_size and self.num_micro_batches * self.batch_size * get_world_size()

    def before_resuming(self) -> None:
        """Keeps MMEngine, which takes the resumed updates for micro-batches, from warning of lost gradients."""
        _accumulate(self.runner.optim_wrapper, 1)

    def run(self) -> torch.nn.Module:
        """Trains."""
        runner = self.runner
        self._check_resumed()
        counts = self.num_micro_batches
        runner.model.train()
        normalising = learning_batch_norms(runner.model)
        for wrapper in _accumulate(runner.optim_wrapper, counts):
            wrapper.initialize_count_status(normalising, self._iter * counts, self._max_iters * counts)
        runner.call_hook('before_train')
        runner.call_hook('before_train_epoch')
        if self._iter > 0 and not self.fast_forward_on_resume:
            self.dataloader_iterator.skip_iter(self._iter * counts)
        try:
            while self._iter < self._max_iters and not self.stop_training:
                runner.model.train()
                self.run_iter(next(self.dataloader_iterator))
                self._decide_current_val_interval()
                is_due = self._iter % self.val_interval == 0 or self._iter == self._max_iters
                if runner.val_loop is not None and self._iter >= self.val_begin and is_due:
                    runner.val_loop.run()
        finally:
            runner.message_hub.runtime_info.pop(_PLACES, None)
        runner.call_hook('after_train_epoch')
        runner.call_hook('after_train')
        return runner.model

    def run_iter(self, data_batch: Sequence[dict]) -> None:
        """One update.

        Args:
            data_batch: Its first micro-batch; the others are loaded one by one.
        """
        runner, waited, outputs = self.runner, 0.0, []
        runner.call_hook('before_train_iter', batch_idx=self._iter, data_batch=data_batch)
        places = None if self._places_of is None else self._places_of(self._iter)
        for number in range(self.num_micro_batches):
            micro_batch = data_batch
            if number:
                start = time.time()
                micro_batch = next(self.dataloader_iterator)
                waited += time.time() - start
            if places is not None:
                own = places[number * self.batch_size : (number + 1) * self.batch_size]
                # Not by update_info: a checkpoint would name the key, and resuming warn that it is not there.
                runner.message_hub.runtime_info[_PLACES] = own
            outputs.append(runner.model.train_step(micro_batch, optim_wrapper=runner.optim_wrapper))
        if waited and 'train/data_time' in runner.message_hub.log_scalars:
            # MMEngine's timer saw the first micro-batch alone.
            runner.message_hub.log_scalars['train/data_time'].data[0][-1] += waited
        runner.call_hook(
            'after_train_iter', batch_idx=self._iter, data_batch=data_batch, outputs=joined_outputs(outputs)
        )
        self._iter += 1

    def _check_resumed(self) -> None:
        """Refuses a checkpoint whose iterations have other samples than the updates here."""
        hub, now = self.runner.message_hub, self.samples_per_update
        before = hub.runtime_info.get(_SAMPLES)
        fixed = self.runner.cfg.get('global_batch_size') is not None
        if self._iter > 0 and before is None:
            self._check_counted_by_others()
        if self._iter > 0 and before is not None and before != now:
            if fixed:
                raise ValueError(
                    f'{self.runner._load_from}: expected {now} samples per update (global_batch_size), but it was '
                    f'trained with {before}; to go on: global_batch_size={before}; to start from its weights: '
                    'load_from=FILE without --resume'
                )
            self.runner.logger.warning(
                f'An update has {now} samples, {before} where {self.runner._load_from} was trained; '
                f'global_batch_size={before} keeps them on any number of processes'
            )
        hub.update_info(_SAMPLES, now)

    def _check_counted_by_others(self) -> None:
        """Refuses what MMEngine's loop has counted, where several of its iterations made an update."""
        file = str(self.runner._load_from)
        meta = load_weights_only(file, mmap=True).get('meta', {}) if Path(file).is_file() else {}
        counts = re.search(r'\baccumulative_counts\W+(\d+)', meta.get('cfg') or '')
        if counts is not None and int(counts[1]) > 1:
            raise ValueError(
                f'{file}: expected iterations that are updates, but got {self._iter} iterations, {counts[1]} to an '
                'update, of an earlier version; to end it as it began, resume with the config that its run left in its '
                'work dir; to start from its weights: load_from=FILE without --resume'
            )


def num_micro_batches(global_batch_size: int, batch_size: int, world_size: int) -> int:
    """Micro-batches of each process in an update.

    Args:
        global_batch_size: Samples of an update.
        batch_size: Samples of a micro-batch.
        world_size: Number of processes.

    Raises:
        ValueError: If they do not make it up; with the batch sizes and numbers of processes that would.
    """
    together = batch_size * world_size
    if global_batch_size % together == 0:
        return global_batch_size // together
    sizes = _divisors(global_batch_size // world_size if global_batch_size % world_size == 0 else 0)
    processes = _divisors(global_batch_size // batch_size if global_batch_size % batch_size == 0 else 0)
    fitting = []
    if sizes:
        fitting.append(f'with {world_size} processes train_dataloader.batch_size {_listed(sizes, batch_size)}')
    if processes:
        fitting.append(f'with batch_size {batch_size} {_listed(processes, world_size)} processes')
    near = global_batch_size // together * together or together
    raise ValueError(
        f'global_batch_size: expected a multiple of {together} ({world_size} processes x train_dataloader.batch_size '
        f'{batch_size}), but got {global_batch_size}; {"; or ".join(fitting) or f"global_batch_size {near}"} would do'
    )


def _divisors(number: int) -> list[int]:
    return [own for own in range(1, number + 1) if number % own == 0]


def _listed(numbers: list[int], wanted: int) -> str:
    """The few that are nearest to the wanted one, in order."""
    near = sorted(sorted(numbers, key=lambda own: abs(own - wanted))[:4])
    return ', '.join(map(str, near[:-1])) + (' or ' if near[1:] else '') + str(near[-1])


def joined_outputs(outputs: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """What the micro-batches of an update log, together.

    Args:
        outputs: Of each, scalars by name.

    Returns:
        Sums of ``num_samples_<task>``, and means of everything else over the micro-batches that have it; of one
        micro-batch what it has.
    """
    if len(outputs) == 1:
        return outputs[0]
    names = dict.fromkeys(name for own in outputs for name in own)
    joined = {}
    for name in names:
        values = [torch.as_tensor(own[name]).detach().float() for own in outputs if name in own]
        total = torch.stack(values).sum(0)
        joined[name] = total if name.startswith('num_samples_') else total / len(values)
    return joined


def _accumulate(wrapper: OptimWrapper | OptimWrapperDict | dict, counts: int) -> list[OptimWrapper]:
    """Has an optimizer wrapper, or its config, take that many micro-batches per update; the wrappers that are built."""
    if isinstance(wrapper, dict):
        if wrapper.get('accumulative_counts', 1) not in (1, counts):
            raise ValueError(
                'optim_wrapper.accumulative_counts: expected none, since global_batch_size says how much is '
                f'accumulated, but got {wrapper["accumulative_counts"]}'
            )
        if counts > 1:
            wrapper['accumulative_counts'] = counts
        return []
    wrappers = list(wrapper.values()) if isinstance(wrapper, OptimWrapperDict) else [wrapper]
    for own in wrappers:
        if not isinstance(own, OptimWrapper):
            raise ValueError(
                'optim_wrapper.type: expected an OptimWrapper with genseg_mm.UpdateBasedTrainLoop, which says how much '
                f'is accumulated, but got {type(own).__name__}'
            )
        own._accumulative_counts = counts
    return wrappers
