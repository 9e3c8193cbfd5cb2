"""Instance colorers: image in, colour map out (gen2seg, arXiv 2505.15263, Section 3).

A colorer is any module with ``forward(images (N, 3, H, W) in [-1, 1], RGB) -> raw maps (N, 3, H,
W)``. What the raw numbers mean as colours in [0, 255] is decided in one place,
:func:`~genseg_mm.functional.color_maps.normalize_colors`. Those here also have
``network_resize(size=None)``, how pictures are brought to the size that they work at (see
:mod:`genseg_mm.network_sizes`), and ``save_pretrained(folder)``.
"""

from genseg_mm.models.base import check_patches
from genseg_mm.models.colorers.dit_colorer import DiTColorer
from genseg_mm.models.colorers.mae_colorer import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    MAEColorer,
    resize_positions,
    sincos_positions,
)
from genseg_mm.models.colorers.sd_colorer import SDColorer
from genseg_mm.models.colorers.unet_colorer import UNetColorer

__all__ = [
    'IMAGENET_MEAN',
    'IMAGENET_STD',
    'DiTColorer',
    'MAEColorer',
    'SDColorer',
    'UNetColorer',
    'check_patches',
    'resize_positions',
    'sincos_positions',
]
