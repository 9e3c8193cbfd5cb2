"""Resizing to what a network takes."""

from collections.abc import Sequence

import numpy as np
import torch
from mmcv.transforms import BaseTransform
from PIL import Image
from torch.nn import functional as F

from genseg_mm.network_sizes import network_sizes
from genseg_mm.registry import TRANSFORMS

METHODS = dict(bilinear=Image.Resampling.BILINEAR, bicubic=Image.Resampling.BICUBIC)


@TRANSFORMS.register_module()
class NetworkResize(BaseTransform):
    """Resizes the picture, not its ground truth, to the size that a network works at; always with antialiasing.

    In a config ``dict(type='genseg_mm.NetworkResize')`` stands for the size that the model itself asks for
    (``network_resize()`` of the model): the tools, the inferencer and tools/benchmark.py fill it in
    (``genseg_mm.launch.network_size``). Settings that are given stay.

    Required keys: img. Modified: img, img_shape (height and width of the picture, without padding).

    Args:
        size: (height, width) of all pictures, whatever their proportions.
        longer_side: Or the longer side, up or down; the shorter one in proportion, cut to whole pixels. 0: the
            picture's own size.
        multiples: (height, width), or one number, of which the sides are multiples in the end.
        pad: How they become multiples: by repeating the last row and column to the right and bottom; or, if False,
            by rounding to the nearest, a half upwards, at least one.
        method: 'bilinear' or 'bicubic'.
        whole: Whether the result is uint8, as PIL makes it; else float32 in [0, 255] with its fractions, as PyTorch
            makes it (bilinear only).

    Raises:
        ValueError: If a setting is wrong or two contradict each other; or, with a picture, if none is given.
    """

    def __init__(
        self,
        size: Sequence[int] | None = None,
        longer_side: int | None = None,
        multiples: Sequence[int] | int | None = None,
        pad: bool = False,
        method: str = 'bilinear',
        whole: bool = True,
    ) -> None:
        multiples = (multiples, multiples) if isinstance(multiples, int) else multiples
        for own in (size, multiples):
            if own is not None and (len(own) != 2 or min(own) < 1):
                raise ValueError(
                    'NetworkResize takes size and multiples as (height, width) of at least 1, but got '
                    f'size={size}, multiples={multiples}'
                )
        if size is not None and (longer_side is not None or multiples is not None):
            raise ValueError(
                'NetworkResize takes either size, or longer_side and multiples, but got '
                f'size={size}, longer_side={longer_side}, multiples={multiples}'
            )
        if longer_side is not None and not (isinstance(longer_side, int) and longer_side >= 0):
            raise ValueError(f'longer_side must be a whole number of pixels, or 0, but got {longer_side!r}')
        if method not in METHODS or (not whole and method != 'bilinear'):
            raise ValueError(
                f"method must be one of {', '.join(METHODS)}, and 'bilinear' with whole=False, but got {method!r}"
            )
        self.size = None if size is None else tuple(size)
        self.longer_side = longer_side
        self.multiples = None if multiples is None else tuple(multiples)
        self.pad, self.method, self.whole = pad, method, whole

    def sizes(self, height: int, width: int) -> tuple[tuple[int, int], tuple[int, int]]:
        """Sizes (height, width) of the resized picture, and of the network's input, for a picture of this size.

        Raises:
            ValueError: If nothing says the size.
        """
        if self.size is None and self.longer_side is None and self.multiples is None:
            raise ValueError(
                'NetworkResize without settings means the size that the model asks for, which only the tools and '
                'the inferencer of genseg_mm know: expected size, longer_side or multiples, but got none'
            )
        return network_sizes(height, width, self.size, self.longer_side, self.multiples, self.pad)

    def transform(self, results: dict) -> dict:
        """Resizes."""
        picture = results['img']
        size, whole = self.sizes(*picture.shape[:2])
        if size != picture.shape[:2]:
            picture = self._resized(picture, size)
        if whole != size:
            padding = [(0, w - s) for s, w in zip(size, whole, strict=True)]
            picture = np.pad(picture, [*padding, (0, 0)], mode='edge')
        results.update(img=picture, img_shape=size)
        return results

    def _resized(self, picture: np.ndarray, size: tuple[int, int]) -> np.ndarray:
        if self.whole:
            return np.asarray(Image.fromarray(picture).resize(size[::-1], METHODS[self.method]))
        planes = torch.from_numpy(np.ascontiguousarray(picture.transpose(2, 0, 1)))[None]
        planes = F.interpolate(planes.float(), size, mode='bilinear', antialias=True)
        return planes[0].permute(1, 2, 0).numpy()

    def __repr__(self) -> str:
        settings = ', '.join(f'{key}={value!r}' for key, value in vars(self).items())
        return f'{type(self).__name__}({settings})'
