"""Models, heads, losses and timestep samplers."""

from genseg_mm.checkpoint import read_safetensors_anywhere
from genseg_mm.models.bce_mask_head import BCEMaskHead, ProbeMaskHead
from genseg_mm.models.colorers import DiTColorer, MAEColorer, SDColorer, UNetColorer
from genseg_mm.models.coloring_head import InstanceColoringHead, InstanceColoringLoss
from genseg_mm.models.control_map import ControlMap
from genseg_mm.models.data_preprocessor import GenSegDataPreprocessor
from genseg_mm.models.description_writer import DescriptionWriter
from genseg_mm.models.dit_backbone import DiTBackbone
from genseg_mm.models.gen2seg import Gen2Seg, load_released
from genseg_mm.models.generative_pretraining import GenerativePretraining
from genseg_mm.models.genmask import GenMask
from genseg_mm.models.latent_codec import LatentCodec, PatchCodec
from genseg_mm.models.latent_probe import LatentProbe
from genseg_mm.models.mask_head import GenerativeMaskHead
from genseg_mm.models.prompt_encoders import (
    CLIPPromptEncoder,
    CombinedPromptEncoder,
    LanguageModelPromptEncoder,
    QwenVLPromptEncoder,
    T5PromptEncoder,
    TextPromptEncoder,
)
from genseg_mm.models.timestep_samplers import JointTimesteps, LogitNormalTimesteps, LongTailTimesteps, UniformTimesteps

read_safetensors_anywhere()

__all__ = [
    'BCEMaskHead',
    'CLIPPromptEncoder',
    'CombinedPromptEncoder',
    'ControlMap',
    'DescriptionWriter',
    'DiTBackbone',
    'DiTColorer',
    'Gen2Seg',
    'GenMask',
    'GenSegDataPreprocessor',
    'GenerativeMaskHead',
    'GenerativePretraining',
    'InstanceColoringHead',
    'InstanceColoringLoss',
    'JointTimesteps',
    'LanguageModelPromptEncoder',
    'LatentCodec',
    'LatentProbe',
    'LogitNormalTimesteps',
    'LongTailTimesteps',
    'MAEColorer',
    'PatchCodec',
    'ProbeMaskHead',
    'QwenVLPromptEncoder',
    'SDColorer',
    'T5PromptEncoder',
    'TextPromptEncoder',
    'UNetColorer',
    'UniformTimesteps',
    'load_released',
]
