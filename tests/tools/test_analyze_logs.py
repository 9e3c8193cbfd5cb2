"""Reading of training logs by hand-written ones: resumed runs, times, tables, curves."""

import json
from functools import partial
from pathlib import Path

import analyze_logs
import numpy as np
import pytest
from PIL import Image


def train(step, loss, time=0.5, **more):
    return dict(loss=loss, time=time, data_time=0.1, **more, iter=step, step=step)


def write(work_dir: Path, stamp: str, lines: list) -> Path:
    path = work_dir / stamp / 'vis_data' / f'{stamp}.json'
    path.parent.mkdir(parents=True)
    path.write_text('\n'.join(own if isinstance(own, str) else json.dumps(own) for own in lines))
    (path.parent / 'scalars.json').write_text(path.read_text())
    return path


@pytest.fixture
def resumed(tmp_path):
    """A run to 40 with validations at 20 and 40, resumed at 20: another value at 30 and 40."""
    write(tmp_path / 'mine', '20260101_000000', [
        train(10, 4.0, time=2.0), train(20, 3.0, time=0.6), dict(oIoU=30.0, time=0.2, step=20),
        train(30, 9.0), train(35, 8.0), train(40, 7.0), dict(oIoU=50.0, time=0.2, step=40),
    ])  # fmt: skip
    write(tmp_path / 'mine', '20260102_000000', [
        train(30, 2.0, time=3.0), train(40, 1.0, time=0.4), dict(oIoU=40.0, time=0.3, step=40),
        '{"loss": 0.5, "ti',
    ])  # fmt: skip
    return tmp_path / 'mine'


def test_later_values_of_resumed_runs_win_and_it_is_said(resumed):
    log = analyze_logs.read_log(resumed)
    assert log.series('loss') == ([10, 20, 30, 40], [4.0, 3.0, 2.0, 1.0])
    assert log.series('oIoU') == ([20, 40], [30.0, 40.0])
    assert log.series('val/time') == ([20, 40], [0.2, 0.3])
    assert log.starts == [10, 30]
    assert log.notes == [
        '20260102_000000.json: 1 lines cannot be read (a run that was stopped?)',
        '20260102_000000.json goes on from iteration 30: 3 training and 1 validation lines logged before, from there '
        'to 40, are replaced',
    ]


def test_a_file_a_run_and_a_work_dir_are_read(resumed):
    file = resumed / '20260101_000000/vis_data/20260101_000000.json'
    for path in (file, file.parents[1]):
        log = analyze_logs.read_log(path)
        assert log.series('loss')[1] == [4.0, 3.0, 9.0, 8.0, 7.0]
    assert analyze_logs.read_log(file).work_dir == resumed
    assert analyze_logs.read_log(file).name == 'mine'


def test_validation_by_epochs_is_put_at_its_iteration(tmp_path):
    lines = [train(50, 2.0, epoch=1), {'coco/bbox_mAP': 0.1, 'step': 1}]
    lines += [train(100, 1.0, epoch=2), {'coco/bbox_mAP': 0.3, 'step': 2}]
    write(tmp_path / 'det', '20260101_000000', lines)
    log = analyze_logs.read_log(tmp_path / 'det')
    assert log.series('bbox_mAP') == ([50, 100], [0.1, 0.3])
    assert log.series('coco/bbox_mAP') == ([50, 100], [0.1, 0.3])


def test_time_per_iteration(resumed):
    lines = analyze_logs.cal_train_time(analyze_logs.read_log(resumed))
    # Iterations 20 and 40; 10 and 30 are the first of their runs.
    assert lines == [
        'mine: 2 lines, iterations 20 to 40',
        'average iter time: 0.5000 s/iter, median 0.5000, std 0.1000',
        'slowest: 0.6000 s/iter at iteration 20, fastest: 0.4000 at 40',
        'of it waiting for data: 0.1000 s/iter (20.0%)',
    ]
    lines = analyze_logs.cal_train_time(analyze_logs.read_log(resumed), include_outliers=True)
    assert lines[1] == 'average iter time: 1.5000 s/iter, median 1.3000, std 1.0630'


def test_times_of_validations_are_not_those_of_training(tmp_path):
    write(tmp_path / 'short', '20260101_000000', [dict(oIoU=30.0, time=0.2, data_time=0.1, step=4)])
    with pytest.raises(ValueError, match='short has 0 training lines'):
        analyze_logs.cal_train_time(analyze_logs.read_log(tmp_path / 'short'))


def test_smoothing():
    assert analyze_logs.smoothed([4.0, 0.0, 2.0], 0.5) == [4.0, 4 / 3, (1 + 0 + 2) / 1.75]
    assert analyze_logs.smoothed([4.0, 0.0], 0.0) == [4.0, 0.0]


def test_table_of_last_and_best_values(resumed, tmp_path):
    lines = [train(10, 5.0), dict(oIoU=60.0, step=10), train(20, 6.0), dict(oIoU=10.0, step=20)]
    write(tmp_path / 'other', '20260101_000000', lines)
    logs = [analyze_logs.read_log(tmp_path / name) for name in ('mine', 'other')]
    assert analyze_logs.table(logs, ['mine', 'other'], ['oIoU', 'loss'], []).splitlines() == [
        '| log | iterations | oIoU, last | best | loss, last | best |',
        '|---|---:|---:|---:|---:|---:|',
        '| mine | 40 | 40 | 40 (40) | 1 | 1 (40) |',
        '| other | 20 | 10 | 60 (10) | 6 | 5 (10) |',
    ]
    rows = analyze_logs.table(logs, ['mine', 'other'], None, ['oIoU']).splitlines()
    assert rows[0] == '| log | iterations | oIoU, last | best |'
    assert rows[3] == '| other | 20 | 10 | 10 (20) |'


@pytest.fixture
def run(run_tool):
    return partial(run_tool, 'analysis_tools/analyze_logs.py')


def test_curves_go_to_the_work_dir(resumed, run):
    code, text, errors = run('plot_curve', resumed, '--keys', 'loss', 'oIoU', '--smooth', '0.5')
    assert (code, text) == (0, f'written: {resumed / "curves.png"}\n')
    assert 'note: mine: 20260102_000000.json goes on from iteration 30' in errors
    picture = np.asarray(Image.open(resumed / 'curves.png').convert('RGB')).astype(int)
    assert picture.shape == (960, 960, 3)
    # The second colour of matplotlib, (255, 127, 14), is the metric's: in the lower panel alone.
    orange = np.abs(picture - (255, 127, 14)).sum(-1) < 30
    assert orange[480:].sum() > 100 > orange[:480].sum()


def test_wrong_input_is_told(resumed, tmp_path, run):
    code, _, errors = run('plot_curve', resumed, '--keys', 'los')
    assert code == 2
    assert "mine has no 'los' (did you mean 'loss'?), but loss, time, data_time, oIoU" in errors
    code, _, errors = run('table', resumed, '--keys', 'mIoU')
    assert code == 2 and "mine has no 'mIoU'" in errors
    code, _, errors = run('cal_train_time', tmp_path / 'none')
    assert code == 2 and 'expected a log of MMEngine' in errors
    (tmp_path / 'bad.json').write_text('[1]\n{"a": 2}\n')
    code, _, errors = run('cal_train_time', tmp_path / 'bad.json')
    assert code == 2 and 'expected lines of MMEngine such as' in errors
    legend = ('--keys', 'loss', 'oIoU', '--legend', 'one')
    code, _, errors = run('plot_curve', resumed, *legend)
    assert code == 2 and '--legend must have one name per log and key, 2, but got 1' in errors
