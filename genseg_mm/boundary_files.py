"""Reading of BSDS500's ground truth: the boundary maps of several annotators in one .mat file."""

import os

import numpy as np

from genseg_mm.mat_files import read_mat

_LAYOUT = "a (1, N) cell array 'groundTruth' of structs with 'Boundaries'"


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
