"""Arrays in MATLAB's version 5 files and in ``.npz``, which damaged or hostile ones cannot bring down.

``scipy.io.loadmat`` kills the process, or never returns, on some crafted files. This one reads cells, structs and
numbers only, each from bytes that are there, and unpacks no more than a bound. Layout: The MathWorks,
"MAT-File Format".
"""

import math
import os
import struct
import tokenize
import zipfile
import zlib
from collections.abc import Collection
from typing import NamedTuple

import numpy as np

MAX_MAT_BYTES = 256 * 2**20  # of a file, and of a variable once it is unpacked; BSDS500's have 2 MiB
_HEADER = 128
_MAX_DEPTH = 8
_NAME_BYTES = 4096  # enough for what stands before and in a name
_MATRIX, _COMPRESSED = 14, 15
_STORED = {  # element type -> as numbers
    1: 'i1', 2: 'u1', 3: 'i2', 4: 'u2', 5: 'i4', 6: 'u4', 7: 'f4', 9: 'f8', 12: 'i8', 13: 'u8',
}  # fmt: skip
_CELL, _STRUCT = 1, 2
_NUMBERS = {  # class of an array -> its dtype
    6: 'f8', 7: 'f4', 8: 'i1', 9: 'u1', 10: 'i2', 11: 'u2', 12: 'i4', 13: 'u4', 14: 'i8', 15: 'u8',
}  # fmt: skip
_LAYOUT = "a (1, N) cell array 'groundTruth' of structs with 'Boundaries'"  # of BSDS500's ground truth


class Unread(NamedTuple):
    """Stands for an array of a kind that is not read: text, sparse, objects, complex numbers."""

    kind: str


class _Element(NamedTuple):
    kind: int
    data: memoryview
    end: int  # where the next one begins


def read_mat(path: str | os.PathLike, variable: str, fields: Collection[str]) -> object:
    """One variable of a .mat file.

    Args:
        path: The file, version 5 to 7 (not 7.3, which is HDF5).
        variable: Its name.
        fields: Of structs; others are passed over.

    Returns:
        None if there is none of this name. Else numbers as an array; a cell array as an array of objects; a struct as a
        dict of its fields, a struct array as an array of those; :class:`Unread` for other kinds.

    Raises:
        ValueError: If the file is damaged, or larger than the bound. The message does not name the file.
        OSError: If it cannot be read.
    """
    size = os.path.getsize(path)
    if size > MAX_MAT_BYTES:
        raise ValueError(f'expected at most {MAX_MAT_BYTES} bytes, but got {size}')
    with open(path, 'rb') as file:
        content = memoryview(file.read())
    is_hdf5 = b'\x89HDF' in (bytes(content[:4]), bytes(content[512:516]))
    order = {b'IM': '<', b'MI': '>'}.get(bytes(content[126:_HEADER]))
    if is_hdf5 or order is None:
        kind = 'version 7.3 (HDF5)' if is_hdf5 else 'other bytes'
        raise ValueError(f'expected a MATLAB file of version 5 to 7, but got {kind}')
    reader, position = _Reader(order, frozenset(fields)), _HEADER
    while position < len(content):
        element = reader.element(content, position)
        position = element.end
        if element.kind == _COMPRESSED:
            # The name stands at the start: a variable that nobody asks for is not unpacked.
            start = _unpacked(element.data, _NAME_BYTES, is_start=True)
            if reader.name(start[8:]) != variable:
                continue
            element = reader.element(_unpacked(element.data, MAX_MAT_BYTES), 0)
        if element.kind == _MATRIX and reader.name(element.data) == variable:
            return reader.array(element.data)
    return None


class _Reader:
    """Arrays of bytes in one byte order."""

    def __init__(self, order: str, fields: frozenset[str]) -> None:
        self.order, self.fields = order, fields

    def element(self, data: memoryview, position: int) -> _Element:
        """The tagged element at a position."""
        if position + 8 > len(data):
            raise ValueError(f'an element at byte {position} of {len(data)} is cut short')
        kind, size = struct.unpack_from(f'{self.order}II', data, position)
        start = position + 8
        if kind >> 16:  # at most 4 bytes, within the tag
            kind, size, start = kind & 0xFFFF, kind >> 16, position + 4
            if size > 4:
                raise ValueError(f'a small element at byte {position} claims {size} bytes')
        if start + size > len(data):
            raise ValueError(f'an element at byte {position} claims {size} bytes, but {len(data) - start} are left')
        # To the next multiple of 8, but for compressed ones.
        end = start + size if kind == _COMPRESSED else start + size + -(start + size - position) % 8
        return _Element(kind, data[start : start + size], min(end, len(data)))

    def head(self, data: memoryview) -> tuple[int, int, tuple[int, ...], str, int]:
        """Class, flags, dimensions and name of an array, and where its content begins."""
        flags = self.element(data, 0)
        dims = self.element(data, flags.end)
        name = self.element(data, dims.end)
        if len(flags.data) < 8 or dims.kind != 5 or not 8 <= len(dims.data) <= 128:
            raise ValueError('an array has no class or no dimensions')
        (word,) = struct.unpack_from(f'{self.order}I', flags.data)
        shape = struct.unpack(f'{self.order}{len(dims.data) // 4}i', dims.data[: len(dims.data) & ~3])
        if min(shape) < 0:
            raise ValueError(f'an array has the dimensions {shape}')
        return word & 0xFF, word >> 8 & 0xFF, shape, bytes(name.data).decode('latin-1'), name.end

    def name(self, data: memoryview) -> str:
        """Name of an array, whose content need not be there."""
        return self.head(data)[3]

    def array(self, data: memoryview, depth: int = 0) -> object:
        """An array; see :func:`read_mat`."""
        if not data:
            return np.zeros((0, 0))
        if depth > _MAX_DEPTH:
            raise ValueError(f'expected arrays within arrays at most {_MAX_DEPTH} deep, but got more')
        kind, flags, shape, _, position = self.head(data)
        if kind in _NUMBERS:
            return self._numbers(data, position, kind, flags, shape)
        if kind == _CELL:
            return self._arranged(self._cells(data, position, shape, depth), shape)
        if kind == _STRUCT:
            structs = self._structs(data, position, shape, depth)
            return structs[0] if len(structs) == 1 else self._arranged(structs, shape)
        return Unread(f'class {kind}')

    def _numbers(self, data: memoryview, position: int, kind: int, flags: int, shape: tuple[int, ...]) -> object:
        if flags & 0x08:
            return Unread('complex numbers')
        element = self.element(data, position)
        if element.kind not in _STORED:
            raise ValueError(f'numbers of the unknown type {element.kind}')
        stored = np.dtype(self.order + _STORED[element.kind])
        if math.prod(shape) * stored.itemsize != len(element.data):
            raise ValueError(
                f'an array of {shape} needs {math.prod(shape) * stored.itemsize} bytes, but has {len(element.data)}'
            )
        numbers = np.frombuffer(element.data, stored).reshape(shape, order='F')
        return numbers.astype(_NUMBERS[kind], copy=False)

    def _cells(self, data: memoryview, position: int, shape: tuple[int, ...], depth: int) -> list[object]:
        cells = []
        _check_count(math.prod(shape), data, position)
        for _ in range(math.prod(shape)):
            element = self._matrix(data, position)
            cells.append(self.array(element.data, depth + 1))
            position = element.end
        return cells

    def _structs(self, data: memoryview, position: int, shape: tuple[int, ...], depth: int) -> list[dict[str, object]]:
        length = self.element(data, position)
        names = self.element(data, length.end)
        if len(length.data) < 4:
            raise ValueError('a struct has no length of names')
        (width,) = struct.unpack_from(f'{self.order}i', length.data)
        if not 1 <= width <= 1024:
            raise ValueError(f'a struct has names of {width} bytes')
        keys = [
            bytes(names.data[start : start + width]).split(b'\0')[0].decode('latin-1')
            for start in range(0, len(names.data), width)
        ]
        position, structs = names.end, []
        _check_count(math.prod(shape) * max(len(keys), 1), data, position)
        for _ in range(math.prod(shape)):
            own = {}
            for key in keys:
                element = self._matrix(data, position)
                position = element.end
                if key in self.fields:
                    own[key] = self.array(element.data, depth + 1)
            structs.append(own)
        return structs

    def _matrix(self, data: memoryview, position: int) -> _Element:
        element = self.element(data, position)
        if element.kind != _MATRIX:
            raise ValueError(f'expected an array at byte {position}, but got type {element.kind}')
        return element

    @staticmethod
    def _arranged(values: list, shape: tuple[int, ...]) -> np.ndarray:
        array = np.empty(len(values), object)
        array[:] = values
        return array.reshape(shape, order='F')


def _check_count(count: int, data: memoryview, position: int) -> None:
    if count * 8 > len(data) - position:
        raise ValueError(f'{count} arrays are claimed, but {len(data) - position} bytes are left')


def _unpacked(data: memoryview, most: int, is_start: bool = False) -> memoryview:
    unpacker = zlib.decompressobj()
    try:
        unpacked = unpacker.decompress(data, most)
    except zlib.error as error:
        raise ValueError(f'a compressed variable is damaged: {error}') from error
    if not is_start and not unpacker.eof:
        if len(unpacked) >= most:
            raise ValueError(f'expected at most {most} bytes once unpacked, but got more')
        raise ValueError('a compressed variable is cut short')
    return memoryview(unpacked)


# ---- ``.npz``: arrays no larger than they say and than is sensible

MAX_NPZ_BYTES = 2**30  # of all arrays of a file
_DAMAGED_HEADER = (SyntaxError, TypeError, AttributeError, IndexError, OverflowError, tokenize.TokenError)


def read_npz(path: str | os.PathLike) -> dict[str, np.ndarray]:
    """All arrays of a file that ``np.savez`` wrote, none of them objects.

    Raises:
        ValueError: If it is damaged, holds objects, or its arrays claim more than is there or than ``MAX_NPZ_BYTES``.
            The message does not name the file.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            claimed = sum(part.file_size for part in archive.infolist())
            if claimed > MAX_NPZ_BYTES:
                raise ValueError(f'expected arrays of at most {MAX_NPZ_BYTES} bytes, but got {claimed}')
            return {part.filename.removesuffix('.npy'): _read_array(archive, part) for part in archive.infolist()}
    except (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError, OSError) as error:
        raise ValueError(str(error) or 'cut short') from error
    except _DAMAGED_HEADER as error:
        # Of headers of arrays, which are written as Python values.
        raise ValueError(f'damaged header of an array: {" ".join(str(error).split())}') from error


def _read_array(archive: zipfile.ZipFile, part: zipfile.ZipInfo) -> np.ndarray:
    with archive.open(part) as file:
        version = np.lib.format.read_magic(file)
        readers = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
        if version not in readers:
            raise ValueError(f'{part.filename} is of the unknown version {version}')
        shape, is_fortran, dtype = readers[version](file)
        if dtype.hasobject:
            raise ValueError(f'{part.filename} holds objects')
        size = math.prod(shape) * dtype.itemsize
        if min(shape, default=0) < 0 or size > part.file_size:
            raise ValueError(f'{part.filename} claims {dtype} of {shape}, but has {part.file_size} bytes')
        data = bytearray(size)  # arrays of it can be written to, without a copy
        left = memoryview(data)
        while left and (count := file.readinto(left)):
            left = left[count:]
        if len(left) or file.read(1):
            raise ValueError(f'{part.filename}: expected {size} bytes, but got another number')
    return np.frombuffer(data, dtype).reshape(shape, order='F' if is_fortran else 'C')


# ---- BSDS500's ground truth, which datasets and metrics read


def read_boundaries(path: str | os.PathLike) -> np.ndarray:
    """The boundary maps of a picture's annotators.

    Args:
        path: .mat file of BSDS500: a (1, N) cell array ``groundTruth`` of structs with ``Segmentation`` and
            ``Boundaries``; the segmentations are not used.

    Returns:
        (N, H, W) uint8 in {0, 1}.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is damaged or has another layout, size or values. The message names the file.
    """
    path = os.fspath(path)
    if not os.path.isfile(path):
        raise FileNotFoundError(f'no file {path}: expected the boundaries of a picture')
    try:
        cells = read_mat(path, 'groundTruth', ['Boundaries'])
    except ValueError as error:
        raise ValueError(f'{path} is no whole .mat file ({error}): fetch it again') from error
    if not isinstance(cells, np.ndarray) or cells.ndim != 2 or len(cells) != 1 or not cells.size:
        came = 'nothing of that name' if cells is None else f'{cells!r:.80}'
        if isinstance(cells, np.ndarray):
            came = f'{cells.dtype} of {cells.shape}'
        raise ValueError(f'{path}: expected {_LAYOUT}, but got {came}')
    maps = [_boundary(cell, f'{path}, annotator {n}') for n, cell in enumerate(cells[0], start=1)]
    sizes = {own.shape for own in maps}
    if len(sizes) > 1:
        raise ValueError(f'{path}: expected maps of one size, but got {sorted(sizes)}')
    return np.stack(maps)


def _boundary(cell: object, where: str) -> np.ndarray:
    boundary = cell.get('Boundaries') if isinstance(cell, dict) else None
    if not isinstance(boundary, np.ndarray):
        raise ValueError(f"{where}: expected a struct with 'Boundaries', but got {cell!r:.80}")
    if boundary.ndim != 2 or boundary.dtype.kind not in 'buif':
        raise ValueError(
            f'{where}: Boundaries must be a map of numbers (H, W), but got {boundary.dtype} of {boundary.shape}'
        )
    wrong = boundary[(boundary != 0) & (boundary != 1)]
    if len(wrong):
        raise ValueError(f'{where}: Boundaries must be 0 or 1, but got {wrong[0]}')
    return boundary.astype(np.uint8)
