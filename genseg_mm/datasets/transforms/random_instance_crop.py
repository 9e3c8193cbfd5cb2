"""Random crops that show an instance."""

from collections.abc import Sequence

import cv2
import numpy as np
from mmcv.transforms import BaseTransform
from mmcv.transforms.utils import cache_randomness

from genseg_mm.datasets.counted_warning import warn_counted
from genseg_mm.registry import TRANSFORMS


@TRANSFORMS.register_module()
class RandomInstanceCrop(BaseTransform):
    """Crops at random, but never to background alone where that can be helped.

    The reference draws a crop anew while its instance map is all background, up to 1000 times. The result of that is
    uniform over the crops that show an instance, and is drawn here at once: an integral image tells which ones do.
    A map that has no instance gets any crop, as the reference does after its 1000 tries; such samples are counted in
    ``num_empty`` of each process and announced when that is 1, 10, 100, ...; ``empty`` of the data set may refuse them.

    Draws from numpy's global generator, as the transforms of MMCV do; ``SeededAccess`` sets it for each sample.

    Required keys: img, gt_instance_map. Modified: img, img_shape and the maps in seg_fields. Points are not moved:
    draw them afterwards.

    Args:
        crop_size: (height, width).

    Raises:
        ValueError: If the image is smaller than the crop, or if there are points already.
    """

    def __init__(self, crop_size: Sequence[int]) -> None:
        if len(crop_size) != 2 or not all(isinstance(n, int) and n > 0 for n in crop_size):
            raise ValueError(f'crop_size must be (height, width) in pixels, but got {crop_size!r}')
        self.crop_size = tuple(crop_size)
        self.num_empty = 0

    @cache_randomness
    def _draw(self, count: int) -> int:
        return int(np.random.randint(count))

    def transform(self, results: dict) -> dict:
        """Crops one sample."""
        if 'gt_instance_map' not in results:
            raise ValueError('RandomInstanceCrop needs gt_instance_map: put LoadInstanceMap before it')
        if 'points' in results:
            raise ValueError('RandomInstanceCrop does not move points: put PointPrompt after it')
        image, instance_map = results['img'], results['gt_instance_map']
        height, width = self.crop_size
        if image.shape[:2] != instance_map.shape:
            raise ValueError(
                f'{_source(results)}: expected an instance map of the size of the image {image.shape[:2]}, but got '
                f'{instance_map.shape}'
            )
        if image.shape[0] < height or image.shape[1] < width:
            raise ValueError(
                f'{_source(results)}: expected an image of at least the crop_size {self.crop_size} (height, width), '
                f'but got {image.shape[:2]}: choose a smaller crop, or put a Resize before it'
            )
        num_pixels = instance_pixels(instance_map, self.crop_size)
        allowed = np.flatnonzero(num_pixels)
        if len(allowed):
            corner = allowed[self._draw(len(allowed))]
        else:
            self.num_empty += 1
            warn_counted(
                f'RandomInstanceCrop: there is no instance in {_source(results)}; it is cropped anywhere',
                self.num_empty,
            )
            corner = self._draw(num_pixels.size)
        top, left = np.unravel_index(corner, num_pixels.shape)
        window = slice(top, top + height), slice(left, left + width)
        for key in {'img', 'gt_instance_map', *results.get('seg_fields', ())} & results.keys():
            results[key] = np.ascontiguousarray(results[key][window])
        results['img_shape'] = self.crop_size
        return results

    def __repr__(self) -> str:
        return f'{type(self).__name__}(crop_size={self.crop_size})'


def instance_pixels(instance_map: np.ndarray, crop_size: Sequence[int]) -> np.ndarray:
    """Pixels of instances that each crop shows.

    Args:
        instance_map: Ids, (H, W), 0 = background.
        crop_size: (height, width).

    Returns:
        (H - height + 1, W - width + 1) int32; entry [top, left] belongs to the crop with that corner.
    """
    height, width = crop_size
    sums = cv2.integral((instance_map > 0).astype(np.uint8))  # (H + 1, W + 1)
    return sums[height:, width:] - sums[:-height, width:] - sums[height:, :-width] + sums[:-height, :-width]


def _source(results: dict) -> str:
    return results.get('instance_map_path') or results.get('img_path') or 'the sample'
