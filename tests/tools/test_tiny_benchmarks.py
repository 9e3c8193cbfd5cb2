"""All tiny evaluation data in one folder, and the benchmark configs that read it."""

import json
import os
import runpy
import shutil
from pathlib import Path

import numpy as np
import pytest
from mmengine.registry import DATASETS

from genseg_mm.benchmarking.suite import read_dataset_config
from genseg_mm.config_file import read_config_file
from genseg_mm.launch.dataset_parts import dataset_parts

ROOT = Path(__file__).parents[2]
TOOL = ROOT / 'tools' / 'dataset_tools' / 'make_tiny_benchmarks.py'
BENCHMARKS = ROOT / 'configs' / '_base_' / 'benchmarks'
make_tiny_benchmarks = runpy.run_path(str(TOOL))['make_tiny_benchmarks']


@pytest.fixture(scope='module')
def made(tmp_path_factory):
    root = tmp_path_factory.mktemp('made') / 'tiny'
    assert make_tiny_benchmarks(root)
    return root


@pytest.fixture
def data(made, tmp_path, monkeypatch):
    """GENSEG_DATA with datasets that the test may damage."""
    shutil.copytree(made, tmp_path / 'data', symlinks=True)
    monkeypatch.setenv('GENSEG_DATA', str(tmp_path / 'data'))
    return tmp_path / 'data'


def test_all_folders_are_there_and_nothing_else_beside(made):
    assert sorted(path.name for path in made.iterdir()) == [
        'BSDS500', 'DRAM_processed', 'ReasonSeg', 'coco', 'egohos', 'image_text', 'ishape_dataset', 'pidray',
        'tiny_benchmarks.json',
    ]  # fmt: skip
    assert [path.name for path in made.parent.iterdir()] == ['tiny']
    assert sorted(path.name for path in (made / 'coco').iterdir() if path.is_dir()) == [
        'annotations', 'grefcoco', 'refcoco', 'refcoco+', 'refcocog', 'train2014', 'train2017', 'val2014', 'val2017',
    ]  # fmt: skip
    assert not os.path.isabs(os.readlink(made / 'ishape_dataset/wire/val/coco_format/train2017'))


def test_a_second_call_writes_nothing_and_a_changed_tool_writes_anew(data):
    picture = data / 'egohos/val/image/thu_0003.jpg'
    picture.unlink()
    assert not make_tiny_benchmarks(data)
    assert not picture.exists()
    mark = json.loads((data / 'tiny_benchmarks.json').read_text())
    (data / 'tiny_benchmarks.json').write_text(json.dumps(dict(mark, version='older')))
    (data / 'left over').touch()
    assert make_tiny_benchmarks(data)
    assert picture.is_file() and not (data / 'left over').exists()
    assert sorted(path.name for path in data.parent.iterdir()) == ['data']


def test_folders_of_others_are_left_alone(tmp_path):
    (tmp_path / 'mine').mkdir()
    (tmp_path / 'mine' / 'precious.txt').write_text('keep')
    with pytest.raises(ValueError, match='mine is not empty and was not written by'):
        make_tiny_benchmarks(tmp_path / 'mine')
    assert [path.name for path in (tmp_path / 'mine').iterdir()] == ['precious.txt']
    with pytest.raises(ValueError, match='expected a folder .*but got the file .*precious.txt'):
        make_tiny_benchmarks(tmp_path / 'mine' / 'precious.txt')
    (tmp_path / 'mine' / 'tiny_benchmarks.json').write_text('{')
    with pytest.raises(ValueError, match='tiny_benchmarks.json is damaged'):
        make_tiny_benchmarks(tmp_path / 'mine')


# file, benchmark -> subsets, items, prompts (by hand from the makers' lists)
POINTS = dict(
    dram=([None], 6, 11),  # without the speck
    egohos=(['indomain', 'outdomain'], 4, 11 + 3),
    ishape=(['antenna', 'branch', 'fence', 'hanger', 'log', 'wire'], 12, 36),
    pidray=(['easy', 'hard', 'hidden'], 6, 2 + 5 + 2),
    coco=([None], 2, 3 + 2),  # cat, dog, person; two persons
)


def items_of(cfg):
    """All items of a benchmark's dataset, without the model's resize."""
    cfg = dict(cfg)
    if 'datasets' in cfg:
        return [item for part in cfg['datasets'] for item in items_of(part)]
    cfg['pipeline'] = [own for own in cfg['pipeline'] if own['type'] != 'model_resize']
    return list(DATASETS.build(cfg))


def parts_of(cfg):
    """A benchmark's datasets: itself, or those that it joins."""
    return cfg.get('datasets') or [cfg]


def test_settings_are_those_that_the_protocols_state():
    """Truth is loaded after the resize, at the original size; points and rule are the same in all sets."""
    found = {name: read_config_file(str(BENCHMARKS / f'{name}.py')).to_dict()[name] for name in POINTS}
    for name, benchmark in found.items():
        for part in parts_of(benchmark['dataset']):
            steps = [own['type'].rpartition('.')[2] for own in part['pipeline']]
            loading = ['LoadImage', 'model_resize', 'LoadInstanceMap']
            assert steps == [*loading, 'PointPrompt', 'PackGenSegInputs'], name
            assert part['pipeline'][3] == dict(type='genseg_mm.PointPrompt', mode='random', seed=0)
            assert part['test_mode'] is True
        settings = dict(benchmark['evaluator'])
        assert settings.pop('size_bands', False) == (name == 'coco')
        kind = 'genseg_mm.PointPromptMetric'
        assert settings == dict(type=kind, threshold='reference', controls=False)
        assert benchmark['control_evaluator'] == dict(threshold='best')
        assert 'one random pixel' in benchmark['protocol'] and 'reference rule' in benchmark['protocol']
    assert found['coco']['dataset']['classes'] == 'coco_novel'
    assert found['dram']['dataset']['pipeline'][0]['color_type'] == 'color_ignore_orientation'
    assert (found['dram']['dataset']['instances'], found['dram']['dataset']['min_area']) == ('components', 100)
    assert {own['instances'] for own in found['egohos']['dataset']['datasets']} == {'roles'}
    assert {own['split'] for own in found['ishape']['dataset']['datasets']} == {'val'}
    edges = read_config_file(str(BENCHMARKS / 'bsds500.py')).to_dict()['bsds500']
    steps = [own['type'].rpartition('.')[2] for own in edges['dataset']['pipeline']]
    assert steps == ['LoadImage', 'model_resize', 'LoadBoundaries', 'PackGenSegInputs']
    settings = [edges['evaluator'][key] for key in ('num_thresholds', 'max_distance', 'thin', 'sigma')]
    assert settings == [99, 0.0075, True, 1.0] and edges['dataset']['split'] == 'test'


@pytest.mark.parametrize('name', POINTS)
def test_point_benchmarks_on_the_tiny_data(name, data):
    benchmark = read_config_file(str(BENCHMARKS / f'{name}.py')).to_dict()[name]
    assert benchmark['task'] == 'points' and 'seed 0' in benchmark['protocol']
    assert benchmark['evaluator']['type'] == 'genseg_mm.PointPromptMetric'
    samples = [item['data_samples'] for item in items_of(benchmark['dataset'])]
    subsets, num_items, num_prompts = POINTS[name]
    assert list(dict.fromkeys(own.get('subset') for own in samples)) == subsets
    assert len({own.img_id for own in samples}) == len(samples) == num_items
    assert sum(len(own.point_ids) for own in samples) == num_prompts
    for own in samples:
        places = np.asarray(own.points, int).reshape(-1, 2)
        found = [int(own.gt_instance_map.data[0, y, x]) for x, y in places]
        assert found == own.point_ids.tolist()


def test_instances_of_coco_keep_other_classes_as_ignored(data):
    benchmark = read_config_file(str(BENCHMARKS / 'coco.py')).to_dict()['coco_instances']
    assert benchmark['task'] == 'instances' and benchmark['model'] == dict(automatic=True)
    samples = [item['data_samples'] for item in items_of(benchmark['dataset'])]
    flags = [[own['ignore_flag'] for own in sample.instances] for sample in samples]
    # cup, table, chair; cat, dog, person; two persons and a crowd; nothing
    assert flags == [[1, 1, 1], [0, 0, 0], [0, 0, 1], []]


def test_names_are_those_of_benchmarks_and_parts_are_found(data):
    names = {}
    for path in sorted(BENCHMARKS.glob('*.py')):
        cfg = read_dataset_config(str(path))
        for name in cfg:
            assert name.startswith('_') or name not in names, f'{name} is in two files'
            names[name] = path.stem
    parts = dataset_parts(read_dataset_config(str(BENCHMARKS / 'pidray.py')), ('val',))
    assert [part.name for part in parts] == ['pidray 1/3', 'pidray 2/3', 'pidray 3/3']
    assert [len(part.build()) for part in parts] == [2, 2, 2]


def test_verify_names_every_broken_file(data, verify):
    folder = data / 'DRAM_processed'
    name = 'realism/courbet/portrait'
    for path in (folder / 'test' / f'{name}.jpg', folder / 'labels' / f'{name}.png'):
        path.write_bytes(path.read_bytes()[:200])  # picture and labels of one item
    (folder / 'labels/impressionism/manet/portrait.png').write_bytes(b'no')
    (folder / 'test/expressionism/marc/cat.jpg').unlink()
    code, reports, _ = verify(BENCHMARKS / 'dram.py', '--split', 'test')
    report = reports['dram']
    assert code == 1 and report['expected'] == 718
    assert list(report['missing']) == [str(folder / 'test/expressionism/marc/cat.jpg')]
    assert sorted(report['unreadable']) == [
        str(folder / 'labels/impressionism/manet/portrait.png'),
        str(folder / f'labels/{name}.png'),
        str(folder / f'test/{name}.jpg'),
    ]
    assert report['notes'][-1].startswith('713 pictures fewer than the 718')


@pytest.mark.parametrize(
    ('name', 'part', 'file'),
    [
        ('egohos', 'egohos 1/2', 'egohos/test_indomain/label/escape_0006.png'),
        ('ishape', 'ishape 5/6', 'ishape_dataset/log/val/instance_map/0001.png'),
        ('pidray', 'pidray 2/3', 'pidray/hard/xray_hard00001.png'),
    ],
)
def test_verify_names_a_broken_file_of_each_dataset(name, part, file, data, verify):
    (data / file).write_bytes((data / file).read_bytes()[:100])
    code, reports, _ = verify(BENCHMARKS / f'{name}.py')
    assert code == 1
    bad = {own: list(report['unreadable']) for own, report in reports.items()}
    assert bad == {own: [str(data / file)] if own == part else [] for own in reports}


def test_verify_counts_boundaries_and_names_their_broken_files(data, verify):
    truths = sorted((data / 'BSDS500/data/groundTruth/test').iterdir())
    code, reports, _ = verify(BENCHMARKS / 'bsds500.py')
    assert code == 0 and reports['bsds500']['items'] == 4
    assert reports['bsds500']['instances'] == [4, 5.5, 6]
    assert reports['bsds500']['notes'] == ['196 pictures fewer than the 200 of the complete dataset']
    truths[1].write_bytes(truths[1].read_bytes()[:300])
    code, reports, _ = verify(BENCHMARKS / 'bsds500.py')
    assert code == 1 and list(reports['bsds500']['unreadable']) == [str(truths[1])]
