"""Datasets, transforms and samplers."""

from genseg_mm.datasets.refcoco import RefCOCODataset
from genseg_mm.datasets.samplers import MixedDataset, RatioInfiniteSampler, Visit
from genseg_mm.datasets.shapes import ShapesDataset
from genseg_mm.datasets.transforms import (
    LoadInstanceMap,
    LoadReferringMask,
    PackGenSegInputs,
    PointPrompt,
    TextPrompt,
)

__all__ = [
    'LoadInstanceMap',
    'LoadReferringMask',
    'MixedDataset',
    'PackGenSegInputs',
    'PointPrompt',
    'RatioInfiniteSampler',
    'RefCOCODataset',
    'ShapesDataset',
    'TextPrompt',
    'Visit',
]
