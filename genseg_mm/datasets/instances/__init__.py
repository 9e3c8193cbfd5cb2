"""Pictures with maps or masks of their instances."""

from genseg_mm.datasets.instances.clevrtex import ClevrTexDataset
from genseg_mm.datasets.instances.coco_instances import CocoInstanceDataset
from genseg_mm.datasets.instances.hypersim import HypersimDataset
from genseg_mm.datasets.instances.virtual_kitti2 import VirtualKITTI2Dataset

__all__ = [
    'ClevrTexDataset',
    'CocoInstanceDataset',
    'HypersimDataset',
    'VirtualKITTI2Dataset',
]
