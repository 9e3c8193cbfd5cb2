"""Pipeline transforms: loading, prompts, augmentation, packing."""

from genseg_mm.datasets.transforms.antialiased_resize import AntialiasedResize
from genseg_mm.datasets.transforms.keep_classes import KeepClasses
from genseg_mm.datasets.transforms.load_image import LoadImage
from genseg_mm.datasets.transforms.load_instance_map import LoadInstanceMap
from genseg_mm.datasets.transforms.load_referring_mask import LoadReferringMask
from genseg_mm.datasets.transforms.network_resize import NetworkResize
from genseg_mm.datasets.transforms.pack_inputs import PackGenSegInputs
from genseg_mm.datasets.transforms.point_prompt import PointPrompt
from genseg_mm.datasets.transforms.random_instance_crop import RandomInstanceCrop
from genseg_mm.datasets.transforms.random_referring_flip import RandomReferringFlip
from genseg_mm.datasets.transforms.random_scene_permute import RandomScenePermute
from genseg_mm.datasets.transforms.text_prompt import TextPrompt
from genseg_mm.datasets.transforms.use_descriptions import UseDescriptions

__all__ = [
    'AntialiasedResize',
    'KeepClasses',
    'LoadImage',
    'LoadInstanceMap',
    'LoadReferringMask',
    'NetworkResize',
    'PackGenSegInputs',
    'PointPrompt',
    'RandomInstanceCrop',
    'RandomReferringFlip',
    'RandomScenePermute',
    'TextPrompt',
    'UseDescriptions',
]
