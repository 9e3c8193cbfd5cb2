"""Descriptions by a tiny random vision-language model: deterministic, the library's own answer, batches."""

import logging

import numpy as np
import pytest
import torch
from PIL import Image
from tiny_qwen_vl import (
    CLASSES,
    pretrained,
    save_tiny_qwen_vl,
    tiny_image_processor,
    tiny_qwen_vl_settings,
    tiny_tokenizer,
)

from genseg_mm.models.description_writer import DescriptionWriter
from genseg_mm.registry import MODELS

QUESTIONS = ['what is round?', 'the largest of the shapes', 'left']


@pytest.fixture(scope='module', params=sorted(CLASSES))
def released(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp(request.param)
    return save_tiny_qwen_vl(folder, request.param), request.param


def build(released, **kwargs) -> DescriptionWriter:
    folder, kind = released
    config = dict(
        type='genseg_mm.DescriptionWriter',
        model=pretrained(folder, kind),
        processor=folder,
        template='Describe {} in one phrase',
        max_new_tokens=6,
    )
    return MODELS.build({**config, **kwargs})


def pictures(*sizes: tuple[int, int]) -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    return [rng.integers(0, 256, (*size, 3), dtype=np.uint8) for size in sizes]


def test_the_answer_is_the_librarys(released):
    folder, kind = released
    writer = build(released, system_prompt='the key features')
    (picture,) = pictures((16, 24))
    tokenizer, model = tiny_tokenizer(), MODELS.build(pretrained(folder, kind))
    seen = Image.fromarray(picture[..., ::-1])
    inputs = dict(tiny_image_processor()([seen], return_tensors='pt'))
    shown = '<|vision_start|>' + '<|image_pad|>' * 6 + '<|vision_end|>'
    messages = [
        dict(role='system', content='the key features'),
        dict(role='user', content=f'{shown}Describe what is round? in one phrase'),
    ]
    chat = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    ids = tokenizer(chat, return_tensors='pt', add_special_tokens=False).input_ids
    output = model.generate(
        ids,
        attention_mask=torch.ones_like(ids),
        mm_token_type_ids=(ids == model.config.image_token_id).long(),
        do_sample=False,
        max_new_tokens=6,
        **inputs,
    )
    answer = tokenizer.decode(output[0, ids.shape[1] :], skip_special_tokens=True)
    expected = ' '.join(answer.split()).strip(' "\'').rstrip('.').strip(' "\'')
    assert expected != ''
    assert writer([picture], QUESTIONS[:1]) == [expected]


def test_a_batch_of_sizes_equals_the_pictures_one_by_one(released):
    writer = build(released, batch_size=2)
    shown = pictures((16, 24), (32, 8), (20, 20))
    together = writer(shown, QUESTIONS)
    alone = [writer([p], [t])[0] for p, t in zip(shown, QUESTIONS, strict=True)]
    assert together == alone
    assert len(set(together)) == 3
    assert together == writer(shown, QUESTIONS)
    assert writer([], []) == []


def test_the_settings_that_come_with_a_released_model_are_not_used(released):
    folder, kind = released
    model = MODELS.build(pretrained(folder, kind))
    model.generation_config.update(do_sample=True, temperature=9.0, repetition_penalty=5.0)
    shown = pictures((16, 24))
    writer = build(released)
    expected = writer(shown, QUESTIONS[:1])
    writer.model.generation_config = model.generation_config
    writer._set_generation()
    assert writer.model.generation_config.do_sample is False
    assert writer.model.generation_config.repetition_penalty in (None, 1.0)
    assert writer.model.generation_config.eos_token_id == model.generation_config.eos_token_id
    assert writer(shown, QUESTIONS[:1]) == expected
    assert build(released, generation=dict(num_beams=3)).model.generation_config.num_beams == 3


def test_answers_are_stripped_and_empty_ones_say_so(released, monkeypatch, caplog):
    writer = build(released)
    answers = iter([' "The man\n in red." ', ' . ', 'a dog'])
    words = {}

    def generate(input_ids, **_):
        rows = [writer.chat.words(next(answers)) for _ in input_ids]
        words['longest'] = max(map(len, rows))
        padded = [row + [writer.chat.padding] * (words['longest'] - len(row)) for row in rows]
        return torch.cat([input_ids, torch.tensor(padded)], 1)

    monkeypatch.setattr(writer.model, 'generate', generate)
    with caplog.at_level(logging.WARNING):
        got = writer(pictures((8, 8), (8, 8), (8, 8)), QUESTIONS)
    assert got == ['The man in red', 'the largest of the shapes', 'a dog']
    assert writer.num_empty == 1


def test_settings_tell_models_and_templates_apart(released, tmp_path):
    writer = build(released)
    settings = writer.settings()
    assert settings == build(released).settings()
    assert settings['template'] == 'Describe {} in one phrase'
    assert settings['generation'] == dict(max_new_tokens=6, do_sample=False)
    assert settings['pixels'] == [64, 1024]
    other = build((save_tiny_qwen_vl(tmp_path, released[1], seed=1), released[1])).settings()
    assert [key for key in settings if settings[key] != other[key]] == ['weights']
    changed = build(released, template='{}', max_new_tokens=7, max_pixels=256).settings()
    assert [key for key in settings if settings[key] != changed[key]] == ['template', 'generation', 'pixels']


def test_it_is_frozen_and_left_out_of_checkpoints(released):
    writer = build(released).train()
    assert not writer.model.training
    assert [name for name, p in writer.named_parameters() if p.requires_grad] == []
    assert writer.state_dict() == {}


def test_mistakes_are_named(released):
    folder, kind = released
    with pytest.raises(ValueError, match="must hold '{}' exactly once, but got 'Describe it'"):
        build(released, template='Describe it')
    with pytest.raises(ValueError, match='max_new_tokens must be at least 1, but got 0'):
        build(released, max_new_tokens=0)
    model = dict(type='transformers.AutoModel.from_pretrained', pretrained_model_name_or_path=folder)
    with pytest.raises(ValueError, match='that generates text .* but got a Qwen.*Model'):
        build(released, model=model)
    writer = build(released, model=tiny_qwen_vl_settings(kind, tiny_tokenizer()))
    with pytest.raises(ValueError, match='one picture per text, but got 1 pictures and 2 texts'):
        writer(pictures((8, 8)), QUESTIONS[:2])
    with pytest.raises(ValueError, match=r'\(H, W, 3\) of uint8 in BGR, but got \(8, 8\) of uint8'):
        writer([np.zeros((8, 8), np.uint8)], QUESTIONS[:1])
