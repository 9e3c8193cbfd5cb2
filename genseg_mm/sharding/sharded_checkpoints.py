"""Checkpoints as folders that all processes write, for models of any sharding, and that any other number can read.

``save_sharded`` and ``load_sharded`` are called by all processes. A strategy that writes its checkpoints so has an
attribute ``saves_folders = True``, for ``SafeCheckpointHook``. What is in such a folder stands in
:mod:`genseg_mm.checkpoint_folders`, and :func:`genseg_mm.checkpoint.load_weights_only` reads one as if it were a .pth.
"""

import datetime
import io
import logging
import os
import time
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from mmengine.logging import print_log
from mmengine.model import is_model_wrapper
from torch import Tensor, nn
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.filesystem import FileSystem, FileSystemWriter
from torch.distributed.checkpoint.metadata import StorageMeta
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict, set_model_state_dict
from torch.distributed.tensor import DTensor

from genseg_mm.checkpoint import check_fits, load_weights_only, some_of
from genseg_mm.checkpoint_folders import EXTRA, paths_of, read_metadata, safe_reader
from genseg_mm.files.background import SAVES
from genseg_mm.files.whole_files import explained, write_failure
from genseg_mm.files.whole_folders import (
    check_sizes,
    publish_folder,
    remove_folder,
    temporary_of,
    write_record,
)

_WEIGHTS, _OPTIMIZER = 'state_dict', 'optimizer'
_TIMEOUT = datetime.timedelta(hours=2)  # that the fastest process waits for the slowest disk
_groups: dict[int, Any] = {}


def save_sharded(
    path: str | os.PathLike,
    model: nn.Module,
    optimizer: torch.optim.Optimizer | None,
    extra: dict[str, Any],
    asynchronous: bool = False,
) -> None:
    """Writes a checkpoint; it appears under its name when all processes have their part on disk.

    Args:
        path: The folder.
        model: Plain, in DDP or sharded by ``fully_shard``; parts that leave themselves out of checkpoints are left out.
        optimizer: Of its parameters, or None.
        extra: Everything else (meta, message_hub, param_schedulers ...), the same in all processes. Entries that are
            dicts of tensors (averages of the weights, sharded or not) are written like the weights.
        asynchronous: Copy everything to the CPU and write it beside the training; errors are raised by
            ``genseg_mm.files.background.SAVES`` at its next ``check``, ``wait`` or ``start``.

    Raises:
        WriteError: If it cannot be written; what was there before is untouched.
    """
    SAVES.wait()
    tree, extra = _split(extra)
    tree[_WEIGHTS] = get_model_state_dict(_unwrapped(model))
    others = [name for name, own in tree[_WEIGHTS].items() if not isinstance(own, Tensor)]
    if others:
        raise ValueError(f'a sharded checkpoint holds tensors of a model, but got {some_of(others)}')
    if optimizer is not None:
        state, extra[_OPTIMIZER] = _optimizer_state(_unwrapped(model), optimizer)
        if state:
            tree[_OPTIMIZER] = dict(state=state)
    if asynchronous:
        tree = _copied(tree)
    write = partial(_write, Path(path), tree, *_serialized(extra), _group())
    SAVES.start(write) if asynchronous else write()


def save_dict_sharded(path: str | os.PathLike, checkpoint: dict[str, Any]) -> None:
    """Writes a checkpoint that a runner has written to one file as a folder; one process calls it.

    Args:
        path: The folder.
        checkpoint: With ``state_dict``. The state of its optimizer keeps the numbers of the parameters, as there are
            no names of them in it.

    Raises:
        WriteError: If it cannot be written.
    """
    tree, extra = _split(checkpoint)
    optimizer = extra.get(_OPTIMIZER)
    if optimizer is not None:
        if not isinstance(optimizer, dict) or not {'state', 'param_groups'} <= optimizer.keys():
            raise ValueError(f'expected the state of one optimizer, but got {type(optimizer).__name__}')
        state, plain = {}, {}
        for number, own in optimizer['state'].items():
            for key, value in own.items():
                kind, name = (state, str(number)) if isinstance(value, Tensor) else (plain, number)
                kind.setdefault(name, {})[key] = value
        extra[_OPTIMIZER] = {**optimizer, 'state': plain}
        if state:
            tree[_OPTIMIZER] = dict(state=state)
    _write(Path(path), tree, *_serialized(extra), None)


def _split(extra: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Entries that are tensors, and the others."""
    tree = {name: dict(own) for name, own in extra.items() if _is_tensors(own)}
    return tree, {name: own for name, own in extra.items() if name not in tree}


def _serialized(extra: dict[str, Any]) -> tuple[bytes, dict[str, Any]]:
    """What is small, now and not when it has changed, and what the record says of it."""
    stream = io.BytesIO()
    torch.save(extra, stream)
    meta = extra.get('meta') or {}
    return stream.getvalue(), dict(iter=meta.get('iter'), time=meta.get('time') or time.strftime('%Y%m%d_%H%M%S'))


def _unwrapped(model: nn.Module) -> nn.Module:
    return model.module if is_model_wrapper(model) else model


def _is_tensors(value: Any) -> bool:
    return isinstance(value, dict) and bool(value) and all(isinstance(own, Tensor) for own in value.values())


def _optimizer_state(model: nn.Module, optimizer: torch.optim.Optimizer) -> tuple[dict, dict]:
    """State by names of parameters, and what of it is no tensor (with the groups)."""
    names = {id(param): name for name, param in model.named_parameters()}
    groups = optimizer.state_dict()
    by_number = {}
    for group, own in zip(groups['param_groups'], optimizer.param_groups, strict=True):
        for number, param in zip(group['params'], own['params'], strict=True):
            if id(param) not in names:
                raise ValueError('the optimizer has a parameter that the model does not have; build it from this model')
            by_number[number] = names[id(param)]
        group['params'] = [by_number[number] for number in group['params']]
    tensors: dict[str, dict[str, Tensor]] = {}
    plain: dict[str, dict[str, Any]] = {}
    for number, state in groups['state'].items():
        for key, value in state.items():
            kind = tensors if isinstance(value, Tensor) else plain
            kind.setdefault(by_number[number], {})[key] = value
    return tensors, dict(state=plain, param_groups=groups['param_groups'])


def _copied(value: Any) -> Any:
    """The same in CPU memory of its own, which training goes on without changing."""
    if isinstance(value, dict):
        return {name: _copied(own) for name, own in value.items()}
    return value.detach().to('cpu', copy=True)


# Writing


def _group() -> Any:
    """Processes on gloo, apart from those of the training; None for a single one."""
    if not dist.is_available() or not dist.is_initialized() or dist.get_world_size() == 1:
        return None
    world = id(dist.group.WORLD)
    if world not in _groups:
        _groups.clear()
        _groups[world] = dist.new_group(backend='gloo', timeout=_TIMEOUT)
    return _groups[world]


def _on_first(group: Any, action: Callable[[], None]) -> None:
    """Does something in the first process; if it fails there, it fails everywhere."""
    error: list = [None]
    if group is None or dist.get_rank() == 0:
        try:
            action()
        except Exception as own:
            error[0] = own
    if group is not None:
        dist.broadcast_object_list(error, group=group)
    if error[0] is not None:
        raise error[0]


def _write(path: Path, tree: dict[str, Any], extra: bytes, facts: dict[str, Any], group: Any) -> None:
    temporary = temporary_of(path)
    writer = _Writer(temporary)

    def prepare() -> None:
        remove_folder(temporary)
        temporary.mkdir(parents=True)
        with writer.fs.create_stream(temporary / EXTRA, 'wb') as file:
            file.write(extra)
            os.fsync(file.fileno())

    def publish() -> None:
        write_record(temporary, {name: own for part in parts for name, own in part.items()}, **facts)
        try:
            check_sizes(temporary)
        except ValueError as error:
            raise ValueError(f'{error}; do all machines write to the same disk?') from error
        publish_folder(path)

    needed = sum(own.nbytes for own in _local_tensors(tree))
    try:
        with explained(path, temporary, lambda: needed), _first_error():
            _on_first(group, prepare)
            dcp.save(tree, storage_writer=writer, process_group=group, no_dist=group is None)
            parts = [dict(writer.fs.written)] * (1 if group is None else dist.get_world_size())
            if group is not None:  # all of them confirm
                dist.all_gather_object(parts, dict(writer.fs.written), group=group)
            _on_first(group, publish)
    except Exception:
        if group is None or dist.get_rank() == 0:
            remove_folder(temporary)
        raise


@contextmanager
def _first_error() -> Iterator[None]:
    """In place of torch's table of the errors of all processes the one that says most."""
    try:
        yield
    except CheckpointException as error:
        errors = [own for own, _ in error.failures.values()]
        known = [own for own in errors if write_failure(own) is not None]
        known += [own for own in errors if isinstance(own, ValueError)]
        raise [*known, *errors, error][0] from error


def _local_tensors(value: Any) -> Iterator[Tensor]:
    if isinstance(value, dict):
        for own in value.values():
            yield from _local_tensors(own)
    else:
        yield value.to_local() if isinstance(value, DTensor) else value


class _Writer(FileSystemWriter):
    """torch's writer, which notes size and checksum of each file and no path of this machine."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder, sync_files=True)
        self.fs = _Files()

    def storage_meta(self) -> StorageMeta:
        return StorageMeta(save_id=self.save_id)


class _Files(FileSystem):
    def __init__(self) -> None:
        self.written: dict[str, tuple[int, int]] = {}

    @contextmanager
    def create_stream(self, path: str | os.PathLike, mode: str) -> Iterator[BinaryIO]:
        with open(path, mode) as file:
            if 'w' not in mode:
                yield file
                return
            stream = _Counted(file)
            yield stream
            self.written[Path(path).name] = (stream.size, stream.crc)

    def rename(self, path: str | os.PathLike, new_path: str | os.PathLike) -> None:
        super().rename(path, new_path)
        if Path(path).name in self.written:
            self.written[Path(new_path).name] = self.written.pop(Path(path).name)


class _Counted(io.RawIOBase):
    """What is written to a file, which is only added to."""

    def __init__(self, file: BinaryIO) -> None:
        self._file, self.size, self.crc = file, 0, 0

    def write(self, data: Any) -> int:
        view = memoryview(data).cast('B')
        self._file.write(view)
        self.crc = zlib.crc32(view, self.crc)
        self.size += len(view)
        return len(view)

    def writable(self) -> bool:
        return True

    def tell(self) -> int:
        return self.size

    def flush(self) -> None:
        self._file.flush()

    def fileno(self) -> int:
        self._file.flush()
        return self._file.fileno()


# Reading


def load_sharded(
    path: str | os.PathLike, model: nn.Module, optimizer: torch.optim.Optimizer | None = None, strict: bool = True
) -> dict[str, Any]:
    """Reads a checkpoint, each process what it holds, whatever number of processes has written it.

    Args:
        path: The folder.
        model: As of :func:`save_sharded`, sharded in any way; on its devices.
        optimizer: Whose state and groups are restored, or None.
        strict: Whether names and shapes have to be those of the model; else what both have is read, the rest warned of.

    Returns:
        What was given as ``extra``. Dicts of tensors, all of which have the names and shapes of the model's, are
        sharded as it is.

    Raises:
        FileNotFoundError: If there is no such folder.
        ValueError: If it is not whole, damaged, would run code or does not fit; with the names.
    """
    path = Path(path)
    if not path.is_dir():
        raise FileNotFoundError(f'checkpoint {path} does not exist; expected a folder of a sharded checkpoint')
    model = _unwrapped(model)
    metadata = read_metadata(path)
    paths = paths_of(metadata)
    shapes = {own: metadata.state_dict_metadata[name] for name, own in paths.items()}
    extra = load_weights_only(str(path / EXTRA))
    groups = extra.pop(_OPTIMIZER, None)
    weights = get_model_state_dict(model)
    wanted = _weights_to_read(path, weights, shapes, strict)
    tree: dict[str, Any] = {_WEIGHTS: wanted} if wanted else {}
    states, numbers = {}, {}
    if optimizer is not None:
        if groups is None:
            raise ValueError(f'checkpoint {path} holds no state of an optimizer, so it cannot be resumed from')
        states, numbers = _states_to_read(path, model, optimizer, groups, shapes)
        if states:
            tree[_OPTIMIZER] = dict(state=states)
    for place, shape in shapes.items():
        if place[0] not in (_WEIGHTS, _OPTIMIZER):
            like = weights.get(place[1].removeprefix('module.'))
            tree.setdefault(place[0], {})[place[1]] = _empty(shape, like)
    if tree:
        with _first_error():
            dcp.load(tree, storage_reader=safe_reader(path), process_group=_group(), no_dist=_group() is None)
    if wanted:
        # In place already; this runs what the modules do when they are loaded.
        set_model_state_dict(model, wanted, options=StateDictOptions(strict=strict))
    if optimizer is not None:
        _restore(optimizer, groups, states, numbers)
    return {**extra, **{name: own for name, own in tree.items() if name not in (_WEIGHTS, _OPTIMIZER)}}


def _weights_to_read(path: Path, weights: dict[str, Tensor], shapes: dict, strict: bool) -> dict[str, Tensor]:
    saved = {own[1]: torch.empty(value.size, device='meta') for own, value in shapes.items() if own[0] == _WEIGHTS}
    for line in check_fits(str(path), saved, weights, strict):
        print_log(line, 'current', logging.WARNING)
    return {name: own for name, own in weights.items() if name in saved and saved[name].shape == own.shape}


def _states_to_read(
    path: Path, model: nn.Module, optimizer: torch.optim.Optimizer, groups: dict, shapes: dict
) -> tuple[dict[str, dict[str, Tensor]], dict[str, int]]:
    """Empty tensors for the state, sharded as the parameters are, and numbers in the optimizer, by saved names.

    Checkpoints that were a .pth once have the parameters' numbers in place of names.
    """
    names = {id(param): name for name, param in model.named_parameters()}
    params = [param for group in optimizer.param_groups for param in group['params']]
    own = [[names[id(param)] for param in group['params']] for group in optimizer.param_groups]
    saved = [list(group['params']) for group in groups['param_groups']]
    is_numbered = all(isinstance(name, int) for group in saved for name in group)
    if list(map(len, saved)) != list(map(len, own)) or not (
        is_numbered or list(map(set, saved)) == list(map(set, own))
    ):
        known = {name for group in own for name in group}
        foreign = sorted(str(name) for group in saved for name in group if not is_numbered and name not in known)
        detail = f', among them {some_of(foreign)}' if foreign else ''
        raise ValueError(
            f'{path} does not fit the optimizer: expected {len(own)} groups of {sum(map(len, own))} parameters as the '
            f'config makes them, but got {len(saved)} of {sum(map(len, saved))}{detail}; resume with the config of the '
            'training'
        )
    numbers = {name: number for number, name in enumerate(name for group in own for name in group)}
    if is_numbered:
        numbers = {str(name): number for number, name in enumerate(name for group in saved for name in group)}
    states: dict[str, dict[str, Tensor]] = {}
    for place, shape in shapes.items():
        if place[:2] != (_OPTIMIZER, 'state'):
            continue
        _, _, name, key = place
        if name not in numbers:
            raise ValueError(f'{path} does not fit the optimizer: it has a state of {name}, which is not trained')
        param = params[numbers[name]]
        # Counts of steps stay where the optimizer expects them, see its load_state_dict.
        states.setdefault(name, {})[key] = _empty(shape, param)
    return states, numbers


def _empty(shape: Any, like: Tensor | None) -> Tensor:
    """A tensor to read into: laid out as another one of the same shape, else whole and on the CPU."""
    if like is not None and like.shape == shape.size:
        return torch.empty_like(like, dtype=shape.properties.dtype, requires_grad=False)
    return torch.empty(shape.size, dtype=shape.properties.dtype)


def _restore(
    optimizer: torch.optim.Optimizer, groups: dict, states: dict[str, dict[str, Tensor]], numbers: dict[str, int]
) -> None:
    plain = {str(name): own for name, own in groups['state'].items()}
    state = {
        number: {**plain.get(name, {}), **states.get(name, {})}
        for name, number in numbers.items()
        if name in plain or name in states
    }
    param_groups, first = [], 0
    for own, group in zip(optimizer.param_groups, groups['param_groups'], strict=True):
        count = len(own['params'])
        order = list(range(first, first + count))
        param_groups.append({**group, 'params': order})
        first += count
    optimizer.load_state_dict(dict(state=state, param_groups=param_groups))
