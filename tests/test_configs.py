"""Every config parses, dumps, reloads; every tiny one trains, tests and predicts through the tools."""

import ast
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from mmengine.config import Config

ROOT = Path(__file__).parents[1]
LEAVES = sorted(
    path for path in (ROOT / 'configs').rglob('*.py') if '_base_' not in path.parts
)
TINY = [path for path in LEAVES if '_tiny' in path.stem]


@pytest.mark.parametrize('path', LEAVES, ids=lambda path: path.stem)
def test_config_parses_dumps_and_reloads(path, tmp_path, monkeypatch):
    monkeypatch.setenv('GENSEG_DATA', '/somewhere')
    cfg = Config.fromfile(path)
    assert cfg.default_scope in ('genseg_mm', 'mmseg', 'mmdet')
    cfg.dump(tmp_path / 'dumped.py')
    assert Config.fromfile(tmp_path / 'dumped.py').to_dict() == cfg.to_dict()
    for scheduler in cfg.get('param_scheduler', []):
        assert scheduler.get('end', 0) <= cfg.train_cfg.max_iters
    if 'refcoco' in path.stem:
        assert cfg.train_dataloader.dataset.data_root == '/somewhere/coco/'
        assert cfg.test_dataloader.dataset.test_mode


@pytest.mark.parametrize('path', LEAVES, ids=lambda path: path.stem)
def test_leaf_says_what_it_is_for(path):
    text = path.read_text()
    docstring = ast.get_docstring(ast.parse(text))
    assert 'Command:' in docstring and 'Hardware:' in docstring and 'Expected' in docstring
    own = path.relative_to(ROOT).as_posix()
    assert own in docstring, f'the command of {own} should name it'
    assert len(text.splitlines()) <= 70


def test_basenames_are_unique():
    names = [path.name for path in LEAVES]
    assert len(names) == len(set(names))  # mim finds configs by basename


@pytest.fixture(scope='module')
def refcoco_root(tmp_path_factory):
    root = tmp_path_factory.mktemp('data')
    tool = ROOT / 'tools/dataset_tools/make_tiny_refcoco.py'
    subprocess.run([sys.executable, str(tool), str(root)], check=True, capture_output=True)
    return root


@pytest.mark.slow
@pytest.mark.parametrize('path', TINY, ids=lambda path: path.stem)
def test_tiny_config_trains_tests_and_draws(path, tmp_path, refcoco_root):
    environment = {**os.environ, 'GENSEG_DATA': str(refcoco_root), 'OMP_NUM_THREADS': '1'}
    options = ['--work-dir', str(tmp_path), '--cfg-options', 'default_hooks.logger.interval=1']
    short = ['train_cfg.max_iters=4', 'train_cfg.val_interval=4']
    train = [sys.executable, str(ROOT / 'tools/train.py'), str(path), *options, *short]
    result = subprocess.run(train, capture_output=True, text=True, env=environment, cwd=tmp_path)
    assert result.returncode == 0, result.stderr[-3000:]
    logs = [json.loads(line) for line in next(tmp_path.glob('*/vis_data/scalars.json')).open()]
    losses = [entry['loss'] for entry in logs if 'loss' in entry]
    assert len(losses) == 4 and all(0 < loss < 1e4 for loss in losses)
    test = [sys.executable, str(ROOT / 'tools/test.py'), str(path), str(tmp_path / 'iter_4.pth')]
    test += [*options, 'default_hooks.visualization.test=True']
    result = subprocess.run(test, capture_output=True, text=True, env=environment, cwd=tmp_path)
    assert result.returncode == 0, result.stderr[-3000:]
    metrics = json.loads(max(tmp_path.glob('*/*.json')).read_text())
    name = 'oIoU' if 'genmask' in str(path.parent) else 'seen_mIoU'
    assert 0 <= metrics[name] <= 100
    assert list(tmp_path.glob('vis/val/iter_4.png')) and list(tmp_path.glob('vis/test/*.png'))
