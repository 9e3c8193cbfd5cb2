"""Point prompts."""

import cv2
import numpy as np
from mmcv.transforms import BaseTransform

from genseg_mm.registry import TRANSFORMS


@TRANSFORMS.register_module()
class PointPrompt(BaseTransform):
    """Draws point prompts inside each instance.

    Required key: gt_instance_map. Added: points (K, P, 2) float32 as (x, y) in pixels of the map, which must
    be at the original size (load it after Resize in test); point_labels (K, P), all 1; point_ids (K,), the
    instance of each prompt.

    Args:
        num_points: Points P per instance.
        mode: 'random' pixel of the instance (drawn with replacement), or its 'deepest' pixel (largest
            distance to the edge).
        seed: Seeds the draw together with the sample's index and the instance's id, so that every run gets
            the same points.
        min_area: Instances of fewer pixels get no prompt.
        overwrite: Draws again where the dataset already gave points.
    """

    def __init__(
        self,
        num_points: int = 1,
        mode: str = 'random',
        seed: int = 0,
        min_area: int = 1,
        overwrite: bool = True,
    ) -> None:
        if mode not in ('random', 'deepest'):
            raise ValueError(f"mode must be 'random' or 'deepest', but got {mode!r}")
        if num_points < 1 or (mode == 'deepest' and num_points != 1):
            raise ValueError(
                f"num_points must be at least 1, and 1 for mode='deepest', but got {num_points}"
            )
        self.num_points, self.mode, self.seed = num_points, mode, seed
        self.min_area, self.overwrite = min_area, overwrite

    def transform(self, results: dict) -> dict:
        """Adds the prompts."""
        if 'points' in results and not self.overwrite:
            return results
        if 'gt_instance_map' not in results:
            raise ValueError('PointPrompt needs gt_instance_map: put LoadInstanceMap before it')
        instance_map = results['gt_instance_map']
        ids, counts = np.unique(instance_map[instance_map > 0], return_counts=True)
        ids = ids[counts >= self.min_area]
        sample = int(results.get('sample_idx', 0))
        points = [self._draw(instance_map == own, [self.seed, sample, int(own)]) for own in ids]
        shape = (len(ids), self.num_points, 2)
        results['points'] = np.asarray(points, np.float32).reshape(shape)
        results['point_labels'] = np.ones(shape[:2], np.int64)
        results['point_ids'] = ids.astype(np.int64)
        return results

    def _draw(self, mask: np.ndarray, key: list[int]) -> np.ndarray:
        if self.mode == 'deepest':
            padded = np.pad(mask, 1).astype(np.uint8)
            depth = cv2.distanceTransform(padded, cv2.DIST_L2, cv2.DIST_MASK_PRECISE)[1:-1, 1:-1]
            y, x = np.unravel_index(depth.argmax(), depth.shape)
            return np.array([[x, y]])
        flat = np.flatnonzero(mask)
        chosen = np.random.default_rng(key).integers(len(flat), size=self.num_points)
        y, x = np.divmod(flat[chosen], mask.shape[1])
        return np.stack([x, y], 1)
