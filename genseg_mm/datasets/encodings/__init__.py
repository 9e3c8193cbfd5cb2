"""Latents and prompt embeddings that are computed once and kept on disk."""

from genseg_mm.datasets.encodings.cached_encodings import CachedEncodings

__all__ = ['CachedEncodings']
