"""Pictures with maps or masks of their instances."""

from genseg_mm.datasets.instances.clevrtex import ClevrTexDataset
from genseg_mm.datasets.instances.coco_instances import CocoInstanceDataset
from genseg_mm.datasets.instances.hypersim import HypersimDataset
from genseg_mm.datasets.instances.virtual_kitti2 import VirtualKITTI2Dataset
from genseg_mm.datasets.instances.zero_shot.dram import DRAMDataset
from genseg_mm.datasets.instances.zero_shot.egohos import EgoHOSDataset
from genseg_mm.datasets.instances.zero_shot.ishape import IShapeDataset
from genseg_mm.datasets.instances.zero_shot.pidray import PIDRayDataset

__all__ = [
    'ClevrTexDataset',
    'CocoInstanceDataset',
    'DRAMDataset',
    'EgoHOSDataset',
    'HypersimDataset',
    'IShapeDataset',
    'PIDRayDataset',
    'VirtualKITTI2Dataset',
]
