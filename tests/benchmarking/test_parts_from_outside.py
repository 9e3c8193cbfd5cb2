"""A dataset and a metric of a user, each one file that is not in the package, through the tools' own doors."""

import json
import runpy
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from mmengine.config import Config
from test_benchmark_tool import run

from genseg_mm import launch
from genseg_mm.benchmarking.provenance import dataset_fingerprint
from genseg_mm.leaderboard import read_records
from genseg_mm.registry import DATASETS, METRICS

ROOT = Path(__file__).parents[2]
DATASET = '''
"""Pictures with two squares: <data_root>/<n>.png and ids in <n>_ids.png."""
from pathlib import Path

from genseg_mm.datasets.instance_maps import InstanceMapDataset
from genseg_mm.datasets.published_counts import Count
from genseg_mm.registry import DATASETS


@DATASETS.register_module()
class SquaresDataset(InstanceMapDataset):
    PUBLISHED = 5  # pictures

    def list_pairs(self):
        for path in sorted(Path(self.data_root).glob('?.png')):
            yield dict(img_path=str(path), instance_map_path=str(path.with_stem(f'{path.stem}_ids')), img_id=path.stem)

    def published_counts(self):
        yield Count(len(self), 'pictures', self.PUBLISHED)
'''
METRIC = '''
"""The share of the pixels that an object has, mean over pictures, in percent."""
from mmengine.evaluator import BaseMetric

from genseg_mm.registry import METRICS


@METRICS.register_module()
class ObjectSize(BaseMetric):
    def __init__(self, scale: float = 100.0) -> None:
        super().__init__()
        self.scale = scale

    def process(self, data_batch, data_samples):
        for sample in data_samples:
            ids = sample['gt_instance_map']['data']
            self.results.append(float((ids > 0).float().mean() / ids.max()))  # one a sample, as MMEngine wants

    def compute_metrics(self, results):
        return dict(size=self.scale * sum(results) / len(results))
'''
PIPELINE = """[
    dict(type='genseg_mm.LoadImage'), RESIZE dict(type='genseg_mm.LoadInstanceMap'),
    dict(type='genseg_mm.PackGenSegInputs')]"""
SUITE = f"""
custom_imports = dict(imports=['squares_dataset', 'object_size'])
pipeline = {PIPELINE.replace('RESIZE', "dict(type='model_resize'),")}
squares = dict(type='SquaresDataset', data_root='DATA', test_mode=True, pipeline=pipeline)
points = dict(
    task='points', title='Squares', protocol='one pixel, radius 30', dataset=squares,
    evaluator=dict(type='genseg_mm.PointPromptMetric', threshold=30.0, sigma=0.0, controls=False))
sizes = dict(task='points', title='Sizes', protocol='share', dataset=squares, evaluator=dict(type='ObjectSize'))
suite = dict(name='outside', title='Outside')
models = dict(rgb=dict(config='configs/benchmarks/control_rgb.py', kind='control'))
benchmarks = dict(points=points, sizes=sizes)
tables = [dict(name='all', title='All', note='', reported=None, protocol='ours', rank_by='size', columns=[
    dict(name='mIoU', benchmark='points', metric='mIoU'), dict(name='size', benchmark='sizes', metric='size')])]
"""
TRAINING = f"""
_base_ = {str(ROOT / 'configs/_base_/models/gen2seg_unet_tiny.py')!r}
default_scope = 'genseg_mm'
custom_imports = dict(imports=['squares_dataset'])
train_dataloader = dict(
    batch_size=2, num_workers=0, sampler=dict(type='RatioInfiniteSampler'),
    dataset=dict(type='SquaresDataset', data_root='DATA', pipeline={PIPELINE.replace('RESIZE', '')}))
optim_wrapper = dict(type='mmengine.OptimWrapper', optimizer=dict(type='Adam', lr=1e-3))
train_cfg = dict(type='mmengine.IterBasedTrainLoop', max_iters=3)
default_hooks = dict(checkpoint=None)
log_processor = dict(by_epoch=False)
"""


@pytest.fixture(scope='module')
def outside(tmp_path_factory):
    """A folder with the user's two files, on the path, three pictures and a suite; nothing of it stays behind."""
    folder = tmp_path_factory.mktemp('outside')
    (folder / 'squares_dataset.py').write_text(DATASET)
    (folder / 'object_size.py').write_text(METRIC)
    data = folder / 'data'
    data.mkdir()
    for number in range(3):
        image, ids = np.full((32, 32, 3), 40, np.uint8), np.zeros((32, 32), np.uint16)
        for own, (left, color) in enumerate(((2, (250, 0, 0)), (18, (0, 0, 250))), start=1):
            image[4:12, left : left + 8 + number], ids[4:12, left : left + 8 + number] = color, own
        cv2.imwrite(str(data / f'{number}.png'), image)
        cv2.imwrite(str(data / f'{number}_ids.png'), ids)
    for name, text in (('outside.py', SUITE), ('training.py', TRAINING)):
        (folder / name).write_text(text.replace('DATA', str(data)))
    sys.path.insert(0, str(folder))
    yield folder
    sys.path.remove(str(folder))
    for registry, name, module in (
        (DATASETS, 'SquaresDataset', 'squares_dataset'),
        (METRICS, 'ObjectSize', 'object_size'),
    ):
        registry._module_dict.pop(name, None)
        sys.modules.pop(module, None)


def build(folder: Path, **changes: object):
    Config.fromfile(folder / 'outside.py')  # imports it
    settings = dict(type='SquaresDataset', data_root=str(folder / 'data'), test_mode=True, serialize_data=False)
    return DATASETS.build(settings | changes)


def test_a_dataset_is_measured_with_its_facts_and_its_fingerprint(outside, tmp_path):
    assert run(str(outside / 'outside.py'), tmp_path, no_examples=True) == 0
    first, second = read_records(tmp_path / 'leaderboard.json')
    assert first.dataset == second.dataset == dict(
        type='SquaresDataset', items=3, expected=5, incomplete='3 of 5 pictures',
        difference='2 pictures fewer than the 5 of the complete dataset',
        fingerprint=dataset_fingerprint(build(outside)),
    )  # fmt: skip
    assert first.metrics['num_prompts'] == 6 and first.metrics['mIoU'] == 100.0  # squares of one colour each
    assert '3 of 5 pictures' in (tmp_path / 'leaderboard.md').read_text()
    assert dataset_fingerprint(build(outside, indices=2)) != first.dataset['fingerprint']


def test_a_metric_is_one_file_and_a_column_of_the_leaderboard(outside, tmp_path):
    assert run(str(outside / 'outside.py'), tmp_path, only=['sizes'], no_examples=True) == 0
    (record,) = read_records(tmp_path / 'leaderboard.json')
    assert record.metrics == dict(size=pytest.approx(100 * 8 * (8 + 9 + 10) / 3 / 32**2))
    assert '| 7.0' in (tmp_path / 'leaderboard.md').read_text()


def test_a_dataset_is_trained_on(outside, tmp_path):
    cfg = Config.fromfile(outside / 'training.py')
    cfg.update(work_dir=str(tmp_path), launcher='none')
    runner = launch.build_runner(cfg)
    runner.train()
    assert runner.iter == 3 and np.isfinite(runner.message_hub.get_scalar('train/loss').current())


def test_a_dataset_is_verified(outside, tmp_path, monkeypatch):
    out = tmp_path / 'report.json'
    tool = ROOT / 'tools/dataset_tools/verify_dataset.py'
    words = [
        'verify_dataset.py',
        str(outside / 'outside.py'),
        '--workers',
        '0',
        '--benchmark',
        'points',
        '--json',
        str(out),
    ]
    monkeypatch.setattr('sys.argv', words)
    with pytest.raises(SystemExit) as end:
        runpy.run_path(str(tool), run_name='__main__')
    (report,) = json.loads(out.read_text())['datasets']
    assert end.value.code == 0 and (report['items'], report['expected']) == (3, 5)
