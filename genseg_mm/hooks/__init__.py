"""Hooks."""

from genseg_mm.hooks.finite_loss_hook import FiniteLossHook
from genseg_mm.hooks.iteration_seed_hook import IterationSeedHook
from genseg_mm.hooks.prediction_grid_hook import PredictionGridHook
from genseg_mm.hooks.safe_checkpoint_hook import SafeCheckpointHook

__all__ = ['FiniteLossHook', 'IterationSeedHook', 'PredictionGridHook', 'SafeCheckpointHook']
