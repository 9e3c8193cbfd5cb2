"""Prompt encoders: (texts, images) -> token embeddings and their mask."""

from genseg_mm.models.prompt_encoders.qwen_vl import QwenVLPromptEncoder
from genseg_mm.models.prompt_encoders.t5 import PromptEmbeddings, T5PromptEncoder

__all__ = ['PromptEmbeddings', 'QwenVLPromptEncoder', 'T5PromptEncoder']
