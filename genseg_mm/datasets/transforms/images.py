"""Pictures: loading with errors that name the file, resizing, packing for models and metrics."""

from collections.abc import Sequence
from functools import lru_cache

import mmcv
import numpy as np
import torch
from mmcv.transforms import BaseTransform, LoadImageFromFile, Resize
from mmengine import fileio
from PIL import Image
from torch.nn import functional as F

from genseg_mm.datasets.transforms.referring import CHECKED, check_mask_values, mask_file
from genseg_mm.files.image_headers import check_file
from genseg_mm.files.images import decode_picture
from genseg_mm.network_sizes import network_sizes
from genseg_mm.registry import TRANSFORMS

INTERPOLATIONS = ('bilinear', 'bicubic', 'box', 'lanczos')
METHODS = dict(bilinear=Image.Resampling.BILINEAR, bicubic=Image.Resampling.BICUBIC)


@TRANSFORMS.register_module()
class LoadImage(LoadImageFromFile):
    """Loads ``results['img_path']``, but refuses damaged, wrongly sized and far too large pictures.

    Any picture is decoded by :func:`genseg_mm.files.images.decode_picture`, which says what is taken and how.

    With ``color_type='color'`` the picture is turned as its EXIF orientation says, in every format. If the annotation
    gave ``height`` and ``width``, they decide: a picture that has this size as it is stored, and not when it is turned,
    is left as it is stored, since its masks lie there; one that has it either way (orientations that keep the size,
    squares) is turned; and one that has it neither way is a ``ValueError``.

    Adds ``img`` (H, W, 3) BGR uint8, ``img_shape`` and ``ori_shape`` (H, W).

    Args:
        to_float32: Return float32 values in [0, 255] instead of uint8.
        color_type: Flag of ``mmcv.imfrombytes``; ``'color_ignore_orientation'`` leaves EXIF aside, whatever is
            annotated.
        imdecode_backend: Backend of ``mmcv.imfrombytes``.
        backend_args: Arguments of the file backend of MMEngine.
    """

    def __init__(
        self,
        to_float32: bool = False,
        color_type: str = 'color',
        imdecode_backend: str = 'cv2',
        backend_args: dict | None = None,
    ) -> None:
        super().__init__(
            to_float32=to_float32, color_type=color_type, imdecode_backend=imdecode_backend, backend_args=backend_args
        )

    def transform(self, results: dict) -> dict:
        """See the class.

        Raises:
            FileNotFoundError: If the file does not exist.
            ValueError: If the file is damaged or its size is not that of the annotation.
        """
        path = results['img_path']
        name = f'image {path}'
        if self.backend_args is None and '://' not in str(path):
            check_file(path, name)
        data = fileio.get(path, backend_args=self.backend_args)
        img = decode_picture(
            data, name, self.color_type, self.imdecode_backend, annotated=(results.get('height'), results.get('width'))
        )
        self._check_size(img, results)
        results['img'] = img.astype(np.float32) if self.to_float32 else img
        results['img_shape'] = results['ori_shape'] = img.shape[:2]
        return results

    def _check_size(self, img: np.ndarray, results: dict) -> None:
        expected = results.get('height'), results.get('width')
        if None in expected or img.shape[:2] == expected:
            return
        hint = 'the file or the annotation belongs to another dataset'
        if img.shape[1::-1] == expected:
            hint = 'height and width are exchanged, and the file has no EXIF orientation that says so'
        raise ValueError(
            f'image {results["img_path"]}: expected height x width {expected[0]}x{expected[1]} as '
            f'annotated, but got {img.shape[0]}x{img.shape[1]} ({hint})'
        )


@TRANSFORMS.register_module()
class AntialiasedResize(Resize):
    """mmcv's ``Resize`` with antialiasing, as Pillow reduces pictures, for maps of any integer type.

    OpenCV's bilinear reads four pixels however much a picture shrinks, and its nearest takes the pixel half a step too
    far up and left. The public code of gen2seg resizes by Pillow, in which both are right.

    Modified keys: those of mmcv's ``Resize``; and all maps named in ``seg_fields`` ((H, W), bool or integers:
    ``gt_seg_map``, ``gt_instance_map``), which keep their values and type. In test a pipeline loads them after this, so
    that they stay at the size of the picture.

    Args:
        scale: (width, height), as mmcv takes it.
        keep_ratio: The largest picture of its proportions within ``scale``.
        interpolation: Of the picture: 'bilinear', 'bicubic', 'box' or 'lanczos'.
        backend: 'pillow'; or 'torch', for trainings: 'bilinear' and 'bicubic' with weights of 16 bits, in a quarter of
            the time where pictures shrink much. By 'bilinear' one of 1,200 values of a photograph differs from
            768x1024 to 224x224, by one grey level; one of 180 to 480x640, by two at most. Maps are the same.
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
        known = dict(pillow=INTERPOLATIONS, torch=INTERPOLATIONS[:2])
        if interpolation not in known.get(backend, ()):
            raise ValueError(
                f"AntialiasedResize works with backend 'pillow' and interpolation {', '.join(INTERPOLATIONS)}, or with "
                f"'torch' and {', '.join(known['torch'])}, but got {backend!r} and {interpolation!r}"
            )
        super().__init__(
            scale=tuple(scale) if isinstance(scale, list) else scale,
            keep_ratio=keep_ratio,
            interpolation=interpolation,
            backend=backend,
            **kwargs,
        )

    def _resize_img(self, results: dict) -> None:
        if self.backend == 'pillow' or results.get('img') is None:
            super()._resize_img(results)
            return
        picture = np.require(results['img'], requirements=['C', 'W'])
        if min(picture.strides) < 0:  # of a side of one pixel it may still be; of a tensor none is
            picture = picture.copy()
        height, width = picture.shape[:2]
        size = mmcv.rescale_size((width, height), results['scale']) if self.keep_ratio else results['scale']
        planes = torch.from_numpy(picture).view(height, width, -1).permute(2, 0, 1)[None]  # grey ones are (H, W)
        planes = F.interpolate(planes, size[::-1], mode=self.interpolation, antialias=True)
        pixels = planes[0].permute(1, 2, 0).reshape(*size[::-1], *picture.shape[2:]).numpy()
        results.update(
            img=np.ascontiguousarray(pixels), img_shape=size[::-1],
            scale_factor=(size[0] / width, size[1] / height), keep_ratio=self.keep_ratio,
        )  # fmt: skip

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
    rows, columns = (_nearest_places(*own) for own in zip(values.shape, size, strict=True))
    return values.take(rows, 0).take(columns, 1)


@lru_cache(256)
def _nearest_places(length: int, wanted: int) -> np.ndarray:
    """Which of ``length`` pixels PIL takes for each of ``wanted``: it is asked, since its ties hang on its rounding."""
    places = Image.fromarray(np.arange(length, dtype=np.int32)[None])
    return np.asarray(places.resize((wanted, 1), Image.Resampling.NEAREST))[0]


@TRANSFORMS.register_module()
class NetworkResize(BaseTransform):
    """Resizes the picture, not its ground truth, to the size that a network works at; always with antialiasing.

    In a config ``dict(type='genseg_mm.NetworkResize')`` stands for the size that the model itself asks for
    (``network_resize()`` of the model): the tools, the inferencer and tools/benchmark.py fill it in
    (``genseg_mm.dataset_configs``). Settings that are given stay.

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


@TRANSFORMS.register_module()
class PackGenSegInputs(BaseTransform):
    """Packs a sample for the models and metrics (see ``models/data_preprocessor.py`` for the contract).

    Required key: img, unless there are cached image_latents. Packed: ``inputs`` uint8 (3, H, W), (3, 0, 0) without
    img; ``data_samples`` an mmseg SegDataSample with ``gt_sem_seg``, ``gt_instance_map``,
    ``gt_boundaries`` (N, H, W) and what :class:`CachedEncodings` adds where present.

    Args:
        meta_keys: Keys copied to the data sample's metainfo where present.
    """

    META_KEYS = (
        'img_path',
        'img_id',
        'ori_shape',
        'img_shape',
        'flip',
        'text',
        'expression',
        'question',
        'task',
        'kind',
        'length',
        'subset',
        'sample_idx',
        'ref_id',
        'sent_id',
        'ann_ids',
        'points',
        'point_labels',
        'point_ids',
        'point_keys',
        'point_areas',
        'boxes',
        'ignore_background',
        'instances',
    )

    CACHED_KEYS = (
        'image_latents',
        'mask_latents',
        'prompt_states',
        'prompt_mask',
        'prompt_pooled',
        'empty_prompt_states',
        'empty_prompt_mask',
        'empty_prompt_pooled',
    )

    def __init__(self, meta_keys: Sequence[str] = META_KEYS) -> None:
        self.meta_keys = tuple(meta_keys)

    def transform(self, results: dict) -> dict:
        """Packs the sample."""
        from mmengine.structures import PixelData
        from mmseg.structures import SegDataSample

        is_referring = 'text' in results and results.get('task', 'mask') == 'mask'
        if is_referring and 'gt_seg_map' in results and not results.get(CHECKED):
            check_mask_values(np.asarray(results['gt_seg_map']), mask_file(results))
        sample = SegDataSample()
        for source, name, dtype in (
            ('gt_seg_map', 'gt_sem_seg', torch.uint8),
            ('gt_instance_map', 'gt_instance_map', torch.int64),
            ('gt_boundaries', 'gt_boundaries', torch.uint8),
        ):
            if source in results:
                data = torch.from_numpy(np.ascontiguousarray(results[source])).to(dtype)
                data = data if data.ndim == 3 else data[None]
                sample.set_data({name: PixelData(data=data)})
        sample.set_data({key: results[key] for key in self.CACHED_KEYS if key in results})
        meta_keys = (*self.meta_keys, 'encoder_fingerprints', 'cached_text', CHECKED)
        sample.set_metainfo({key: results[key] for key in meta_keys if key in results})
        return dict(inputs=_pixels(results), data_samples=sample)


def _pixels(results: dict) -> torch.Tensor:
    if 'img' in results:
        return torch.from_numpy(np.ascontiguousarray(results['img'].transpose(2, 0, 1)))
    if 'image_latents' in results:
        return torch.zeros(3, 0, 0, dtype=torch.uint8)
    raise ValueError(
        f'the sample of {results.get("img_path", "?")!r} has neither img nor cached image_latents: put LoadImage or '
        'CachedEncodings before PackGenSegInputs'
    )
