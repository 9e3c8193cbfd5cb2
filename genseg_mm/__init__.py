"""genseg_mm: generative segmentation (GenMask, gen2seg) for the OpenMMLab ecosystem.

Importing the package is light: neither diffusers nor transformers nor the model rooms of mmdet and mmseg are loaded.
"""

from importlib.metadata import PackageNotFoundError, distribution

from genseg_mm import deferred_imports, moved_modules

__version__ = '0.2.0'


def _name_installed_distributions() -> None:
    """Lets ``_base_ = 'mmseg::...'`` find the OneDL builds, whose distributions have other names than upstream's.

    Without MMEngine nothing but ``genseg doctor`` works, which says so.
    """
    try:
        from mmengine.config import utils
    except ModuleNotFoundError as error:
        if (error.name or '').partition('.')[0] != 'mmengine':
            raise
        return
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


_name_installed_distributions()
deferred_imports.install()
moved_modules.install()

__all__ = ['__version__']
