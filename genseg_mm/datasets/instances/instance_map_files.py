"""Reading of instance maps from files: PNG and Hypersim's HDF5."""

from pathlib import Path

import numpy as np
from PIL import Image, UnidentifiedImageError

HDF5_SUFFIXES = ('.hdf5', '.h5')
HDF5_KEY = 'dataset'
HDF5_NO_INSTANCE = -1
INDEX_MODES = ('P', 'L', '1', 'I', 'I;16')


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
    if not Path(path).is_file():
        raise FileNotFoundError(f'no instance map at {path}')
    if Path(path).suffix in HDF5_SUFFIXES:
        return _read_hdf5(path)
    return _read_png(path)


def check_index_png(path: str | Path) -> None:
    """Refuses a file whose pixels are colours where ids are expected; reads its header only.

    Raises:
        ValueError: If the file is no picture, or one with several channels.
    """
    try:
        with Image.open(path) as image:
            mode = image.mode
    except (UnidentifiedImageError, OSError) as error:
        raise ValueError(f'{path}: expected a PNG of instance ids, but got {error}') from error
    if mode not in INDEX_MODES:
        raise ValueError(
            f'{path}: expected a palette PNG whose indices are the instances, but got mode {mode}, colours: it was '
            'converted on the way, and two instances may share a colour; fetch the original file'
        )


def _read_hdf5(path: str | Path) -> np.ndarray:
    try:
        import h5py
    except ImportError as error:
        raise ImportError(f'{path} needs h5py: pip install h5py') from error
    try:
        # Without locks, which read-only and network folders may not have.
        with h5py.File(path, 'r', locking=False) as file:
            node = file.get(HDF5_KEY)
            if not isinstance(node, h5py.Dataset):
                raise ValueError(
                    f'{path}: expected an array {HDF5_KEY!r}, but got the names {sorted(file)}'
                )
            dtype, shape = node.dtype, node.shape
            if dtype.kind not in 'iu' or len(shape) != 2:
                raise ValueError(
                    f'{path}: expected integer ids of shape (H, W), but got {dtype} of shape {shape}'
                )
            ids = node[()].astype(np.int32)
    except OSError as error:
        raise ValueError(
            f'{path}: expected an HDF5 file of instance ids, but got {error}: fetch it again'
        ) from error
    if ids.size and ids.min() < HDF5_NO_INSTANCE:
        raise ValueError(
            f'{path}: expected ids, or {HDF5_NO_INSTANCE} where there is none, but got {ids.min()}'
        )
    return np.maximum(ids, 0)


def _read_png(path: str | Path) -> np.ndarray:
    try:
        with Image.open(path) as image:
            array = np.array(image)  # palette images stay indices
            mode = image.mode
    except (
        UnidentifiedImageError,
        OSError,
        SyntaxError,
    ) as error:  # a broken chunk is the last one
        raise ValueError(f'{path}: expected a PNG of instance ids, but got {error}') from error
    if mode == 'RGB':
        red, green, blue = array.astype(np.int32).transpose(2, 0, 1)
        return red << 16 | green << 8 | blue
    if array.ndim != 2 or array.dtype.kind not in 'iub':
        raise ValueError(
            f'{path}: expected a palette, grey or RGB-coded instance map, but got mode {mode}'
        )
    return array
