"""Reading of ``.npz`` files whose arrays are no larger than they say and than is sensible."""

import math
import os
import tokenize
import zipfile
import zlib

import numpy as np

MAX_BYTES = 2**30  # of all arrays of a file
_DAMAGED_HEADER = (SyntaxError, TypeError, AttributeError, IndexError, OverflowError, tokenize.TokenError)


def read_npz(path: str | os.PathLike) -> dict[str, np.ndarray]:
    """All arrays of a file that ``np.savez`` wrote, none of them objects.

    Raises:
        ValueError: If it is damaged, holds objects, or its arrays claim more than is there or than ``MAX_BYTES``. The
            message does not name the file.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            claimed = sum(part.file_size for part in archive.infolist())
            if claimed > MAX_BYTES:
                raise ValueError(f'expected arrays of at most {MAX_BYTES} bytes, but got {claimed}')
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
        while len(left) and (count := file.readinto(left)):
            left = left[count:]
        if len(left) or file.read(1):
            raise ValueError(f'{part.filename}: expected {size} bytes, but got another number')
    return np.frombuffer(data, dtype).reshape(shape, order='F' if is_fortran else 'C')
