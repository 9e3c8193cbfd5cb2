"""The rows of tools/benchmark_speed.py: each prepares its scene and gives calls that do the same work."""

from speed.evaluation_rows import EVALUATION
from speed.loader_rows import LOADERS
from speed.prompting_rows import PROMPTING
from speed.training_rows import TRAINING

ROWS = (*TRAINING, *PROMPTING, *EVALUATION, *LOADERS)
