"""Running of benchmark suites: which model is measured on what, and where every number comes from."""

from genseg_mm.benchmarking.loop import BenchmarkLoop
from genseg_mm.benchmarking.predict_items import predict_items

__all__ = ['BenchmarkLoop', 'predict_items']
