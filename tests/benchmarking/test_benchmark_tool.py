"""tools/benchmark.py as its user sees it, on a handful of procedural scenes."""

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from mmengine.config import Config
from short_runs import ForkedTool, run_forked

from genseg_mm.benchmarking import run_suite
from genseg_mm.benchmarking.suite import folders_read, make_data, read_suite
from genseg_mm.evaluation.sample_results import SampleResults

ROOT = Path(__file__).parents[2]
TOOL = ROOT / 'tools' / 'benchmark.py'
SUITE = """
pipeline = [dict(type='model_resize'), dict(type='genseg_mm.PackGenSegInputs')]
points = dict(
    task='points', title='Points', protocol='one pixel, radius 30', tolerance=0.01,
    dataset=dict(type='genseg_mm.ShapesDataset', num_scenes=NUM, image_size=48, task='instance', split='test',
        test_mode=True, pipeline=pipeline),
    evaluator=dict(type='genseg_mm.PointPromptMetric', threshold=30.0, sigma=0.0, controls=False),
)
gone = dict(points, dataset=dict(type='genseg_mm.DRAMDataset', data_root='gone', test_mode=True, pipeline=pipeline))
suite = dict(name='few', title='Few scenes')
models = dict(
    rgb=dict(config='configs/benchmarks/control_rgb.py', kind='control'),
    oracle=dict(config='configs/benchmarks/control_oracle.py', kind='control'),
)
benchmarks = dict(points=points)
tables = [dict(name='points', title='Points', note='', reported=None, protocol='one pixel, radius 30',
    columns=[dict(name='mIoU', benchmark='points', metric='mIoU')], rank_by='mIoU')]
"""


def write_suite(folder: Path, num: int = 4, extra: str = '') -> str:
    file = folder / 'few.py'
    file.write_text(SUITE.replace('NUM', str(num)) + extra)
    return str(file)


def run(suite_file: str, out: Path, *models: str, **changes: object) -> int:
    args = dict(
        models=list(models), out=str(out), only=None, tasks=None, check=None, fast=False, threads=1,
        seed=0, list=False, rerun=False, no_examples=False, launcher='none', precision=None, compile=False,
        channels_last=False, codec_precision=None,
    )  # fmt: skip
    return run_suite.run(read_suite(suite_file), argparse.Namespace(**{**args, **changes}))


def result(out: Path, model: str = 'rgb', benchmark: str = 'points') -> dict:
    return json.loads((out / model / benchmark / 'result.json').read_text())


def test_measures_writes_and_skips_what_is_finished(tmp_path, capsys):
    suite = write_suite(tmp_path)
    assert run(suite, tmp_path / 'out') == 0
    first = result(tmp_path / 'out')
    assert first['dataset']['items'] == 4 and first['dataset']['type'] == 'ShapesDataset'
    assert first['run']['one_by_one'] and first['run']['threads'] == 1 and first['run']['processes'] == 1
    assert first['model']['checkpoint'] is None and first['model']['kind'] == 'control'
    assert first['benchmark']['tolerance'] == 0.01
    rows = SampleResults.load(tmp_path / 'out/rgb/points/samples.npz')
    assert first['metrics']['mIoU'] == pytest.approx(100 * np.mean(rows.values['iou']), abs=1e-9)
    assert [example['kind'] for example in first['examples']] == ['best', 'best', 'worst', 'worst']
    for example in first['examples']:
        assert (tmp_path / 'out/rgb/points' / example['file']).stat().st_size < 26_000
    assert first['examples'][0]['score'] >= first['examples'][2]['score']
    written = {path.name for path in (tmp_path / 'out').glob('leaderboard.*')}
    assert written == {'leaderboard.md', 'leaderboard.csv', 'leaderboard.html', 'leaderboard.json'}
    assert not list((tmp_path / 'out').rglob('*.log'))  # MMEngine's own folders are not left behind

    capsys.readouterr()
    assert run(suite, tmp_path / 'out') == 0
    text = capsys.readouterr().out
    assert text.count('finished before, skipped') == 2
    assert '0 measured' in text and '2 finished before' in text
    assert result(tmp_path / 'out') == first


def test_what_changed_runs_again_and_is_named(tmp_path, capsys):
    assert run(write_suite(tmp_path), tmp_path / 'out', 'rgb') == 0
    before = result(tmp_path / 'out')
    capsys.readouterr()
    assert run(write_suite(tmp_path, num=5), tmp_path / 'out', 'rgb') == 0
    assert 'again: benchmark and data changed' in capsys.readouterr().out
    after = result(tmp_path / 'out')
    assert after['dataset']['items'] == 5 and after['run']['key'] != before['run']['key']
    run(write_suite(tmp_path, num=5), tmp_path / 'out', 'rgb', list=True, fast=True)
    assert 'changed: one by one changed' in capsys.readouterr().out
    run(write_suite(tmp_path, num=5), tmp_path / 'out', 'rgb', list=True)
    assert 'finished' in capsys.readouterr().out
    run(write_suite(tmp_path, num=5), tmp_path / 'out', 'rgb', list=True, seed=3)
    assert 'changed: seed changed' in capsys.readouterr().out


def test_missing_data_do_not_stop_the_others(tmp_path, capsys):
    suite = write_suite(tmp_path, extra='benchmarks = dict(gone=gone, points=points)\n')
    assert run(suite, tmp_path / 'out', 'rgb') == 1
    text = capsys.readouterr().out
    assert 'rgb · gone: FAILED' in text and '1 measured' in text and '1 failed' in text
    assert text.index('FAILED rgb · gone') > text.index('1 measured')
    assert not (tmp_path / 'out/rgb/gone/result.json').exists()
    assert result(tmp_path / 'out')['metrics']['mIoU'] > 0


def test_an_error_of_one_job_is_in_its_log(tmp_path, capsys):
    wrong = "bad = dict(points, evaluator=dict(type='genseg_mm.ReferringMetric'))\n"
    suite = write_suite(tmp_path, extra=wrong + 'benchmarks = dict(bad=bad, points=points)\n')
    assert run(suite, tmp_path / 'out', 'rgb') == 1
    assert 'rgb · bad: FAILED' in capsys.readouterr().out
    log = (tmp_path / 'out/rgb/bad.unfinished/log.txt').read_text()
    assert 'Traceback' in log and 'pred_sem_seg' in log
    assert result(tmp_path / 'out')['dataset']['items'] == 4


def test_a_failed_rerun_keeps_the_earlier_result(tmp_path, capsys, monkeypatch):
    suite = write_suite(tmp_path)
    run(suite, tmp_path / 'out', 'rgb')
    before = result(tmp_path / 'out'), sorted((tmp_path / 'out/rgb/points').rglob('*'))

    def fail(runner: object) -> None:
        raise ValueError('out of luck')

    with monkeypatch.context() as patch:
        patch.setattr('genseg_mm.benchmarking.loop.BenchmarkRunner.test', fail)
        assert run(suite, tmp_path / 'out', 'rgb', rerun=True) == 1
    assert 'rgb · points: FAILED, ValueError: out of luck' in capsys.readouterr().out
    assert (result(tmp_path / 'out'), sorted((tmp_path / 'out/rgb/points').rglob('*'))) == before
    run(suite, tmp_path / 'out', 'rgb', rerun=True)
    assert result(tmp_path / 'out')['metrics'] == before[0]['metrics']
    assert [own.name for own in (tmp_path / 'out/rgb').iterdir()] == ['points']
    config = (tmp_path / 'out/rgb/points/config.py').read_text()
    assert str(tmp_path / 'out/rgb/points/samples.npz') in config and 'unfinished' not in config


def test_check_fails_where_a_number_moved(tmp_path, capsys):
    suite = write_suite(tmp_path)
    run(suite, tmp_path / 'out', 'rgb')
    old = tmp_path / 'old.json'
    record = result(tmp_path / 'out')
    old.write_text(json.dumps(record))
    assert run(suite, tmp_path / 'out', 'rgb', check=str(old)) == 0
    record['metrics']['mIoU'] -= 0.005  # within the tolerance of 0.01
    old.write_text(json.dumps(record))
    assert run(suite, tmp_path / 'out', 'rgb', check=str(old)) == 0
    record['metrics']['mIoU'] += 0.5
    old.write_text(json.dumps(record))
    capsys.readouterr()
    assert run(suite, tmp_path / 'out', 'rgb', check=str(old)) == 1
    assert 'rgb / points / mIoU' in capsys.readouterr().out
    with pytest.raises(ValueError, match='none of the chosen models'):
        run(suite, tmp_path / 'out', 'oracle', check=str(old))


def test_check_against_the_file_that_the_run_rewrites(tmp_path, capsys):
    suite, board = write_suite(tmp_path), tmp_path / 'out/leaderboard.json'
    run(suite, tmp_path / 'out', 'rgb')
    saved = json.loads(board.read_text())
    right = saved['records'][0]['metrics']['mIoU']
    saved['records'][0]['metrics']['mIoU'] = right + 0.5
    board.write_text(json.dumps(saved))
    capsys.readouterr()
    assert run(suite, tmp_path / 'out', 'rgb', check=str(board)) == 1
    text = capsys.readouterr().out
    assert '(-0.5, tolerance 0.01)' in text and 'has the new numbers now' in text
    assert json.loads(board.read_text())['records'][0]['metrics']['mIoU'] == right


def test_a_wrong_file_to_check_is_told_before_anything_is_measured(tmp_path):
    suite = write_suite(tmp_path)
    with pytest.raises(FileNotFoundError, match='expected a result.json or leaderboard.json'):
        run(suite, tmp_path / 'out', 'rgb', check=str(tmp_path / 'none.json'))
    assert not (tmp_path / 'out').exists()


def test_a_broken_result_of_another_model_stops_nothing(tmp_path, capsys):
    suite, broken = write_suite(tmp_path), tmp_path / 'out/mine/points/result.json'
    broken.parent.mkdir(parents=True)
    broken.write_text('{"schema": 7}')
    assert run(suite, tmp_path / 'out') == 1
    text = capsys.readouterr().out
    assert f'leaderboard: FAILED, {broken}: ' in text and '2 measured' in text
    broken.unlink()
    assert run(suite, tmp_path / 'out') == 0
    assert '2 finished before, 0 failed' in capsys.readouterr().out


def test_columns_of_metrics_that_are_not_measured_are_named(tmp_path, capsys):
    suite = Path(write_suite(tmp_path))
    suite.write_text(suite.read_text().replace("metric='mIoU'", "metric='mIuO'"))
    assert run(str(suite), tmp_path / 'out', 'rgb') == 0
    assert f'{suite} has columns of mIuO' in capsys.readouterr().out


def test_one_reason_of_several_jobs_is_summed_up_once(tmp_path, capsys):
    suite = write_suite(tmp_path, extra='benchmarks = dict(gone=gone)\ntables = []\n')
    assert run(suite, tmp_path / 'out') == 1
    lines = capsys.readouterr().out.splitlines()
    failed = [line for line in lines if line.startswith('  FAILED')]
    assert len(failed) == 1 and failed[0].startswith('  FAILED rgb · gone, oracle · gone: DRAM')


@pytest.mark.parametrize(
    ('changes', 'error', 'message'),
    [
        (dict(only=['pionts']), ValueError, "no benchmark 'pionts' .did you mean 'points'"),
        (dict(models=['rbg']), ValueError, "but got 'rbg'"),
        (dict(out='few.py'), NotADirectoryError, 'few.py is a file, expected a folder'),
        (dict(out='few.py/below'), NotADirectoryError, 'few.py is a file, expected a folder'),
        (dict(text=("rank_by='", "rank_bi='")), ValueError, "few.py: table 'points': .*'rank_bi'"),
    ],
)
def test_wrong_words_are_told_first(tmp_path, monkeypatch, changes, error, message):
    monkeypatch.chdir(tmp_path)
    suite = Path(write_suite(tmp_path))
    suite.write_text(suite.read_text().replace(*changes.get('text', ('', ''))))
    args = argparse.Namespace(**{**dict(models=[], only=None, tasks=None, out='out', list=False), **changes})
    with pytest.raises(error, match=message):
        run_suite.refuse_wrong_words(read_suite(str(suite)), args)


def test_other_code_is_said_and_measured_again_for_a_check(tmp_path, capsys):
    suite, file = write_suite(tmp_path), tmp_path / 'out/rgb/points/result.json'
    run(suite, tmp_path / 'out', 'rgb')
    stale = result(tmp_path / 'out')
    right = stale['metrics']['mIoU']
    stale['run']['source_sha256'] = 'of older code'
    stale['metrics']['mIoU'] = 99.0
    file.write_text(json.dumps(stale))
    capsys.readouterr()
    run(suite, tmp_path / 'out', 'rgb')
    assert 'finished before by other code, skipped' in capsys.readouterr().out
    assert result(tmp_path / 'out')['metrics']['mIoU'] == 99.0
    old = tmp_path / 'old.json'
    old.write_text(json.dumps(stale))
    assert run(suite, tmp_path / 'out', 'rgb', check=str(old)) == 1
    assert 'again: code changed' in capsys.readouterr().out
    assert result(tmp_path / 'out')['metrics']['mIoU'] == right


def test_nothing_to_do_is_an_error(tmp_path):
    with pytest.raises(ValueError, match='nothing to do: the chosen benchmarks .* need models for points'):
        run(write_suite(tmp_path), tmp_path / 'out', 'x=configs/benchmarks/control_rgb.py', tasks=['edges'])


def test_a_suites_own_model_that_cannot_be_used_stops_no_other(tmp_path, capsys):
    config = tmp_path / 'unknown.py'
    config.write_text("model = dict(type='mmdet.MaskRCNN')\n")
    extra = f"models.update(gone=dict(config='gone.py'), unknown=dict(config={str(config)!r}))\n"
    suite = write_suite(tmp_path, extra=extra)
    assert run(suite, tmp_path / 'out', no_examples=True) == 1
    text = capsys.readouterr().out
    assert 'FAILED gone: ' in text and 'FAILED unknown: unknown: what can a MaskRCNN do?' in text
    assert '2 measured' in text and text.index('2 measured') < text.rindex('  FAILED unknown')
    with pytest.raises(ValueError, match='what can a MaskRCNN do'):
        run(suite, tmp_path / 'out', 'unknown')


def test_released_weights_are_seen_at_their_own_size(tmp_path):
    from transformers import ViTMAEConfig, ViTMAEForPreTraining

    settings = dict(image_size=32, patch_size=8, hidden_size=16, num_hidden_layers=1, num_attention_heads=2)
    settings |= dict(intermediate_size=16, decoder_hidden_size=16, decoder_num_hidden_layers=1)
    settings |= dict(decoder_num_attention_heads=2, decoder_intermediate_size=16)
    ViTMAEForPreTraining(ViTMAEConfig(**settings)).save_pretrained(tmp_path / 'released-mae')
    suite = write_suite(tmp_path)
    assert run(suite, tmp_path / 'out', str(tmp_path / 'released-mae'), no_examples=True) == 0
    found = result(tmp_path / 'out', 'released-mae')
    assert found['model']['config'] == 'released-mae' and len(found['model']['checkpoint_sha256']) == 64
    config = Config.fromfile(tmp_path / 'out/released-mae/points/config.py')
    resize = config.test_dataloader.dataset.pipeline[0]
    assert resize == dict(type='genseg_mm.NetworkResize', size=(32, 32), method='bicubic')
    assert found['examples'] == []


def test_data_of_a_suite_are_made_once_and_whole(tmp_path):
    tool = tmp_path / 'make.py'
    tool.write_text("import os, sys\nos.mkdir(sys.argv[1])\nopen(sys.argv[1] + '/a', 'w').write('1')\n")
    made = f'suite.update(make_data={str(tool)!r}, data_root={str(tmp_path / "data")!r})\n'
    suite = read_suite(write_suite(tmp_path, extra=made))
    (tmp_path / 'data.unfinished').mkdir()  # of a run that was killed
    make_data(suite)
    assert (tmp_path / 'data' / 'a').read_text() == '1'
    (tmp_path / 'data' / 'a').write_text('2')
    make_data(suite)
    assert (tmp_path / 'data' / 'a').read_text() == '2'
    assert not (tmp_path / 'data.unfinished').exists()
    tool.write_text("raise SystemExit('no disk')")
    shutil.rmtree(tmp_path / 'data')
    with pytest.raises(ValueError, match='could not write the data of .*: no disk'):
        make_data(suite)


def test_only_the_data_of_the_wanted_benchmarks_are_made(tmp_path):
    suite = read_suite('configs/benchmarks/tiny.py', {'suite.data_root': str(tmp_path / 'made/tiny')})
    root = tmp_path / 'made/tiny'
    make_data(suite, ['shapes_points'])
    assert not (tmp_path / 'made').exists()
    make_data(suite, ['reasonseg_val', 'shapes_points'])
    assert sorted(path.name for path in root.iterdir()) == ['ReasonSeg', 'tiny_benchmarks.json']
    make_data(suite, ['egohos'])
    make_data(suite, ['egohos', 'reasonseg_val'])
    made = ['ReasonSeg', 'egohos', 'tiny_benchmarks.json']
    assert sorted(path.name for path in root.iterdir()) == made
    read = folders_read(suite.benchmarks.values(), root)
    assert read == {'BSDS500', 'DRAM_processed', 'ReasonSeg', 'coco', 'egohos', 'ishape_dataset', 'pidray'}


def start(*arguments: object) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, str(TOOL), *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        cwd=ROOT,
        env={**os.environ, 'OMP_NUM_THREADS': '1'},
    )


def wait_for(path: Path, process: ForkedTool) -> None:
    end = time.monotonic() + 300
    while not path.exists() and process.poll() is None:
        assert time.monotonic() < end, process.log.read_text()[-2000:]
        time.sleep(0.02)


@pytest.mark.slow
def test_errors_in_several_processes_do_not_hang(tmp_path):
    late = "late = dict(points, evaluator=dict(points['evaluator'], threshold='calibrate'))\n"  # has no such subset
    wrong = "bad = dict(points, evaluator=dict(type='genseg_mm.ReferringMetric'))\n"
    listed = 'benchmarks = dict(bad=bad, late=late, gone=gone, stuck=dict(points), points=points)\n'
    (tmp_path / 'out/rgb').mkdir(parents=True)
    (tmp_path / 'out/rgb/stuck.unfinished').touch()  # cannot be emptied as a folder
    suite = write_suite(tmp_path, extra=late + wrong + listed)
    command = ['bash', 'tools/dist_benchmark.sh', suite, '2', 'rgb', '--out', str(tmp_path / 'out')]
    environment = {**os.environ, 'OMP_NUM_THREADS': '1', 'PYTHON': sys.executable}
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=environment, timeout=600)
    assert done.returncode == 1, done.stderr[-2000:]
    for name, text in (
        ('bad', 'pred_sem_seg'),
        ('late', "needs a part of the evaluation set with subset='val'"),
        ('gone', 'gone'),
        ('stuck', 'stuck.unfinished'),
    ):
        (line,) = [line for line in done.stdout.splitlines() if line.startswith(f'  FAILED rgb · {name}')]
        assert text in line
    assert '1 measured' in done.stdout and '4 failed' in done.stdout
    assert result(tmp_path / 'out')['run']['processes'] == 2
    usage = subprocess.run(['bash', 'tools/dist_benchmark.sh', suite], capture_output=True, text=True, cwd=ROOT)
    assert usage.returncode == 2 and 'usage: tools/dist_benchmark.sh SUITE GPUS' in usage.stderr


@pytest.mark.slow
@pytest.mark.parametrize('stop', [signal.SIGKILL, signal.SIGTERM])
def test_a_stopped_run_continues_where_it_was(tmp_path, stop):
    suite = write_suite(tmp_path, num=60)
    first_file = tmp_path / 'out/rgb/points/result.json'
    command = dict(cwd=ROOT, log=tmp_path / 'log.txt')
    process = ForkedTool('benchmark.py', suite, '--out', tmp_path / 'out', **command)
    try:
        wait_for(first_file, process)
        process.send_signal(stop)
        text = process.communicate()[0]
    finally:
        process.kill()
    assert process.returncode == (-9 if stop == signal.SIGKILL else 130), text
    if stop == signal.SIGTERM:
        assert 'stopped; the same command continues' in text and 'Traceback' not in text
    assert first_file.exists() and not (tmp_path / 'out/oracle/points/result.json').exists()
    before = result(tmp_path / 'out'), first_file.stat().st_mtime_ns

    text = run_forked('benchmark.py', suite, '--out', tmp_path / 'out', cwd=ROOT, logs=tmp_path)
    assert 'rgb · points: finished before, skipped' in text and '1 measured' in text
    assert (result(tmp_path / 'out'), first_file.stat().st_mtime_ns) == before
    assert result(tmp_path / 'out', 'oracle')['dataset']['items'] == 60


def test_wrong_command_lines_are_one_line(tmp_path):
    process = start(tmp_path / 'none.py')
    text = process.communicate()[0]
    assert process.returncode == 2
    assert f'error: config {tmp_path / "none.py"} does not exist' in text and 'Traceback' not in text
    process = start(write_suite(tmp_path), '--threads', '-1')
    assert 'argument --threads: expected an integer from 0' in process.communicate()[0]
    assert process.returncode == 2
