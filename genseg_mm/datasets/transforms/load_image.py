"""Loading of pictures, with errors that name the file."""

import numpy as np
from mmcv.transforms import LoadImageFromFile
from mmengine import fileio

from genseg_mm.image_files import decode_picture
from genseg_mm.image_headers import check_file
from genseg_mm.registry import TRANSFORMS


@TRANSFORMS.register_module()
class LoadImage(LoadImageFromFile):
    """Loads ``results['img_path']``, but refuses damaged, wrongly sized and far too large pictures.

    Any picture is decoded by :func:`genseg_mm.image_files.decode_picture`, which says what is taken and how.

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
        hint = 'the file or the annotation belongs to another data set'
        if img.shape[1::-1] == expected:
            hint = 'height and width are exchanged, and the file has no EXIF orientation that says so'
        raise ValueError(
            f'image {results["img_path"]}: expected height x width {expected[0]}x{expected[1]} as '
            f'annotated, but got {img.shape[0]}x{img.shape[1]} ({hint})'
        )
