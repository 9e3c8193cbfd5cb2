"""The mask of what an expression or a question means."""

import numpy as np
from mmcv.transforms import BaseTransform

from genseg_mm.datasets.instances.instance_map_files import read_instance_map
from genseg_mm.datasets.referring.reason_seg_files import draw_shapes
from genseg_mm.datasets.segmentations import decode_segmentation
from genseg_mm.datasets.transforms.mask_values import CHECKED, check_mask_values, mask_file
from genseg_mm.registry import TRANSFORMS


@TRANSFORMS.register_module()
class LoadReferringMask(BaseTransform):
    """Mask of the referred objects, at the original size.

    Required keys: segmentations (one COCO polygon list or RLE per object), height, width; or shapes and ignore_label
    (ReasonSeg) and ori_shape, the size of the decoded picture; or gt_seg_map already there; or seg_map_path, a PNG of
    one channel with 0, 1 and 255 = ignored (as mmseg's data sets give it).
    Added: gt_seg_map (H, W) uint8, 1 on the objects (OR of all parts: summed parts would make overlaps 2), 255 where
    ReasonSeg's regions are to be ignored; seg_fields.

    In training it stands before Resize, which then resizes the mask too; in test after it: the mask stays as it is.

    Args:
        white: The value that means 'on the objects' in gt_seg_map or seg_map_path. An ordinary black-and-white picture
            of a mask holds 0 and 255: ``white=255`` reads it, and then nothing is ignored.

    Raises:
        ValueError: If a mask that was given holds other values than 0, ``white`` and 255, or 255 and no 1: it could be
            black and white, or ignored nearly everywhere. It names the file and both ways out.
        FileNotFoundError: If seg_map_path does not exist.
    """

    def __init__(self, white: int = 1) -> None:
        if isinstance(white, bool) or not isinstance(white, int) or not 1 <= white <= 255:
            raise ValueError(f'white must be a value from 1 to 255, but got {white!r}')
        self.white = white

    def transform(self, results: dict) -> dict:
        """Adds the mask."""
        results.setdefault('seg_fields', [])
        if 'gt_seg_map' in results:
            results['gt_seg_map'] = self._read(np.asarray(results['gt_seg_map']), results)
        elif 'shapes' in results:
            results['gt_seg_map'] = _draw_reasoning_mask(results)
        elif 'segmentations' not in results and 'seg_map_path' in results:
            mask = read_instance_map(results['seg_map_path'])
            results['gt_seg_map'] = self._read(mask, results)
        else:
            results['gt_seg_map'] = _draw_referring_mask(results)
        results[CHECKED] = True  # what comes later, crops among it, changes what a mask holds
        if 'gt_seg_map' not in results['seg_fields']:
            results['seg_fields'].append('gt_seg_map')
        return results

    def _read(self, mask: np.ndarray, results: dict) -> np.ndarray:
        """A mask that was given, in {0, 1, 255 = ignored}."""
        where = mask_file(results)
        if self.white != 1:
            wrong = mask[(mask != 0) & (mask != self.white)]
            if wrong.size:
                raise ValueError(f'{where}: expected 0 and white={self.white}, but got {wrong[0]} as well')
            return (mask == self.white).astype(np.uint8)
        if not results.get(CHECKED):
            check_mask_values(mask, where)
        return mask.astype(np.uint8)

    def __repr__(self) -> str:
        return f'{type(self).__name__}(white={self.white})'


def _draw_referring_mask(results: dict) -> np.ndarray:
    height, width = results['height'], results['width']
    mask = np.zeros((height, width), bool)
    where = f'{results.get("img_path", "?")}, annotations {results.get("ann_ids", "?")}'
    for segmentation in results['segmentations']:
        mask |= decode_segmentation(segmentation, height, width, where)
    return mask.astype(np.uint8)


def _draw_reasoning_mask(results: dict) -> np.ndarray:
    if 'ori_shape' not in results:
        raise ValueError(
            f'{results.get("img_path", "?")}: LoadReferringMask draws at the size of the decoded picture, but got no '
            'ori_shape: put LoadImage before it'
        )
    height, width = results['ori_shape'][:2]
    ignored = results['ignore_label']
    return draw_shapes(results['shapes'], height, width, ignored, results.get('img_path', '?'))
