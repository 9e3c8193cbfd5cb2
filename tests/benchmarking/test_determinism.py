"""The same numbers, to the last bit, for repeated runs, any batch size and one or two processes."""

import json
import time
from pathlib import Path

import numpy as np
import pytest
from mmengine.registry import init_default_scope
from short_runs import run_forked

from genseg_mm.benchmarking.jobs import effective_config, fill_network_size, read_model_config
from genseg_mm.benchmarking.loop import BenchmarkRunner, finite_or_text
from genseg_mm.benchmarking.suite import read_suite, suite_model

ROOT = Path(__file__).parents[2]
SUITE = """
pipeline = [dict(type='model_resize'), dict(type='genseg_mm.PackGenSegInputs')]
scenes = dict(type='genseg_mm.ShapesDataset', split='test', test_mode=True)
referring = dict(
    task='referring', title='R', protocol='p',
    dataset=dict(scenes, num_scenes=4, max_items=9,
        pipeline=[pipeline[0], dict(type='genseg_mm.TextPrompt'), pipeline[1]]),
    evaluator=dict(type='genseg_mm.ReferringMetric', per_kind=True),
)
points = dict(
    task='points', title='P', protocol='p',
    dataset=dict(scenes, num_scenes=9, task='instance', image_size=(64, 48), pipeline=pipeline),
    evaluator=dict(type='genseg_mm.PointPromptMetric', threshold='reference', controls=False),
)
edges = dict(
    task='edges', title='E', protocol='p',
    dataset=dict(type='genseg_mm.BSDS500Dataset', data_root='DATA/BSDS500', split='test', test_mode=True, pipeline=[
        dict(type='genseg_mm.LoadImage'), pipeline[0], dict(type='genseg_mm.LoadBoundaries'), pipeline[1]]),
    evaluator=dict(type='genseg_mm.EdgeMetric', num_thresholds=9),
)
instances = dict(
    task='instances', title='I', protocol='p', model=dict(automatic=True),
    dataset=dict(type='genseg_mm.CocoInstanceDataset', data_root='DATA/coco',
        ann_file='annotations/instances_val2017.json', data_prefix=dict(img='val2017/'), test_mode=True, pipeline=[
        dict(type='genseg_mm.LoadImage'), pipeline[0], dict(type='genseg_mm.PackGenSegInputs',
            meta_keys=('img_path', 'img_id', 'ori_shape', 'img_shape', 'sample_idx', 'instances'))]),
    evaluator=dict(type='mmdet.CocoMetric', metric='segm', metric_items=['mAP', 'mAP_50', 'AR@100']),
)
suite = dict(name='same', title='Same')
weights = 'genseg_mm/weights/'
models = dict(
    genmask=dict(config='configs/genmask/genmask_sana_shapes_long_tiny.py',
        checkpoint=weights + 'genmask_sana_shapes.safetensors'),
    unet=dict(config='configs/gen2seg/gen2seg_unet_shapes_long_tiny.py',
        checkpoint=weights + 'gen2seg_unet_shapes.safetensors'),
    mae=dict(config='configs/gen2seg/gen2seg_mae_shapes_long_tiny.py',
        checkpoint=weights + 'gen2seg_mae_shapes.safetensors'),
    rgb=dict(config='configs/benchmarks/control_rgb.py', kind='control'),
)
benchmarks = dict(referring=referring, points=points, edges=edges, instances=instances)
tables = []
"""
JOBS = ['genmask/referring', 'unet/points', 'unet/instances', 'unet/edges', 'mae/points', 'mae/instances', 'rgb/points',
        'rgb/edges']  # fmt: skip


@pytest.fixture(scope='module')
def suite_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp('determinism')
    for tool, name in (('bsds500', 'BSDS500'), ('coco', '.')):  # the latter adds coco/ itself
        run_forked(f'dataset_tools/make_tiny_{tool}.py', folder / name, cwd=folder)
    file = folder / 'same.py'
    file.write_text(SUITE.replace('DATA', str(folder)))
    return file


def measure(suite_file: Path, job: str, folder: Path, batch: int = 1, threads: int = 1, **settings) -> dict:
    """Metrics of a job, and the rows of its samples as bytes."""
    model, benchmark = job.split('/')
    suite = read_suite(str(suite_file))
    model_cfg, checkpoint = read_model_config(suite_model(suite, model))
    model_cfg.test_dataloader.update(batch_size=batch, num_workers=0)
    samples = folder / f'{time.monotonic_ns()}.npz'
    init_default_scope('genseg_mm')
    cfg = effective_config(
        model_cfg, suite.benchmarks[benchmark], threads=threads, sample_file=str(samples), **settings
    )
    runner = BenchmarkRunner(
        cfg, None, checkpoint, folder / 'log.txt', str(folder), 'none', f'same{time.monotonic_ns()}'
    )
    fill_network_size(cfg, runner.model)
    runner._test_dataloader = cfg.test_dataloader
    metrics = finite_or_text(runner.test())
    runner.close()
    return dict(metrics=metrics, **rows(samples))


def rows(file: Path) -> dict:
    if not file.is_file():
        return {}
    with np.load(file, allow_pickle=False) as arrays:
        return {name: arrays[name].tobytes() for name in arrays.files}


@pytest.mark.slow
@pytest.mark.parametrize('job', JOBS)
def test_repeated_runs_and_batch_sizes_give_the_same_bits(suite_file, tmp_path, job):
    first = measure(suite_file, job, tmp_path)
    assert all(np.isfinite(value) for value in first['metrics'].values())
    for batch in (1, 7, 50):
        assert measure(suite_file, job, tmp_path, batch=batch) == first, f'batch size {batch}'


@pytest.mark.slow
def test_two_processes_give_the_same_bits(suite_file, tmp_path):
    common = ['--no-examples', '--cfg-options', 'suite.name=same']
    for name, processes in (('two', 2), ('one', 0)):
        words = [suite_file, '--out', tmp_path / name, *common]
        run_forked('benchmark.py', *words, cwd=ROOT, processes=processes, logs=tmp_path)
    for job in JOBS:
        results = [json.loads((tmp_path / where / job / 'result.json').read_text()) for where in ('one', 'two')]
        assert [result['run']['processes'] for result in results] == [1, 2]
        assert results[0]['metrics'] == results[1]['metrics'], job
        assert results[0]['run']['key'] == results[1]['run']['key']
        assert rows(tmp_path / 'one' / job / 'samples.npz') == rows(tmp_path / 'two' / job / 'samples.npz'), job


@pytest.mark.slow
def test_without_it_numbers_move_by_a_pixel_at_most(suite_file, tmp_path):
    runs = [
        measure(suite_file, 'unet/points', tmp_path, batch=batch, threads=threads, one_by_one=False)
        for batch, threads in ((1, 1), (7, 1), (1, 2))
    ]
    numbers = [run['metrics']['mIoU'] for run in runs]
    assert numbers == pytest.approx([numbers[0]] * 3, abs=0.05)
    assert [run['metrics']['num_prompts'] for run in runs] == [runs[0]['metrics']['num_prompts']] * 3
