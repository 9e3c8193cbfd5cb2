"""Folders of torch.distributed.checkpoint, read without running what is in them.

    iter_8000/
        .metadata          torch's table of tensors and of the files that their parts are in, a pickle
        __0_0.distcp ...   the parts, a file per process
        extra.pth          everything else: meta, message_hub, schedulers, groups of the optimizer
        complete.json      every file with size and checksum, written last

torch reads ``.metadata`` with a pickle reader that runs whatever code it names; here it may name torch's own records of
tensors only. Each tensor is an archive of ``torch.save``, read with ``weights_only``.
"""

import io
import math
import os
import pickle
import re
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import torch
from torch import Tensor

from genseg_mm.files.pickles import check_pickle_bounds
from genseg_mm.files.texts import read_bytes
from genseg_mm.files.whole_folders import RECORD, check_sizes

METADATA, EXTRA, ENDING = '.metadata', 'extra.pth', '.distcp'
MAX_METADATA_BYTES = 2**30
_ALLOWED = {
    'torch': {'Size'},
    'torch.serialization': {'_get_layout'},  # looks a name up
    'torch.distributed.checkpoint.metadata': {
        'BytesStorageMetadata',
        'ChunkStorageMetadata',
        'Metadata',
        'MetadataIndex',
        'StorageMeta',
        'TensorProperties',
        'TensorStorageMetadata',
        '_MEM_FORMAT_ENCODING',
    },
    'torch.distributed.checkpoint.filesystem': {'_StorageInfo'},
    'pathlib': {'PosixPath', 'PurePosixPath'},  # where torch's own writer has written it
}


def is_checkpoint_folder(path: str | os.PathLike) -> bool:
    """Whether a folder is a checkpoint of ours, whole or not."""
    return any(Path(path, name).is_file() for name in (RECORD, METADATA, EXTRA)) or any(Path(path).glob(f'*{ENDING}'))


class _Unpickler(pickle.Unpickler):
    """Unpickler that knows torch's records of tensors alone."""

    def find_class(self, module: str, name: str) -> Any:
        if module == 'torch' and isinstance(getattr(torch, name, None), torch.dtype):
            return getattr(torch, name)
        if name in _ALLOWED.get(module, ()):
            return super().find_class(module, name)
        raise pickle.UnpicklingError(f'it asks to load {module}.{name}')


def read_metadata(folder: str | os.PathLike) -> Any:
    """torch's ``Metadata`` of a folder whose files are there and which refers to nothing else.

    Raises:
        ValueError: If a file is missing or truncated, or the metadata is damaged, would run code or is not of tensors.
    """
    files = check_sizes(folder)['files']
    path = Path(folder, METADATA)
    try:
        data = read_bytes(path, MAX_METADATA_BYTES)
        check_pickle_bounds(io.BytesIO(data))
        metadata = _Unpickler(io.BytesIO(data)).load()
        _check_metadata(metadata, files)
    except MemoryError:
        raise
    except Exception as error:  # damaged bytes raise whatever they happen to spell
        reason = ' '.join(str(error).split())[:200]
        raise ValueError(
            f'{path} was refused: expected the table of tensors of torch.distributed.checkpoint, but got {reason}; '
            'nothing of it was run'
        ) from error
    return metadata


def _check_metadata(metadata: Any, files: dict[str, list[int]]) -> None:
    from torch.distributed.checkpoint.filesystem import _StorageInfo
    from torch.distributed.checkpoint.metadata import Metadata, MetadataIndex, TensorStorageMetadata

    if type(metadata) is not Metadata or type(metadata.storage_data) is not dict:
        raise ValueError(f'a {type(metadata).__name__}')
    stored: dict[str, int] = {}
    for index, place in metadata.storage_data.items():
        if type(index) is not MetadataIndex or type(place) is not _StorageInfo or type(place.relative_path) is not str:
            raise ValueError(f'a place of {type(place).__name__}')
        size = files.get(place.relative_path, (0, 0))[0]
        if place.relative_path not in files or not (place.offset >= 0 and 0 <= place.length <= size - place.offset):
            raise ValueError(f'bytes {place.offset} to {place.offset + place.length} of {place.relative_path!r}')
        if getattr(place, 'transform_descriptors', None):
            raise ValueError(f'the transforms {place.transform_descriptors}, which are not known here')
        stored[index.fqn] = stored.get(index.fqn, 0) + place.length
    if sum(stored.values()) > sum(size for size, _ in files.values()):
        raise ValueError(f'{sum(stored.values()):,} bytes of tensors, more than there are')
    for name, own in metadata.state_dict_metadata.items():
        if type(name) is not str or type(own) is not TensorStorageMetadata:
            raise ValueError(f'a {type(own).__name__} of {name!r}, which is no tensor')
        size = math.prod(own.size) * own.properties.dtype.itemsize
        if min(own.size, default=0) < 0 or size > stored.get(name, 0):
            raise ValueError(f'{name} of shape {tuple(own.size)}, but {stored.get(name, 0)} bytes of it')


def paths_of(metadata: Any) -> dict[str, tuple[str, ...]]:
    """Where each tensor stands in the nested dict that was saved.

    Raises:
        ValueError: If that is not known.
    """
    paths = metadata.planner_data
    if type(paths) is not dict or not all(
        type(own) is tuple and all(type(part) in (str, int) for part in own) for own in paths.values()
    ):
        raise ValueError(f'expected the path of each tensor in {METADATA}, but got {type(paths).__name__}')
    missing = metadata.state_dict_metadata.keys() - paths.keys()
    if missing:
        raise ValueError(f'{METADATA} lacks the path of {min(missing)}')
    return {name: tuple(map(str, paths[name])) for name in metadata.state_dict_metadata}


def read_tensors(folder: str | os.PathLike, start: str | None = None) -> dict[tuple[str, ...], Tensor]:
    """All tensors of a folder, put together, by their paths.

    Args:
        folder: Checkpoint.
        start: Only those whose path begins so, such as 'state_dict'.

    Raises:
        ValueError: If the folder is not whole or damaged.
    """
    from torch.distributed.checkpoint.metadata import MetadataIndex

    folder = Path(folder)
    metadata = read_metadata(folder)
    tensors, parts = {}, []
    for name, path in paths_of(metadata).items():
        if start is not None and path[0] != start:
            continue
        own = metadata.state_dict_metadata[name]
        tensors[path] = torch.empty(own.size, dtype=own.properties.dtype)
        if sum(chunk.sizes.numel() for chunk in own.chunks) != own.size.numel():
            raise ValueError(f'{folder}: the parts of {name} do not make up its shape {tuple(own.size)}')
        for chunk in own.chunks:
            place = metadata.storage_data[MetadataIndex(name, chunk.offsets)]
            parts.append((place.relative_path, place.offset, place.length, chunk, path))
    for file, group in _by_file(parts):
        with open(folder / file, 'rb') as stream:
            for offset, length, chunk, path in group:
                region = tensors[path]
                for dim, (begin, size) in enumerate(zip(chunk.offsets, chunk.sizes, strict=True)):
                    region = region.narrow(dim, begin, size)
                region.copy_(_read_tensor(folder / file, stream, offset, length, region))
    return tensors


def _by_file(parts: list[tuple]) -> Iterator[tuple[str, list[tuple]]]:
    files: dict[str, list[tuple]] = {}
    for file, *part in parts:
        files.setdefault(file, []).append(tuple(part))
    for file in sorted(files):
        yield file, sorted(files[file], key=lambda part: part[0])


def _read_tensor(path: Path, stream: BinaryIO, offset: int, length: int, region: Tensor) -> Tensor:
    view = _Part(stream, offset, length)
    check_archive(path, view, length)
    with _refused(path):
        part = torch.load(view, map_location='cpu', weights_only=True)
    if not isinstance(part, Tensor) or part.shape != region.shape or part.dtype != region.dtype:
        found = f'{tuple(part.shape)}, {part.dtype}' if isinstance(part, Tensor) else type(part).__name__
        raise ValueError(f'{path}: expected a tensor of {tuple(region.shape)}, {region.dtype}, but got {found}')
    return part


class _Part(io.RawIOBase):
    """Some bytes of an open file, as a file of their own."""

    def __init__(self, file: BinaryIO, offset: int, length: int) -> None:
        self._file, self._offset, self._length, self._position = file, offset, length, 0

    def readinto(self, buffer: Any) -> int:
        view = memoryview(buffer).cast('B')
        count = max(0, min(len(view), self._length - self._position))
        self._file.seek(self._offset + self._position)
        got = self._file.readinto(view[:count])
        self._position += got
        return got

    def seek(self, position: int, whence: int = os.SEEK_SET) -> int:
        starts = {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self._length}
        self._position = max(0, starts[whence] + position)
        return self._position

    def tell(self) -> int:
        return self._position

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True


def check_archive(path: Path, view: BinaryIO, length: int) -> None:
    """Refuses what would unpack to more than it has, or keep Python busy for ever; leaves the file at its start.

    Raises:
        ValueError: For such a part, or a damaged one.
    """
    try:
        with zipfile.ZipFile(view) as archive:
            if sum(part.file_size for part in archive.infolist()) > length:
                raise ValueError('its parts claim more bytes than it has')
            for name in archive.namelist():
                if name.endswith('.pkl'):
                    check_pickle_bounds(io.BytesIO(archive.read(name)))
    except (zipfile.BadZipFile, OSError, EOFError, RuntimeError, ValueError) as error:
        reason = ' '.join(str(error).split())[:200]
        raise ValueError(f'{path} is damaged, a part of {length} bytes: {reason}') from error
    view.seek(0)


@contextmanager
def _refused(path: Any) -> Iterator[None]:
    """Turns what torch says of a part that is no tensor into one line."""
    try:
        yield
    except (MemoryError, torch.OutOfMemoryError):
        raise
    except Exception as error:
        if type(error) is ValueError:  # ours
            raise
        found = re.search(r'GLOBAL ([\w.]+)', str(error))
        text = f'what asks to load {found[1]}' if found else ' '.join(str(error).split())[:200]
        raise ValueError(f'{path} was refused: expected tensors of torch.save, but got {text}') from error


def safe_reader(folder: str | os.PathLike) -> Any:
    """torch's reader of such a folder, that reads as this module does."""
    from torch.distributed.checkpoint import FileSystemReader
    from torch.distributed.checkpoint.metadata import StorageMeta

    class Reader(FileSystemReader):
        _file = Path(folder)

        def __str__(self) -> str:
            return str(self._file)

        def read_data(self, plan: Any, planner: Any) -> Any:
            with _refused(self):
                return super().read_data(plan, planner)

        def read_metadata(self, *args: Any, **kwargs: Any) -> Any:
            metadata = read_metadata(self.path)
            metadata.storage_meta = StorageMeta(load_id=self.load_id)
            return metadata

        def _slice_file(self, file: BinaryIO, place: Any) -> BinaryIO:
            self._file = Path(self.path, place.relative_path)
            view = _Part(file, place.offset, place.length)
            check_archive(self._file, view, place.length)
            return view

    return Reader(str(folder))
