"""Raw output of a colorer -> colours in [0, 255], in training and at inference."""

import torch
from torch import Tensor

COLOR_SCALES = ('batch', 'image', 'sigmoid', 'none')
STRETCHES = ('image', 'padded', 'batch')


def normalize_colors(raw: Tensor, normalize: str, bias: float = 0.0) -> Tensor:
    """Raw output of a colorer as colours.

    ``'batch'`` is the reference's scale and what the released weights were trained with: x -> (x +
    |min|) / (|max| + |min| + 1e-5) * 255 with the extremes of the whole batch. It couples the
    samples of a batch: most of a sample's gradient lands on the two extreme values, which may
    belong to other samples. ``'image'`` takes the extremes of each image, ``'sigmoid'`` is 255 *
    sigmoid(x + bias), and ``'none'`` takes raw values as colours.

    Args:
        raw: Output of a colorer, (N, 3, H, W).
        normalize: One of ``COLOR_SCALES``.
        bias: Added before the sigmoid; a negative one starts the training near black.

    Returns:
        Colours, (N, 3, H, W), float32; in [0, 255] unless ``'none'`` (or, with the reference's
        formula, when all values have one sign: it divides by |max| + |min|, not by max - min).

    Raises:
        ValueError: If the scale is not known.
    """
    check_color_scale(normalize)
    raw = raw.float()
    if normalize == 'none':
        return raw
    if normalize == 'sigmoid':
        return torch.sigmoid(raw + bias) * 255
    dims = (0, 1, 2, 3) if normalize == 'batch' else (1, 2, 3)
    low = raw.amin(dims, keepdim=True).abs()
    high = raw.amax(dims, keepdim=True).abs()
    return (raw + low) / (high + low + 1e-5) * 255


def stretch_colors(colors: Tensor, gamma: float = 1.0, extremes: tuple[Tensor, Tensor] | None = None) -> Tensor:
    """One map stretched to the full range: ((x - min) / (max - min)) ** gamma * 255.

    The reference does this at inference: to each map of the MAE, to the maps of a batch together
    with Stable Diffusion.

    Args:
        colors: One colour map, (3, H, W), without padding.
        gamma: Exponent on the stretched map in [0, 1]; the reference shows the MAE's maps with 0.7.
        extremes: Smallest and largest value to stretch by, such as a batch's (``extremes_of``).
            None: the map's own.

    Returns:
        Colours in [0, 255], (3, H, W), float32; a map of a single value becomes 0.
    """
    colors = colors.float()
    low, high = extremes or extremes_of([colors])
    unit = (colors - low) / (high - low).clamp(min=1e-5)
    return unit.pow(gamma) * 255 if gamma != 1.0 else unit * 255


def extremes_of(maps: list[Tensor]) -> tuple[Tensor, Tensor]:
    """Smallest and largest value of maps of any sizes."""
    low = torch.stack([one.float().min() for one in maps]).min()
    return low, torch.stack([one.float().max() for one in maps]).max()


def check_color_scale(normalize: str) -> None:
    """Raises ValueError for a colour scale that does not exist."""
    if normalize not in COLOR_SCALES:
        raise ValueError(f'normalize must be one of {", ".join(COLOR_SCALES)}, but got {normalize!r}')


def check_stretch(stretch: str) -> None:
    """Raises ValueError for a stretch that does not exist."""
    if stretch not in STRETCHES:
        raise ValueError(f'stretch must be one of {", ".join(STRETCHES)}, but got {stretch!r}')
