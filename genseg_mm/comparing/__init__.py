"""Comparison of two models on the same items."""

from genseg_mm.comparing.comparison import Comparison, compare, pair_rows

__all__ = ['Comparison', 'compare', 'pair_rows']
