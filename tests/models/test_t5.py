"""T5 prompt encoders: padding, truncation, pretrained folders of T5 and umT5."""

import shutil
import sys
from pathlib import Path

import huggingface_hub
import pytest
import torch
from tiny_qwen_vl import tiny_tokenizer
from transformers import T5Config, T5EncoderModel, UMT5Config, UMT5EncoderModel

from genseg_mm.models.prompt_encoders import PromptEmbeddings, T5PromptEncoder, t5
from genseg_mm.models.prompt_encoders.prompt_encoder import load_tokenizer
from genseg_mm.registry import MODELS

TINY = dict(d_model=32, d_kv=8, d_ff=64, num_layers=2, num_heads=4)
TEXTS = ['a red circle', 'the leftmost']


def build(**kwargs) -> T5PromptEncoder:
    torch.manual_seed(0)
    return T5PromptEncoder(encoder=TINY, **kwargs).eval()


@pytest.fixture(scope='module', params=['T5', 'UMT5'])
def released(request, tmp_path_factory):
    """A saved encoder of the family, and a folder with its tokenizer in a subfolder."""
    folder = tmp_path_factory.mktemp(request.param)
    config, model = {'T5': (T5Config, T5EncoderModel), 'UMT5': (UMT5Config, UMT5EncoderModel)}[request.param]
    torch.manual_seed(1)
    model(config(vocab_size=352, **TINY)).save_pretrained(folder)
    tiny_tokenizer().save_pretrained(folder / 'tokenizer')
    source = dict(
        type=f'transformers.{request.param}EncoderModel.from_pretrained', pretrained_model_name_or_path=str(folder)
    )
    return source, dict(tokenizer=str(folder), tokenizer_kwargs=dict(subfolder='tokenizer'))


def test_bytes_are_counted_with_the_end_token():
    prompt = build(max_length=20)(TEXTS)
    assert prompt.mask.sum(1).tolist() == [13, 13]
    assert prompt.states.shape == (2, 13, 32)
    assert build(max_length=5)(TEXTS).mask.sum(1).tolist() == [5, 5]
    fixed = build(max_length=20, padding='max_length')(TEXTS)
    assert fixed.states.shape == (2, 20, 32)
    assert fixed.states[:, 13:].abs().max() == 0
    torch.testing.assert_close(fixed.states[:, :13], prompt.states)


def test_padding_changes_no_state():
    encoder = build(max_length=20)
    together = encoder(['a red circle', 'red'])
    alone = encoder(['red'])
    torch.testing.assert_close(together.states[1, :4], alone.states[0])
    assert together.mask[1].tolist() == [True] * 4 + [False] * 9


def test_images_are_not_looked_at():
    encoder = build()
    assert encoder.looks_at_images is False
    images = torch.rand(2, 3, 8, 8)
    with_images = encoder(TEXTS, images, has_image=torch.tensor([True, False]))
    assert torch.equal(with_images.states, encoder(TEXTS).states)


def test_released_folders_are_read_frozen_and_left_out_of_checkpoints(released):
    source, tokenizer = released
    encoder = MODELS.build(dict(type='genseg_mm.T5PromptEncoder', encoder=source, **tokenizer))
    assert (encoder.trainable, encoder.embed_dims) == (False, 32)
    assert encoder.state_dict() == {}
    ids = tiny_tokenizer()(TEXTS, padding=True, return_tensors='pt')
    model = MODELS.build(source)
    expected = model(ids.input_ids, attention_mask=ids.attention_mask).last_hidden_state
    prompt = encoder.train()(TEXTS)
    assert torch.equal(prompt.mask, ids.attention_mask.bool())
    torch.testing.assert_close(prompt.states, expected * ids.attention_mask[..., None])
    assert not prompt.states.requires_grad


def test_released_folders_can_be_trained(released):
    source, tokenizer = released
    encoder = T5PromptEncoder(encoder=source, trainable=True, **tokenizer)
    encoder(TEXTS).states.square().sum().backward()
    grads = [parameter.grad for parameter in encoder.parameters()]
    assert all(grad is not None and grad.abs().max() > 0 for grad in grads)
    assert len(encoder.state_dict()) > 0


def test_a_tokenizer_of_another_model_is_refused(tmp_path):
    tiny_tokenizer().save_pretrained(tmp_path)
    with pytest.raises(ValueError, match='has 340 tokens, but the encoder knows 300'):
        T5PromptEncoder(encoder=dict(TINY, vocab_size=300), tokenizer=str(tmp_path))
    with pytest.raises(ValueError, match="padding must be 'longest' or 'max_length', but got 'x'"):
        build(padding='x')


def test_select_takes_the_pooled_vectors_along():
    prompt = PromptEmbeddings(torch.arange(6.0).reshape(3, 2, 1), torch.ones(3, 2) > 0)
    chosen = torch.tensor([True, False, True])
    assert prompt.select(chosen).states[:, 0, 0].tolist() == [0, 4]
    assert prompt.select(chosen).pooled is None
    pooled = prompt._replace(pooled=torch.tensor([[1.0], [2.0], [3.0]])).select(chosen).pooled
    assert pooled.tolist() == [[1], [3]]


@pytest.mark.parametrize('trainable', [True, False])
def test_frozen_prompts_are_those_of_a_cache_under_autocast_too(trainable):
    encoder = build(trainable=trainable)
    expected = encoder(['the red circle']).states
    with torch.autocast('cpu', torch.bfloat16):
        states = encoder(['the red circle']).states
    assert states.requires_grad == trainable
    assert torch.equal(states.float(), expected) == (not trainable)
    torch.testing.assert_close(states.float(), expected, rtol=0.05, atol=0.05)


def test_a_tokenizer_that_was_fetched_before_the_network_was_gone(released, tmp_path, monkeypatch):
    repository = tmp_path / 'models--someone--tiny'
    place = repository / 'snapshots' / ('0' * 40) / 'tokenizer'
    shutil.copytree(Path(released[1]['tokenizer']) / 'tokenizer', place)
    assert not (place / 'config.json').exists()
    (repository / 'refs').mkdir()
    (repository / 'refs/main').write_text('0' * 40)
    monkeypatch.setattr(huggingface_hub.constants, 'HF_HUB_CACHE', str(tmp_path))
    monkeypatch.setattr(huggingface_hub.constants, 'HF_HUB_OFFLINE', True)
    tokens = load_tokenizer('someone/tiny', subfolder='tokenizer')(TEXTS).input_ids
    assert tokens == load_tokenizer(released[1]['tokenizer'], subfolder='tokenizer')(TEXTS).input_ids
    with pytest.raises(ValueError, match='the tokenizer of someone/other is unreadable'):
        load_tokenizer('someone/other')


@pytest.mark.parametrize('installed', [True, False], ids=['with_ftfy', 'without'])
def test_prompts_are_cleaned_as_by_the_pipeline_of_wan(installed, monkeypatch):
    from diffusers.pipelines.wan import pipeline_wan

    said = []
    monkeypatch.setattr(t5, 'print_log', lambda text, *_: said.append(text))
    if installed:
        pytest.importorskip('ftfy')
    else:
        monkeypatch.setitem(sys.modules, 'ftfy', None)
        monkeypatch.setattr(pipeline_wan, 'is_ftfy_available', lambda: False)
    encoder, plain = build(max_length=60, clean=True), build(max_length=60)
    texts = ['  a red\n circle ', 'cats &amp;amp; dogs', 'a â€œblueâ€\x9d one', '“the left”', '']
    cleaned = [pipeline_wan.prompt_clean(text) for text in texts]
    assert cleaned[:2] == ['a red circle', 'cats & dogs']
    assert torch.equal(encoder(texts).states, plain(cleaned).states)
    assert (cleaned[3] == '"the left"') == installed
    assert [text.split(',')[0] for text in said] == ([] if installed else ['clean=True: ftfy is not installed'])
