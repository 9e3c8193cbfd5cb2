"""What is mended of other packages at their import; tests/test_layout.py has the rest, in a process of its own."""

from mmengine.config import Config


def test_a_text_of_a_config_is_laid_out_once(monkeypatch):
    from yapf.yapflib import yapf_api

    lay_out, texts = yapf_api.FormatTree, []

    def counted(tree, *args, **settings):
        texts.append(tree)
        return lay_out(tree, *args, **settings)

    monkeypatch.setattr(yapf_api, 'FormatTree', counted)
    configs = [Config(dict(once=dict(number=number, names=['a' * 40, 'b' * 40]))) for number in range(9)]
    first = configs[0].pretty_text
    assert first == configs[0].pretty_text == Config(configs[0].to_dict()).pretty_text and len(texts) == 1
    assert (
        first
        == "once = dict(\n    names=[\n        '"
        + 'a' * 40
        + "',\n        '"
        + 'b' * 40
        + "',\n    ],\n    number=0)\n"
    )
    # The last eight are remembered; a text that has been forgotten is laid out again, the same way.
    assert len({own.pretty_text for own in configs}) == 9 and len(texts) == 9
    assert configs[8].pretty_text != first and len(texts) == 9
    assert configs[0].pretty_text == first and len(texts) == 10
