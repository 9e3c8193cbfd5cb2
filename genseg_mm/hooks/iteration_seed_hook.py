"""Draws of modules that a resumed training repeats."""

import random

import numpy as np
import torch
from mmengine.dist import get_rank
from mmengine.hooks import Hook
from mmengine.runner import Runner

from genseg_mm.registry import HOOKS

_STREAM = 3  # keeps these draws apart from those of the samples, which start from the same seed


@HOOKS.register_module()
class IterationSeedHook(Hook):
    """Sets the global random states from (seed, iteration, rank) before each training iteration.

    Modules draw from them without a generator of their own: dropout, drop path, samplers of proposals. A resumed
    training then draws what an uninterrupted one does, whatever was drawn before it.
    """

    priority = 'VERY_HIGH'

    def before_train_iter(self, runner: Runner, batch_idx: int, data_batch: dict | None = None) -> None:
        """Sets the states of PyTorch (all devices), NumPy and Python."""
        key = [runner.seed, _STREAM, runner.iter, get_rank()]
        words = np.random.SeedSequence(key).generate_state(4)
        torch.manual_seed(int(words[0]) << 31 | int(words[1]) >> 1)
        np.random.seed(words)
        random.seed(words.tobytes())
