"""How a config is written out."""

import ast
import subprocess
import sys

import pytest
import torch
from mmengine.config import Config

from genseg_mm.config_text import WIDTH, lay_out


def test_what_fits_stays_in_a_line_and_what_does_not_is_split():
    cfg = Config(
        dict(
            short=dict(numbers=[1, -2.5, float('inf')], size=(64, 64), one=(1,), text="it's", empty=[]),
            long=dict(names=['a' * 40, 'b' * 40, 'c' * 40], layer=torch.nn.ReLU, path='d' * 130),
            keys={'a.b': 1, 3: dict(number=1e-05), 'e' * 99: None},
        )
    )
    assert cfg.pretty_text == (
        f"keys = dict({{\n    3: dict(number=1e-05),\n    'a.b': 1,\n    '{'e' * 99}': None,\n}})\n"
        f"long = dict(\n    layer=torch.nn.modules.activation.ReLU,\n    names=[\n        '{'a' * 40}',\n"
        f"        '{'b' * 40}',\n        '{'c' * 40}',\n    ],\n    path='{'d' * 130}',\n)\n"
        "short = dict(empty=[], numbers=[1, -2.5, float('inf')], one=(1,), size=(64, 64), text=\"it's\")\n"
    )
    assert Config(cfg.to_dict()).pretty_text == cfg.pretty_text
    assert '_format_python_code' not in cfg.to_dict()


@pytest.mark.parametrize('length', range(WIDTH - 4, WIDTH + 4))
def test_no_line_is_longer_than_it_may_be(length):
    half = length // 2
    whole = f'a = [{"b" * (length - half - 6)}, {"c" * (half - 2)}]\n'
    entry = f'a = [\n    [{"b" * (length - half - 7)}, {"c" * (half - 2)}],\n    {"d" * 90},\n]\n'
    for text in (whole, entry):
        assert max(map(len, text.splitlines())) == length
        laid = lay_out(text)
        assert ast.dump(ast.parse(laid)) == ast.dump(ast.parse(text))
        assert max(map(len, laid.splitlines())) <= WIDTH
        assert (laid == text) == (length <= WIDTH)


def test_text_that_is_no_python_is_an_error_and_can_be_had_as_it_is():
    values = dict(made=object)
    values['made'] = 'x'.__str__  # '<method-wrapper ...>'
    cfg = Config(values)
    with pytest.raises(SyntaxError, match=r'Failed to format the config file, please check the syntax of: \nmade=<'):
        cfg.pretty_text  # noqa: B018
    plain = Config(dict(a=dict(b=1)), format_python_code=False)
    assert plain.pretty_text == 'a=dict(\n    b=1)'


def test_yapf_lays_nothing_out_whichever_is_imported_first():
    code = (
        'from mmengine.config import Config; import genseg_mm; import yapf.yapflib.yapf_api as api; '
        'api.FormatCode = None; print(Config(dict(a=1)).pretty_text)'
    )
    done = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, check=True)
    assert done.stdout == 'a = 1\n\n'


def test_what_is_written_can_be_read(tmp_path):
    """Also what Python prints as names, and keys and texts of any kind."""
    values = dict(
        numbers=[float('inf'), -float('inf'), float('nan'), 1e-05, -0.0, 1e300, 10**40, 1j] * 9,
        texts=["it's \"so\" '''\n\t\0\r\x85\u2028", 'ü\U0001f600', 'inf', b'\xff', '{{x}}', '"""' * 50 + '\n'],
        few=[(1,), ('x' * 150,), {1, 2}, set(), frozenset([3]), range(3), [], {}, [{}], None, True],
        keys={'a b': dict(c='d' * 130), '': 1, 2: 3, (4, 5): 6, 'inf': 7},
    )
    path = tmp_path / 'config.py'
    Config(values).dump(path)
    found = Config.fromfile(path).to_dict()
    assert found.pop('keys') == values.pop('keys')
    assert {key: repr(value) for key, value in found.items()} == {key: repr(value) for key, value in values.items()}


def test_one_key_that_is_no_name_does_not_stop_a_run():
    assert Config({'a b': 'c' * 130}).pretty_text == f"{{\n    'a b': '{'c' * 130}',\n}}\n"
