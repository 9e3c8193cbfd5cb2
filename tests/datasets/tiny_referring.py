"""Makes the tiny gRefCOCO and ReasonSeg of tools/dataset_tools for the tests."""

import runpy
from pathlib import Path

_TOOLS = Path(__file__).parents[2] / 'tools' / 'dataset_tools'

make_tiny_grefcoco = runpy.run_path(str(_TOOLS / 'make_tiny_grefcoco.py'))['make_tiny_grefcoco']
make_tiny_reasonseg = runpy.run_path(str(_TOOLS / 'make_tiny_reasonseg.py'))['make_tiny_reasonseg']
