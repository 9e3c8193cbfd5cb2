"""Benchmarks of referring segmentation: what they measure, and the shipped GenMask on tiny copies of their data."""

import math
import runpy
import shutil
from pathlib import Path

import numpy as np
import pytest
from mmengine.config import Config
from mmengine.registry import DATASETS, METRICS, DefaultScope

from genseg_mm.benchmarking.examples import predicted_items
from genseg_mm.benchmarking.jobs import effective_config, fill_network_size
from genseg_mm.config_file import read_config_file
from genseg_mm.evaluation import SampleResults
from genseg_mm.inference.build_model import build_model

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / 'configs' / '_base_' / 'benchmarks'
MODEL = ROOT / 'configs' / 'genmask' / 'genmask_sana_shapes_long_tiny.py'
WEIGHTS = ROOT / 'genseg_mm' / 'weights' / 'genmask_sana_shapes.safetensors'
# name -> protocol, refs file (None: not of the refer format), split, items of the tiny copy
BENCHMARKS = dict(
    refcoco_val=('lavt', 'refcoco/refs(unc).p', 'val', 3),
    refcoco_testA=('lavt', 'refcoco/refs(unc).p', 'testA', 2),
    refcoco_testB=('lavt', 'refcoco/refs(unc).p', 'testB', 4),
    refcoco_plus_val=('lavt', 'refcoco+/refs(unc).p', 'val', 6),
    refcoco_plus_testA=('lavt', 'refcoco+/refs(unc).p', 'testA', 2),
    refcoco_plus_testB=('lavt', 'refcoco+/refs(unc).p', 'testB', 4),
    refcocog_val=('lavt', 'refcocog/refs(umd).p', 'val', 1),
    refcocog_test=('lavt', 'refcocog/refs(umd).p', 'test', 2),
    refcocog_google_val=('lavt', 'refcocog/refs(google).p', 'val', 3),
    refcoco_google_val=('lavt', 'refcoco/refs(google).p', 'val', 3),
    refcoco_google_test=('lavt', 'refcoco/refs(google).p', 'test', 6),
    grefcoco_val=('grefcoco', None, 'val', 6),
    grefcoco_testA=('grefcoco', None, 'testA', 2),
    grefcoco_testB=('grefcoco', None, 'testB', 1),
    reasonseg_val=('reasonseg', None, 'val', 2),
    reasonseg_test=('reasonseg', None, 'test', 2),
)


@pytest.fixture(scope='module')
def root(tmp_path_factory):
    root = tmp_path_factory.mktemp('tiny')
    for name, folder in (('captions', ''), ('refcoco', 'coco'), ('grefcoco', 'coco'), ('reasonseg', '')):
        tool = ROOT / 'tools' / 'dataset_tools' / f'make_tiny_{name}.py'
        runpy.run_path(str(tool))[f'make_tiny_{name}'](root / folder)
    refcoco = root / 'coco' / 'refcoco'
    shutil.copyfile(refcoco / 'refs(unc).p', refcoco / 'refs(google).p')  # the tool writes none
    return root


@pytest.fixture(scope='module')
def benchmarks(root):
    names = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv('GENSEG_DATA', str(root))
        for file in ('refcoco', 'grefcoco', 'reasonseg'):
            cfg = read_config_file(FOLDER / f'{file}.py')
            names.update({name: own for name, own in cfg.items() if not name.startswith('_')})
    return names


@pytest.fixture(scope='module')
def model():
    return build_model(read_config_file(MODEL), WEIGHTS, 'cpu')


def test_every_evaluation_split_is_there(benchmarks):
    assert list(benchmarks) and set(benchmarks) == set(BENCHMARKS)
    for name, (protocol, refs, split, _) in BENCHMARKS.items():
        cfg = benchmarks[name]
        assert cfg.evaluator.protocol == protocol and cfg.task == 'referring'
        assert (cfg.dataset.split, cfg.dataset.test_mode) == (split, True)
        assert cfg.dataset.get('split_file') == refs
        assert cfg.tolerance == 0.05 and 'original size' in cfg.protocol
        steps = [step['type'].rpartition('.')[2] for step in cfg.dataset.pipeline]
        described = ['model_descriptions'] if 'reasonseg' in name else []
        loading = ['LoadImage', 'model_resize', 'LoadReferringMask']
        assert steps == [*loading, *described, 'TextPrompt', 'PackGenSegInputs']
    titles = [cfg.title for cfg in benchmarks.values()]
    assert len(set(titles)) == len(titles) and titles[:3] == ['RefCOCO val', 'RefCOCO testA', 'RefCOCO testB']
    assert benchmarks['refcoco_val'].dataset.sentence == 'all'
    assert benchmarks['reasonseg_test'].dataset.sentence == 'first'
    assert benchmarks['grefcoco_val'].evaluator.min_pixels == 1
    assert 'min_pixels 1' in benchmarks['grefcoco_val'].protocol


def test_files_share_no_name():
    owner = {}
    for path in sorted(FOLDER.glob('*.py')):
        for name in read_config_file(path):
            assert owner.setdefault(name, path.stem) == path.stem, name


@pytest.mark.parametrize('file', ['reasonseg', pytest.param('refcoco', marks=pytest.mark.slow)])
def test_files_reload(file, tmp_path):
    cfg = read_config_file(FOLDER / f'{file}.py')
    cfg.dump(tmp_path / 'again.py')
    assert Config.fromfile(tmp_path / 'again.py').to_dict() == cfg.to_dict()


def measure(benchmark: dict, model, path: Path) -> tuple[dict, int]:
    cfg = effective_config(read_config_file(MODEL), benchmark, sample_file=str(path))
    fill_network_size(cfg, model)
    with DefaultScope.overwrite_default_scope('genseg_mm'):
        dataset = DATASETS.build(cfg.test_dataloader.dataset)
        metric = METRICS.build(cfg.test_evaluator)
    for _, sample in predicted_items(model, dataset, range(len(dataset))):
        metric.process({}, [sample])
    return metric.evaluate(len(dataset)), len(dataset)


@pytest.mark.parametrize('name', BENCHMARKS)
def test_shipped_genmask_on_tiny_copies(name, benchmarks, model, tmp_path):
    metrics, number = measure(benchmarks[name], model, tmp_path / 's.npz')
    assert number == BENCHMARKS[name][3]
    rows = SampleResults.load(tmp_path / 's.npz')
    assert rows.index.tolist() == list(range(number))
    groups = [key for key in ('length', 'kind', 'words') if key in rows.groups]
    for full_name, value in metrics.items():
        metric, _, group = full_name.partition('/')
        where = [row for row in range(number) if group in ('', *(rows.groups[key][row] for key in groups))]
        again = rows.metric(metric, np.array(where))
        if metric in ('oIoU', 'cIoU') and math.isnan(again):
            again = 0.0
        assert again == value or (metric[1:] == '-acc' and math.isnan(value)), full_name
        assert 0 <= value <= 100 or metric.startswith(('N-acc', 'T-acc', 'Pr@')), full_name
    assert math.isfinite(metrics['oIoU']) and math.isfinite(metrics['mIoU'])
    assert any(full_name.endswith(' words') for full_name in metrics)


def test_easy_pictures_are_solved_and_items_are_named(benchmarks, model, tmp_path):
    metrics, _ = measure(benchmarks['refcoco_val'], model, tmp_path / 's.npz')
    assert metrics['oIoU'] > 70  # painted shapes, of the kind that it was trained on
    rows = SampleResults.load(tmp_path / 's.npz')
    assert rows.items[0].startswith('val/COCO_train2014_000000000122.jpg#sent ')
    assert len(set(rows.pictures)) < len(rows)
    assert rows.values['target'].min() > 0


def test_reasonseg_tells_long_and_short_and_counts_the_empty_picture(benchmarks, model, tmp_path):
    metrics, _ = measure(benchmarks['reasonseg_test'], model, tmp_path / 's.npz')
    rows = SampleResults.load(tmp_path / 's.npz')
    lengths = np.array(rows.groups['length'])
    for length in set(rows.groups['length']):
        mean = rows.values['iou'][lengths == length].mean()
        assert metrics[f'gIoU/{length}'] == pytest.approx(100 * mean)
    empty = np.flatnonzero(rows.values['target'] == 0)
    assert len(empty) == 1
    right = rows.values['predicted'][empty[0]] == 0
    assert rows.values['iou'][empty[0]] == float(right)
