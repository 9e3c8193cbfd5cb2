"""Augmentation of scenes without words."""

import numpy as np
from mmcv.transforms import BaseTransform
from mmcv.transforms.utils import cache_randomness

from genseg_mm.registry import TRANSFORMS


@TRANSFORMS.register_module()
class RandomScenePermute(BaseTransform):
    """Transposes a scene and permutes its colour channels at random, for the instance task.

    Draws from numpy's global generator, as the transforms of MMCV do; ``SeededAccess`` sets it for
    each sample.

    Required key: img. Modified: img, the maps in seg_fields, gt_instance_map, gt_seg_map and points
    where present.

    Args:
        transpose_prob: Probability of swapping height and width.
        channel_prob: Probability of a random order of the colour channels (which may be the old
            one).

    Raises:
        ValueError: For samples with a text, whose words would no longer be true; and for a
            transposition of an image that is not square, because the samples of a batch must have
            one size.
    """

    def __init__(self, transpose_prob: float = 0.5, channel_prob: float = 1.0) -> None:
        for name, prob in (('transpose_prob', transpose_prob), ('channel_prob', channel_prob)):
            if not 0 <= prob <= 1:
                raise ValueError(f'RandomScenePermute: {name} must be in [0, 1], but got {prob!r}')
        self.transpose_prob, self.channel_prob = transpose_prob, channel_prob

    @cache_randomness
    def _draw(self) -> tuple[bool, np.ndarray]:
        transpose = np.random.rand() < self.transpose_prob
        permute = np.random.rand() < self.channel_prob
        return transpose, np.random.permutation(3) if permute else np.arange(3)

    def transform(self, results: dict) -> dict:
        """Permutes the axes of one sample."""
        if 'text' in results:
            raise ValueError(
                'RandomScenePermute changes places and colours, so it needs a sample without text, '
                f'but got {results["text"]!r}: use it with task="instance"'
            )
        image = results['img']
        if self.transpose_prob and image.shape[0] != image.shape[1]:
            raise ValueError(
                'RandomScenePermute: a transposition needs a square image, '
                f'but got {image.shape[:2]}: set transpose_prob=0'
            )
        transpose, order = self._draw()
        image = image[..., order]
        if transpose:
            image = image.swapaxes(0, 1)
            maps = {'gt_seg_map', 'gt_instance_map', *results.get('seg_fields', ())}
            for key in maps & results.keys():
                results[key] = np.ascontiguousarray(results[key].T)
            if 'points' in results:
                results['points'] = np.ascontiguousarray(results['points'][..., ::-1])
        results['img'] = np.ascontiguousarray(image)
        return results

    def __repr__(self) -> str:
        return f'{type(self).__name__}(transpose_prob={self.transpose_prob}, channel_prob={self.channel_prob})'
