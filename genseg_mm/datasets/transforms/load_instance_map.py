"""Loading of instance maps."""

import numpy as np
from mmcv.transforms import BaseTransform
from pycocotools import mask as mask_utils

from genseg_mm.datasets.counted_warning import warn_counted
from genseg_mm.datasets.instances.instance_map_files import as_ids, check_index_png, read_instance_map
from genseg_mm.datasets.instances.zero_shot.label_rules import labels_to_instances
from genseg_mm.datasets.segmentations import encode_segmentation, without_short_parts
from genseg_mm.registry import TRANSFORMS

INVALID = ('error', 'skip')


@TRANSFORMS.register_module()
class LoadInstanceMap(BaseTransform):
    """Map of instance ids, at the original size.

    Sources, in this order: gt_instance_map already in the results; instance_map_path, a PNG (palette indices,
    8- or 16-bit grey, or RGB-coded ids as r * 65536 + g * 256 + b, unless ids_are_indices in the results refuses
    colours) or Hypersim's HDF5, whose values label_rule in the results makes instances of, where they are classes
    (see ``genseg_mm/datasets/instances/zero_shot/label_rules.py``); instances in mmdet's form
    (mask: polygons, or RLE with counts as a list, str or bytes; ignore_flag), as ``genseg_mm.CocoInstanceDataset``
    and ``mmdet.CocoDataset`` give them.

    Added: gt_instance_map (H, W) int32, 0 = background, seg_fields. Palette files are read as indices, not
    colours, and ids above 255 are kept. Of instances, the n-th that takes part has id n, and instance_counts says
    what became of them: ``annotated``, ``crowd``, ``invalid``, and ``hidden`` (none of their pixels is in the map:
    others lie over them, or they cover no pixel centre). Regions of many (iscrowd, ignore_flag) are background: they
    hold several objects. Of two overlapping instances the one of fewer pixels (of equals the later) gets the pixel, so
    that the cup on the table stays: polygons of COCO have no depth, and those of large objects often run over what
    stands before them. Where they have ``ann_id`` and ``area``, map_ann_ids (M,)
    int64 and map_areas (M,) float64 hold those of id n at n - 1.

    Put it before Resize in training, after it in test. Resize with
    ``genseg_mm.AntialiasedResize``: mmcv's own passes gt_instance_map by, and mmseg's is half a pixel off.

    Args:
        invalid: What a segmentation of instances that cannot be decoded (missing, too few points, wrong size, damaged)
            means: an ``'error'``, or ``'skip'``: left out, counted and announced. Parts of one or two points have no
            area; 'skip' leaves them out of polygons, too.

    Raises:
        ValueError: If a setting is unknown, the source is missing, damaged or of another size than the image.
        FileNotFoundError: If instance_map_path does not exist.
    """

    def __init__(self, invalid: str = 'error') -> None:
        if invalid not in INVALID:
            raise ValueError(f'invalid must be one of {INVALID}, but got {invalid!r}')
        self.invalid, self.num_invalid = invalid, 0

    def transform(self, results: dict) -> dict:
        """Adds the instance map."""
        if 'gt_instance_map' in results:
            instance_map = np.asarray(results['gt_instance_map'])
        elif 'instance_map_path' in results:
            if results.get('ids_are_indices', False):
                check_index_png(results['instance_map_path'])
            instance_map = read_instance_map(results['instance_map_path'])
            if 'label_rule' in results:
                where = results['instance_map_path']
                instance_map = labels_to_instances(instance_map, **results['label_rule'], where=where)
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
        where = results.get('instance_map_path') or f'gt_instance_map of {results.get("img_path", "?")}'
        results['gt_instance_map'] = as_ids(instance_map, where)
        results.setdefault('seg_fields', [])
        if 'gt_instance_map' not in results['seg_fields']:
            results['seg_fields'].append('gt_instance_map')
        return results

    def _from_instances(self, results: dict) -> np.ndarray:
        height, width = results.get('ori_shape') or (results['height'], results['width'])
        masks, num_invalid = [], 0  # (id, RLE)
        taking_part = []
        for place, instance in enumerate(results['instances']):
            if instance.get('ignore_flag', 0):
                continue
            taking_part.append(instance)
            where = f'{results.get("img_path", "?")}, {_name(instance, place)}'
            rle, num_bad = self._encode(instance, height, width, where)
            num_invalid += num_bad
            if rle is not None:
                masks.append((len(taking_part), rle))
        masks.sort(key=lambda own: -int(mask_utils.area(own[1])))  # stable
        instance_map = np.zeros((height, width), np.int32)
        for number, rle in masks:
            # Only inside of its box: to compare and write whole pictures takes longer than to decode.
            x, y, box_width, box_height = mask_utils.toBbox(rle).astype(int)
            box = slice(y, y + box_height), slice(x, x + box_width)
            instance_map[box][mask_utils.decode(rle)[box] > 0] = number
        for name, key, dtype in (('map_ann_ids', 'ann_id', np.int64), ('map_areas', 'area', np.float64)):
            if all(key in instance for instance in taking_part):
                results[name] = np.array([instance[key] for instance in taking_part], dtype)
        results['instance_counts'] = dict(
            annotated=len(results['instances']),
            crowd=len(results['instances']) - len(taking_part),
            invalid=num_invalid,
            hidden=len(masks) - np.count_nonzero(np.bincount(instance_map.reshape(-1))[1:]),
        )
        return instance_map

    def _encode(self, instance: dict, height: int, width: int, where: str) -> tuple[dict | None, int]:
        """RLE of an instance (None: left out), and 1 if there was something wrong with it."""
        segmentation, num_short = instance.get('mask', []), 0
        if self.invalid == 'skip':
            segmentation, num_short = without_short_parts(segmentation)
        try:
            rle = encode_segmentation(segmentation, height, width, where)
        except ValueError as error:
            if self.invalid == 'error':
                raise ValueError(f"{error}; invalid='skip' leaves such instances out") from error
            self._announce(f'left out: {error}')
            return None, 1
        if num_short:
            self._announce(f'{where}: left out {num_short} polygons of fewer than 3 points')
        return rle, int(num_short > 0)

    def _announce(self, what: str) -> None:
        self.num_invalid += 1
        warn_counted(f'LoadInstanceMap: {what}', self.num_invalid, 'invalid')

    def __repr__(self) -> str:
        return f'{type(self).__name__}(invalid={self.invalid!r})'


def _name(instance: dict, place: int) -> str:
    if 'ann_id' in instance:
        return f'annotation {instance["ann_id"]}'
    return f'instance {place + 1}'
