"""Hooks."""

from genseg_mm.hooks.parameter_ema_hook import ParameterEMAHook
from genseg_mm.hooks.prediction_grid_hook import PredictionGridHook
from genseg_mm.hooks.safe_checkpoint_hook import SafeCheckpointHook
from genseg_mm.hooks.training_hooks import (
    FiniteLossHook,
    IterationSeedHook,
    MissedValidationHook,
    StopOnSignalHook,
    TaskLogProcessor,
)

__all__ = [
    'FiniteLossHook',
    'IterationSeedHook',
    'MissedValidationHook',
    'ParameterEMAHook',
    'PredictionGridHook',
    'SafeCheckpointHook',
    'StopOnSignalHook',
    'TaskLogProcessor',
]
