"""Expressions and questions with masks."""

from genseg_mm.datasets.referring.grefcoco import GRefCOCODataset
from genseg_mm.datasets.referring.reason_seg import ReasonSegDataset
from genseg_mm.datasets.referring.refcoco import RefCOCODataset

__all__ = ['GRefCOCODataset', 'ReasonSegDataset', 'RefCOCODataset']
