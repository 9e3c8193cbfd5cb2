"""Resizing to what a network takes."""

from collections.abc import Sequence

import numpy as np
from mmcv.transforms import BaseTransform
from PIL import Image

from genseg_mm.registry import TRANSFORMS


@TRANSFORMS.register_module()
class NetworkResize(BaseTransform):
    """Resizes the picture, not its ground truth, to a network's own square or to the nearest multiples of its stride.

    Bilinear with antialiasing (PIL), as ``GenSegInferencer`` does where a config has no ``Resize``; a picture that has
    the size already is left alone. tools/benchmark.py puts it in for models without a ``Resize``.

    Required and modified keys: img, img_shape.

    Args:
        size: (height, width) for all pictures.
        multiples: Or (height, width) of which each side becomes the nearest multiple, at least one.

    Raises:
        ValueError: If not exactly one of both is given, or one is not positive.
    """

    def __init__(
        self, size: Sequence[int] | None = None, multiples: Sequence[int] | None = None
    ) -> None:
        given = [own for own in (size, multiples) if own is not None]
        if len(given) != 1 or len(given[0]) != 2 or min(given[0]) < 1:
            raise ValueError(
                'NetworkResize takes either size or multiples, (height, width) of at least 1, but got '
                f'size={size}, multiples={multiples}'
            )
        self.size = None if size is None else tuple(size)
        self.multiples = None if multiples is None else tuple(multiples)

    def transform(self, results: dict) -> dict:
        """Resizes."""
        shape = tuple(results['img'].shape[:2])
        size = self.size or tuple(
            max((2 * side + step) // (2 * step), 1) * step  # a half upwards
            for side, step in zip(shape, self.multiples, strict=True)
        )
        if size != shape:
            picture = Image.fromarray(results['img'])
            resized = picture.resize(size[::-1], Image.Resampling.BILINEAR)
            results.update(img=np.asarray(resized), img_shape=size)
        return results
