"""Datasets, transforms and samplers."""

from genseg_mm.datasets.clevrtex import ClevrTexDataset
from genseg_mm.datasets.coco_instances import CocoInstanceDataset
from genseg_mm.datasets.hypersim import HypersimDataset
from genseg_mm.datasets.keep_classes import KeepClasses
from genseg_mm.datasets.load_image import LoadImage
from genseg_mm.datasets.load_instance_map import LoadInstanceMap
from genseg_mm.datasets.random_instance_crop import RandomInstanceCrop
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
from genseg_mm.datasets.virtual_kitti2 import VirtualKITTI2Dataset

__all__ = [
    'ClevrTexDataset',
    'CocoInstanceDataset',
    'HypersimDataset',
    'KeepClasses',
    'LoadImage',
    'LoadInstanceMap',
    'LoadReferringMask',
    'MixedDataset',
    'PackGenSegInputs',
    'PointPrompt',
    'RandomInstanceCrop',
    'RandomScenePermute',
    'RatioInfiniteSampler',
    'RefCOCODataset',
    'ShapesDataset',
    'TextPrompt',
    'VirtualKITTI2Dataset',
    'Visit',
]
