"""COCO segmentations -> masks."""

import numpy as np
from pycocotools import mask as mask_utils


def decode_segmentation(segmentation: list | dict, height: int, width: int, where: str) -> np.ndarray:
    """Mask of one object, (H, W) bool: the OR of its COCO polygons, or its RLE."""
    if isinstance(segmentation, dict):
        rle = segmentation
        if isinstance(rle['counts'], list):
            rle = mask_utils.frPyObjects(rle, height, width)
        if tuple(rle['size']) != (height, width):
            raise ValueError(
                f'{where}: expected an RLE mask of size {(height, width)}, but got {tuple(rle["size"])}'
            )
        return mask_utils.decode(rle).astype(bool)
    if not segmentation or any(len(polygon) < 6 or len(polygon) % 2 for polygon in segmentation):
        lengths = [len(polygon) for polygon in segmentation]
        raise ValueError(
            f'{where}: expected polygons of at least 3 points [x0, y0, x1, y1, x2, y2, ...], but got lengths {lengths}'
        )
    return mask_utils.decode(
        mask_utils.merge(mask_utils.frPyObjects(segmentation, height, width))
    ).astype(bool)
