"""Prompt encoders: (texts, images) -> token embeddings and their mask."""

from genseg_mm.models.prompt_encoders.clip import CLIPPromptEncoder
from genseg_mm.models.prompt_encoders.combined import CombinedPromptEncoder
from genseg_mm.models.prompt_encoders.language_model import LanguageModelPromptEncoder
from genseg_mm.models.prompt_encoders.prompt_encoder import PromptEmbeddings, PromptEncoder
from genseg_mm.models.prompt_encoders.qwen_vl import QwenVLPromptEncoder
from genseg_mm.models.prompt_encoders.t5 import T5PromptEncoder
from genseg_mm.models.prompt_encoders.text import TextPromptEncoder

__all__ = [
    'CLIPPromptEncoder',
    'CombinedPromptEncoder',
    'LanguageModelPromptEncoder',
    'PromptEmbeddings',
    'PromptEncoder',
    'QwenVLPromptEncoder',
    'T5PromptEncoder',
    'TextPromptEncoder',
]
