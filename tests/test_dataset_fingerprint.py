"""Fingerprints of datasets: the same wherever a copy lies, another one where something that counts differs."""

import json
import os
import runpy
import shutil
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from mmengine.dataset import BaseDataset, ConcatDataset
from PIL import Image

from genseg_mm.benchmarking.provenance import dataset_fingerprint
from genseg_mm.datasets import CocoInstanceDataset, DRAMDataset, PIDRayDataset, ShapesDataset

ROOT = Path(__file__).parents[1]
TOOLS = ROOT / 'tools' / 'dataset_tools'
# Not serialised: that is for training, and waits for the garbage collector each time.
build_dram = partial(DRAMDataset, serialize_data=False)
build_pidray = partial(PIDRayDataset, serialize_data=False)
build_shapes = partial(ShapesDataset, serialize_data=False)


@pytest.fixture(scope='module')
def made(tmp_path_factory):
    root = tmp_path_factory.mktemp('made')
    for name in ('dram', 'pidray'):
        runpy.run_path(str(TOOLS / f'make_tiny_{name}.py'))[f'make_tiny_{name}'](root / name)
    return root


@pytest.fixture
def copy(made, tmp_path):
    shutil.copytree(made, tmp_path / 'elsewhere' / 'data')
    return tmp_path / 'elsewhere' / 'data'


def dram(root, **kwargs):
    return dataset_fingerprint(build_dram(root / 'dram', test_mode=True, **kwargs))


def pidray(root, split='hard', **kwargs):
    return dataset_fingerprint(build_pidray(root / 'pidray', split=split, test_mode=True, **kwargs))


def test_the_place_of_the_data_does_not_matter(made, copy, monkeypatch):
    assert len(dram(made)) == 64
    assert dram(made) == dram(copy) and pidray(made) == pidray(copy)
    monkeypatch.chdir(copy)
    assert dram(Path('.')) == dram(made) and pidray(Path('../data')) == pidray(made)


def test_settings_that_change_items_matter(made):
    prints = [
        dram(made),
        dram(made, min_area=100),
        dram(made, instances='classes'),
        dram(made, movement='dram'),
        dram(made, subset='paintings'),
        dram(made, indices=3),
        pidray(made),
        pidray(made, split='easy'),
        pidray(made, classes=['Wrench']),
    ]
    assert len(set(prints)) == len(prints)
    # Not in it: what is done with an item.
    assert dram(made, pipeline=[dict(type='genseg_mm.LoadImage')]) == prints[0]


def test_files_matter_by_name_and_size(made, copy):
    before = dram(copy)
    path = copy / 'dram/test/realism/courbet/portrait.jpg'
    data = path.read_bytes()
    path.write_bytes(data + b'\0')
    assert dram(copy) != before
    path.write_bytes(data[::-1])  # the same size: not seen, as documented
    assert dram(copy) == before
    label = copy / 'dram/labels/realism/courbet/portrait.png'
    Image.open(label).convert('L').save(label)  # no palette: fewer bytes
    assert dram(copy) != before


def test_annotations_matter_to_the_last_digit(copy):
    before = pidray(copy)
    path = copy / 'pidray/annotations/xray_test_hard.json'
    content = json.loads(path.read_text())
    polygon = content['annotations'][0]['segmentation'][0]
    polygon[0] += 1e-9
    path.write_text(json.dumps(content))
    assert pidray(copy) != before
    polygon[0] -= 1e-9
    path.write_text(json.dumps(content, indent=3))  # written otherwise, the same content
    assert pidray(copy) == before
    content['annotations'].reverse()
    path.write_text(json.dumps(content))
    assert pidray(copy) != before


def test_datasets_in_one_by_parts_and_order(made):
    easy, hard = (build_pidray(made / 'pidray', split=split, test_mode=True) for split in ('easy', 'hard'))
    joined = dataset_fingerprint(ConcatDataset([easy, hard]))
    assert joined != dataset_fingerprint(ConcatDataset([hard, easy]))
    assert len({joined, dataset_fingerprint(ConcatDataset([easy])), dataset_fingerprint(easy)}) == 3
    assert joined == dataset_fingerprint(ConcatDataset([easy, hard]))


def test_procedural_scenes_by_their_arrays():
    def shapes(**kwargs):
        settings = dict(num_scenes=4, image_size=32, split='test', task='instance', test_mode=True)
        return dataset_fingerprint(build_shapes(**{**settings, **kwargs}))

    assert shapes() == shapes(cache=False)
    assert len({shapes(), shapes(seed=1), shapes(shapes='unseen'), shapes(num_scenes=5)}) == 4


SCRIPT = """
import sys
from genseg_mm.datasets import DRAMDataset
from genseg_mm.benchmarking.provenance import dataset_fingerprint
print(dataset_fingerprint(DRAMDataset(sys.argv[1], test_mode=True)))
"""


def test_the_hash_seed_of_python_does_not_matter(made):
    command = [sys.executable, '-c', SCRIPT, str(made / 'dram')]
    done = subprocess.run(command, cwd=ROOT, env={**os.environ, 'PYTHONHASHSEED': '77'}, capture_output=True, text=True)
    assert done.stdout.split()[-1] == dram(made), done.stderr


class Listed(BaseDataset):
    """Items as given."""

    def __init__(self, items):
        self.items = items
        super().__init__(serialize_data=False)

    def load_data_list(self):
        return self.items


def test_values_of_every_kind():
    def of(**item):
        return dataset_fingerprint(Listed([item]))

    ids = np.arange(6, dtype=np.int32).reshape(2, 3)
    assert of(ids=ids) == of(ids=ids.astype('>i4')) == of(ids=np.asfortranarray(ids))
    assert len({of(ids=ids), of(ids=ids.astype(np.int64)), of(ids=ids.T), of(ids=ids + 1)}) == 4
    assert of(n=np.int64(3)) == of(n=3) != of(n=4)
    assert of(names={'b', 'a'}) == of(names=['a', 'b'])
    long = [0.5 * n for n in range(20)]
    assert of(outline=long) == of(outline=tuple(long)) != of(outline=[*long[:-1], 9.6])
    assert of(runs=[*range(10)]) != of(runs=[*range(9), 10])
    with pytest.raises(ValueError, match='item 0 of Listed has no fingerprint: object'):
        of(thing=object())
    with pytest.raises(ValueError, match="list: expected a dataset of MMEngine's kind"):
        dataset_fingerprint([1, 2])


def test_a_fingerprint_costs_no_more_than_a_few_readings_of_the_file(tmp_path):
    outline = [[float(place) + 0.37 for place in range(60)]]
    images = [dict(id=n, file_name=f'{n:012d}.jpg', height=480, width=640) for n in range(2_000)]
    annotations = [
        dict(id=n, image_id=n // 7, category_id=1, bbox=[1, 1, 50, 50], area=9, segmentation=outline)
        for n in range(14_000)
    ]
    content = dict(images=images, annotations=annotations, categories=[dict(id=1, name='it')])
    (tmp_path / 'a.json').write_text(json.dumps(content))
    dataset = CocoInstanceDataset(str(tmp_path), ann_file='a.json', data_prefix=dict(img='.'))
    start = time.process_time()
    for _ in range(3):
        json.loads((tmp_path / 'a.json').read_text())
    reading = (time.process_time() - start) / 3
    start = time.process_time()
    dataset_fingerprint(dataset)
    assert time.process_time() - start < 10 * reading
