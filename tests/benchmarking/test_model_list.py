"""Naming of models on the command line."""

from pathlib import Path

import pytest

from genseg_mm.benchmarking.jobs import tasks_of
from genseg_mm.benchmarking.suite import Suite, choose_models, find_file, is_released, parse_model

ROOT = Path(__file__).parents[2]


def suite(**models: dict) -> Suite:
    return Suite('s.py', 's', {}, models, None, None, {})


@pytest.mark.parametrize(
    'text, name, config, checkpoint, released',
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
    'texts, message',
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


@pytest.mark.parametrize(
    'model, tasks',
    [
        (dict(type='genseg_mm.GenMask'), ('referring',)),
        (dict(type='genseg_mm.Gen2Seg'), ('points', 'edges', 'instances')),
        (dict(type='genseg_mm.ControlMap', kind='rgb'), ('points', 'edges')),
        (dict(type='genseg_mm.ControlMap', kind='oracle'), ('points',)),
        (
            dict(type='mmseg.EncoderDecoder', decode_head=dict(type='genseg_mm.InstanceColoringHead')),
            ('points', 'edges'),
        ),
    ],
)
def test_tasks_by_type(model, tasks):
    assert tasks_of(dict(name='m', tasks=None), model) == tasks
    assert tasks_of(dict(name='m', tasks=('edges',)), model) == ('edges',)


def test_a_subclass_keeps_what_its_class_can_do():
    from genseg_mm.models import Gen2Seg

    class Mine(Gen2Seg):
        pass

    assert tasks_of(dict(name='m', tasks=None), dict(type=Mine)) == ('points', 'edges', 'instances')


def test_tasks_of_an_unknown_type_have_to_be_named():
    with pytest.raises(ValueError, match='m: what can a MaskRCNN do. name it with --tasks'):
        tasks_of(dict(name='m', tasks=None), dict(type='mmdet.MaskRCNN'))
