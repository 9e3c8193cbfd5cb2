"""tools/analysis_tools/print_config.py, run as a user runs it."""

from functools import partial

import pytest
from mmengine.config import Config


@pytest.fixture
def config(tmp_path):
    (tmp_path / 'base.py').write_text(
        "model = dict(type='A', width=3)\n"
        "test_dataloader = dict(dataset=dict(pipeline=[dict(type='Load'), dict(type='Resize', scale=(64, 48))]))\n"
    )
    path = tmp_path / 'leaf.py'
    path.write_text("_base_ = ['./base.py']\nmodel = dict(width=5)\nlrs = [0.1, 0.2]\n")
    return path


@pytest.fixture
def run(run_tool):
    return partial(run_tool, 'analysis_tools/print_config.py')


def test_the_whole_config_with_bases_and_options_is_printed_and_saved(config, tmp_path, run):
    out = tmp_path / 'new' / 'whole.py'
    code, text, _ = run(config, '--cfg-options', 'model.width=7', '--save-path', out)
    assert code == 0
    assert Config.fromstring(text, '.py').to_dict() == Config.fromfile(out).to_dict()
    saved = Config.fromfile(out)
    assert saved.model == dict(type='A', width=7)
    assert saved.lrs == [0.1, 0.2]
    assert '_base_' not in text


def test_parts_by_their_path(config, run):
    assert run(config, '--get', 'model.width')[:2] == (0, '5\n')
    _, text, _ = run(config, '--get', 'test_dataloader.dataset.pipeline.1')
    assert Config.fromstring(text, '.py').to_dict() == dict(type='Resize', scale=(64, 48))
    assert run(config, '--get', 'lrs')[1] == 'lrs = [0.1, 0.2]\n'
    _, text, _ = run(config, '--get', 'test_dataloader.dataset.pipeline.1.scale.0')
    assert text == '64\n'


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        (['--get', 'model.widht'], "model has no 'widht'; did you mean 'width'?"),
        (['--get', 'zzz'], "the config has no 'zzz'; it has model, test_dataloader, lrs"),
        (['--get', 'lrs.2'], "lrs is a list of 2: expected a number below that, but got '2'"),
        (['--get', 'model.width.x'], 'model.width is 5, which has no parts'),
        (['--cfg-options', 'modell.width=3'], "the config has no 'modell'; did you mean 'model'?"),
        (['--get', 'lrs', '--save-path', 'x.py'], '--save-path takes a dict, but --get lrs is'),
    ],
)
def test_wrong_keys_are_told(config, arguments, message, run):
    code, text, errors = run(config, *arguments)
    assert (code, text) == (2, '')
    assert message in errors


def test_no_such_file(tmp_path, run):
    code, _, errors = run(tmp_path / 'none.py')
    assert code == 2
    assert 'none.py does not exist' in errors
    code, _, errors = run(tmp_path / 'none.py', '--save-path', 'x.txt')
    assert code == 2
    assert '--save-path: expected a file that ends in .py or .json or .yml or .yaml, but got x.txt' in errors
