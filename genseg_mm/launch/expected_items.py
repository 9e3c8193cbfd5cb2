"""The published counts of datasets, for whom launches an evaluation: see ``genseg_mm/datasets/published_counts.py``."""

from genseg_mm.datasets.published_counts import (
    Count,
    difference,
    differences,
    expected_items,
    shortage,
    warn_if_incomplete,
)

__all__ = ['Count', 'difference', 'differences', 'expected_items', 'shortage', 'warn_if_incomplete']
