"""Reading of BSDS500's ground truth: the boundary maps of several annotators in one .mat file."""

import os

import numpy as np

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
    from scipy.io import loadmat  # only who reads such files pays for its import

    path = os.fspath(path)
    if not os.path.isfile(path):
        raise FileNotFoundError(f'no file {path}: expected the boundaries of a picture')
    try:
        content = loadmat(path, variable_names=['groundTruth'])
    except Exception as error:  # scipy's reader has errors of every kind for damaged files
        reason = ' '.join(f'{type(error).__name__}: {error}'.split())[:200]
        raise ValueError(f'{path} is no whole .mat file ({reason}): fetch it again') from error
    cells = content.get('groundTruth')
    if not isinstance(cells, np.ndarray) or cells.ndim != 2 or len(cells) != 1 or not cells.size:
        came = 'nothing of that name' if cells is None else f'{cells.dtype} of {cells.shape}'
        raise ValueError(f'{path}: expected {_LAYOUT}, but got {came}')
    maps = [_boundary(cell, f'{path}, annotator {n}') for n, cell in enumerate(cells[0], start=1)]
    sizes = {own.shape for own in maps}
    if len(sizes) > 1:
        raise ValueError(f'{path}: expected maps of one size, but got {sorted(sizes)}')
    return np.stack(maps)


def _boundary(cell: object, where: str) -> np.ndarray:
    try:
        boundary = np.asarray(cell['Boundaries'][0, 0])
    except (IndexError, KeyError, TypeError, ValueError) as error:
        raise ValueError(
            f"{where}: expected a struct with 'Boundaries', but got {cell!r:.80}"
        ) from error
    if boundary.ndim != 2 or boundary.dtype.kind not in 'buif':
        raise ValueError(
            f'{where}: Boundaries must be a map of numbers (H, W), but got {boundary.dtype} of {boundary.shape}'
        )
    wrong = boundary[(boundary != 0) & (boundary != 1)]
    if len(wrong):
        raise ValueError(f'{where}: Boundaries must be 0 or 1, but got {wrong[0]}')
    return boundary.astype(np.uint8)
