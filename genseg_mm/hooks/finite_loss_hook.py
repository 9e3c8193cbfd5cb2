"""Stopping at the first loss that is not a number."""

import math

import torch
from mmengine.hooks import Hook
from mmengine.runner import Runner

from genseg_mm.registry import HOOKS


@HOOKS.register_module()
class FiniteLossHook(Hook):
    """Stops at the first loss that is NaN or infinite, before such weights are saved."""

    def after_train_iter(self, runner: Runner, batch_idx: int, data_batch=None, outputs=None) -> None:  # noqa: ANN001
        """Checks every loss of the iteration.

        Raises:
            ValueError: Naming the iteration and all losses.
        """
        losses = {
            name: float(torch.as_tensor(value).detach().mean())
            for name, value in (outputs or {}).items()
            if 'loss' in name
        }
        if all(map(math.isfinite, losses.values())):
            return
        listed = ', '.join(f'{name}={value:g}' for name, value in losses.items())
        rate = runner.optim_wrapper.param_groups[0]['lr']
        raise ValueError(
            f'the loss is not finite at iteration {runner.iter + 1} ({listed}; learning rate '
            f'{rate:g}): lower the learning rate, clip gradients '
            '(optim_wrapper.clip_grad.max_norm=1) or check the data; then resume'
        )
