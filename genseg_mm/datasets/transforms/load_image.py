"""Loading of pictures, with errors that name the file."""

import mmcv
import numpy as np
from mmcv.transforms import LoadImageFromFile
from mmengine import fileio

from genseg_mm.registry import TRANSFORMS

_JPEG_START, _JPEG_END, _JPEG_SCAN = b'\xff\xd8', b'\xff\xd9', 0xDA
_PNG_START, _PNG_END = b'\x89PNG\r\n\x1a\n', b'IEND'


@TRANSFORMS.register_module()
class LoadImage(LoadImageFromFile):
    """Loads ``results['img_path']`` as mmcv does, but refuses damaged and wrongly sized pictures.

    mmcv's own transform fails on an undecodable file with an assertion, and a JPEG that was cut
    short passes as a picture with a grey lower part. Both are a ``ValueError`` here that names the
    file. If the annotation gave ``height`` and ``width``, the decoded picture must have that size,
    or its masks would lie elsewhere.

    With ``color_type='color'`` OpenCV turns the picture as its EXIF orientation says (PIL does
    not); the sizes are compared after that.

    Adds ``img`` (H, W, 3) BGR uint8, ``img_shape`` and ``ori_shape`` (H, W).

    Args:
        to_float32: Return float32 values in [0, 255] instead of uint8.
        color_type: Flag of ``mmcv.imfrombytes``; ``'color_ignore_orientation'`` leaves EXIF aside.
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
            to_float32=to_float32,
            color_type=color_type,
            imdecode_backend=imdecode_backend,
            backend_args=backend_args,
        )

    def transform(self, results: dict) -> dict:
        """See the class.

        Raises:
            FileNotFoundError: If the file does not exist.
            ValueError: If the file is damaged or its size is not that of the annotation.
        """
        path = results['img_path']
        data = fileio.get(path, backend_args=self.backend_args)
        if not _is_whole(data):
            raise ValueError(
                f'image {path} is cut short ({len(data)} bytes, no end marker): fetch it again'
            )
        img = self._decode(data, path)
        self._check_size(img, results)
        results['img'] = img.astype(np.float32) if self.to_float32 else img
        results['img_shape'] = results['ori_shape'] = img.shape[:2]
        return results

    def _decode(self, data: bytes, path: str) -> np.ndarray:
        reason = 'unknown or damaged format'
        try:
            img = mmcv.imfrombytes(data, flag=self.color_type, backend=self.imdecode_backend)
        except Exception as error:  # every decoding backend has exceptions of its own
            img, reason = None, ' '.join(f'{type(error).__name__}: {error}'.split())
        if img is None:
            raise ValueError(
                f'image {path} cannot be decoded ({len(data)} bytes, {reason}): fetch it again'
            )
        return img

    def _check_size(self, img: np.ndarray, results: dict) -> None:
        expected = results.get('height'), results.get('width')
        if None in expected or img.shape[:2] == expected:
            return
        hint = 'the file or the annotation belongs to another data set'
        if img.shape[1::-1] == expected:
            hint = (
                "it may be its EXIF orientation; color_type='color_ignore_orientation' ignores it"
            )
        raise ValueError(
            f'image {results["img_path"]}: expected height x width {expected[0]}x{expected[1]} as '
            f'annotated, but got {img.shape[0]}x{img.shape[1]} ({hint})'
        )


def _is_whole(data: bytes) -> bool:
    """Whether a JPEG or PNG file has its end marker; decoders fill up the rest in silence."""
    if data.startswith(_PNG_START):
        return data.rfind(_PNG_END) != -1
    if not data.startswith(_JPEG_START):
        return True
    # The marker is looked for in the picture only: an embedded thumbnail ends with one as well.
    position = len(_JPEG_START)
    while position + 4 <= len(data) and data[position] == 0xFF and data[position + 1] != _JPEG_SCAN:
        if data[position + 1] == 0xFF:  # padding between segments
            position += 1
        else:
            position += 2 + int.from_bytes(data[position + 2 : position + 4], 'big')
    return data.find(_JPEG_END, position) != -1
