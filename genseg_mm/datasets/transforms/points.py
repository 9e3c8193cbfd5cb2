"""Point prompts."""

import numpy as np
from mmcv.transforms import BaseTransform

from genseg_mm.point_choices import as_points, deepest_pixel, instance_pixels, picture_name, random_pixels
from genseg_mm.registry import TRANSFORMS


@TRANSFORMS.register_module()
class PointPrompt(BaseTransform):
    """Draws point prompts inside each instance.

    Required key: gt_instance_map. Added: points (K, P, 2) float32 as (x, y) in pixels of the map, which must
    be at the original size (load it after Resize in test); point_labels (K, P), all 1; point_ids (K,), the
    instance of each prompt; point_keys (K,) int64, its own id: that of its annotation where LoadInstanceMap gave
    ``map_ann_ids``, else that in the map; and, given ``map_areas``, point_areas (K,) float64, the areas of the
    annotations.

    Args:
        num_points: Points P per instance.
        mode: 'random' pixel of the instance (drawn with replacement), or its 'deepest' pixel (largest
            distance to the edge).
        seed: Seeds the draw together with the picture's name and the instance's own id, so that every run gets
            the same points, whatever other instances or pictures are loaded; see
            :func:`genseg_mm.point_choices.random_pixels`.
        min_area: Instances of fewer pixels get no prompt.
    """

    def __init__(self, num_points: int = 1, mode: str = 'random', seed: int = 0, min_area: int = 1) -> None:
        if mode not in ('random', 'deepest'):
            raise ValueError(f"mode must be 'random' or 'deepest', but got {mode!r}")
        if num_points < 1 or (mode == 'deepest' and num_points != 1):
            raise ValueError(f"num_points must be at least 1, and 1 for mode='deepest', but got {num_points}")
        self.num_points, self.mode, self.seed, self.min_area = num_points, mode, seed, min_area

    def transform(self, results: dict) -> dict:
        """Adds the prompts."""
        if 'gt_instance_map' not in results:
            raise ValueError('PointPrompt needs gt_instance_map: put LoadInstanceMap before it')
        instance_map = results['gt_instance_map']
        ids = _ids_of(instance_map, max(self.min_area, 1))
        keys = _own_ids(results, ids)
        width, picture = instance_map.shape[1], picture_name(results)
        places = np.zeros((len(ids), self.num_points), np.int64)
        for row, (pixels, key) in enumerate(zip(instance_pixels(instance_map, ids), keys, strict=True)):
            if self.mode == 'deepest':
                places[row] = deepest_pixel(pixels, width)
            else:
                places[row] = random_pixels(pixels, self.num_points, self.seed, picture, key)
        results['points'] = as_points(places, width)
        results['point_labels'] = np.ones(places.shape, np.int64)
        results['point_ids'] = ids
        results['point_keys'] = keys
        if 'map_areas' in results:
            results['point_areas'] = np.asarray(results['map_areas'], np.float64)[ids - 1]
        return results


def _ids_of(instance_map: np.ndarray, min_area: int) -> np.ndarray:
    """Ids above 0 with at least so many pixels, ascending, int64."""
    if instance_map.size and instance_map.min() >= 0 and instance_map.max() <= instance_map.size:
        counts = np.bincount(instance_map.reshape(-1))  # far faster than to sort all pixels
        counts[0] = 0
        return np.flatnonzero(counts >= min_area)
    ids, counts = np.unique(instance_map[instance_map > 0], return_counts=True)
    return ids[counts >= min_area].astype(np.int64)


def _own_ids(results: dict, ids: np.ndarray) -> np.ndarray:
    given = results.get('map_ann_ids')
    if given is None:
        return ids
    if len(ids) and ids[-1] > len(given):
        raise ValueError(
            f'{results.get("img_path", "sample")}: map_ann_ids must name the annotation of every id in the map, but '
            f'got {len(given)} for the id {ids[-1]}'
        )
    return np.asarray(given, np.int64)[ids - 1]
