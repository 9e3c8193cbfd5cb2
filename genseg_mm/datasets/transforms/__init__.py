"""Pipeline transforms: loading, prompts, augmentation, packing."""

from genseg_mm.datasets.transforms.images import AntialiasedResize, LoadImage, NetworkResize, PackGenSegInputs
from genseg_mm.datasets.transforms.instances import (
    KeepClasses,
    LoadInstanceMap,
    RandomInstanceCrop,
    RandomInstanceFlip,
    RandomScenePermute,
)
from genseg_mm.datasets.transforms.network_pipeline import NetworkPipeline
from genseg_mm.datasets.transforms.points import PointPrompt
from genseg_mm.datasets.transforms.referring import LoadReferringMask, RandomReferringFlip, TextPrompt, UseDescriptions

__all__ = [
    'AntialiasedResize',
    'KeepClasses',
    'LoadImage',
    'LoadInstanceMap',
    'LoadReferringMask',
    'NetworkPipeline',
    'NetworkResize',
    'PackGenSegInputs',
    'PointPrompt',
    'RandomInstanceCrop',
    'RandomInstanceFlip',
    'RandomReferringFlip',
    'RandomScenePermute',
    'TextPrompt',
    'UseDescriptions',
]
