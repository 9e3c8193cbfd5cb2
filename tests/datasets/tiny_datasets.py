"""What the tests of datasets share: the tiny copies that tools/dataset_tools makes, and how to damage them."""

import json
import pickle
import runpy
from collections.abc import Callable
from pathlib import Path

from genseg_mm.datasets import RefCOCODataset

TOOLS = Path(__file__).parents[2] / 'tools' / 'dataset_tools'
REFS = 'refcoco/refs(unc).p'
INSTANCES = 'refcoco/instances.json'
CAPTION_PIPELINE = [
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


def maker(name: str) -> Callable[..., Path]:
    """The function of the tool that makes the tiny copy of a dataset; it gives the dataset's folder."""
    return runpy.run_path(str(TOOLS / f'make_tiny_{name}.py'))[f'make_tiny_{name}']


def infos(dataset) -> list[dict]:
    """All items as the pipeline gets them."""
    return [dataset.get_data_info(index) for index in range(len(dataset))]


def build_refcoco(root: Path, **kwargs) -> RefCOCODataset:
    settings = dict(ann_file=INSTANCES, split_file=REFS, data_prefix=dict(img_path='train2014'), split='train')
    return RefCOCODataset(data_root=str(root), **{**settings, **kwargs})


def edit_refs(root: Path, change: Callable[[list], object]) -> None:
    refs = pickle.loads((root / REFS).read_bytes())
    change(refs)
    (root / REFS).write_bytes(pickle.dumps(refs, protocol=2))


def edit_json(path: Path, change: Callable[[dict], object]) -> None:
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))
