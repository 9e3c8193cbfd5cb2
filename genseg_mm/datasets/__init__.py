"""Datasets, transforms and samplers, by kind."""

from genseg_mm.datasets.captions import CocoCaptionsDataset, ImageTextDataset
from genseg_mm.datasets.edges import BSDS500Dataset, LoadBoundaries
from genseg_mm.datasets.encodings import CachedEncodings
from genseg_mm.datasets.instances import (
    ClevrTexDataset,
    CocoInstanceDataset,
    DRAMDataset,
    EgoHOSDataset,
    HypersimDataset,
    IShapeDataset,
    PIDRayDataset,
    VirtualKITTI2Dataset,
)
from genseg_mm.datasets.referring import GRefCOCODataset, ReasonSegDataset, RefCOCODataset
from genseg_mm.datasets.samplers import MixedDataset, RatioInfiniteSampler
from genseg_mm.datasets.seeded_access import SeededAccess, SeededDataset, Visit
from genseg_mm.datasets.shapes import ShapesDataset
from genseg_mm.datasets.transforms import (
    KeepClasses,
    LoadImage,
    LoadInstanceMap,
    LoadReferringMask,
    PackGenSegInputs,
    PointPrompt,
    RandomInstanceCrop,
    RandomReferringFlip,
    RandomScenePermute,
    TextPrompt,
    UseDescriptions,
)
from genseg_mm.datasets.visit_sampler import VisitSampler

__all__ = [
    'BSDS500Dataset',
    'CachedEncodings',
    'ClevrTexDataset',
    'CocoCaptionsDataset',
    'CocoInstanceDataset',
    'DRAMDataset',
    'EgoHOSDataset',
    'GRefCOCODataset',
    'HypersimDataset',
    'IShapeDataset',
    'ImageTextDataset',
    'KeepClasses',
    'LoadBoundaries',
    'LoadImage',
    'LoadInstanceMap',
    'LoadReferringMask',
    'MixedDataset',
    'PIDRayDataset',
    'PackGenSegInputs',
    'PointPrompt',
    'RandomInstanceCrop',
    'RandomReferringFlip',
    'RandomScenePermute',
    'RatioInfiniteSampler',
    'ReasonSegDataset',
    'RefCOCODataset',
    'SeededAccess',
    'SeededDataset',
    'ShapesDataset',
    'TextPrompt',
    'UseDescriptions',
    'VirtualKITTI2Dataset',
    'Visit',
    'VisitSampler',
]
