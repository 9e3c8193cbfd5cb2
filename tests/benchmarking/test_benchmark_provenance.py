"""Hashes that are the same on every machine."""

import hashlib
from collections import OrderedDict

import pytest
from mmengine.config import Config, ConfigDict

from genseg_mm.benchmarking import provenance
from genseg_mm.benchmarking.jobs import benchmark_sha256, key_parts, model_sha256, run_key
from genseg_mm.checkpoint import weights_sha256
from genseg_mm.datasets import ShapesDataset

ABC = 'ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad'  # sha256 of 'abc', FIPS 180-2


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
    assert list(versions)[0] == 'genseg_mm'
    assert 'torch' in versions and any('mmengine' in name for name in versions)
    assert ' cores' in provenance.hardware() and 'GiB memory' in provenance.hardware()


def test_paths_of_a_report_are_not_those_of_the_machine(tmp_path):
    inside = provenance.ROOT / 'configs' / 'a.py'
    assert provenance.display_path(str(inside)) == 'configs/a.py'
    assert provenance.display_path(str(tmp_path / 'b.py')) == 'b.py'
    assert provenance.display_path('c/d.py') == 'c/d.py'
    assert provenance.display_path(None) is None
