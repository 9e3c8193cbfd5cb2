"""result.json: what is kept, what is refused, that nobody sees half a file."""

import json
import math
import os
from datetime import UTC, datetime

import pytest
from made_records import make_record

from genseg_mm.leaderboard import Record, read_records


def changed(section, key, value):
    """The dict of a valid record with one value changed."""
    data = make_record().to_dict()
    data[section][key] = value
    return data


def test_a_record_comes_back_as_it_was(tmp_path):
    record = make_record(metrics={'mIoU': 48.25, 'AP': 0.1 + 0.2}, items=6, expected=718)
    path = tmp_path / 'deep' / 'result.json'
    record.write(path)
    assert Record.read(path) == record
    assert Record.read(path).metrics['AP'] == 0.30000000000000004
    assert Record.read(path).folder == path.parent
    assert os.listdir(path.parent) == ['result.json']
    assert json.loads(path.read_text())['schema'] == 1


def test_undefined_numbers_are_null_in_the_file(tmp_path):
    make_record(metrics={'N-acc': math.nan, 'gIoU': 1}).write(tmp_path / 'result.json')
    text = (tmp_path / 'result.json').read_text()
    assert '"N-acc": null' in text and 'NaN' not in text
    metrics = Record.read(tmp_path / 'result.json').metrics
    assert math.isnan(metrics['N-acc']) and metrics['gIoU'] == 1.0


def test_keys_that_the_schema_does_not_know_are_kept(tmp_path):
    record = Record.from_dict(changed('run', 'room_temperature', '21 C'))
    record.write(tmp_path / 'result.json')
    assert Record.read(tmp_path / 'result.json').run['room_temperature'] == '21 C'


def test_what_is_incomplete():
    assert make_record().incomplete is None
    assert make_record(items=6).incomplete == '6 of 718 items'
    # A small difference from a count that nobody has confirmed does not cost the place.
    assert make_record(items=719, difference='1 more', incomplete=None).incomplete is None


def test_times_are_utc():
    record = make_record(started='2026-03-04T01:30:00+02:00')
    assert record.started == datetime(2026, 3, 3, 23, 30, tzinfo=UTC)
    assert make_record(started='2026-03-04T01:30:00').started.hour == 1


@pytest.mark.parametrize(
    ('section', 'key', 'value', 'message'),
    [
        ('model', 'kind', 'oracle', r"model.kind as one of .*, but got 'oracle'"),
        ('model', 'name', '../up', r"model.name as the name of a folder, but got '../up'"),
        ('benchmark', 'name', '', 'benchmark.name as the name of a folder'),
        ('benchmark', 'tolerance', -1, 'tolerance >= 0, but got -1'),
        ('dataset', 'items', '6', "dataset.items as int, but got '6'"),
        ('dataset', 'items', True, 'dataset.items as int, but got True'),
        ('dataset', 'items', -6, 'items >= 0, but got -6'),
        ('dataset', 'expected', 1.5, 'dataset.expected as int or null, but got 1.5'),
        ('run', 'started', 'yesterday', "ISO time such as .* but got 'yesterday'"),
        ('run', 'one_by_one', 1, 'run.one_by_one as bool, but got 1'),
        ('run', 'seconds_per_item', {'model': 1, 'data': 2}, 'seconds_per_item.metric as a number'),
    ],
)
def test_bad_values_are_named(section, key, value, message, tmp_path):
    path = tmp_path / 'result.json'
    path.write_text(json.dumps(changed(section, key, value)))
    with pytest.raises(ValueError, match=message) as error:
        Record.read(path)
    assert str(error.value).startswith(f'{path}: ')


@pytest.mark.parametrize('value', ['48', None, [1], True, math.inf])
def test_bad_metrics_and_examples_are_named(value):
    data = make_record().to_dict()
    if value is not None:
        with pytest.raises(ValueError, match='metrics.mIoU as a finite number or null'):
            Record.from_dict({**data, 'metrics': {'mIoU': value}})
    with pytest.raises(ValueError, match='metrics as an object'):
        Record.from_dict({**data, 'metrics': {}})
    example = dict(kind='nice', file='a.jpg', caption='', score=None)
    with pytest.raises(ValueError, match='example 0 with texts file and caption'):
        Record.from_dict({**data, 'examples': [example]})
    with pytest.raises(ValueError, match="score of example 0, but got 'high'"):
        Record.from_dict({**data, 'examples': [{**example, 'kind': 'best', 'score': 'high'}]})


def test_missing_sections_keys_and_schemas_are_named():
    data = make_record().to_dict()
    with pytest.raises(ValueError, match='expected schema 1, but got 2'):
        Record.from_dict({**data, 'schema': 2})
    with pytest.raises(ValueError, match="expected an object 'run', but got None"):
        Record.from_dict({key: value for key, value in data.items() if key != 'run'})
    del data['model']['title'], data['model']['config']
    with pytest.raises(ValueError, match='model lacks config, title'):
        Record.from_dict(data)
    with pytest.raises(ValueError, match='expected an object, but got list'):
        Record.from_dict([])


def test_a_record_that_is_not_valid_is_not_written(tmp_path):
    record = make_record()
    record.run['seed'] = 'zero'
    with pytest.raises(ValueError, match='run.seed as int or null'):
        record.write(tmp_path / 'result.json')
    assert os.listdir(tmp_path) == []


def test_records_of_a_folder_a_file_and_a_leaderboard(tmp_path):
    records = [make_record('a', 'dram'), make_record('b', 'dram'), make_record('b', 'bsds')]
    for record in records:
        record.write(tmp_path / 'out' / record.name[0] / record.name[1] / 'result.json')
    found = read_records(tmp_path / 'out')
    assert [one.name for one in found] == [('a', 'dram'), ('b', 'bsds'), ('b', 'dram')]
    one = read_records(tmp_path / 'out/b/bsds/result.json')
    assert one == [records[2]]
    board = dict(schema=1, suite='s', records=[record.to_dict() for record in records])
    path = tmp_path / 'out' / 'leaderboard.json'
    path.write_text(json.dumps(board))
    assert read_records(path) == records
    assert read_records(path)[1].folder == tmp_path / 'out' / 'b' / 'dram'
    board['records'].append(board['records'][0])
    path.write_text(json.dumps(board))
    with pytest.raises(ValueError, match="one record of model 'a' on benchmark 'dram'"):
        read_records(path)


def test_bad_files_are_named(tmp_path):
    with pytest.raises(FileNotFoundError, match='MODEL/BENCHMARK/result.json'):
        read_records(tmp_path)
    with pytest.raises(FileNotFoundError, match=r'none\.json: expected a result.json'):
        read_records(tmp_path / 'none.json')
    path = tmp_path / 'half.json'
    path.write_text('{"schema": 1')
    with pytest.raises(ValueError, match=r'half\.json is not a whole JSON file'):
        read_records(path)
    path.write_text('{"schema": 1, "records": 3}')
    with pytest.raises(ValueError, match='a list of records, but got schema 1 and int'):
        read_records(path)
    path.write_text('{"schema": 1, "records": [{}]}')
    with pytest.raises(ValueError, match=r'half\.json: record 0: expected schema 1, but got None'):
        read_records(path)
