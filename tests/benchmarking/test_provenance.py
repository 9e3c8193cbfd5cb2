"""Hashes that are the same on every machine; fingerprints of datasets, the same wherever a copy lies."""

import hashlib
import json
import os
import runpy
import shutil
import subprocess
import sys
import time
from collections import OrderedDict
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from mmengine.config import Config, ConfigDict
from mmengine.dataset import BaseDataset, ConcatDataset
from PIL import Image

from genseg_mm.benchmarking import provenance
from genseg_mm.benchmarking.jobs import benchmark_sha256, key_parts, model_sha256, run_key
from genseg_mm.benchmarking.provenance import dataset_fingerprint
from genseg_mm.checkpoint import weights_sha256
from genseg_mm.datasets import CocoInstanceDataset, DRAMDataset, PIDRayDataset, ShapesDataset

ABC = 'ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad'  # sha256 of 'abc', FIPS 180-2
ROOT = Path(__file__).parents[2]
TOOLS = ROOT / 'tools' / 'dataset_tools'
# Not serialised: that is for training, and waits for the garbage collector each time.
build_dram = partial(DRAMDataset, serialize_data=False)
build_pidray = partial(PIDRayDataset, serialize_data=False)
build_shapes = partial(ShapesDataset, serialize_data=False)


def test_canonical_form():
    value = ConfigDict(b=(1, 2.5, None), a=dict(type=ShapesDataset, ann_file='/home/me/data/x.json'))
    assert provenance.canonical(value) == {
        'a': {'ann_file': 'x.json', 'type': 'genseg_mm.ShapesDataset'},
        'b': [1, 2.5, None],
    }
    assert provenance.config_sha256({}) == hashlib.sha256(b'{}').hexdigest()


def test_hash_knows_neither_order_nor_folders():
    one = dict(a=1, dataset=dict(data_root='/mnt/disk/coco/', split='val'), b=[1, (2, 3)])
    other = OrderedDict(b=((1), [2, 3]), dataset=dict(split='val', data_root='data/coco'), a=1)
    assert provenance.config_sha256(one) == provenance.config_sha256(other)
    changed = dict(one, dataset=dict(data_root='data/coco', split='train'))
    assert provenance.config_sha256(one) != provenance.config_sha256(changed)


def test_title_and_tolerance_do_not_decide_a_benchmark():
    benchmark = dict(task='points', title='A', tolerance=0.1, dataset=dict(type='X'))
    own = benchmark_sha256(benchmark)
    assert own == benchmark_sha256(dict(benchmark, title='B', tolerance=0.2))
    assert own != benchmark_sha256(dict(benchmark, dataset=dict(type='Y')))


def test_model_hash_covers_model_and_size_only():
    def config(**changes: object) -> Config:
        pipeline = [dict(type='mmcv.Resize', scale=changes.pop('scale', (8, 8)))]
        loader = dict(dataset=dict(type='D', pipeline=pipeline))
        return Config(dict(dict(model=dict(type='M', a=1), test_dataloader=loader), **changes))

    own = model_sha256(config())
    assert own == model_sha256(config(train_cfg=dict(max_iters=5), work_dir='/x'))
    assert own != model_sha256(config(scale=(16, 16)))
    assert own != model_sha256(config(model=dict(type='M', a=2)))


def test_weights_hash_of_file_and_folder(tmp_path):
    (tmp_path / 'one').mkdir()
    file = tmp_path / 'one' / 'w.pth'
    file.write_bytes(b'abc')
    assert weights_sha256(str(file)) == ABC
    folder = weights_sha256(str(tmp_path / 'one'))
    assert folder == provenance.config_sha256({'w.pth': ABC})
    (tmp_path / 'one' / 'x').write_bytes(b'')
    assert weights_sha256(str(tmp_path / 'one')) != folder
    with pytest.raises(FileNotFoundError, match='missing.pth does not exist'):
        weights_sha256('missing.pth')


def test_hub_weights_are_known_by_their_commit(tmp_path):
    commit = '0123456789' * 4
    folder = tmp_path / 'models--owner--name'
    (folder / 'refs').mkdir(parents=True)
    (folder / 'refs' / 'main').write_text(commit)
    (folder / 'snapshots' / commit).mkdir(parents=True)
    (folder / 'snapshots' / commit / 'config.json').write_text('{}')
    assert provenance.released_sha('owner/name', str(tmp_path)) == commit
    assert provenance.released_sha('owner/other', str(tmp_path)) is None


def test_key_changes_with_each_part():
    def key(**changes: object) -> str:
        own = dict(model='m', checkpoint='w', benchmark='b', data='d', version='1', one_by_one=True, threads=1, seed=0)
        own |= changes
        run = dict(packages=dict(genseg_mm=own['version'], torch='2'), processes=2, device='cpu')
        parts = key_parts(
            dict(config_sha256=own['model'], checkpoint_sha256=own['checkpoint'], title='M'),
            dict(sha256=own['benchmark'], title='B'),
            dict(fingerprint=own['data'], items=3),
            run | {name: own[name] for name in ('one_by_one', 'threads', 'seed')},
        )
        return run_key(parts)

    changes = [dict(model='n'), dict(checkpoint=None), dict(benchmark='c'), dict(data='e'), dict(version='2')]
    changes += [dict(one_by_one=False), dict(threads=None), dict(seed=1)]
    assert key() == key()
    assert len({key(), *(key(**own) for own in changes)}) == 9
    assert key() == provenance.config_sha256(['m', 'w', 'b', 'd', '1', True, 1, 0])  # of the results that are there


def test_weights_that_a_config_names_are_part_of_the_model(tmp_path, monkeypatch):
    hashes = []
    for folder, text in (('one', 'a'), ('two', 'b'), ('three', 'a')):
        weights = tmp_path / folder / 'sd2'
        weights.mkdir(parents=True)
        (weights / 'unet.bin').write_text(text)
        cfg = Config(dict(model=dict(type='M', parts=[dict(pretrained=str(weights))])))
        hashes.append(model_sha256(cfg))
    assert hashes[0] == hashes[2] != hashes[1]
    monkeypatch.setattr(provenance, '_HASHED_BYTES', 0)  # large files: by their size
    assert len({model_sha256(cfg), hashes[2]}) == 2
    before = model_sha256(cfg)
    (weights / 'unet.bin').write_text('ab')
    assert model_sha256(cfg) != before


def test_facts_of_the_machine():
    versions = provenance.packages()
    assert next(iter(versions)) == 'genseg_mm'
    assert 'torch' in versions and any('mmengine' in name for name in versions)
    assert ' cores' in provenance.hardware() and 'GiB memory' in provenance.hardware()


def test_paths_of_a_report_are_not_those_of_the_machine(tmp_path):
    inside = provenance.ROOT / 'configs' / 'a.py'
    assert provenance.display_path(str(inside)) == 'configs/a.py'
    assert provenance.display_path(str(tmp_path / 'b.py')) == 'b.py'
    assert provenance.display_path('c/d.py') == 'c/d.py'
    assert provenance.display_path(None) is None


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


def test_procedural_scenes_by_their_arrays(tmp_path, monkeypatch):
    def shapes(**kwargs):
        settings = dict(num_scenes=4, image_size=32, split='test', task='instance', test_mode=True)
        return dataset_fingerprint(build_shapes(**{**settings, **kwargs}))

    assert shapes() == shapes(cache=False)
    assert len({shapes(), shapes(seed=1), shapes(shapes='unseen'), shapes(num_scenes=5)}) == 4
    here = shapes()
    monkeypatch.chdir(tmp_path)  # they have no file, so that no folder may be in it
    assert shapes() == here


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
