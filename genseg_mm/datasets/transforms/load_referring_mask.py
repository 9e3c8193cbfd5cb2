"""The mask of what an expression or a question means."""

import numpy as np
from mmcv.transforms import BaseTransform

from genseg_mm.datasets.referring.reason_seg_files import draw_shapes
from genseg_mm.datasets.segmentations import decode_segmentation
from genseg_mm.registry import TRANSFORMS


@TRANSFORMS.register_module()
class LoadReferringMask(BaseTransform):
    """Mask of the referred objects, at the original size.

    Required keys: segmentations (one COCO polygon list or RLE per object), height, width; or shapes and ignore_label
    (ReasonSeg) and ori_shape, the size of the decoded picture; or gt_seg_map already there.
    Added: gt_seg_map (H, W) uint8, 1 on the objects (OR of all parts: summed parts would make overlaps 2), 255 where
    ReasonSeg's regions are to be ignored; seg_fields.

    In training it stands before Resize, which then resizes the mask too; in test after it: the mask stays as it is.
    """

    def transform(self, results: dict) -> dict:
        """Adds the mask."""
        results.setdefault('seg_fields', [])
        if 'gt_seg_map' not in results:
            draw = _draw_reasoning_mask if 'shapes' in results else _draw_referring_mask
            results['gt_seg_map'] = draw(results)
        if 'gt_seg_map' not in results['seg_fields']:
            results['seg_fields'].append('gt_seg_map')
        return results


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
