"""Resizing for training: pictures with antialiasing, index maps with PIL's nearest."""

import numpy as np
from mmcv.transforms import Resize
from PIL import Image

from genseg_mm.registry import TRANSFORMS

INTERPOLATIONS = ('bilinear', 'bicubic', 'box', 'lanczos')


@TRANSFORMS.register_module()
class AntialiasedResize(Resize):
    """mmcv's ``Resize`` by Pillow, which reduces pictures with antialiasing, for maps of any integer type.

    OpenCV's bilinear reads four pixels however much a picture shrinks, and its nearest takes the pixel half a step too
    far up and left. The public code of gen2seg resizes by Pillow, in which both are right.

    Modified keys: those of mmcv's ``Resize``; and all maps named in ``seg_fields`` ((H, W), bool or integers within
    int32: ``gt_seg_map``, ``gt_instance_map``), which keep their values and type. In test a pipeline loads them after
    this, so that they stay at the size of the picture.

    Args:
        scale: (width, height), as mmcv takes it.
        keep_ratio: The largest picture of its proportions within ``scale``.
        interpolation: Of the picture: 'bilinear', 'bicubic', 'box' or 'lanczos'.
        backend: 'pillow'; there for those who read configs.
        **kwargs: Of mmcv's ``Resize``.

    Raises:
        ValueError: If the backend or the interpolation is another one.
    """

    def __init__(
        self,
        scale: int | tuple[int, int] | None = None,
        keep_ratio: bool = False,
        interpolation: str = 'bilinear',
        backend: str = 'pillow',
        **kwargs: object,
    ) -> None:
        if backend != 'pillow' or interpolation not in INTERPOLATIONS:
            raise ValueError(
                f"AntialiasedResize works with backend 'pillow' and interpolation {', '.join(INTERPOLATIONS)}, but got "
                f'{backend!r} and {interpolation!r}'
            )
        super().__init__(
            scale=tuple(scale) if isinstance(scale, list) else scale,
            keep_ratio=keep_ratio,
            interpolation=interpolation,
            backend=backend,
            **kwargs,
        )

    def _resize_seg(self, results: dict) -> None:
        for key in dict.fromkeys(results.get('seg_fields') or ()):
            if results.get(key) is not None:
                results[key] = nearest(results[key], results['img_shape'][:2])


def nearest(values: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """A map (h, w) of bool or integers, at (height, width), each pixel as the nearest of the map (PIL's rule).

    Raises:
        ValueError: If it is no such map.
    """
    if values.ndim != 2 or values.dtype.kind not in 'biu':
        raise ValueError(f'a map to resize must be (H, W) of bool or integers, but got {values.shape} {values.dtype}')
    if values.dtype.itemsize == 1 or values.dtype == np.int32:
        plain = values.view(np.uint8) if values.dtype.itemsize == 1 else values
    else:
        limits = np.iinfo(np.int32)
        if values.size and not limits.min <= values.min() <= values.max() <= limits.max:
            raise ValueError(f'a map to resize must have ids within int32, but got {values.min()} to {values.max()}')
        plain = values.astype(np.int32)
    resized = np.array(Image.fromarray(plain).resize(size[::-1], Image.Resampling.NEAREST))
    return resized.view(values.dtype) if plain.dtype == np.uint8 else resized.astype(values.dtype)
