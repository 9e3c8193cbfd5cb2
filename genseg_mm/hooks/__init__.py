"""Hooks."""

from genseg_mm.hooks.finite_loss_hook import FiniteLossHook
from genseg_mm.hooks.iteration_seed_hook import IterationSeedHook
from genseg_mm.hooks.missed_validation_hook import MissedValidationHook
from genseg_mm.hooks.prediction_grid_hook import PredictionGridHook
from genseg_mm.hooks.safe_checkpoint_hook import SafeCheckpointHook
from genseg_mm.hooks.stop_on_signal_hook import StopOnSignalHook
from genseg_mm.hooks.task_log_processor import TaskLogProcessor

__all__ = [
    'FiniteLossHook',
    'IterationSeedHook',
    'MissedValidationHook',
    'PredictionGridHook',
    'SafeCheckpointHook',
    'StopOnSignalHook',
    'TaskLogProcessor',
]
