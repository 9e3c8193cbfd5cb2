"""Tiny pictures with captions for the tests of both caption datasets."""

import runpy
from pathlib import Path

_TOOL = Path(__file__).parents[2] / 'tools' / 'dataset_tools' / 'make_tiny_captions.py'
make_tiny_captions = runpy.run_path(str(_TOOL))['make_tiny_captions']

PIPELINE = [
    dict(type='genseg_mm.LoadImage'),
    dict(type='mmcv.Resize', scale=(32, 10**6), keep_ratio=True, interpolation='area'),
    dict(type='mmcv.CenterCrop', crop_size=32),
    dict(type='genseg_mm.TextPrompt'),
    dict(type='genseg_mm.PackGenSegInputs'),
]
FIRST_CAPTIONS = [
    'A red square and a blue cross and a green triangle on a grey ground.',
    'A yellow triangle and a green square on a grey ground.',
    'A red cross and a green square on a grey ground.',
    'A yellow square on a grey ground.',
    'A blue triangle and a red square on a grey ground.',
    'A green circle on a grey ground.',
    'A blue circle and a red square on a grey ground.',
    'A green square on a grey ground.',
]


def infos(dataset) -> list[dict]:
    """All items as the pipeline gets them."""
    return [dataset.get_data_info(index) for index in range(len(dataset))]
