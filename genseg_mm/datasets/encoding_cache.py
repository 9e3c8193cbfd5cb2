"""Encodings on disk: safetensors shards keyed by content, and which item of a dataset has which content.

======================  ============================================================================
file of the folder      what it holds
======================  ============================================================================
manifest.json           config, dtype, fingerprints of the encoders, transforms of the pictures
KIND-NNNNN.safetensors  tensors named '<content>.<part>'; KIND is image (part latents), mask
                        (latents) or prompt (states, mask and, if any, pooled); and of each
                        content 'crc32', the checksum of its parts, which every reading checks
items.jsonl             one line per item, appended after its shard: item key, content, and of
                        pictures path, size, mtime_ns, ori_shape, img_shape
======================  ============================================================================

``content`` is the sha256 of what the encoder saw. A shard appears under its name only when it is whole and on disk,
and items are appended after it, so a killed run leaves at most a last line that is cut short; that is ignored.
"""

import hashlib
import json
import logging
import os
import shutil
import zlib
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.logging import print_log
from safetensors import SafetensorError, safe_open
from torch import Tensor

from genseg_mm.files import read_json
from genseg_mm.files.tensors import write_tensors
from genseg_mm.files.whole_files import explained, whole_file
from genseg_mm.files.write_lock import WriteLock

KINDS = ('image', 'mask', 'prompt')
FORMAT = 1
_CHECKSUM = 'crc32'  # a part of every content
_TOOL = 'python tools/dataset_tools/cache_encodings.py'


def content_key(*parts: str | bytes | np.ndarray) -> str:
    """sha256 of values in a row, each with its kind, shape and length, as hex."""
    digest = hashlib.sha256()
    for part in parts:
        if isinstance(part, np.ndarray):
            data = memoryview(np.ascontiguousarray(part)).cast('B') if part.size else b''
            head = f'{part.dtype}{part.shape}'
        else:
            data = part.encode() if isinstance(part, str) else part
            head = type(part).__name__
        digest.update(f'{head}:{len(data)}:'.encode())
        digest.update(data)
    return digest.hexdigest()


def config_key(transforms: list[dict]) -> str:
    """Key of a list of transforms' configs, blind to the order of arguments and to tuples for lists."""
    return content_key(json.dumps(transforms, sort_keys=True, default=_plain))[:16]


def _plain(value: Any) -> Any:
    if isinstance(value, type):
        return f'{value.__module__}.{value.__qualname__}'
    raise ValueError(f'transforms must be plain configs, but got {value!r} in them')


class EncodingCache:
    """Reads encodings. Handles on the shards are opened per process, when first used.

    Args:
        folder: Made by ``tools/dataset_tools/cache_encodings.py``.
        remove_torn: Remove shards that are cut short instead of refusing them.

    Attributes:
        manifest: See the module.
        items: Item key -> record with ``content``.

    Raises:
        FileNotFoundError: If there is no cache in the folder.
        ValueError: If a file of it is damaged or of another format.
    """

    def __init__(self, folder: str | os.PathLike, remove_torn: bool = False) -> None:
        self.folder = Path(folder)
        self.manifest = self._read_manifest()
        self._shards: list[Path] = []
        self._contents: dict[str, dict[str, tuple[int, tuple[str, ...]]]] = {kind: {} for kind in KINDS}
        for path in sorted(self.folder.glob('*-*.safetensors')):
            self._add_shard(path, remove_torn)
        self.items: dict[str, dict] = {}
        self._read_items()
        self._handles: dict[int, Any] = {}

    def __getstate__(self) -> dict:
        return {**self.__dict__, '_handles': {}}

    @property
    def command(self) -> str:
        """The command that brings the cache up to date."""
        dtype = f' --dtype {self.manifest["dtype"]}' if 'dtype' in self.manifest else ''
        return f'{_TOOL} {self.manifest.get("config", "CONFIG")} --out {self.folder}{dtype}'

    def has(self, kind: str, content: str) -> bool:
        """Whether the encoding of this content is stored."""
        return content in self._contents[kind]

    def count(self, kind: str) -> int:
        """Number of encodings of a kind."""
        return len(self._contents[kind])

    def get(self, kind: str, content: str) -> dict[str, Tensor]:
        """The stored tensors of one content by the names of their parts.

        Raises:
            KeyError: If it is not stored; see :meth:`has`.
            ValueError: If it is damaged: its checksum is another than when it was written. Names the shard.
        """
        shard, parts = self._contents[kind][content]
        if shard not in self._handles:
            self._handles[shard] = safe_open(self._shards[shard], framework='pt')
        handle = self._handles[shard]
        # Copies: a view would take its whole shard along to the process of the training.
        tensors = {part: handle.get_tensor(f'{content}.{part}').clone() for part in parts}
        checksum = tensors.pop(_CHECKSUM)
        if checksum.numel() != 1 or int(checksum) != _checksum(content, tensors):
            raise ValueError(
                f'{self._shards[shard]} is damaged: {kind} {content[:16]} has another checksum than when it was '
                f'written; delete this file, then {self.command}'
            )
        return tensors

    def _read_manifest(self) -> dict:
        path = self.folder / 'manifest.json'
        if not path.is_file():
            raise FileNotFoundError(
                f'no cache of encodings in {self.folder} (manifest.json is missing): make it with '
                f'{_TOOL} CONFIG --out {self.folder}'
            )
        try:
            manifest = read_json(path)
        except ValueError as error:
            raise ValueError(f'{error}: delete the cache, make it anew') from error
        if not isinstance(manifest, dict) or manifest.get('format') != FORMAT:
            found = manifest.get('format') if isinstance(manifest, dict) else manifest
            raise ValueError(f'{path}: expected format {FORMAT}, but got {found!r}: delete the cache, make it anew')
        return manifest

    def _add_shard(self, path: Path, remove_torn: bool = False) -> None:
        kind = path.name.rpartition('-')[0]
        if kind not in KINDS:
            return
        try:
            parts = _parts_of(path)
        except ValueError as error:
            if not remove_torn:
                raise ValueError(f'{error}: {self.command} makes it anew') from error
            print_log(f'{error}: what it held is made anew', 'current', logging.WARNING)
            path.unlink()
            return
        number = len(self._shards)
        self._shards.append(path)
        # One entry for all contents with the same parts: objects of their own would be most of the memory of a large
        # cache, and each loader worker would come to hold a copy of them.
        shared = {own: (number, own) for own in map(tuple, parts.values())}
        self._contents[kind].update({key: shared[tuple(own)] for key, own in parts.items()})

    def _read_items(self) -> None:
        path = self.folder / 'items.jsonl'
        lines = path.read_bytes().split(b'\n') if path.is_file() else [b'']
        for number, line in enumerate(lines[:-1], start=1):  # what follows the last end is torn
            try:
                record = json.loads(line)
                self.items[record.pop('item')] = record
            except (ValueError, KeyError, AttributeError, TypeError, RecursionError) as error:
                raise ValueError(
                    f'{path}, line {number} is damaged ({error!r}): delete this file, then {self.command}'
                ) from error


class EncodingCacheWriter(EncodingCache):
    """Adds encodings to a new or an existing cache.

    Args:
        folder: Made if it does not exist.
        manifest: What the encodings are made with; see the module. Pipelines and kinds are added to those of an
            existing cache, everything else has to be equal.
        shard_bytes: A shard is written when so many bytes have come together.

    Raises:
        ValueError: If the folder holds encodings of other encoders or of another dtype, or another process
            is writing to it.
    """

    def __init__(self, folder: str | os.PathLike, manifest: dict, shard_bytes: int = 256 * 2**20) -> None:
        folder = Path(folder)
        with explained(folder):
            self._lock = WriteLock(folder, 'wait for it, end it, or choose another --out')
        try:
            self._open(folder, manifest)
        except BaseException:
            self._lock.release()
            raise
        self.shard_bytes = shard_bytes
        self._waiting: dict[str, dict[str, dict[str, Tensor]]] = {kind: {} for kind in KINDS}
        self._waiting_bytes = dict.fromkeys(KINDS, 0)
        self._waiting_items: dict[str, dict] = {}

    def _open(self, folder: Path, manifest: dict) -> None:
        if not (folder / 'manifest.json').is_file():
            _write_whole(folder / 'manifest.json', json.dumps({'format': FORMAT}))
        for left in (own for pattern in ('*.tmp', '.*.part') for own in folder.glob(pattern)):  # the lock is ours
            shutil.rmtree(left) if left.is_dir() else left.unlink()
        super().__init__(folder, remove_torn=True)
        self._join_manifest(manifest)
        self._drop_torn_line()

    def has(self, kind: str, content: str) -> bool:
        """Whether the encoding is stored or waits to be."""
        return super().has(kind, content) or content in self._waiting[kind]

    def put(self, kind: str, content: str, tensors: Mapping[str, Tensor]) -> None:
        """Takes the tensors of one content; they are on disk after the next :meth:`flush`."""
        own = {part: tensor.detach().cpu().contiguous() for part, tensor in tensors.items()}
        own[_CHECKSUM] = torch.tensor([_checksum(content, own)])
        self._waiting[kind][content] = own
        self._waiting_bytes[kind] += sum(tensor.nbytes for tensor in own.values())
        if self._waiting_bytes[kind] >= self.shard_bytes:
            self.flush()

    def note(self, item: str, record: dict) -> None:
        """Says which content an item has; ``record`` as in ``items``."""
        self._waiting_items[item] = record

    def flush(self) -> None:
        """Writes what waits: first the shards, then the items that refer to them."""
        for kind, contents in self._waiting.items():
            if not contents:
                continue
            numbers = [int(path.stem.rpartition('-')[2]) for path in self._shards]
            path = self.folder / f'{kind}-{max(numbers, default=-1) + 1:05d}.safetensors'
            write_tensors(path, {f'{key}.{part}': own[part] for key, own in contents.items() for part in own})
            self._add_shard(path)
            contents.clear()
            self._waiting_bytes[kind] = 0
        if self._waiting_items:
            path = self.folder / 'items.jsonl'
            with explained(path), path.open('a') as file:
                for item, record in self._waiting_items.items():
                    file.write(json.dumps({'item': item, **record}) + '\n')
                file.flush()
                os.fsync(file.fileno())
            self.items.update(self._waiting_items)
            self._waiting_items.clear()

    def close(self) -> None:
        """Writes what waits and lets other processes write."""
        self.flush()
        self._lock.release()

    def _join_manifest(self, manifest: dict) -> None:
        old = self.manifest
        for name, encoder in manifest['encoders'].items():
            known = old.get('encoders', {}).get(name, encoder)
            if known['fingerprint'] == encoder['fingerprint']:
                continue
            what = [key for key in ('settings', 'weights') if known[key] != encoder[key]]
            raise ValueError(
                f'{self.folder} holds encodings of another {name} encoder ({" and ".join(what)} differ, fingerprint '
                f'{known["fingerprint"]}, but got {encoder["fingerprint"]}): choose another --out, or delete it'
            )
        if old.get('dtype', manifest['dtype']) != manifest['dtype']:
            raise ValueError(
                f'{self.folder} holds {old["dtype"]}, but got --dtype {manifest["dtype"]}: choose another --out, or '
                'delete it'
            )
        joined = {**old, **manifest, 'format': FORMAT}
        for key in ('encoders', 'pipelines'):
            joined[key] = {**old.get(key, {}), **manifest[key]}
        self.manifest = joined
        _write_whole(self.folder / 'manifest.json', json.dumps(joined, indent=1, default=_plain))

    def _drop_torn_line(self) -> None:
        path = self.folder / 'items.jsonl'
        if path.is_file():
            whole = path.read_bytes().rfind(b'\n') + 1
            if whole < path.stat().st_size:
                os.truncate(path, whole)


def _parts_of(path: Path) -> dict[str, list[str]]:
    """Names of the parts of each content of a shard.

    Raises:
        ValueError: If it is damaged.
    """
    try:
        with safe_open(path, framework='pt') as shard:
            names = list(shard.keys())
    except SafetensorError as error:
        raise ValueError(f'{path} is damaged or cut short ({error})') from error
    parts = defaultdict(list)
    for name in names:
        content, _, part = name.rpartition('.')
        parts[content].append(part)
    if not all(_CHECKSUM in own and len(own) > 1 for own in parts.values()):
        raise ValueError(f'{path} has no checksums (an older version wrote it) or is damaged')
    return parts


def _checksum(content: str, tensors: Mapping[str, Tensor]) -> int:
    """CRC-32 of the parts of a content in the order of their names, with what their bytes mean."""
    found = zlib.crc32(content.encode())
    for part, tensor in sorted(tensors.items()):
        found = zlib.crc32(f'{part}:{tensor.dtype}:{tuple(tensor.shape)}:'.encode(), found)
        flat = tensor.reshape(-1).contiguous()
        if flat.numel():
            found = zlib.crc32(memoryview(flat.view(torch.uint8).numpy()), found)
    return found


def _write_whole(path: Path, text: str) -> None:
    with whole_file(path, path.with_name(path.name + '.tmp')) as temporary:
        temporary.write_text(text)
