"""Datasets, transforms and samplers."""

from genseg_mm.datasets.cached_encodings import CachedEncodings
from genseg_mm.datasets.clevrtex import ClevrTexDataset
from genseg_mm.datasets.coco_captions import CocoCaptionsDataset
from genseg_mm.datasets.coco_instances import CocoInstanceDataset
from genseg_mm.datasets.grefcoco import GRefCOCODataset
from genseg_mm.datasets.hypersim import HypersimDataset
from genseg_mm.datasets.image_text import ImageTextDataset
from genseg_mm.datasets.keep_classes import KeepClasses
from genseg_mm.datasets.load_image import LoadImage
from genseg_mm.datasets.load_instance_map import LoadInstanceMap
from genseg_mm.datasets.random_instance_crop import RandomInstanceCrop
from genseg_mm.datasets.random_referring_flip import RandomReferringFlip
from genseg_mm.datasets.random_scene_permute import RandomScenePermute
from genseg_mm.datasets.reason_seg import ReasonSegDataset
from genseg_mm.datasets.refcoco import RefCOCODataset
from genseg_mm.datasets.samplers import MixedDataset, RatioInfiniteSampler, Visit
from genseg_mm.datasets.shapes import ShapesDataset
from genseg_mm.datasets.transforms import (
    LoadReferringMask,
    PackGenSegInputs,
    PointPrompt,
    TextPrompt,
)
from genseg_mm.datasets.use_descriptions import UseDescriptions
from genseg_mm.datasets.virtual_kitti2 import VirtualKITTI2Dataset

__all__ = [
    'CachedEncodings',
    'ClevrTexDataset',
    'CocoCaptionsDataset',
    'CocoInstanceDataset',
    'GRefCOCODataset',
    'HypersimDataset',
    'ImageTextDataset',
    'KeepClasses',
    'LoadImage',
    'LoadInstanceMap',
    'LoadReferringMask',
    'MixedDataset',
    'PackGenSegInputs',
    'PointPrompt',
    'RandomInstanceCrop',
    'RandomReferringFlip',
    'RandomScenePermute',
    'RatioInfiniteSampler',
    'ReasonSegDataset',
    'RefCOCODataset',
    'ShapesDataset',
    'TextPrompt',
    'UseDescriptions',
    'VirtualKITTI2Dataset',
    'Visit',
]
