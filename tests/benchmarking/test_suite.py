"""Reading of suites, and naming of models in them and on the command line."""

import os
from pathlib import Path

import pytest

from genseg_mm.benchmarking.suite import Suite, choose_models, find_file, is_released, parse_model, read_suite
from genseg_mm.config_file import read_config_file

ROOT = Path(__file__).parents[2]
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


@pytest.mark.parametrize(
    ('benchmark', 'config'),
    [('objects_points', 'gen2seg_unet_objects_tiny'), ('objects_referring', 'genmask_sana_objects_tiny')],
)
def test_scenes_of_objects_are_those_that_the_configs_test_on(benchmark, config):
    suite = read_suite(ROOT / 'configs/benchmarks/objects.py').benchmarks[benchmark]
    cfg = read_config_file(str(ROOT / f'configs/{config.split("_")[0]}/{config}.py'))
    tested = cfg.test_dataloader.dataset.datasets
    assert len(suite['dataset']['datasets']) == len(tested) > 1
    for own, other in zip(suite['dataset']['datasets'], tested, strict=True):
        other = {key: value for key, value in other.items() if value is not None}
        for one in (own, other):
            del one['pipeline'], one['num_scenes']
        assert own == other
    theirs = cfg.test_evaluator.to_dict()
    assert {key: value for key, value in suite['evaluator'].items() if key != 'controls'} == theirs


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
    ('text', 'message'),
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


def suite(**models: dict) -> Suite:
    return Suite('s.py', 's', {}, models, None, None, {})


@pytest.mark.parametrize(
    ('text', 'name', 'config', 'checkpoint', 'released'),
    [
        ('mine=a/b.py:c/d.pth', 'mine', 'a/b.py', 'c/d.pth', False),
        ('a/b.py:c/iter_10.pth', 'b__iter_10', 'a/b.py', 'c/iter_10.pth', False),
        ('a/b.py', 'b', 'a/b.py', None, False),
        ('mine=a/b.py', 'mine', 'a/b.py', None, False),
        ('out/lr=1/b.py:w.pth', 'b__w', 'out/lr=1/b.py', 'w.pth', False),
        ('a/b.py:https://host/w.pth', 'b__w', 'a/b.py', 'https://host/w.pth', False),
        ('owner/model-sd', 'model-sd', 'owner/model-sd', None, True),
        ('sd=owner/model-sd', 'sd', 'owner/model-sd', None, True),
    ],
)
def test_parses(text, name, config, checkpoint, released):
    entry = parse_model(text)
    assert entry == dict(
        name=name, title=name, config=config, checkpoint=checkpoint, tasks=None, kind='model', settings=None
    )
    assert is_released(entry['config']) is released


def test_a_folder_is_a_released_model(tmp_path):
    folder = tmp_path / 'my_release'
    folder.mkdir()
    entry = parse_model(str(folder))
    assert (entry['name'], entry['config']) == ('my_release', str(folder)) and is_released(entry['config'])


@pytest.mark.parametrize('text', ['nothing', 'a/b/c/d', 'x:y.pth'])
def test_refuses_what_is_no_model(text):
    with pytest.raises(ValueError, match='expected a model of the suite .good., NAME=CONFIG:CHECKPOINT'):
        parse_model(text, suite(good={}))


def test_names_the_nearest_model():
    with pytest.raises(ValueError, match=r"but got 'goood' \(did you mean 'good'\?\)$"):
        parse_model('goood', suite(good={}))
    with pytest.raises(ValueError, match="but got 'other'$"):
        parse_model('other', suite(good={}))


def test_a_slash_in_a_name_is_told_from_one_in_a_path(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path('b.py').touch()
    with pytest.raises(ValueError, match="must be a name of letters, digits .* but got 'a/x'"):
        parse_model('a/x=b.py')
    Path('lr=1').mkdir()
    Path('lr=1/x.py').touch()
    entry = parse_model('lr=1/x.py:w.pth')
    assert (entry['name'], entry['config'], entry['checkpoint']) == ('x__w', 'lr=1/x.py', 'w.pth')


def test_tasks_of_the_suites_models_are_not_overridden_in_silence():
    own = suite(a=dict(config='a.py'), b=dict(config='b.py'))
    with pytest.raises(ValueError, match="--tasks is for models that are not the suite's, but a, b"):
        choose_models(own, [], tasks=['edges'])


def test_refuses_names_that_are_no_folders():
    with pytest.raises(ValueError, match="must be a name of letters, digits .* but got 'a b'"):
        parse_model('a b=c.py')


def test_all_models_of_the_suite_without_names_and_chosen_ones_with():
    own = suite(a=dict(config='a.py', title='A'), b=dict(config='b.py', kind='control', tasks=['points']))
    entries = choose_models(own, [])
    assert [(e['name'], e['title'], e['kind'], e['tasks']) for e in entries] == [
        ('a', 'A', 'model', None), ('b', 'b', 'control', ('points',)),
    ]  # fmt: skip
    chosen = choose_models(own, ['b', 'x=c.py:d.pth'], tasks=['edges'])
    assert [(e['name'], e['tasks']) for e in chosen] == [('b', ('points',)), ('x', ('edges',))]


@pytest.mark.parametrize(
    ('texts', 'message'),
    [
        (['a=c.py'], 'the suite has a model a of its own'),
        (['x=c.py', 'x=d.py'], 'two models are called x'),
        (['wrong'], "kind must be one of .* but got 'toy'"),
        (['odd'], "may have .* but got 'weights'"),
    ],
)
def test_refuses_what_would_mix_results(texts, message):
    own = suite(a=dict(config='a.py'), wrong=dict(config='a.py', kind='toy'), odd=dict(config='a.py', weights='w.pth'))
    with pytest.raises(ValueError, match=message):
        choose_models(own, texts)
    with pytest.raises(ValueError, match='has no models of its own'):
        choose_models(suite(), [])


def test_files_are_found_from_any_folder(tmp_path, monkeypatch):
    config = 'configs/gen2seg/gen2seg_unet_shapes_tiny.py'
    monkeypatch.chdir(tmp_path)
    assert find_file(config) == str(ROOT / config)
    (tmp_path / 'configs/gen2seg').mkdir(parents=True)
    (tmp_path / config).write_text('')
    assert find_file(config) == config
    assert find_file('not/there.py') == 'not/there.py'
