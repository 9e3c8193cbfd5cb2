"""Reading of instance maps from files."""

from pathlib import Path

import numpy as np
from PIL import Image, UnidentifiedImageError


def read_instance_map(path: str) -> np.ndarray:
    if not Path(path).is_file():
        raise FileNotFoundError(f'no instance map at {path}')
    try:
        with Image.open(path) as image:
            array = np.array(image)  # palette images stay indices
            mode = image.mode
    except (UnidentifiedImageError, OSError) as error:
        raise ValueError(f'{path}: expected a PNG of instance ids, but got {error}') from error
    if array.ndim == 3 and array.shape[2] == 3:
        red, green, blue = array.astype(np.int32).transpose(2, 0, 1)
        return red << 16 | green << 8 | blue
    if array.ndim != 2:
        raise ValueError(
            f'{path}: expected a palette, grey or RGB-coded instance map, but got mode {mode}'
        )
    return array
