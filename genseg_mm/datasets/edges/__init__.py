"""Boundaries drawn by people: BSDS500."""

from genseg_mm.datasets.edges.bsds500 import BSDS500Dataset
from genseg_mm.datasets.edges.load_boundaries import LoadBoundaries

__all__ = ['BSDS500Dataset', 'LoadBoundaries']
