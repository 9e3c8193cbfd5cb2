"""Loops of validation and test: in the precision of training, and over data that are spread by picture."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
from mmengine.dist import all_gather_object, get_dist_info
from mmengine.evaluator import BaseMetric
from mmengine.runner import TestLoop, ValLoop
from mmengine.runner.loops import _update_losses
from torch import Tensor

from genseg_mm.datasets.picture_sampler import PictureSampler
from genseg_mm.devices import device_of
from genseg_mm.precision import evaluation_autocast, prepare_evaluation
from genseg_mm.registry import LOOPS, class_name


class EvaluationLoop:
    """What :class:`PictureValLoop` and :class:`PictureTestLoop` share. It goes first among the bases."""

    stage = ''

    def run(self) -> dict:
        """Evaluates.

        Returns:
            Metrics by name, the same in all processes.
        """
        with self.spread():
            return super().run()

    @contextmanager
    def spread(self) -> Iterator[None]:
        """Around an evaluation: processes may have other batches, and results are brought into the dataset's order."""
        self._seen = 0
        if self.stage == 'test':  # a validation shares its model with the training
            prepare_evaluation(self.runner.model, self.runner.cfg, device_of(self.runner.model))
        strategy = getattr(self.runner, 'strategy', None)
        uneven = strategy.uneven_passes() if hasattr(strategy, 'uneven_passes') else nullcontext(lambda: None)
        with uneven as wait_for_others, self._before_evaluating(wait_for_others):
            yield

    def autocast(self) -> AbstractContextManager:
        """The precision of the model's passes: that of training, or ``fp16`` of the loop."""
        device = device_of(self.runner.model)
        cfg = dict(evaluation_dtype='float16') if self.fp16 else self.runner.cfg
        return evaluation_autocast(cfg, device)

    @torch.no_grad()
    def run_iter(self, idx: int, data_batch: Any) -> None:
        """Predicts and measures one batch.

        Args:
            idx: Number of the batch.
            data_batch: From the loader.
        """
        self.runner.call_hook(f'before_{self.stage}_iter', batch_idx=idx, data_batch=data_batch)
        with self.autocast():
            outputs = getattr(self.runner.model, f'{self.stage}_step')(data_batch)
        losses = getattr(self, f'{self.stage}_loss')
        outputs, _ = _update_losses(outputs, losses)
        num = self.count_own(len(outputs))
        if num:
            self.evaluator.process(data_samples=outputs[:num], data_batch=first_samples(data_batch, num, len(outputs)))
        self.runner.call_hook(f'after_{self.stage}_iter', batch_idx=idx, data_batch=data_batch, outputs=outputs)

    def count_own(self, num: int) -> int:
        """How many of the next ``num`` samples count; the others are repetitions at the end."""
        sampler = getattr(self.dataloader, 'sampler', None)
        if not isinstance(sampler, PictureSampler):
            return num
        own = min(num, len(sampler.own_indices) - self._seen)
        self._seen += own
        return own

    @contextmanager
    def _before_evaluating(self, wait_for_others: Callable[[], None]) -> Iterator[None]:
        """When all batches are done, waits for the other processes, and brings results into the dataset's order."""
        sampler, evaluate = getattr(self.dataloader, 'sampler', None), self.evaluator.evaluate

        def ordered(size: int) -> dict:
            wait_for_others()
            if isinstance(sampler, PictureSampler):
                for metric in self.evaluator.metrics:
                    deal_in_order(metric, sampler.own_indices)
            return evaluate(size)

        self.evaluator.evaluate = ordered
        try:
            yield
        finally:
            del self.evaluator.evaluate


@LOOPS.register_module()
class PictureValLoop(EvaluationLoop, ValLoop):
    """MMEngine's ``ValLoop`` in the precision of training, also over a :class:`PictureSampler`.

    The runner takes it wherever a config says ``ValLoop``.
    """

    stage = 'val'


@LOOPS.register_module()
class PictureTestLoop(EvaluationLoop, TestLoop):
    """MMEngine's ``TestLoop`` in the precision of training, also over a :class:`PictureSampler`.

    The runner takes it wherever a config says ``TestLoop``.
    """

    stage = 'test'


def deal_in_order(metric: BaseMetric, own_indices: Sequence[int]) -> None:
    """Deals the results of a metric out to the processes as MMEngine's samplers deal samples: item i to i mod N.

    What ``collect_results`` then puts together, taking from each process in turn, has the dataset's order, and ends
    with the padding that it cuts off.

    Args:
        metric: With one result per item, in this process those of ``own_indices``.
        own_indices: Places in the dataset.

    Raises:
        ValueError: If it has another number of results.
    """
    rank, world_size = get_dist_info()
    if world_size == 1 and len(metric.results) != len(own_indices):
        return  # nothing to be put together
    everywhere = all_gather_object((list(own_indices), list(metric.results)))
    wrong = [(len(results), len(indices)) for indices, results in everywhere if len(results) != len(indices)]
    if wrong:
        raise ValueError(
            f'{type(metric).__name__} keeps {wrong[0][0]} results of {wrong[0][1]} items: expected one for each; take '
            "sampler=dict(type='mmengine.DefaultSampler', shuffle=False) for this metric"
        )
    pairs = [pair for indices, results in everywhere for pair in zip(indices, results, strict=True)]
    results = [result for _, result in sorted(pairs, key=lambda pair: pair[0])]
    results += results[-1:] * (-len(results) % world_size)
    metric.results[:] = results[rank::world_size]


def first_samples(data_batch: Any, num: int, size: int) -> Any:
    """The first ``num`` of the ``size`` samples of a batch, where it is a dict of lists or tensors."""
    if num == size or not isinstance(data_batch, dict):
        return data_batch
    return {
        key: own[:num] if isinstance(own, list | tuple | Tensor) and len(own) == size else own
        for key, own in data_batch.items()
    }


def own_loop(loop: Any, stage: str) -> Any:
    """Config of a loop, with the one of this package in place of MMEngine's ``ValLoop`` or ``TestLoop``.

    Args:
        loop: Config, or a built loop, which is left as it is.
        stage: 'Val' or 'Test'.
    """
    is_stock = isinstance(loop, dict) and class_name(loop.get('type', f'{stage}Loop')) == f'{stage}Loop'
    return {**loop, 'type': f'genseg_mm.Picture{stage}Loop'} if is_stock else loop


def check_loop(loop: Any, where: str) -> None:
    """Refuses a loop that would count the repetitions of a :class:`PictureSampler`.

    Args:
        loop: Of validation or test, built.
        where: Its key in the config.

    Raises:
        ValueError: If it would.
    """
    sampler = getattr(getattr(loop, 'dataloader', None), 'sampler', None)
    if isinstance(sampler, PictureSampler) and not isinstance(loop, EvaluationLoop):
        raise ValueError(
            f'{where}: expected ValLoop, TestLoop or a subclass of genseg_mm.PictureValLoop or PictureTestLoop with a '
            f'PictureSampler, but got {type(loop).__name__}, which would count items twice'
        )
