"""Reading of suites."""

import os
from pathlib import Path

import pytest

from genseg_mm.benchmarking.suite import read_suite

BENCHMARK = (
    "dict(task='points', title='T', protocol='p', dataset=dict(type='X', data_root={root}), evaluator=dict(type='Y'))"
)


def write(folder: Path, text: str) -> str:
    file = folder / 'my_suite.py'
    file.write_text(text)
    return str(file)


def suite_text(root: str = "'{{$GENSEG_DATA:data}}/dram'", extra: str = '') -> str:
    return f"suite = dict(name='small', title='Small'{extra})\nbenchmarks = dict(a={BENCHMARK.format(root=root)})\n"


def test_reads_names_and_benchmarks_as_plain_dicts(tmp_path):
    text = suite_text() + "models = dict(m=dict(config='c.py'))\ntables = [dict(name='t')]\n"
    suite = read_suite(write(tmp_path, text))
    assert suite.name == 'small'
    assert suite.models == {'m': {'config': 'c.py'}}
    assert suite.cfg['tables'] == [{'name': 't'}]
    assert type(suite.benchmarks['a']) is dict and suite.benchmarks['a']['task'] == 'points'
    assert suite.make_data is None


def test_data_variable_points_to_the_data_a_suite_makes_and_is_restored(tmp_path, monkeypatch):
    monkeypatch.setenv('GENSEG_DATA', '/elsewhere')
    plain = read_suite(write(tmp_path, suite_text()))
    assert plain.benchmarks['a']['dataset']['data_root'] == '/elsewhere/dram'
    made = read_suite(write(tmp_path, suite_text(extra=", make_data='tool.py', data_root='tiny'")))
    assert made.benchmarks['a']['dataset']['data_root'] == 'tiny/dram'
    assert os.environ['GENSEG_DATA'] == '/elsewhere'
    monkeypatch.delenv('GENSEG_DATA')
    read_suite(write(tmp_path, suite_text(extra=", make_data='tool.py', data_root='tiny'")))
    assert 'GENSEG_DATA' not in os.environ


def test_options_override_the_suite(tmp_path):
    options = {'benchmarks.a.dataset.indices': 20, 'suite.name': 'other'}
    suite = read_suite(write(tmp_path, suite_text()), options)
    assert suite.benchmarks['a']['dataset']['indices'] == 20
    assert suite.name == 'other'


def test_select_keeps_the_order_of_the_suite(tmp_path):
    part = BENCHMARK.format(root="'x'")
    suite = read_suite(write(tmp_path, f'suite = dict()\nbenchmarks = dict(a={part}, b={part}, c={part})\n'))
    assert suite.name == 'my_suite'
    assert list(suite.select(['c', 'a'])) == ['a', 'c']
    assert list(suite.select(None)) == ['a', 'b', 'c']
    with pytest.raises(ValueError, match="no benchmark 'd', but a, b, c"):
        suite.select(['d'])


@pytest.mark.parametrize(
    'text, message',
    [
        ('a = 1', "is not a suite: expected dicts 'suite' and 'benchmarks'"),
        ("suite = dict()\nbenchmarks = dict(a=dict(task='points'))", 'title is missing'),
        (suite_text().replace("task='points'", "task='flying'"), "must be one of .* but got 'flying'"),
        (suite_text().replace("title='T'", "title='T', colour=1"), "got 'colour'"),
        (suite_text(extra=', colour=1'), "suite may have name, .* but got 'colour'"),
        (suite_text(extra=", make_data='t.py'"), 'make_data needs data_root'),
    ],
)
def test_refuses_what_is_no_suite(tmp_path, text, message):
    with pytest.raises(ValueError, match=message):
        read_suite(write(tmp_path, text))
