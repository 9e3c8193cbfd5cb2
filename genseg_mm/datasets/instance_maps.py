"""Datasets of pictures with one file of instance ids each, and the reading of such files: PNG and Hypersim's HDF5."""

import logging
import math
import zlib
from abc import abstractmethod
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from mmengine import fileio
from mmengine.dataset import BaseDataset
from mmengine.logging import print_log

from genseg_mm.datasets.annotation_files import ExistingFiles, warn_counted
from genseg_mm.datasets.seeded_access import SeededAccess
from genseg_mm.files.image_headers import check_pixels, read_header
from genseg_mm.files.images import read_stored
from genseg_mm.files.whole_files import whole_file

MISSING = ('error', 'skip')
EMPTY = ('keep', 'redraw', 'error')
NUM_NAMED = 3  # examples in a message
HDF5_SUFFIXES = ('.hdf5', '.h5')
HDF5_KEY = 'dataset'
HDF5_NO_INSTANCE = -1
INDEX_MODES = ('P', 'L', '1', 'I', 'I;16')
MAX_ID = np.iinfo(np.int32).max
_A_PNG = 'a PNG of instance ids'
_DEFLATE = 1
_KNOWN_FILTERS = {_DEFLATE, 2, 3, 32000}  # deflate, shuffle, checksum, lzf; others need plugins
_DEFLATE_RATIO = 1032  # the most that deflate can shrink
_BAND_ROWS = 1024
_HARMLESS_BYTES = 64 * 2**20


class InstanceMapDataset(SeededAccess, BaseDataset):
    """Images, each with a file of instance ids; a dataset says how its folder lists them.

    Items (before the pipeline): ``img_path``, ``instance_map_path`` (read by ``LoadInstanceMap``) or ``instances`` in
    mmdet's form, ``img_id``, ``ignore_background`` (whether what has no id may still be an object: metainfo of the
    loss), ``sample_idx``, and what :meth:`list_pairs` adds.

    ``skipped`` names every pair that is not in the dataset, by reason: ``{'no instance map': [path, ...]}``.

    Args:
        data_root: Folder of the dataset as it was downloaded.
        ignore_background: See above.
        missing: What a pair with a missing file means: ``'error'``, or ``'skip'`` (counted, announced and named in
            ``skipped``).
        empty: What a sample means whose ``gt_instance_map`` has no instance after the pipeline: ``'keep'`` it (with
            a labelled background it still teaches what is black; with an ignored one its loss is zero; the reference
            does this), ``'redraw'`` another item in its place (in training), or ``'error'``. Kept and replaced
            samples are counted in ``num_empty`` of each process and announced when that is 1, 10, 100, ...
        subset: Name of the items' part in an evaluation of several.
        pipeline: Transforms.
        **kwargs: Further keyword arguments of MMEngine's ``BaseDataset`` (test_mode, indices, metainfo, ...).

    Raises:
        FileNotFoundError: If the folder or, with ``missing='error'``, a file of a pair does not exist.
        ValueError: If the folder has no pair; or at an empty sample with ``empty='error'``.
    """

    METAINFO = dict(classes=('background', 'object'), palette=[(70, 130, 180), (220, 20, 60)])

    def __init__(
        self,
        data_root: str,
        ignore_background: bool = False,
        missing: str = 'error',
        empty: str = 'keep',
        subset: str | None = None,
        pipeline: Sequence = (),
        **kwargs: Any,
    ) -> None:
        if missing not in MISSING:
            raise ValueError(f'missing must be one of {MISSING}, but got {missing!r}')
        if empty not in EMPTY:
            raise ValueError(f'empty must be one of {EMPTY}, but got {empty!r}')
        if empty == 'redraw' and kwargs.get('test_mode'):
            raise ValueError("empty='redraw' is for training, but got test_mode=True")
        self.ignore_background = ignore_background
        if subset is not None:  # otherwise only the items can tell their part
            self.subset = subset
        self.missing, self.empty, self.num_empty = missing, empty, 0
        self.skipped: dict[str, list[str]] = {}
        super().__init__(data_root=str(data_root), pipeline=list(pipeline), **kwargs)

    @abstractmethod
    def list_pairs(self) -> Iterator[dict]:
        """Yields ``img_path``, ``instance_map_path`` (or ``instances``) and further keys, in a fixed order.

        Either path may name a file that does not exist. Pairs that the dataset's own settings leave out (too few
        instances, say) are reported by :meth:`skip` in place of being yielded.
        """

    def skip(self, path: str | Path, reason: str) -> None:
        """Notes a pair that is left out.

        A reason that starts with "no " is a missing file or folder, which ``missing='error'`` does not let pass.
        """
        self.skipped.setdefault(reason, []).append(str(path))

    def load_data_list(self) -> list[dict]:
        """Lists the pairs, in the order of :meth:`list_pairs`."""
        if not Path(self.data_root).is_dir():
            raise FileNotFoundError(
                f'{type(self).__name__} expects a folder at data_root, but there is none at {self.data_root}'
            )
        self.skipped = {}
        items, files = [], ExistingFiles()
        for pair in self.list_pairs():
            absent = [
                (pair[key], reason)
                for key, reason in (('img_path', 'no image'), ('instance_map_path', 'no instance map'))
                if key in pair and '://' not in str(pair[key]) and str(pair[key]) not in files
            ]
            for path, reason in absent:
                self.skip(path, reason)
            if not absent:
                item = dict(pair, ignore_background=self.ignore_background)
                if getattr(self, 'subset', None) is not None:
                    item['subset'] = self.subset
                items.append({'img_id': len(items), **item})
        self._check(items)
        return items

    def _check(self, items: list[dict]) -> None:
        name = type(self).__name__
        texts = {
            reason: f'{name}: {len(paths)} left out of {self.data_root}: {reason}, such as '
            + ', '.join(paths[:NUM_NAMED])
            for reason, paths in self.skipped.items()
        }
        absent = [text for reason, text in texts.items() if reason.startswith('no ')]
        if absent and self.missing == 'error':
            raise FileNotFoundError('; '.join(absent) + "; missing='skip' goes on without them")
        for text in texts.values():
            print_log(text, logger='current', level=logging.WARNING)
        if not items:
            raise ValueError(f'{name} found no pair of image and instance map in {self.data_root}')

    def prepare_data(self, idx: int) -> dict | None:
        """The item after the pipeline; None, for which another one is drawn, where ``empty`` says so."""
        data = super().prepare_data(idx)
        if not _has_no_instance(data):
            return data
        item = self.get_data_info(idx)
        path = item.get('instance_map_path', item['img_path'])
        if self.empty == 'error':
            raise ValueError(f"{path}: no instance after the pipeline, which empty='error' refuses")
        self.num_empty += 1
        done = 'keeps it' if self.empty == 'keep' else 'takes another sample in its place'
        warn_counted(
            f'{type(self).__name__}: no instance in {path} after the pipeline; empty={self.empty!r} {done}',
            self.num_empty,
        )
        return None if self.empty == 'redraw' else data


def _has_no_instance(data: dict | None) -> bool:
    """Whether a sample, packed or not, has an instance map with nothing on it."""
    if data is None:
        return False
    if 'gt_instance_map' in data:
        return not (data['gt_instance_map'] > 0).any()
    packed = getattr(data.get('data_samples'), 'gt_instance_map', None)
    return packed is not None and not bool((packed.data > 0).any())


def read_instance_map(path: str | Path) -> np.ndarray:
    """Reads a map of instance ids, by the ending of its name.

    - ``.hdf5``, ``.h5`` (Hypersim's ``semantic_instance``): the integer array "dataset"; -1 becomes 0.
    - else a PNG: palette indices (never the colours), 8- or 16-bit grey, or RGB-coded ids as
      r * 65536 + g * 256 + b.

    Args:
        path: The file.

    Returns:
        Ids, (H, W), an integer type that holds them all: 0 = background, ids above 255 as they are.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If the file is damaged, or holds something else than ids.
    """
    if '://' not in str(path) and not Path(path).is_file():
        raise FileNotFoundError(f'no instance map at {path}')
    if Path(path).suffix.lower() in HDF5_SUFFIXES:
        return _read_hdf5(path)
    return _read_png(path)


def write_plain_map(path: str | Path, ids: np.ndarray) -> None:
    """Writes ids uncompressed, as an HDF5 file that :func:`read_instance_map` reads.

    Args:
        path: File to write, ``.hdf5``; whole or not there at all.
        ids: (H, W) int32, none negative; 16 bits are enough for most.
    """
    import h5py

    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with whole_file(path) as partial, h5py.File(partial, 'w') as file:
        file[HDF5_KEY] = ids.astype(np.uint16) if ids.max(initial=0) < 2**16 else ids


def check_index_png(path: str | Path) -> None:
    """Refuses a file whose pixels are colours where ids are expected; reads its header only.

    Raises:
        ValueError: If the file is no picture, or one with several channels.
    """
    mode = read_header(_content(path), str(path), _A_PNG).mode
    if mode not in INDEX_MODES:
        raise ValueError(
            f'{path}: expected a palette PNG whose indices are the instances, but got mode {mode}, colours: it was '
            'converted on the way, and two instances may share a colour; fetch the original file (or say that colours '
            "are meant as ids: InstanceFolderDataset(ids='rgb'))"
        )


def check_color_png(path: str | Path) -> None:
    """Refuses a file whose pixels are no RGB colours where ids are coded so; reads its header only.

    Raises:
        ValueError: If the file is no picture, or one of another mode.
    """
    mode = read_header(_content(path), str(path), _A_PNG).mode
    if mode != 'RGB':
        raise ValueError(f"{path}: expected ids coded as RGB (ids='rgb'), but got mode {mode}")


def _content(path: str | Path) -> str | Path | bytes:
    """The bytes behind an address such as ``rows://...``; a path as it is."""
    return fileio.get(path) if '://' in str(path) else path


def _read_hdf5(path: str | Path) -> np.ndarray:
    try:
        import h5py
    except ImportError as error:
        raise ImportError(f'{path} needs h5py: pip install h5py') from error
    try:
        # Without locks, which read-only and network folders may not have.
        with h5py.File(path, 'r', locking=False) as file:
            ids = _ids_of(file, path)
    except (OSError, RuntimeError, KeyError) as error:  # h5py's for damaged files
        reason = ' '.join(str(error).split())
        raise ValueError(f'{path}: expected an HDF5 file of instance ids, but got {reason}: fetch it again') from error
    lowest = ids.min(initial=0)
    if lowest < HDF5_NO_INSTANCE:
        raise ValueError(f'{path}: expected ids, or {HDF5_NO_INSTANCE} where there is none, but got {lowest}')
    return np.maximum(ids, 0, out=ids) if lowest < 0 else ids


def _ids_of(file: Any, path: str | Path) -> np.ndarray:
    """The array of an HDF5 file, int32, once all that it claims is checked."""
    import h5py

    link = file.get(HDF5_KEY, getlink=True) if HDF5_KEY in file.keys() else None  # noqa: SIM118
    if link is not None and not isinstance(link, h5py.HardLink):
        raise ValueError(
            f'{path}: expected the array {HDF5_KEY!r} itself, but got a {type(link).__name__}, which may lead to '
            'another file; write the ids into this one'
        )
    node = None if link is None else file[HDF5_KEY]
    if not isinstance(node, h5py.Dataset):
        raise ValueError(f'{path}: expected an array {HDF5_KEY!r}, but got the names {sorted(file)}')
    if node.is_virtual or node.external:
        kind = 'a virtual one' if node.is_virtual else 'external storage'
        raise ValueError(
            f'{path}: expected ids within the file, but got {kind}, whose data lie in other files; write them into it'
        )
    dtype, shape = node.dtype, node.shape
    if dtype.kind not in 'iu' or shape is None or len(shape) != 2:
        raise ValueError(f'{path}: expected integer ids of shape (H, W), but got {dtype} of shape {shape}')
    check_pixels(*shape, str(path))
    _check_storage(node, path)
    ids = np.empty(shape, np.int32)
    if np.can_cast(dtype, np.int32):
        if ids.size:
            node.read_direct(ids)
        return ids
    band = _BAND_ROWS if node.chunks is None else -(-_BAND_ROWS // node.chunks[0]) * node.chunks[0]
    for start in range(0, shape[0], band):  # 64 bits of a large map have no room beside its ids
        ids[start : start + band] = as_ids(node[start : start + band], path)
    return ids


def _check_storage(node: Any, path: str | Path) -> None:
    """Refuses what would be unpacked by a plugin, or to more than the array has."""
    if node.chunks is None:
        return
    filters = node.id.get_create_plist()
    names = {filters.get_filter(place)[0] for place in range(filters.get_nfilters())}
    if not names <= _KNOWN_FILTERS:
        raise ValueError(
            f'{path}: expected ids that are plain or compressed by gzip or lzf, but got the filters {sorted(names)}'
        )
    chunk_bytes = math.prod(node.chunks) * node.dtype.itemsize
    check_pixels(*node.chunks, f'{path}, a chunk of it')
    chunks = []
    node.id.chunk_iter(chunks.append)  # one by one, each would be looked for from the first on
    for chunk in chunks:
        if chunk.size * _DEFLATE_RATIO <= _HARMLESS_BYTES or _DEFLATE not in names:
            continue
        _, packed = node.id.read_direct_chunk(chunk.chunk_offset)
        unpacker = zlib.decompressobj()
        try:
            unpacker.decompress(packed, chunk_bytes)
            more = not unpacker.eof and unpacker.decompress(unpacker.unconsumed_tail, 1)
        except zlib.error:
            continue  # the library says what is wrong with it
        if more:
            raise ValueError(f'{path}: expected chunks of {chunk_bytes} bytes, but one unpacks to more: it is damaged')


def as_ids(array: np.ndarray, where: str | Path) -> np.ndarray:
    """Ids as int32, none of them changed.

    Args:
        array: Integers, truth values, or whole numbers as floats.
        where: The file, or what else messages are to name.

    Raises:
        ValueError: If they are something else, have fractions, or leave int32.
    """
    if array.dtype.kind not in 'biuf':
        raise ValueError(f'{where}: expected integer ids, but got {array.dtype}')
    if not array.size or array.dtype.kind == 'b' or np.can_cast(array.dtype, np.int32):
        return array.astype(np.int32)
    if array.dtype.kind == 'f' and not (np.isfinite(array) & (array == np.rint(array))).all():
        wrong = array[~(np.isfinite(array) & (array == np.rint(array)))][0]
        raise ValueError(f'{where}: expected whole ids, but got {wrong}')
    low, high = array.min(), array.max()
    if low < -MAX_ID or high > MAX_ID:
        raise ValueError(
            f'{where}: expected ids from {-MAX_ID} to {MAX_ID} (int32), but got {high if high > MAX_ID else low}; '
            'number the instances of a picture from 1 on'
        )
    return array.astype(np.int32)


def _read_png(path: str | Path) -> np.ndarray:
    array, mode = read_stored(_content(path), str(path), _A_PNG)
    if mode == 'RGB':
        ids = array[..., 0].astype(np.int32)
        for channel in (1, 2):  # in place: a large map has no room for copies
            ids <<= 8
            ids |= array[..., channel]
        return ids
    if array.ndim != 2 or array.dtype.kind not in 'iub':
        raise ValueError(f'{path}: expected a palette, grey or RGB-coded instance map, but got mode {mode}')
    return array
