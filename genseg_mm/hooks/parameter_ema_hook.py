"""A moving average of what is trained, with which is evaluated."""

from typing import Any

import torch
from mmengine.hooks import Hook
from mmengine.model import is_model_wrapper
from mmengine.runner import Runner
from torch import Tensor, nn

from genseg_mm.hooks.safe_checkpoint_hook import ends_update
from genseg_mm.registry import HOOKS
from genseg_mm.sharded_tensors import gather_on_main, local_of, sharded_as

_RAW, _COUNT = 'trained_state_dict', 'num_averaged_updates'


@HOOKS.register_module()
class ParameterEMAHook(Hook):
    """Exponential moving average of the trained parameters, with which the model is evaluated and published.

    MMEngine's ``EMAHook`` copies the whole model, frozen encoders included, on every rank, and counts iterations; this
    one keeps an average of trained parameters alone, sharded as they are (FSDP2), and counts updates. A checkpoint has
    the averages in ``state_dict``, where every tool looks, and the values that training goes on from in
    ``trained_state_dict``.

    Args:
        decay: Of the average: after each update it is ``decay * average + (1 - decay) * value``.
        warmup: Takes ``min(decay, (1 + n) / (10 + n))`` after n updates, so that the start is soon forgotten.

    Raises:
        ValueError: If the decay is not in [0, 1).
    """

    priority = 'NORMAL'  # before the checkpoint

    def __init__(self, decay: float = 0.9999, warmup: bool = True) -> None:
        if not 0 <= decay < 1:
            raise ValueError(f'decay must be at least 0 and below 1, but got {decay}')
        self.decay, self.warmup = decay, warmup
        self.averages: dict[str, Tensor] = {}  # the trained values while the model has the averages
        self._params: dict[str, nn.Parameter] = {}
        self._loaded: dict[str, Tensor] = {}
        self._num = 0

    def before_train(self, runner: Runner) -> None:
        """Begins with the values of the model, or goes on from those of a resumed checkpoint."""
        self._params = _trained(runner.model)
        lacking = sorted(self._params.keys() - self._loaded.keys()) if self._loaded else []
        if lacking:
            raise ValueError(
                f'{runner._load_from} has averages of other parameters than those that are trained: it lacks '
                f'{len(lacking)} such as {lacking[0]}; resume with the config of the training'
            )
        with torch.no_grad():
            self.averages = {
                name: sharded_as(self._loaded[name], own) if name in self._loaded else own.detach().clone()
                for name, own in self._params.items()
            }
        self._loaded = {}

    @torch.no_grad()
    def after_train_iter(self, runner: Runner, batch_idx: int, data_batch=None, outputs=None) -> None:  # noqa: ANN001
        """Takes an update into the average."""
        if not ends_update(runner):
            return
        decay = min(self.decay, (1 + self._num) / (10 + self._num)) if self.warmup else self.decay
        self._num += 1
        averages = [local_of(own) for own in self.averages.values()]
        torch._foreach_lerp_(averages, [local_of(own.detach()) for own in self._params.values()], 1 - decay)

    def before_val_epoch(self, runner: Runner) -> None:
        """Validates with the average."""
        self._swap()

    def after_val_epoch(self, runner: Runner, metrics: dict | None = None) -> None:
        """Trains on with the values."""
        self._swap()

    @torch.no_grad()
    def _swap(self) -> None:
        for name, average in self.averages.items():
            param, average = local_of(self._params[name].detach()), local_of(average)
            value = param.clone()
            param.copy_(average)
            average.copy_(value)

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict[str, Any]) -> None:
        """Puts the averages in the place of the weights, and these beside them."""
        checkpoint[_COUNT] = self._num
        if 'state_dict' not in checkpoint:  # the strategy writes the model as it is, by shards
            self._swap()
            checkpoint[_RAW] = self.averages
            checkpoint['after_saving'] = self._swap
            return
        state, averages = checkpoint['state_dict'], gather_on_main(self.averages)
        names = {name.removeprefix('module.'): name for name in state}
        if checkpoint.get('optimizer') is not None:
            checkpoint[_RAW] = {name: state[names[name]] for name in averages}
        state.update(
            {names[alias]: averages[name] for alias, name in _aliases(runner.model).items() if name in averages}
        )

    @torch.no_grad()
    def after_load_checkpoint(self, runner: Runner, checkpoint: dict[str, Any]) -> None:
        """Resumes training from its values and with its averages; otherwise the averages are all that is loaded."""
        values, self._num = checkpoint.get(_RAW), checkpoint.get(_COUNT, 0)
        if not runner._resume:
            self._num = 0
            return
        if values is None:
            runner.logger.warning(f'{runner._load_from} has no averages: they begin with its weights')
            return
        if 'state_dict' in checkpoint:
            state = checkpoint['state_dict']
            self._loaded = {name: state[name] for name in values}
            state.update({alias: values[name] for alias, name in _aliases(runner.model).items() if name in values})
            return
        params = _trained(runner.model)
        self._loaded = {name: params[name].detach().clone() for name in values}
        for name, value in values.items():
            local_of(params[name].detach()).copy_(local_of(value))


def _aliases(model: nn.Module) -> dict[str, str]:
    """Every name of a parameter, of which some have several, with the one under which it is averaged."""
    plain = model.module if is_model_wrapper(model) else model
    first: dict[int, str] = {}
    return {name: first.setdefault(id(own), name) for name, own in plain.named_parameters(remove_duplicate=False)}


def _trained(model: nn.Module) -> dict[str, nn.Parameter]:
    plain = model.module if is_model_wrapper(model) else model
    return {name: own for name, own in plain.named_parameters() if own.requires_grad}
