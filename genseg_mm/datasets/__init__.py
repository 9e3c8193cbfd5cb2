"""Datasets, transforms and samplers, by kind."""

from genseg_mm.datasets.bsds500 import BSDS500Dataset, LoadBoundaries
from genseg_mm.datasets.cached_encodings import CachedEncodings
from genseg_mm.datasets.clevrtex import ClevrTexDataset
from genseg_mm.datasets.coco_captions import CocoCaptionsDataset
from genseg_mm.datasets.coco_instances import CocoInstanceDataset
from genseg_mm.datasets.grefcoco import GRefCOCODataset
from genseg_mm.datasets.hypersim import HypersimDataset
from genseg_mm.datasets.image_text import ImageTextDataset
from genseg_mm.datasets.instance_folders import InstanceFolderDataset
from genseg_mm.datasets.object_scenes_dataset import ObjectScenesDataset
from genseg_mm.datasets.picture_sampler import PictureSampler
from genseg_mm.datasets.reason_seg import ReasonSegDataset
from genseg_mm.datasets.refcoco import RefCOCODataset
from genseg_mm.datasets.referring_tables import ReferringDataset
from genseg_mm.datasets.samplers import MixedDataset, RatioInfiniteSampler, VisitSampler
from genseg_mm.datasets.seeded_access import SeededAccess, SeededDataset, Visit
from genseg_mm.datasets.shapes_dataset import ShapesDataset
from genseg_mm.datasets.transforms import (
    AntialiasedResize,
    KeepClasses,
    LoadImage,
    LoadInstanceMap,
    LoadReferringMask,
    NetworkPipeline,
    NetworkResize,
    PackGenSegInputs,
    PointPrompt,
    RandomInstanceCrop,
    RandomInstanceFlip,
    RandomReferringFlip,
    RandomScenePermute,
    TextPrompt,
    UseDescriptions,
)
from genseg_mm.datasets.virtual_kitti2 import VirtualKITTI2Dataset
from genseg_mm.datasets.zero_shot import DRAMDataset, EgoHOSDataset, IShapeDataset, PIDRayDataset

__all__ = [
    'AntialiasedResize',
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
    'InstanceFolderDataset',
    'KeepClasses',
    'LoadBoundaries',
    'LoadImage',
    'LoadInstanceMap',
    'LoadReferringMask',
    'MixedDataset',
    'NetworkPipeline',
    'NetworkResize',
    'ObjectScenesDataset',
    'PIDRayDataset',
    'PackGenSegInputs',
    'PictureSampler',
    'PointPrompt',
    'RandomInstanceCrop',
    'RandomInstanceFlip',
    'RandomReferringFlip',
    'RandomScenePermute',
    'RatioInfiniteSampler',
    'ReasonSegDataset',
    'RefCOCODataset',
    'ReferringDataset',
    'SeededAccess',
    'SeededDataset',
    'ShapesDataset',
    'TextPrompt',
    'UseDescriptions',
    'VirtualKITTI2Dataset',
    'Visit',
    'VisitSampler',
]
