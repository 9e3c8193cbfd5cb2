"""Loading of instance maps."""

import numpy as np
from mmcv.transforms import BaseTransform

from genseg_mm.datasets.instance_map_files import read_instance_map
from genseg_mm.datasets.segmentations import decode_segmentation
from genseg_mm.registry import TRANSFORMS


@TRANSFORMS.register_module()
class LoadInstanceMap(BaseTransform):
    """Map of instance ids, at the original size.

    Sources, in this order: gt_instance_map already in the results; instance_map_path, a PNG (palette indices,
    8- or 16-bit grey, or RGB-coded ids as r * 65536 + g * 256 + b); instances in mmdet's form (polygons or
    RLE, later ones on top).
    Added: gt_instance_map (H, W) int32, 0 = background, seg_fields. Palette files are read as indices, not
    colours, and ids above 255 are kept.
    """

    def transform(self, results: dict) -> dict:
        """Adds the instance map."""
        if 'gt_instance_map' in results:
            instance_map = np.asarray(results['gt_instance_map'])
        elif 'instance_map_path' in results:
            instance_map = read_instance_map(results['instance_map_path'])
        elif 'instances' in results:
            instance_map = self._from_instances(results)
        else:
            raise ValueError(
                "LoadInstanceMap needs 'gt_instance_map', 'instance_map_path' or 'instances' in the sample, "
                f'but got the keys {sorted(results)}'
            )
        expected = tuple(results.get('ori_shape', instance_map.shape))
        if instance_map.ndim != 2 or instance_map.shape != expected:
            source = results.get('instance_map_path', 'the sample')
            raise ValueError(
                f'instance map of {source}: expected the size of the image {results.get("img_path", "")} {expected}, '
                f'but got {instance_map.shape}'
            )
        results['gt_instance_map'] = instance_map.astype(np.int32)
        results.setdefault('seg_fields', [])
        if 'gt_instance_map' not in results['seg_fields']:
            results['seg_fields'].append('gt_instance_map')
        return results

    @staticmethod
    def _from_instances(results: dict) -> np.ndarray:
        height, width = results.get('ori_shape') or (results['height'], results['width'])
        instance_map = np.zeros((height, width), np.int32)
        kept = [own for own in results['instances'] if not own.get('ignore_flag', 0)]
        for number, instance in enumerate(kept, start=1):
            where = f'{results.get("img_path", "?")}, instance {number}'
            mask = decode_segmentation(instance['mask'], height, width, where)
            instance_map[mask] = number
        return instance_map
