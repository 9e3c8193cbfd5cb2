"""Metrics."""

from genseg_mm.evaluation.class_agnostic_coco_metric import ClassAgnosticCocoMetric
from genseg_mm.evaluation.edge_metric import EdgeMetric
from genseg_mm.evaluation.point_prompt_metric import PointPromptMetric
from genseg_mm.evaluation.referring_metric import ReferringMetric
from genseg_mm.evaluation.sample_results import SampleResults

__all__ = ['ClassAgnosticCocoMetric', 'EdgeMetric', 'PointPromptMetric', 'ReferringMetric', 'SampleResults']
