"""Tiny backbones of every family, and inputs for them."""

import torch
from tiny_models import TRANSFORMERS

from genseg_mm.models.dit_backbone import DiTBackbone
from genseg_mm.models.prompt_encoders import PromptEmbeddings


def tiny_backbone(family, transformer=None, seed=0, **arguments) -> DiTBackbone:
    """A random backbone whose output layer is not zero."""
    torch.manual_seed(seed)
    backbone = DiTBackbone(family, {**TRANSFORMERS[family], **(transformer or {})}, **arguments).eval()
    if not backbone.has_source:
        torch.nn.init.normal_(backbone.output_layer.weight, std=0.2)
    return backbone


def dit_inputs(backbone, num=3, length=6):
    """Noisy latents, noise levels, prompts (the last of three is one token shorter) and image latents."""
    generator = torch.Generator().manual_seed(1)
    noisy, image = torch.randn(2, num, backbone.latent_channels, 8, 12, generator=generator)
    states = torch.randn(num, length, backbone.prompt_dims, generator=generator)
    mask = torch.ones(num, length, dtype=torch.bool)
    mask[2:, -1] = False
    config = backbone.transformer.config
    pooled = None
    if 'pooled_projection_dim' in config:
        pooled = torch.randn(num, config.pooled_projection_dim, generator=generator)
    prompt = PromptEmbeddings(states, mask, pooled)
    return noisy, torch.tensor([1.0, 0.9, 0.3])[:num], prompt, image


def saved(transformer, folder) -> dict:
    """Config that loads this transformer from ``folder/transformer``."""
    transformer.save_pretrained(folder / 'transformer')
    return dict(
        type=f'diffusers.{type(transformer).__name__}.from_pretrained',
        pretrained_model_name_or_path=str(folder),
        subfolder='transformer',
    )
