"""Makes the tiny RefCOCO of tools/dataset_tools for the tests, and damages it."""

import json
import pickle
import runpy
from collections.abc import Callable
from pathlib import Path

from genseg_mm.datasets.refcoco import RefCOCODataset

TOOL = Path(__file__).parents[2] / 'tools' / 'dataset_tools' / 'make_tiny_refcoco.py'
REFS = 'refcoco/refs(unc).p'
INSTANCES = 'refcoco/instances.json'

make_tiny_refcoco = runpy.run_path(str(TOOL))['make_tiny_refcoco']


def build(root: Path, **kwargs) -> RefCOCODataset:
    settings = dict(ann_file=INSTANCES, split_file=REFS, data_prefix=dict(img_path='train2014'), split='train')
    return RefCOCODataset(data_root=str(root), **{**settings, **kwargs})


def edit_refs(root: Path, change: Callable[[list], object]) -> None:
    refs = pickle.loads((root / REFS).read_bytes())
    change(refs)
    (root / REFS).write_bytes(pickle.dumps(refs, protocol=2))


def edit_instances(root: Path, change: Callable[[dict], object]) -> None:
    content = json.loads((root / INSTANCES).read_text())
    change(content)
    (root / INSTANCES).write_text(json.dumps(content))
