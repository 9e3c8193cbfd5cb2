"""Prompt encoders: (texts, images) -> token embeddings and their mask."""

from genseg_mm.models.prompt_encoders.prompt_embeddings import PromptEmbeddings
from genseg_mm.models.prompt_encoders.qwen_vl_prompt_encoder import QwenVLPromptEncoder
from genseg_mm.models.prompt_encoders.t5_prompt_encoder import T5PromptEncoder

__all__ = ['PromptEmbeddings', 'QwenVLPromptEncoder', 'T5PromptEncoder']
