"""Image sides in patches: the check and the rounding that the colorers share."""

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


def nearest_multiples(height: int, width: int, patch_size: int) -> tuple[int, int]:
    """(height, width) with each side rounded to the nearest multiple (a half upwards), at least one.

    Raises:
        ValueError: If a side is not positive.
    """
    if height < 1 or width < 1:
        raise ValueError(f'height and width must be positive, but got {(height, width)}')
    return tuple(
        max((2 * side + patch_size) // (2 * patch_size), 1) * patch_size for side in (height, width)
    )
