"""The procedural scenes."""

from genseg_mm.datasets.shapes.shapes_dataset import ShapesDataset

__all__ = ['ShapesDataset']
