"""The runner of one measurement."""

import io
import logging
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

from mmengine.config import Config
from mmengine.device import get_device
from mmengine.logging import MMLogger
from mmengine.model import revert_sync_batchnorm
from torch import nn

from genseg_mm.launch.runner import SafeRunner


class BenchmarkRunner(SafeRunner):
    """``SafeRunner`` that writes nothing but one log file, and whose model is not wrapped.

    Nothing is trained, so several processes need no gradients of each other; MMEngine's wrapper refuses models
    without parameters, such as the controls.

    Args:
        cfg: Of :func:`genseg_mm.benchmarking.effective_config.effective_config`.
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
