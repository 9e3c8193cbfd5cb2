"""Tiny data of every kind in the layouts that the configs read, made once for all rehearsals."""

import runpy
from pathlib import Path
from typing import Any

MAKERS = Path(__file__).resolve().parents[1] / 'dataset_tools'
DONE = '.rehearsal'


def make_data(root: Path) -> None:
    """Writes them into a folder for GENSEG_DATA, or leaves what an earlier call wrote."""
    from genseg_mm.datasets.virtual_kitti2 import SCENES, VARIATIONS

    if (root / DONE).exists():
        return
    _maker('make_tiny_benchmarks')(root)
    _maker('make_tiny_hypersim')(root / 'hypersim', num_frames=2)
    # Of the real size, because crops are taken of them.
    _maker('make_tiny_virtual_kitti2')(root / 'vkitti2', (375, 1242), 1, SCENES, VARIATIONS)
    _maker('make_tiny_clevrtex')(root / 'clevrtex')
    (root / DONE).touch()


def _maker(name: str) -> Any:
    return runpy.run_path(str(MAKERS / f'{name}.py'))[name]
