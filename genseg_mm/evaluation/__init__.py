"""Metrics."""

from genseg_mm.evaluation.point_prompt_metric import PointPromptMetric
from genseg_mm.evaluation.referring_metric import ReferringMetric

__all__ = ['PointPromptMetric', 'ReferringMetric']
