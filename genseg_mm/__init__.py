"""genseg_mm: generative segmentation (GenMask, gen2seg) for the OpenMMLab ecosystem.

Importing the package is light: neither diffusers nor transformers nor the model rooms of mmdet and mmseg are loaded.
"""

from importlib.metadata import PackageNotFoundError, distribution
from typing import TYPE_CHECKING

from genseg_mm import deferred_imports, moved_modules

if TYPE_CHECKING:
    from os import PathLike
    from typing import Any

    from genseg_mm.models.base import GenSegModel

__version__ = '0.2.0'


def _prepare_configs() -> None:
    """Lets ``_base_ = 'mmseg::...'`` find the OneDL builds, whose distributions have other names than upstream's.

    And has configs written out in little time. Without MMEngine nothing but ``genseg doctor`` works, which says so.
    """
    try:
        from mmengine.config import utils
    except ModuleNotFoundError as error:
        if (error.name or '').partition('.')[0] != 'mmengine':
            raise
        return
    from genseg_mm import config_text

    config_text.install()
    for package, distributions in (
        ('mmseg', ('onedl-mmsegmentation', 'mmsegmentation')),
        ('mmdet', ('onedl-mmdetection', 'mmdet')),
        ('genseg_mm', ('genseg_mm',)),
    ):
        for name in distributions:
            try:
                distribution(name)
            except PackageNotFoundError:
                continue
            utils.MODULE2PACKAGE[package] = name
            break


def from_pretrained(source: 'str | PathLike', device: str = 'cpu', **overrides: 'Any') -> 'GenSegModel':
    """The model of a saved folder or hub id (``save_pretrained``, ``push_to_hub``), or of released weights of gen2seg.

    Args:
        source: Folder or hub id; its kind is recognised.
        device: Device of the model.
        overrides: Arguments of the model's class in place of those saved, such as ``processing_size=0``.

    Returns:
        A ``Gen2Seg`` or ``GenMask``, in eval mode.

    Raises:
        FileNotFoundError: If there is no such folder, or it is not whole.
        ValueError: If it holds something else or is damaged.
    """
    from genseg_mm.models.gen2seg import load_released

    return load_released(source, device, **overrides)


_prepare_configs()
deferred_imports.install()
moved_modules.install()

__all__ = ['__version__', 'from_pretrained']
