"""Muon beside AdamW, which parameters it gets, and bfloat16 autocast on any device."""

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from mmengine.model import is_model_wrapper
from mmengine.optim import OptimWrapper, OptimWrapperDict
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule
from torch.distributed.tensor import DTensor, Replicate
from torch.nn.modules.batchnorm import _BatchNorm

from genseg_mm.devices import device_of
from genseg_mm.registry import OPTIM_WRAPPER_CONSTRUCTORS, OPTIM_WRAPPERS, OPTIMIZERS
from genseg_mm.sharded_tensors import whole_of


class ShardedOptimWrapperMixin:
    """An optimizer wrapper over sharded parameters (FSDP2), see :func:`share_sharded`."""

    reduce_each_micro_batch = False
    _sharded: tuple[nn.Module, list[FSDPModule]] | None = None

    @contextmanager
    def optim_context(self, model: nn.Module) -> Iterator[None]:
        """Has gradients reduced in the last micro-batch of an update alone.

        MMEngine does so for models with ``no_sync`` (DDP), within the forward pass; sharded modules read a flag in the
        backward pass, which comes after it.
        """
        if self._sharded is None or self._sharded[0] is not model:
            self._sharded = model, [own for own in model.modules() if isinstance(own, FSDPModule)]
        for module in self._sharded[1]:
            module.set_requires_gradient_sync(self.reduce_each_micro_batch or self.should_sync(), recurse=False)
        with super().optim_context(model):
            yield

    def _clip_grad(self) -> None:
        clip = self.clip_func
        self.clip_func = lambda *args, **kwargs: _whole_norm(clip(*args, **kwargs))
        try:
            super()._clip_grad()
        finally:
            self.clip_func = clip


def _whole_norm(norm: Tensor | None) -> Tensor | None:
    return None if norm is None else whole_of(norm)


def share_sharded(wrapper: OptimWrapper, reduce_each_micro_batch: bool = False) -> None:
    """Makes a wrapper of any class one over sharded parameters, in place, as ``fully_shard`` does with modules.

    Args:
        wrapper: Its optimizer has parameters of sharded modules.
        reduce_each_micro_batch: Whether gradients are reduced in every micro-batch, not in the last of an update alone.
    """
    kind = type(wrapper)
    if not isinstance(wrapper, ShardedOptimWrapperMixin):
        wrapper.__class__ = type(f'Sharded{kind.__name__}', (ShardedOptimWrapperMixin, kind), {})
    wrapper.reduce_each_micro_batch = reduce_each_micro_batch


class ZeroInPlaceMixin:
    """An optimizer wrapper whose gradients are set to zero where they are, see :func:`zero_in_place`."""

    def zero_grad(self, **kwargs: Any) -> None:
        """Sets gradients to zero."""
        super().zero_grad(**{'set_to_none': False, **kwargs})


def zero_in_place(wrapper: Any, model: nn.Module) -> Any:
    """Keeps gradients that are views of DDP's buckets what they are, in place.

    Dropped after an update, as torch and MMEngine do, they would be made anew outside of the buckets in the next one's
    micro-batches that are not reduced: 4 bytes per trained parameter more. Parameters that may be unused are dropped
    all the same (``find_unused_parameters``), since an optimizer passes over those without a gradient only.

    Args:
        wrapper: ``OptimWrapper``, or several in an ``OptimWrapperDict``.
        model: Whose parameters it updates.

    Returns:
        The wrapper.
    """
    if not getattr(model, 'gradient_as_bucket_view', False) or model.find_unused_parameters:
        return wrapper
    for own in wrapper.values() if isinstance(wrapper, OptimWrapperDict) else [wrapper]:
        if not isinstance(own, ZeroInPlaceMixin):
            own.__class__ = type(type(own).__name__, (ZeroInPlaceMixin, type(own)), {})
    return wrapper


def learning_batch_norms(model: nn.Module) -> nn.ModuleList:
    """BatchNorm whose statistics a training changes: MMEngine warns of any, which those of frozen parts keep."""
    return nn.ModuleList(own for own in model.modules() if isinstance(own, _BatchNorm) and own.training)


@OPTIM_WRAPPERS.register_module()
class AutocastOptimWrapper(OptimWrapper):
    """Mixed precision in bfloat16 on any device, CPU included, without loss scaling.

    MMEngine's ``AmpOptimWrapper`` refuses to run without an accelerator and scales the loss, which
    bfloat16 (the exponent range of float32) does not need. Parameters, gradients and the optimizer
    state stay float32.

    Args:
        dtype: 'bfloat16'.
        **kwargs: As for MMEngine's ``OptimWrapper``.

    Raises:
        ValueError: For another dtype.
    """

    def __init__(self, dtype: str = 'bfloat16', **kwargs) -> None:
        if dtype not in ('bfloat16', torch.bfloat16):
            raise ValueError(
                f"AutocastOptimWrapper supports dtype='bfloat16' only, but got {dtype!r}; float16 "
                "needs loss scaling: use type='AmpOptimWrapper' on a GPU"
            )
        super().__init__(**kwargs)

    def initialize_count_status(self, model: nn.Module, init_counts: int, max_counts: int) -> None:
        """See MMEngine's, without its warning of BatchNorm in frozen parts."""
        super().initialize_count_status(learning_batch_norms(model), init_counts, max_counts)

    @contextmanager
    def optim_context(self, model: nn.Module) -> Iterator[None]:
        """Autocast around the forward pass, on the device that the parameters are on."""
        with super().optim_context(model), torch.autocast(device_of(model).type, dtype=torch.bfloat16):
            yield


class Float32Muon(torch.optim.Muon):
    """``torch.optim.Muon`` with its Newton-Schulz iteration in float32 in place of bfloat16.

    Most CPUs have no bfloat16 arithmetic: torch emulates it there, and a product of 128 x 320 takes 7 times as long as
    in float32. Groups, state and defaults are those of ``torch.optim.Muon``, so a checkpoint serves both.
    """

    @torch.no_grad()
    def step(self, closure: Callable[[], Tensor] | None = None) -> Tensor | None:
        """One step."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            lr, momentum = float(group['lr']), group['momentum']
            for param in (param for param in group['params'] if param.grad is not None):
                state = self.state[param]
                if 'momentum_buffer' not in state:
                    state['momentum_buffer'] = torch.zeros_like(param.grad)
                mean = state['momentum_buffer'].lerp_(param.grad, 1 - momentum)
                update = param.grad.lerp(mean, momentum) if group['nesterov'] else mean
                update = _on_whole(orthogonalized, update, group['ns_coefficients'], group['ns_steps'], group['eps'])
                rows, columns = param.shape
                if group['adjust_lr_fn'] == 'match_rms_adamw':
                    ratio = 0.2 * max(rows, columns) ** 0.5
                else:
                    ratio = max(1, rows / columns) ** 0.5
                param.mul_(1 - lr * group['weight_decay']).add_(update, alpha=-lr * ratio)
        return loss


def _on_whole(function: Callable[..., Tensor], matrix: Tensor, *args: Any) -> Tensor:
    """A function of a matrix that may be sharded, whose result is sharded likewise; every rank computes it whole."""
    if not isinstance(matrix, DTensor):
        return function(matrix, *args)
    whole = function(matrix.full_tensor(), *args)
    replicas = [Replicate()] * matrix.device_mesh.ndim
    return DTensor.from_local(whole, matrix.device_mesh, replicas, run_check=False).redistribute(
        placements=matrix.placements
    )


def orthogonalized(matrix: Tensor, coefficients: tuple[float, float, float], num_steps: int, eps: float) -> Tensor:
    """The matrix with its singular values brought near 1, by Muon's quintic Newton-Schulz iteration.

    Args:
        matrix: (rows, columns).
        coefficients: a, b, c of X <- a X + (b XX' + c (XX')^2) X.
        num_steps: Iterations.
        eps: Least norm to divide by.

    Returns:
        Same shape; singular values between about 0.7 and 1.2.
    """
    a, b, c = coefficients
    is_tall = matrix.shape[0] > matrix.shape[1]
    wide = matrix.T.contiguous() if is_tall else matrix
    wide = wide / wide.norm().clamp(min=eps)
    for _ in range(num_steps):
        gram = wide @ wide.T
        wide = torch.addmm(wide, torch.addmm(gram, gram, gram, beta=b, alpha=c), wide, beta=a)
    return wide.T if is_tall else wide


@OPTIMIZERS.register_module()
class MuonAdamW(torch.optim.Optimizer):
    """``torch.optim.Muon`` for the hidden matrices of a transformer, ``torch.optim.AdamW`` for everything else.

    Muon orthogonalises the momentum of a matrix; its step is scaled to the root mean square of AdamW's ("Muon is
    Scalable for LLM Training", arXiv 2502.16982), so that both share one learning rate and one weight decay. It is one
    optimizer to MMEngine: one schedule, one state in the checkpoint.

    Args:
        params: Parameter groups with the key ``use_muon``, as :class:`MuonOptimWrapperConstructor` makes them.
        lr: Learning rate of both.
        betas: Of AdamW.
        momentum: Of Muon.
        weight_decay: Decoupled, of both.

    Raises:
        ValueError: If a group does not say ``use_muon``, or gives Muon anything but matrices.
    """

    def __init__(
        self,
        params: Iterable[dict[str, Any]],
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.98),
        momentum: float = 0.95,
        weight_decay: float = 0.01,
    ) -> None:
        groups = [dict(group) for group in params]
        if any('use_muon' not in group for group in groups):
            raise ValueError(
                "MuonAdamW needs parameter groups with 'use_muon': set "
                "optim_wrapper.constructor='genseg_mm.MuonOptimWrapperConstructor'"
            )
        matrices = [group for group in groups if group['use_muon']]
        others = [group for group in groups if not group['use_muon']]
        for group in matrices:
            wrong = [tuple(param.shape) for param in group['params'] if param.ndim != 2]
            if wrong:
                raise ValueError(f'Muon takes matrices only, but got shapes such as {wrong[0]}')
        self.parts: list[torch.optim.Optimizer] = []
        if matrices:
            params = [param for own in matrices for param in own['params']]
            # torch's own orthogonalises each rank's shard by itself.
            ours = all(own.device.type == 'cpu' for own in params) or any(isinstance(own, DTensor) for own in params)
            self.parts.append(
                (Float32Muon if ours else torch.optim.Muon)(
                    matrices, lr=lr, momentum=momentum, weight_decay=weight_decay, adjust_lr_fn='match_rms_adamw'
                )
            )
        if others:
            self.parts.append(torch.optim.AdamW(others, lr=lr, betas=betas, weight_decay=weight_decay, fused=True))
        # MMEngine logs the rate of the defaults.
        super().__init__([group for part in self.parts for group in part.param_groups], {'lr': lr})
        self._share()

    def _share(self) -> None:
        """Lets the parts work on this optimizer's groups and state, which a checkpoint may have replaced."""
        groups = iter(self.param_groups)
        for part in self.parts:
            part.param_groups = [next(groups) for _ in part.param_groups]
            part.state = self.state

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restores groups and state."""
        super().load_state_dict(state_dict)
        self._share()

    def step(self, closure: Callable[[], Tensor] | None = None) -> Tensor | None:
        """One step of both parts."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for part in self.parts:
            part.step()
        return loss


MUON_KEYS = (r'layers\.\d+\.',)


def muon_matrices(model: nn.Module, keys: Sequence[str] | None = None) -> set[str]:
    """Names of the trained matrices that Muon gets.

    Args:
        model: Model.
        keys: Regular expressions, one of which is in the name; default: the weights inside transformer layers.
    """
    return {
        name
        for name, param in model.named_parameters()
        if param.requires_grad and param.ndim == 2 and any(re.search(key, name) for key in keys or MUON_KEYS)
    }


@OPTIM_WRAPPER_CONSTRUCTORS.register_module()
class MuonOptimWrapperConstructor:
    """Builds an optimizer wrapper whose optimizer tells hidden matrices from other parameters.

    Args:
        optim_wrapper_cfg: Config of the wrapper, with ``optimizer``.
        paramwise_cfg: ``muon_keys``: regular expressions; a trained matrix whose name matches one goes to Muon (the
            weights inside transformer layers, by default). Embeddings and output layers belong to AdamW.

    Raises:
        ValueError: For unknown keys, or if no matrix matches.
    """

    def __init__(self, optim_wrapper_cfg: dict[str, Any], paramwise_cfg: dict[str, Any] | None = None) -> None:
        paramwise_cfg = dict(paramwise_cfg or {})
        self.muon_keys: Sequence[str] = paramwise_cfg.pop('muon_keys', MUON_KEYS)
        if paramwise_cfg:
            raise ValueError(f'paramwise_cfg knows muon_keys only, but got {sorted(paramwise_cfg)}')
        self.wrapper_cfg = {'type': 'OptimWrapper', **optim_wrapper_cfg}
        self.optimizer_cfg = self.wrapper_cfg.pop('optimizer')

    def __call__(self, model: nn.Module) -> OptimWrapper:
        """Builds the wrapper for a model."""
        if is_model_wrapper(model):
            model = model.module
        trained = {name: param for name, param in model.named_parameters() if param.requires_grad}
        matrices = muon_matrices(model, self.muon_keys)
        if not matrices:
            raise ValueError(
                f'muon_keys {tuple(self.muon_keys)} match none of the {len(trained)} trained parameters, such as '
                f'{next(iter(trained), "none")}'
            )
        params = [
            dict(params=[param for name, param in trained.items() if (name in matrices) == use_muon], use_muon=use_muon)
            for use_muon in (True, False)
        ]
        optimizer = OPTIMIZERS.build({**self.optimizer_cfg, 'params': params})
        return OPTIM_WRAPPERS.build({**self.wrapper_cfg, 'optimizer': optimizer})
