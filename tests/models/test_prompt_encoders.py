"""What prompt encoders share, decoder language models, CLIP and combinations: by hand, and what is refused.

That they give what released families were trained with is held by value in ``test_released_text_to_image.py``.
"""

import pytest
import torch
import torch.distributed as dist
from tiny_qwen_vl import tiny_tokenizer
from tiny_released import write_tokenizer
from tiny_released_dits import CHAT_TEMPLATE, byte_tokenizer, clip, decoder, t5
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard

from genseg_mm.models.prompt_encoders import (
    CLIPPromptEncoder,
    CombinedPromptEncoder,
    LanguageModelPromptEncoder,
    PromptEmbeddings,
    T5PromptEncoder,
)
from genseg_mm.registry import MODELS

TEXTS = ['a red circle', 'Two']
SIZES = dict(hidden_size=32, intermediate_size=48, num_hidden_layers=3, num_attention_heads=4, head_dim=8)


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    """A released folder with all kinds of text encoders."""
    place = tmp_path_factory.mktemp('released')
    parts = dict(text_encoder=clip(24, False, 1), text_encoder_2=t5(), qwen=decoder('qwen3', 340))
    for name, part in parts.items():
        part.save_pretrained(place / name)
    write_tokenizer(place / 'tokenizer')
    byte_tokenizer(end='</s>').save_pretrained(place / 'tokenizer_2')
    chat = tiny_tokenizer()
    chat.chat_template = CHAT_TEMPLATE
    chat.save_pretrained(place / 'qwen_tokenizer')
    return place


def part(folder, kind, subfolder, tokenizer, **changes):
    types = dict(CLIP='CLIPTextModel', T5='T5EncoderModel', LanguageModel='Qwen3Model')
    return dict(
        type=f'genseg_mm.{kind}PromptEncoder',
        encoder=dict(
            type=f'transformers.{types[kind]}.from_pretrained',
            pretrained_model_name_or_path=str(folder),
            subfolder=subfolder,
        ),
        tokenizer=str(folder),
        tokenizer_kwargs=dict(subfolder=tokenizer),
        **changes,
    )


def qwen(folder, **changes):
    return part(folder, 'LanguageModel', 'qwen', 'qwen_tokenizer', **changes)


def clip_of(folder, **changes):
    return part(folder, 'CLIP', 'text_encoder', 'tokenizer', **changes)


def t5_of(folder, **changes):
    settings = dict(max_length=20, padding='max_length', reads_padding=True)
    return part(folder, 'T5', 'text_encoder_2', 'tokenizer_2', **{**settings, **changes})


@pytest.mark.parametrize('make', [qwen, clip_of, t5_of])
def test_released_encoders_are_frozen_and_left_out_of_checkpoints_and_can_be_trained(folder, make):
    encoder = MODELS.build(make(folder)).train()
    assert (encoder.trainable, encoder.encoder.training, encoder.state_dict()) == (False, False, {})
    expected = encoder(TEXTS)
    with torch.autocast('cpu', torch.bfloat16):
        prompt = encoder(TEXTS)
    assert torch.equal(prompt.states, expected.states) and not prompt.states.requires_grad
    encoder.init_weights()
    assert torch.equal(encoder(TEXTS).states, expected.states)

    trained = MODELS.build(make(folder, trainable=True))
    prompt = trained(TEXTS)
    torch.testing.assert_close(prompt.states, expected.states)
    (prompt.states.square().sum() + (0 if prompt.pooled is None else prompt.pooled.sum())).backward()
    assert all(own.grad is not None for own in trained.parameters())
    assert len(trained.state_dict()) > 0


@pytest.mark.parametrize(
    ('make', 'changes'),
    [(qwen, {}), (qwen, dict(hidden_layer=(1, 3))), (clip_of, {}), (clip_of, dict(hidden_layer=-1)), (t5_of, {})],
)
def test_a_sharded_encoder_gives_the_same(folder, make, changes):
    """FSDP2 changes the class of a model, by whose name transformers would find what it records of the layers."""
    expected = MODELS.build(make(folder, **changes))(TEXTS)
    encoder = MODELS.build(make(folder, **changes))
    dist.init_process_group('gloo', store=dist.HashStore(), rank=0, world_size=1)
    try:
        fully_shard(encoder.encoder, mesh=init_device_mesh('cpu', (1,)))
        prompt = encoder(TEXTS)
    finally:
        dist.destroy_process_group()
    assert type(encoder.encoder).__name__.startswith('FSDP')
    torch.testing.assert_close(prompt.states, expected.states)
    torch.testing.assert_close(prompt.pooled, expected.pooled)


class TestLanguageModel:
    def test_hidden_layers_are_those_of_the_whole_model(self, folder):
        ids = tiny_tokenizer()(TEXTS[0], return_tensors='pt').input_ids
        whole = MODELS.build(qwen(folder)['encoder']).eval()
        hidden = whole(ids, output_hidden_states=True).hidden_states
        for layer, expected in (
            (-1, hidden[3]),
            (-2, hidden[2]),
            (1, hidden[1]),
            ((1, 3), torch.cat(hidden[1::2], -1)),
        ):
            encoder = MODELS.build(qwen(folder, hidden_layer=layer))
            assert encoder.embed_dims == expected.shape[-1]
            torch.testing.assert_close(encoder(TEXTS).states[0], expected[0], rtol=0, atol=1e-6)
        assert len(MODELS.build(qwen(folder, hidden_layer=(1, 2))).encoder.layers) == 2

    def test_padding_changes_nothing_unless_it_is_read(self, folder):
        longest = MODELS.build(qwen(folder))(TEXTS)
        fixed = MODELS.build(qwen(folder, padding='max_length', max_length=30))(TEXTS)
        length = longest.mask.shape[1]
        torch.testing.assert_close(fixed.states[:, :length], longest.states, rtol=0, atol=1e-6)
        assert fixed.states[:, length:].abs().max() == 0 and fixed.mask.shape[1] == 30
        read = MODELS.build(qwen(folder, padding='max_length', max_length=30, reads_padding=True))(TEXTS)
        torch.testing.assert_close(read.states[fixed.mask], fixed.states[fixed.mask], rtol=0, atol=1e-6)
        assert read.mask.all() and read.states[:, -1].abs().max() > 0

    def test_template_with_and_without_thinking(self, folder):
        counts = {}
        for name, chat in dict(none=None, on=dict(enable_thinking=True), off=dict(enable_thinking=False)).items():
            counts[name] = MODELS.build(qwen(folder, chat=chat))(TEXTS).mask.sum(1)
        around, thought = '<|im_start|>user\n<|im_end|>\n<|im_start|>assistant\n', '<think>\n\n</think>\n\n'
        around, thought = (len(tiny_tokenizer()(text).input_ids) for text in (around, thought))
        assert (counts['on'] - counts['none']).tolist() == [around] * 2
        assert (counts['off'] - counts['on']).tolist() == [thought] * 2

    def test_the_instruction_s_own_states_are_dropped(self, tmp_path):
        byte_tokenizer('<bos>').save_pretrained(tmp_path)
        torch.manual_seed(0)
        encoder = LanguageModelPromptEncoder(
            dict(SIZES, model_type='gemma2', vocab_size=258, num_key_value_heads=2, pad_token_id=256),
            str(tmp_path),
            instruction='Say: ',
            max_length=8,
            lowercase=True,
        ).eval()
        ids = encoder.tokenizer('Say: two').input_ids
        hidden = encoder.encoder(torch.tensor([ids])).last_hidden_state[0]
        prompt = encoder([' Two ', '', 'much too long'])
        torch.testing.assert_close(prompt.states[0, :5], hidden[[0, 5, 6, 7, 8]], rtol=0, atol=1e-5)
        assert prompt.mask.sum(1).tolist() == [5, 1, 8]
        assert encoder.negative(['Two', 'a']).mask.sum(1).tolist() == [4, 2]

    def test_what_is_refused(self, folder):
        for changes, message in (
            (dict(hidden_layer=4), r'hidden_layer must be in 1..3 or -3..-1, but got 4'),
            (dict(hidden_layer=()), 'hidden_layer must be in'),
            (dict(reads_padding=True), "reads_padding=True needs padding='max_length'.* but got 'longest'"),
            (dict(encoder=dict(hidden_size=32)), "expected a config with 'type' or 'model_type'"),
            (dict(encoder=t5_of(folder)['encoder']), 'expected a decoder language model .* but got a T5EncoderModel'),
            (dict(tokenizer_kwargs=dict(subfolder='tokenizer_2'), chat={}), 'needs a chat template, but the tokenizer'),
            (dict(tokenizer_kwargs=dict(subfolder='tokenizer')), 'has 514 tokens, but the encoder knows 340'),
        ):
            with pytest.raises(ValueError, match=message):
                MODELS.build({**qwen(folder), **changes})
        for changes in (dict(tokenizer_kwargs=dict(subfolder='tokenizer_4')),):
            with pytest.raises(FileNotFoundError, match="expected a subfolder 'tokenizer_4', but got"):
                MODELS.build({**qwen(folder), **changes})
        with pytest.raises(ValueError, match='the tokenizer of .*text_encoder is unreadable'):
            MODELS.build({**qwen(folder), 'tokenizer_kwargs': dict(subfolder='text_encoder')})


class TestCLIP:
    def test_states_and_pooled_vectors(self, folder):
        encoder = MODELS.build(clip_of(folder))
        ids = encoder.tokenizer(TEXTS, padding='max_length', max_length=77, return_tensors='pt').input_ids
        expected = encoder.encoder(ids, output_hidden_states=True)
        prompt = encoder(TEXTS)
        torch.testing.assert_close(prompt.states, expected.hidden_states[-2])
        torch.testing.assert_close(prompt.pooled, expected.pooler_output)
        assert prompt.mask.all() and prompt.mask.shape == (2, 77)
        last = MODELS.build(clip_of(folder, hidden_layer=-1))(TEXTS).states
        torch.testing.assert_close(last, expected.last_hidden_state)
        assert MODELS.build(clip_of(folder, keep='pooled'))(TEXTS).states.shape == (2, 0, 24)

    def test_from_scratch_with_and_without_projection(self, folder):
        sizes = dict(hidden_size=16, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2, vocab_size=514)
        for more, width in (({}, 16), (dict(projection_dim=12), 12)):
            encoder = CLIPPromptEncoder({**sizes, **more}, str(folder / 'tokenizer'), hidden_layer=-1)
            assert encoder(TEXTS).pooled.shape == (2, width) and encoder.trainable
        pooled = CLIPPromptEncoder(sizes, str(folder / 'tokenizer'), keep='pooled')  # no layer but one is asked for
        assert pooled(TEXTS).pooled.shape == (2, 16)

    def test_what_is_refused(self, folder):
        for changes, message in (
            (dict(keep='text'), "keep must be 'all' or 'pooled', but got 'text'"),
            (dict(hidden_layer=-4), r'hidden_layer must be in -3..-1, but got -4'),
            (dict(max_length=78), 'max_length must be at most 77'),
        ):
            with pytest.raises(ValueError, match=message):
                MODELS.build(clip_of(folder, **changes))


class TestCombination:
    def test_side_by_side_and_behind_each_other(self, folder):
        clip_part, t5_part = clip_of(folder), t5_of(folder)
        a, b = MODELS.build(clip_part)(TEXTS), MODELS.build(t5_part)(TEXTS)
        encoder = MODELS.build(
            dict(type='genseg_mm.CombinedPromptEncoder', parts=[[clip_part, clip_part], t5_part], length=100)
        ).train()
        prompt = encoder(TEXTS)
        assert (encoder.embed_dims, encoder.padding, encoder.trainable) == (48, 'max_length', False)
        assert torch.equal(prompt.states[:, :77], torch.cat([a.states, a.states], -1))
        assert torch.equal(prompt.states[:, 77:97, :32], b.states) and prompt.states[:, 77:, 32:].abs().max() == 0
        assert torch.equal(prompt.pooled, torch.cat([a.pooled, a.pooled], -1))
        assert prompt.mask.sum(1).tolist() == [97, 97] and prompt.states.shape == (2, 100, 48)
        assert encoder.state_dict() == {} and not any(own.training for own in encoder.rows[0][0].encoder.modules())
        assert torch.equal(encoder.negative(TEXTS).states, prompt.states)

    def test_what_is_refused(self, folder):
        clip_part, t5_part = clip_of(folder), t5_of(folder)
        for changes, message in (
            (dict(parts=[]), 'parts must be prompt encoders'),
            (dict(parts=[[clip_part, t5_part]]), r'side by side must have one max_length, but got \[\{'),
            (dict(parts=[t5_of(folder, padding='longest', reads_padding=False)]), 'T5PromptEncoder: expected padding='),
            (dict(parts=[t5_part], width=16), 'width must be at least 32'),
            (dict(parts=[t5_part], length=10), 'length must be at least 20, that of the parts, but got 10'),
        ):
            with pytest.raises(ValueError, match=message):
                CombinedPromptEncoder(**changes)


def test_batches_of_prompts_are_joined_at_the_longer_length():
    short = PromptEmbeddings(torch.ones(1, 1, 2), torch.ones(1, 1) > 0, torch.tensor([[5.0]]))
    long = PromptEmbeddings(torch.full((2, 3, 2), 2.0), torch.ones(2, 3) > 0, torch.tensor([[6.0], [7.0]]))
    both = short.and_then(long)
    assert both.states[:, :, 0].tolist() == [[1, 0, 0], [2, 2, 2], [2, 2, 2]]
    assert both.mask.tolist() == [[True, False, False], [True] * 3, [True] * 3]
    assert both.pooled.flatten().tolist() == [5, 6, 7]
    assert long.select(torch.tensor([1, 1, 0])).pooled.flatten().tolist() == [7, 7, 6]


def test_t5_that_reads_its_padding(folder):
    with pytest.raises(ValueError, match="reads_padding=True needs padding='max_length'.* but got 'longest'"):
        T5PromptEncoder(dict(d_model=32), reads_padding=True)
    read, masked = (
        MODELS.build(t5_of(folder, reads_padding=reads, lowercase=reads))(['Two']) for reads in (True, False)
    )
    assert read.mask.all() and masked.mask.sum() == 4
    assert (read.states[0, :4] - masked.states[0, :4]).abs().max() > 1e-3
    small = MODELS.build(t5_of(folder, lowercase=True))
    assert torch.equal(small(['  Two ']).states, small(['two']).states)
