"""Datasets, transforms and samplers."""

from genseg_mm.datasets.load_image import LoadImage
from genseg_mm.datasets.load_instance_map import LoadInstanceMap
from genseg_mm.datasets.random_scene_permute import RandomScenePermute
from genseg_mm.datasets.refcoco import RefCOCODataset
from genseg_mm.datasets.samplers import MixedDataset, RatioInfiniteSampler, Visit
from genseg_mm.datasets.shapes import ShapesDataset
from genseg_mm.datasets.transforms import (
    LoadReferringMask,
    PackGenSegInputs,
    PointPrompt,
    TextPrompt,
)

__all__ = [
    'LoadImage',
    'LoadInstanceMap',
    'LoadReferringMask',
    'MixedDataset',
    'PackGenSegInputs',
    'PointPrompt',
    'RandomScenePermute',
    'RatioInfiniteSampler',
    'RefCOCODataset',
    'ShapesDataset',
    'TextPrompt',
    'Visit',
]
