"""The runner of one measurement, and its test loop, whose numbers do not depend on batches."""

import io
import logging
import time
from collections.abc import Callable, Sequence
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.config import Config
from mmengine.device import get_device
from mmengine.dist import all_gather_object, broadcast_object_list, get_rank
from mmengine.evaluator import Evaluator
from mmengine.logging import MMLogger, print_log
from mmengine.model import revert_sync_batchnorm
from torch import Tensor, nn

from genseg_mm.launch.evaluation_loops import PictureTestLoop, first_samples
from genseg_mm.launch.runner import SafeRunner
from genseg_mm.registry import LOOPS

STAGES = ('data', 'model', 'metric')
_SECONDS_BETWEEN_LINES = 30.0


@LOOPS.register_module()
class BenchmarkLoop(PictureTestLoop):
    """``PictureTestLoop``, one sample at a time, timed, and safe against errors of single processes.

    The sum over a batch of another size is blocked and padded in another way, which changes the last bits of a
    prediction and with them, rarely, a pixel. Here the model is given the samples of a batch one by one: results are
    bit-identical for every batch size and number of processes (on the same hardware and with the same number of
    threads, which is fixed as well).

    An error in one process is raised in all of them, where MMEngine's loop would wait for the others until a timeout.

    Args:
        runner: The runner.
        dataloader: A dataloader or its config.
        evaluator: An evaluator or its config.
        fp16: As in MMEngine's ``TestLoop``; by default the precision is that of the model's training.
        one_by_one: False gives the model whole batches, which is faster on a GPU.
        threads: Threads of torch on the CPU; None leaves them as they are. The blocking of a sum over several threads
            depends on their number.

    Attributes:
        seconds_per_item: Mean seconds per item and stage ('data' is waiting for the loader, 'model', 'metric'), over
            all processes; after :meth:`run`.
        threads: What torch used.
    """

    def __init__(
        self,
        runner: Any,
        dataloader: Any,
        evaluator: Any,
        fp16: bool = False,
        one_by_one: bool = True,
        threads: int | None = 1,
    ) -> None:
        if threads is not None and threads < 1:
            raise ValueError(f'threads must be at least 1 or None, but got {threads}')
        if isinstance(evaluator, dict | Sequence) and not isinstance(evaluator, Evaluator):
            evaluator = runner.build_evaluator(evaluator)
        super().__init__(runner, dataloader, evaluator, fp16)
        self.one_by_one = one_by_one
        self._asked_threads = threads
        self.threads = torch.get_num_threads()
        self.seconds_per_item = dict.fromkeys(STAGES, 0.0)

    def run(self) -> dict:
        """Tests.

        Returns:
            Metrics by name, the same in all processes.

        Raises:
            RuntimeError: If another process failed; what failed here is raised as it is.
        """
        before = torch.get_num_threads()
        if self._asked_threads is not None:
            torch.set_num_threads(self._asked_threads)
        self.threads = torch.get_num_threads()
        try:
            with self.spread():
                return self._run()
        finally:
            torch.set_num_threads(before)

    def _run(self) -> dict:
        self.runner.call_hook('before_test')
        self.runner.call_hook('before_test_epoch')
        self.runner.model.eval()
        self._seconds, self._items = dict.fromkeys(STAGES, 0.0), 0
        self._next_line = time.monotonic() + _SECONDS_BETWEEN_LINES
        together(self._predict_all)
        metrics = self._evaluate()
        self.seconds_per_item = self._mean_seconds()
        self.runner.call_hook('after_test_epoch', metrics=metrics)
        self.runner.call_hook('after_test')
        return metrics

    def _predict_all(self) -> None:
        batches, index = iter(self.dataloader), 0
        while True:
            start = time.perf_counter()
            batch = next(batches, None)
            self._seconds['data'] += time.perf_counter() - start
            if batch is None:
                return
            self.run_iter(index, batch)
            index += 1
            self._report(index)

    @torch.no_grad()
    def run_iter(self, idx: int, data_batch: dict) -> None:
        """Predicts and measures the samples of one batch.

        Args:
            idx: Number of the batch.
            data_batch: From the loader.
        """
        self.runner.call_hook('before_test_iter', batch_idx=idx, data_batch=data_batch)
        parts = single_samples(data_batch) if self.one_by_one else [data_batch]
        outputs: list = []
        for part in parts:
            start = _now()
            with self.autocast():
                predicted = self.runner.model.test_step(part)
            predicted = [sample for sample in predicted if sample.keys() != ['loss']]
            middle = _now()
            num = self.count_own(len(predicted))
            if num:
                counted = first_samples(part, num, len(predicted))
                self.evaluator.process(data_samples=predicted[:num], data_batch=counted)
            self._seconds['model'] += middle - start
            self._seconds['metric'] += _now() - middle
            self._items += num
            outputs += predicted
        self.runner.call_hook('after_test_iter', batch_idx=idx, data_batch=data_batch, outputs=outputs)

    def _evaluate(self) -> dict:
        """``Evaluator.evaluate``, whose computing happens on the main process alone, also when it fails there."""
        errors: list[Exception] = []
        for metric in self.evaluator.metrics:
            metric.compute_metrics = _catching(metric.compute_metrics, errors)
        start = time.perf_counter()
        try:
            metrics = self.evaluator.evaluate(len(self.dataloader.dataset))
        finally:
            for metric in self.evaluator.metrics:
                del metric.compute_metrics
        self._seconds['metric'] += (time.perf_counter() - start) * (get_rank() == 0)
        failed = [bool(errors)]
        broadcast_object_list(failed)
        if errors:
            raise errors[0]
        if failed[0]:
            raise RuntimeError('the main process could not compute the metrics: see its error')
        return metrics

    def _mean_seconds(self) -> dict[str, float]:
        everywhere = all_gather_object((self._items, self._seconds))
        items = sum(count for count, _ in everywhere)
        return {stage: sum(own[stage] for _, own in everywhere) / max(items, 1) for stage in STAGES}

    def _report(self, done: int) -> None:
        if time.monotonic() >= self._next_line:
            self._next_line = time.monotonic() + _SECONDS_BETWEEN_LINES
            print_log(f'BenchmarkLoop: {done} of {len(self.dataloader)} batches', logger='current')


class BenchmarkRunner(SafeRunner):
    """``SafeRunner`` that writes nothing but one log file, and whose model is not wrapped.

    Nothing is trained, so several processes need no gradients of each other; MMEngine's wrapper refuses models
    without parameters, such as the controls.

    Args:
        cfg: Of :func:`genseg_mm.benchmarking.jobs.effective_config`.
        model: A built model to use in place of the config's.
        checkpoint: Weights to load, which have to fit; None takes the model as it is.
        log_file: Where the log goes; the screen gets warnings and progress only.
        scratch: Folder for what MMEngine writes anyway.
        launcher: As of the command line.
        name: Unique in this process: MMEngine keeps loggers and message hubs by it.
    """

    def __init__(
        self,
        cfg: Config,
        model: nn.Module | None,
        checkpoint: str | None,
        log_file: Path,
        scratch: str,
        launcher: str,
        name: str,
    ) -> None:
        self._log_file = log_file
        super().__init__(
            model=cfg.model if model is None else model,
            work_dir=scratch,
            test_dataloader=cfg.test_dataloader,
            test_cfg=cfg.test_cfg,
            test_evaluator=cfg.test_evaluator,
            default_hooks=dict(checkpoint=None, param_scheduler=None),
            load_from=checkpoint,
            launcher=launcher,
            env_cfg=cfg.env_cfg,
            log_processor=dict(by_epoch=False),
            default_scope=cfg.default_scope,
            randomness=cfg.randomness,
            experiment_name=name,
            cfg=cfg,
        )

    def wrap_model(self, model_wrapper_cfg: dict | None, model: nn.Module) -> nn.Module:
        """The model on its device, in eval mode."""
        return revert_sync_batchnorm(model).to(get_device()).eval()

    def build_logger(self, log_level: str = 'INFO', **kwargs: Any) -> MMLogger:
        """The logger, whose screen shows warnings and the loop's progress only."""
        kwargs.update(log_file=str(self._log_file), file_mode='w')
        logger = super().build_logger(log_level=log_level, **kwargs)
        for handler in logger.handlers:
            if not hasattr(handler, 'baseFilename'):
                handler.addFilter(_worth_showing)
        return logger

    def load_checkpoint(self, *args: Any, **kwargs: Any) -> dict:
        """Loads without MMEngine's line on the screen."""
        with redirect_stdout(io.StringIO()):
            return super().load_checkpoint(*args, **kwargs)

    def test(self) -> dict:
        """Tests; what metrics print goes to the log."""
        with self._log_file.open('a') if self.rank == 0 else io.StringIO() as log, redirect_stdout(log):
            return super().test()

    def dump_config(self) -> None:
        """Nothing: the config is saved beside the result."""

    def close(self) -> None:
        """Closes the log file, and whatever else MMEngine holds open."""
        for handler in list(self.logger.handlers):
            if hasattr(handler, 'baseFilename'):
                handler.close()
                self.logger.removeHandler(handler)
        self.visualizer.close()


def _worth_showing(record: Any) -> bool:
    text = record.getMessage()
    if 'The prefix is not set' in text:  # MMEngine, of every metric without one
        return False
    return record.levelno >= logging.WARNING or text.startswith('BenchmarkLoop')


def single_samples(batch: Any) -> list[dict]:
    """The samples of a batch, each as a batch of its own.

    Args:
        batch: What a loader gives: a dict of lists or of tensors (N, ...), all of one length.

    Raises:
        ValueError: If it is something else.
    """
    values = list(batch.values()) if isinstance(batch, dict) else []
    lengths = {len(own) if isinstance(own, list | tuple | Tensor) else None for own in values}
    if len(lengths) != 1 or None in lengths:
        came = {key: type(own).__name__ for key, own in batch.items()} if values else type(batch)
        raise ValueError(
            'one_by_one needs batches that are dicts of lists or tensors of one length, as '
            f'pseudo_collate makes them, but got {came}; set one_by_one=False (--fast)'
        )
    return [{key: own[index : index + 1] for key, own in batch.items()} for index in range(lengths.pop())]


def together(function: Callable[[], Any]) -> Any:
    """Calls a function without communication in every process, and fails in all of them if it fails in one.

    Raises:
        RuntimeError: If it failed elsewhere; an error of this process is raised as it is.
    """
    error, result = None, None
    try:
        result = function()
    except Exception as own:
        error = own
    texts = all_gather_object(error and f'{type(error).__name__}: {error}')
    if error is not None:
        raise error
    for rank, text in enumerate(texts):
        if text is not None:
            raise RuntimeError(f'process {rank} failed: {text}')
    return result


def _catching(compute: Callable[[list], dict], errors: list[Exception]) -> Callable[[list], dict]:
    def guarded(results: list) -> dict:
        try:
            return compute(results)
        except Exception as error:
            errors.append(error)
            return {}

    return guarded


def _now() -> float:
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter()


def finite_or_text(metrics: dict[str, Any]) -> dict[str, float]:
    """Metrics as plain numbers, for JSON; tensors and NumPy numbers among them."""
    return {
        name: float(np.asarray(value.cpu() if isinstance(value, Tensor) else value)) for name, value in metrics.items()
    }
