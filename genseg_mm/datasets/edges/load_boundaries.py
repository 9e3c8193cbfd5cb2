"""Loading of the boundary maps of several annotators."""

from mmcv.transforms import BaseTransform

from genseg_mm.boundary_files import read_boundaries
from genseg_mm.registry import TRANSFORMS


@TRANSFORMS.register_module()
class LoadBoundaries(BaseTransform):
    """Loads ``results['boundaries_path']``, a .mat file of BSDS500.

    Added: gt_boundaries (N annotators, H, W) uint8 in {0, 1}, at the original size. No transform resizes or flips it:
    put it after Resize in the test pipeline.

    Raises:
        FileNotFoundError: If the file does not exist.
        ValueError: If there is no boundaries_path, or the file is damaged or of another size than the picture.
    """

    def transform(self, results: dict) -> dict:
        """Adds the maps."""
        if 'boundaries_path' not in results:
            raise ValueError(
                f"LoadBoundaries needs 'boundaries_path' in the sample, but got the keys {sorted(results)}"
            )
        boundaries = read_boundaries(results['boundaries_path'])
        expected = tuple(results.get('ori_shape', boundaries.shape[1:]))
        if boundaries.shape[1:] != expected:
            raise ValueError(
                f'{results["boundaries_path"]}: expected the size of the image {results.get("img_path", "")} '
                f'{expected}, but got {boundaries.shape[1:]}'
            )
        results['gt_boundaries'] = boundaries
        return results

    def __repr__(self) -> str:
        return f'{type(self).__name__}()'
