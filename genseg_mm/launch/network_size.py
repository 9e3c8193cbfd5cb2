"""The size that a model asks for, filled into the pipelines of its data: see ``genseg_mm/dataset_configs.py``."""

from genseg_mm.dataset_configs import fill_network_resize

__all__ = ['fill_network_resize']
