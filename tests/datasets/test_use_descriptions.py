"""The file of descriptions and the transform that uses it."""

import hashlib
import json
import logging
import os

import numpy as np
import pytest

from genseg_mm.datasets.transforms.referring import DescriptionFile, UseDescriptions, picture_name
from genseg_mm.registry import TRANSFORMS

WRITER = dict(template='{}', generation=dict(max_new_tokens=4), pixels=[1, 2])
SCENE = dict(img_path='', img_id=7, img=np.arange(12, dtype=np.uint8).reshape(2, 2, 3))


@pytest.fixture
def written(tmp_path):
    file = DescriptionFile.resume(tmp_path / 'new' / 'descriptions.json', WRITER)
    file.add('val/a.jpg', 'what is hot?', 'the red oven')
    file.add('val/a.jpg', 'what is cold?', 'the fridge')
    file.add(picture_name(SCENE), 'what is hot?', 'the sün')
    file.save()
    return file.path


def test_what_is_saved_is_read_again(written):
    assert json.loads(written.read_text(encoding='utf-8')) == dict(
        writer=WRITER,
        descriptions={
            'val/a.jpg': {'what is hot?': 'the red oven', 'what is cold?': 'the fridge'},
            picture_name(SCENE): {'what is hot?': 'the sün'},
        },
    )
    file = DescriptionFile.read(written)
    assert len(file) == 3
    assert file.get('val/a.jpg', 'what is hot?') == 'the red oven'
    assert file.get('a.jpg', 'what is cold?') is None
    assert os.listdir(written.parent) == ['descriptions.json']


def test_saving_that_fails_leaves_the_old_file(written, monkeypatch):
    before = written.read_bytes()
    file = DescriptionFile.resume(written, WRITER)
    file.add('b.jpg', 'x', 'y')

    def full(*_):
        raise OSError('no space left')

    monkeypatch.setattr(os, 'replace', full)
    with pytest.raises(OSError, match='no space left'):
        file.save()
    assert written.read_bytes() == before


def test_another_writer_does_not_go_on_with_the_file(written):
    assert len(DescriptionFile.resume(written, dict(WRITER, pixels=(1, 2)))) == 3
    with pytest.raises(ValueError, match=r"other settings: template '{}' there and '{}!' now\. Delete it"):
        DescriptionFile.resume(written, dict(WRITER, template='{}!'))
    with pytest.raises(ValueError, match="weights None there and 'abc' now"):
        DescriptionFile.resume(written, dict(WRITER, weights='abc'))


@pytest.mark.parametrize(
    'content', ['[]', '{"writer": {}}', '{"writer": {}, "descriptions": {"a": ["b"]}}', '{"wri', '']
)
def test_files_of_another_form_are_refused(tmp_path, content):
    path = tmp_path / 'other.json'
    path.write_text(content)
    with pytest.raises(ValueError, match=r'other\.json(: expected JSON of {"writer"| is not a whole JSON file)'):
        UseDescriptions(str(path))


def test_a_missing_file_names_the_tool(tmp_path):
    with pytest.raises(FileNotFoundError, match='write it with tools/dataset_tools/write_desc'):
        UseDescriptions(str(tmp_path / 'no.json'))


def test_pictures_are_named_by_folder_and_file_or_else_by_their_pixels():
    assert picture_name(dict(img_path='data/val/a.jpg', img_id=3)) == 'val/a.jpg'
    assert picture_name(dict(img_path='/data/train/a.jpg', img_id=3)) == 'train/a.jpg'
    assert picture_name(dict(img_path='a.jpg')) == 'a.jpg'
    digest = hashlib.sha256(b'uint8(2, 2, 3)' + bytes(range(12))).hexdigest()
    assert picture_name(SCENE) == digest[:16]
    assert picture_name(dict(SCENE, img=SCENE['img'].reshape(4, 1, 3))) != digest[:16]
    with pytest.raises(ValueError, match=r"with 'img_path' or 'img', but got \['img_id', 'text'\]"):
        picture_name(dict(text='x', img_id=3))


def test_the_text_becomes_the_description_and_the_question_is_kept(written):
    transform = TRANSFORMS.build(dict(type='genseg_mm.UseDescriptions', file=str(written)))
    item = dict(img_path='/data/val/a.jpg', text='what is cold?', task='mask')
    assert transform(item) == dict(img_path='/data/val/a.jpg', text='the fridge', question='what is cold?', task='mask')
    assert transform(dict(SCENE, text='what is hot?'))['text'] == 'the sün'


def test_a_missing_description_is_an_error_or_counted(written, caplog):
    item = dict(img_path='val/a.jpg', text='What is hot?')
    with pytest.raises(ValueError, match=r"no description of 'What is hot\?' for picture 'val/a.jpg': complete it"):
        UseDescriptions(str(written))(dict(item))
    keeping = UseDescriptions(str(written), missing='keep')
    with caplog.at_level(logging.WARNING):
        got = keeping(dict(item))
    assert (got['text'], got['question']) == ('What is hot?', 'What is hot?')
    keeping(dict(item, text='what is hot?'))
    assert keeping.num_missing == 1


def test_mistakes_are_named(written):
    with pytest.raises(ValueError, match="missing must be 'error' or 'keep', but got 'skip'"):
        UseDescriptions(str(written), missing='skip')
    with pytest.raises(ValueError, match="needs a string 'text' in the sample of 'a.jpg', but got"):
        UseDescriptions(str(written))(dict(img_path='a.jpg'))
