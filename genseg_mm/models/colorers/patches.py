"""Image sides in patches: the check that the colorers share."""

from torch import Tensor


def check_patches(images: Tensor, patch_size: int, owner: str) -> None:
    """Raises ValueError if the sides of (N, 3, H, W) images are no multiples of the patch size."""
    height, width = images.shape[-2:]
    if height % patch_size or width % patch_size:
        raise ValueError(
            f'{owner} expects image sides that are multiples of its patch size {patch_size}, '
            f'but got height {height} and width {width}; resize in the pipeline '
            f'or set pad_size_divisor={patch_size} in the data preprocessor'
        )
