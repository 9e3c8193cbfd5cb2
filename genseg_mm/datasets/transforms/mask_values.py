"""Masks of 0, 1 and 255 = ignored, told from black-and-white pictures of 0 and 255."""

import numpy as np

CHECKED = 'mask_values_checked'
WAYS_OUT = (
    '255 means ignored here: a black-and-white mask is read by LoadReferringMask(white=255), or written as 0 and 1; '
    'one that is really ignored wherever it is not 0 has no object to learn from: leave it out'
)


def check_mask_values(mask: np.ndarray, where: str) -> None:
    """Refuses a mask that may be a black-and-white picture, or no mask at all.

    Args:
        mask: (H, W) or (1, H, W), whole numbers.
        where: The file, for the message.

    Raises:
        ValueError: If it holds other values than 0, 1 and 255, or 255 and no 1.
    """
    has_object, ignored = mask == 1, mask == 255
    wrong = mask[(mask != 0) & ~has_object & ~ignored]
    if wrong.size:
        raise ValueError(f'{where}: expected a mask of 0, 1 and 255 (ignored), but got {wrong[0]}')
    if ignored.any() and not has_object.any():
        raise ValueError(f'{where}: expected a mask with 1 on the object, but got 255 and no 1; {WAYS_OUT}')


def mask_file(results: dict) -> str:
    """The file that a sample's mask came from, for messages."""
    return str(results.get('seg_map_path') or f'mask of {results.get("img_path", "?")}')
