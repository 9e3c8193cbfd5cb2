"""FSDP2 for MMEngine's ``FlexibleRunner``: torch's ``fully_shard`` as a strategy."""

import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import mmengine
import torch
import torch.distributed as dist
from mmengine._strategy import DDPStrategy
from mmengine.device import get_device
from mmengine.optim import BaseOptimWrapper, OptimWrapperDict
from mmengine.registry import MODELS
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.optim import Optimizer

from genseg_mm.checkpoint import check_fits, check_resumable, load_weights_only, model_weights
from genseg_mm.models.pretrained_parts import without_values
from genseg_mm.optim import share_sharded
from genseg_mm.registry import STRATEGIES, class_name
from genseg_mm.sharded_tensors import gather_on_main, local_of, part_of, sharded_as
from genseg_mm.sharding.parameters import allocate_parameters, fill_from_main, take_parameters
from genseg_mm.sharding.shard_model import shard_model
from genseg_mm.sharding.sharded_checkpoints import load_sharded, save_sharded
from genseg_mm.sharding.uneven_passes import uneven_passes


@STRATEGIES.register_module()
class FSDP2Strategy(DDPStrategy):
    """Parameters, gradients and optimizer states of a model, sharded over all ranks by torch's ``fully_shard``.

    ::

        _base_ = ['../_base_/strategies/fsdp2.py']      # runner_type and strategy

    Rank 0 alone reads released weights, and hands every other rank its shard of one tensor after the other: the
    memory of a host holds one copy of the model, however many ranks it has. With one process nothing is sharded.

    Trained parameters compute in the precision of the optim wrapper (bfloat16 under ``AutocastOptimWrapper``), their
    gradients are reduced in float32, and no input is cast. All ranks must have the same mix of tasks in each
    micro-batch, which is checked: a rank that runs one forward more than others waits for them for ever. In evaluation
    ranks may have other tasks and numbers of batches (:meth:`uneven_passes`).

    Frozen encoders are sharded as well and stay on the cards, also where a training takes all encodings from a cache.

    Args:
        blocks: Class names of the blocks to shard one by one; default: what diffusers and transformers say of each of
            their models.
        copies: Groups of ranks that each hold the whole model; more than 1 keeps the gathering of parameters within a
            group (such as a machine).
        offload: Keeps shards and optimizer states in the memory of the host.
        reduce_each_micro_batch: Reduces gradients in every micro-batch of an update. By default only in the last one,
            for which each rank holds gradients of the whole model in float32 until then: 4 bytes per trained parameter.
        checkpoint: 'full' writes one file, which is put together on rank 0; 'sharded' a folder of all ranks, for
            models of billions of parameters.
        asynchronous: Sharded checkpoints are copied to the memory of the host and written beside the training.
        **kwargs: Of MMEngine's strategies.

    Raises:
        ValueError: If an argument does not fit the ranks or the model.
    """

    def __init__(
        self,
        *,
        blocks: Sequence[str] | None = None,
        copies: int = 1,
        offload: bool = False,
        reduce_each_micro_batch: bool = False,
        checkpoint: str = 'full',
        asynchronous: bool = False,
        **kwargs: Any,
    ) -> None:
        if checkpoint not in ('full', 'sharded'):
            raise ValueError(f"strategy.checkpoint: expected 'full' or 'sharded', but got {checkpoint!r}")
        if asynchronous and checkpoint == 'full':
            raise ValueError("strategy.asynchronous: expected checkpoint='sharded' with it, but got checkpoint='full'")
        self.saves_folders, self.asynchronous = checkpoint == 'sharded', asynchronous
        self.blocks, self.copies, self.offload = blocks, copies, offload
        self.reduce_each_micro_batch = reduce_each_micro_batch
        self._group: Any = None  # of all ranks, for :meth:`uneven_passes`
        self.param_dtype: torch.dtype | None = None  # in which trained parameters compute; None for their own
        super().__init__(**kwargs)
        if copies < 1 or self.world_size % copies:
            raise ValueError(f'strategy.copies: expected a divisor of {self.world_size} ranks, but got {copies}')

    @property
    def is_sharded(self) -> bool:
        """Whether there are several processes to shard over."""
        return self.world_size > 1

    def _setup_distributed(self, launcher: str = 'pytorch', backend: str = 'nccl', **kwargs: Any) -> None:
        if self.offload and backend == 'nccl':
            backend = 'cpu:gloo,cuda:nccl'  # norms of gradients that are in the memory of the host
        super()._setup_distributed(launcher, backend, **kwargs)

    # ---- building

    def prepare(
        self, model: nn.Module | dict, *, optim_wrapper: BaseOptimWrapper | dict | None = None, **kwargs: Any
    ) -> Any:
        """Builds and shards the model, then what goes with it."""
        kind = optim_wrapper.get('type', '') if isinstance(optim_wrapper, dict) else type(optim_wrapper)
        if class_name(kind) == 'AmpOptimWrapper':
            raise ValueError(
                'optim_wrapper.type: expected genseg_mm.AutocastOptimWrapper (bfloat16) or OptimWrapper with FSDP2, '
                'but got AmpOptimWrapper'
            )
        if class_name(kind) == 'AutocastOptimWrapper':
            self.param_dtype = torch.bfloat16
        return super().prepare(model, optim_wrapper=optim_wrapper, **kwargs)

    def build_model(self, model: nn.Module | dict) -> nn.Module:
        """Builds the model, on ranks other than 0 without the values of its parameters."""
        if isinstance(model, nn.Module):
            return model
        if self.rank == 0:
            return MODELS.build(model)
        with without_values():
            return MODELS.build(model)

    def _init_model_weights(self, model: nn.Module) -> nn.Module:
        """As MMEngine's, on rank 0, whose values all others get when the model is sharded."""
        is_wanted = self.dispatch_kwargs.get('init_weights_for_test_or_val', True)
        if self.rank == 0 and is_wanted and hasattr(model, 'init_weights'):
            model.init_weights()
        return model

    def _wrap_model(self, model: nn.Module) -> nn.Module:
        device = torch.device(get_device())
        if self.world_size == 1:
            return self.convert_model(model).to(device)
        _agree_with_main(model)
        main = take_parameters(model) if self.rank == 0 else {}
        if self.rank:
            take_parameters(model)
        shape, names = (self.copies, self.world_size // self.copies), ('copies', 'shards')
        start = self.copies == 1
        mesh = init_device_mesh(device.type, shape[start:], mesh_dim_names=names[start:])
        shard_model(model, mesh, self.blocks, self.param_dtype, self.offload)
        allocate_parameters(model, torch.device('cpu') if self.offload else device)
        for module in model.modules():
            module._buffers.update({name: own.to(device) for name, own in module._buffers.items() if own is not None})
        if hasattr(model, '_set_device'):
            model._set_device(device)  # of the data preprocessor
        fill_from_main([*model.named_parameters(), *model.named_buffers()], main)
        if self.offload:
            for own in model.parameters():
                if not hasattr(own, 'device_mesh') and own.device != device:
                    own.data = own.data.to(device)
        _check_trained(model)
        model.register_forward_pre_hook(_same_tasks_everywhere, with_kwargs=True)
        return model

    def build_optim_wrapper(
        self, optim_wrapper: Optimizer | BaseOptimWrapper | dict, model: nn.Module | None = None
    ) -> BaseOptimWrapper:
        """Builds the optimizer over this rank's shards."""
        wrapper = super().build_optim_wrapper(optim_wrapper, model)
        for own in wrapper.values() if isinstance(wrapper, OptimWrapperDict) else [wrapper]:
            share_sharded(own, self.reduce_each_micro_batch)
        return wrapper

    def _scale_lr(self) -> None:
        """MMEngine's, with the total batch of an update: ``base_batch_size`` counts accumulated micro-batches, too."""
        scaling = self._auto_scale_lr
        if scaling and scaling.get('enable'):
            counts = getattr(self.optim_wrapper, '_accumulative_counts', 1)
            self._auto_scale_lr = dict(scaling, base_batch_size=scaling['base_batch_size'] / counts)
        super()._scale_lr()
        self._auto_scale_lr = scaling

    # ---- evaluation

    @contextmanager
    def uneven_passes(self) -> Iterator[Callable[[], None]]:
        """Within it, ranks may predict other tasks and numbers of batches, see :func:`uneven_passes`."""
        if self.world_size > 1 and self._group is None:
            self._group = dist.new_group(backend='gloo')  # numbers of the CPU: no card waits for them
        with uneven_passes(self.model, self._group) as wait_for_others:
            yield wait_for_others

    # ---- checkpoints

    def model_state_dict(self) -> dict[str, Tensor]:
        """Whole tensors on rank 0, under the names of the model that is not sharded; a collective call."""
        return gather_on_main(self.model.state_dict())

    def optim_state_dict(self) -> dict[str, Any]:
        """Whole tensors on rank 0, in the form that an optimizer without shards has; a collective call."""
        return gather_on_main(self.optim_wrapper.state_dict())

    def save_checkpoint(
        self,
        filename: str,
        *,
        save_optimizer: bool = True,
        save_param_scheduler: bool = True,
        extra_ckpt: dict | None = None,
        callback: Callable[[dict], None] | None = None,
    ) -> None:
        """Writes one file that MMEngine's ``Runner`` reads, too, or a folder; all ranks call it."""
        save_optimizer = save_optimizer and hasattr(self, 'optim_wrapper')
        checkpoint: dict[str, Any] = {}
        if not self.saves_folders:
            checkpoint['state_dict'] = self.model_state_dict()
            if save_optimizer:
                checkpoint['optimizer'] = self.optim_state_dict()
        if save_param_scheduler and hasattr(self, 'param_schedulers'):
            checkpoint['param_schedulers'] = self.scheduler_state_dict()
        checkpoint.update(extra_ckpt or {})
        checkpoint.setdefault('meta', {}).update(
            seed=self.seed, time=time.strftime('%Y%m%d_%H%M%S'), mmengine=mmengine.__version__
        )
        if callback is not None:
            callback(checkpoint)
        if self.saves_folders:
            after_saving = checkpoint.pop('after_saving', None)
            optimizer = self._only_optimizer() if save_optimizer else None
            if save_optimizer and self.optim_wrapper.base_param_settings is not None:
                checkpoint['base_param_settings'] = self.optim_wrapper.base_param_settings  # MMEngine's, for its log
            try:
                save_sharded(filename, self.model, optimizer, checkpoint, self.asynchronous)
            finally:
                if after_saving is not None:
                    after_saving()
        elif self.rank == 0:
            os.makedirs(os.path.dirname(os.path.abspath(filename)), exist_ok=True)
            torch.save(checkpoint, filename)

    def load_checkpoint(
        self,
        filename: str,
        *,
        map_location: str | Callable = 'cpu',
        strict: bool = False,
        revise_keys: list = [(r'^module.', '')],  # noqa: B006
        callback: Callable[[dict], None] | None = None,
    ) -> dict:
        """Reads a checkpoint of any number of ranks; each maps the file and copies its shards out of it.

        Raises:
            ValueError: If ``strict`` and it does not fit, or if nothing in it is this model's; with names.
        """
        return self._load(filename, strict, callback, with_optimizer=False)

    def _load(self, filename: str, strict: bool, callback: Callable[[dict], None] | None, with_optimizer: bool) -> dict:
        self.logger.info(f'Load checkpoint from {filename}')
        if os.path.isdir(filename):
            optimizer = self._only_optimizer() if with_optimizer else None
            checkpoint = load_sharded(filename, self.model, optimizer, strict)
            settings = checkpoint.pop('base_param_settings', None)
            if with_optimizer and settings is not None:
                self.optim_wrapper.base_param_settings = settings
            if callback is not None:
                callback(checkpoint)
            return checkpoint
        checkpoint = load_weights_only(filename, mmap=True)
        if 'state_dict' not in checkpoint:
            checkpoint = dict(state_dict=checkpoint)
        if callback is not None:
            callback(checkpoint)
        weights = model_weights(checkpoint, filename)
        del checkpoint['state_dict']
        self._load_weights(weights, filename, strict)
        return checkpoint

    def _load_weights(self, weights: Mapping[str, Tensor], filename: str, strict: bool) -> None:
        own = self.model.state_dict()
        for line in check_fits(filename, weights, own, strict):
            self.logger.warning(line)
        with torch.no_grad():
            for name, value in own.items():
                if name in weights and weights[name].shape == value.shape:
                    local_of(value).copy_(part_of(weights[name], value))

    def _only_optimizer(self) -> Optimizer:
        if isinstance(self.optim_wrapper, OptimWrapperDict):
            raise ValueError("strategy.checkpoint: expected 'full' with several optimizers, but got 'sharded'")
        return self.optim_wrapper.optimizer

    def load_optim_state_dict(self, state_dict: dict) -> None:
        """Loads the state of an optimizer, saved whole on any number of ranks."""
        wrapper = self.optim_wrapper
        if isinstance(wrapper, OptimWrapperDict):
            for name, own in wrapper.items():
                own.load_state_dict(_sharded_state(own.optimizer, state_dict[name]))
        else:
            wrapper.load_state_dict(_sharded_state(wrapper.optimizer, state_dict))

    def resume(
        self,
        filename: str,
        *,
        resume_optimizer: bool = True,
        resume_param_scheduler: bool = True,
        map_location: str | Callable = 'default',
        callback: Callable[[dict], None] | None = None,
    ) -> dict:
        """Restores model, optimizer, schedulers and seed from a checkpoint that has to fit.

        Raises:
            ValueError: If it does not fit, or holds no training state.
        """
        checkpoint = self._load(filename, True, callback, with_optimizer=resume_optimizer)
        if not os.path.isdir(filename):  # which says itself what it lacks
            check_resumable(checkpoint, filename)
        if resume_optimizer and 'optimizer' in checkpoint:
            self.load_optim_state_dict(checkpoint.pop('optimizer'))
        if resume_param_scheduler and hasattr(self, 'param_schedulers'):
            self.load_scheduler_state_dict(checkpoint.pop('param_schedulers'))
        seed = checkpoint['meta'].get('seed')
        if seed is not None and seed != self._randomness.get('seed'):
            self._randomness.update(seed=seed)
            self._set_randomness(**self._randomness)
        if getattr(self.optim_wrapper, '_accumulative_counts', 1) > 1:
            self.optim_wrapper.initialize_count_status(
                self.model, checkpoint['meta']['iter'], self.dispatch_kwargs['max_iters']
            )
        return checkpoint


def _agree_with_main(model: nn.Module) -> None:
    """Gives parameters the precision of rank 0, after a check that all ranks have built the same model."""
    own = [
        (name, tuple(value.shape), value.dtype, value.requires_grad)
        for name, value in (*model.named_parameters(), *model.named_buffers())
    ]
    main = [own]
    dist.broadcast_object_list(main)
    problem = next(
        (
            f'{here[:2]} in place of {there[:2]}'
            for there, here in zip(main[0], own, strict=False)
            if (here[0], here[1], here[3]) != (there[0], there[1], there[3])
        ),
        None if len(own) == len(main[0]) else f'{len(own)} tensors in place of {len(main[0])}',
    )
    problems = [None] * dist.get_world_size()
    dist.all_gather_object(problems, problem)
    wrong = next((rank for rank, text in enumerate(problems) if text), None)
    if wrong is not None:
        raise ValueError(
            f'rank {wrong} has built another model than rank 0: {problems[wrong]}; do all machines have the same files?'
        )
    dtypes = {name: dtype for name, _, dtype, _ in main[0]}
    for name, value in (*model.named_parameters(), *model.named_buffers()):
        if value.dtype != dtypes[name]:
            value.data = value.data.to(dtypes[name])


def _check_trained(model: nn.Module) -> None:
    whole = [name for name, own in model.named_parameters() if own.requires_grad and not hasattr(own, 'device_mesh')]
    if whole:
        raise ValueError(
            f'expected every trained parameter to be sharded, but got {len(whole)} whole ones: {whole[:3]}'
        )


def _same_tasks_everywhere(model: nn.Module, args: tuple, kwargs: dict) -> None:
    """Stops, on all ranks, before they would wait for each other's forwards for ever."""
    samples = kwargs.get('data_samples')
    if kwargs.get('mode') != 'loss' or not samples:
        return
    tasks = {sample.get('task', 'mask') for sample in samples}
    here = torch.tensor(['mask' in tasks, 'image' in tasks], dtype=torch.int32, device=_comm_device())
    least, most = here.clone(), here.clone()
    dist.all_reduce(least, dist.ReduceOp.MIN)
    dist.all_reduce(most, dist.ReduceOp.MAX)
    if not torch.equal(least, most):
        raise ValueError(
            f"this rank's micro-batch has samples of {' and '.join(sorted(tasks))}, another rank's has others, and "
            'sharded ranks have to run the same forwards: set group of train_dataloader.sampler to the batch size, '
            'so that all ranks draw the same tasks'
        )


def _comm_device() -> torch.device:
    return torch.device('cpu' if dist.get_backend() == 'gloo' else get_device())


def _sharded_state(optimizer: Optimizer, state_dict: dict) -> dict:
    """The saved state with its tensors sharded as the parameters that they belong to."""
    params = [own for group in optimizer.param_groups for own in group['params']]
    numbers = [number for group in state_dict['param_groups'] for number in group['params']]
    if len(params) != len(numbers):
        raise ValueError(f'expected the state of an optimizer of {len(params)} parameters, but got {len(numbers)}')
    state = {}
    for number, param in zip(numbers, params, strict=True):
        if number in state_dict['state']:
            state[number] = {
                key: sharded_as(value, param) if isinstance(value, Tensor) and value.shape == param.shape else value
                for key, value in state_dict['state'][number].items()
            }
    return dict(state_dict, state=state)
