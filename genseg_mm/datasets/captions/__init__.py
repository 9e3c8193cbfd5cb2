"""Pictures with captions, for text-to-image generation."""

from genseg_mm.datasets.captions.coco_captions import CocoCaptionsDataset
from genseg_mm.datasets.captions.image_text import ImageTextDataset

__all__ = ['CocoCaptionsDataset', 'ImageTextDataset']
