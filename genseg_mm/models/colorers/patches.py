"""Image sides in patches: the check and the rounding that the models share."""

from collections.abc import Sequence

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


def nearest_multiples(height: int, width: int, patch_size: int | Sequence[int]) -> tuple[int, int]:
    """(height, width) with each side rounded to the nearest multiple (a half upwards), at least one.

    Args:
        height: In pixels.
        width: In pixels.
        patch_size: (height, width) of a patch, or one number for both.

    Raises:
        ValueError: If a side is not positive.
    """
    if height < 1 or width < 1:
        raise ValueError(f'height and width must be positive, but got {(height, width)}')
    patch = (patch_size, patch_size) if isinstance(patch_size, int) else patch_size
    return tuple(
        max((2 * side + unit) // (2 * unit), 1) * unit
        for side, unit in zip((height, width), patch, strict=True)
    )
