"""Referring samples by hand-worked values: masks, mirrored pictures and words, prompts, descriptions."""

import hashlib
import json
import logging
import os

import numpy as np
import pytest
import torch
from PIL import Image

from genseg_mm.datasets import LoadReferringMask, PackGenSegInputs
from genseg_mm.datasets.transforms.referring import (
    DescriptionFile,
    RandomReferringFlip,
    TextPrompt,
    UseDescriptions,
    picture_name,
)
from genseg_mm.models.mask_head import GenerativeMaskHead
from genseg_mm.registry import TRANSFORMS

BLACK_AND_WHITE = np.array([[0, 255, 255], [0, 0, 255]], np.uint8)
IMAGE = np.zeros((2, 3, 3), np.uint8)


def item(mask: np.ndarray, path=None, **more) -> dict:
    sample = dict(img=IMAGE, img_path='a.jpg', text='it', task='mask', **more)
    if path is None:
        return dict(sample, gt_seg_map=mask)
    Image.fromarray(mask).save(path)
    return dict(sample, seg_map_path=str(path))


def test_a_black_and_white_mask_names_its_file_and_both_ways_out(tmp_path):
    path = tmp_path / 'mask.png'
    given = dict(item(BLACK_AND_WHITE), seg_map_path=str(path))  # as mmseg's LoadAnnotations leaves it
    for load, sample, name in (
        (LoadReferringMask(), item(BLACK_AND_WHITE, path), str(path)),
        (LoadReferringMask(), item(BLACK_AND_WHITE), 'mask of a.jpg'),
        (LoadReferringMask(), given, str(path)),
        (PackGenSegInputs(), given, str(path)),
        (PackGenSegInputs(), item(np.full((2, 3), 255, np.uint8)), 'mask of a.jpg'),
    ):
        with pytest.raises(ValueError, match='got 255 and no 1') as error:
            load(dict(sample))
        text = str(error.value)
        assert text.startswith(f'{name}: ') and '\n' not in text
        assert 'white=255' in text and 'written as 0 and 1' in text and 'leave it out' in text


def test_white_reads_it(tmp_path):
    for sample in (item(BLACK_AND_WHITE, tmp_path / 'mask.png'), item(BLACK_AND_WHITE)):
        results = LoadReferringMask(white=255)(sample)
        assert results['gt_seg_map'].tolist() == [[0, 1, 1], [0, 0, 1]]
        assert results['gt_seg_map'].dtype == np.uint8 and results['seg_fields'] == ['gt_seg_map']
        packed = PackGenSegInputs()(results)['data_samples']
        assert packed.gt_sem_seg.data.tolist() == [[[0, 1, 1], [0, 0, 1]]]
    with pytest.raises(ValueError, match='expected 0 and white=255, but got 7 as well'):
        LoadReferringMask(white=255)(item(np.array([[0, 255, 7]], np.uint8)))
    for white in (0, 256, True, '255'):
        with pytest.raises(ValueError, match='white must be a value from 1 to 255'):
            LoadReferringMask(white=white)


def test_sound_masks_stay_as_they_are(tmp_path):
    for mask in ([[0, 1, 255]], [[0, 0, 0]], [[1, 1, 1]], [[1, 255, 255]]):
        results = LoadReferringMask()(item(np.array(mask, np.uint8)))
        assert results['gt_seg_map'].tolist() == mask
    with pytest.raises(ValueError, match=r'mask of a\.jpg: expected a mask of 0, 1 and 255 .*got 2'):
        LoadReferringMask()(item(np.array([[0, 1, 2]], np.uint8)))


def test_what_crops_and_padding_leave_of_a_sound_mask_is_no_error():
    results = LoadReferringMask()(item(np.array([[1, 0, 255]], np.uint8)))
    results['gt_seg_map'] = results['gt_seg_map'][:, 1:]  # cropped
    sample = PackGenSegInputs()(LoadReferringMask()(results))['data_samples']
    assert sample.mask_values_checked is True
    drawn = GenerativeMaskHead.masks_to_images(sample.gt_sem_seg.data, [sample.mask_values_checked])
    assert drawn.eq(-1).all()


def test_the_model_is_the_last_guard():
    masks = torch.tensor([[[0, 1], [255, 0]], [[0, 255], [0, 0]]], dtype=torch.uint8)
    assert GenerativeMaskHead.masks_to_images(masks[:1])[0, 0].tolist() == [[-1, 1], [-1, -1]]
    for checked in (None, [True, False]):
        with pytest.raises(ValueError, match='mask 1 of the batch: .*got 255 and no 1.*white=255'):
            GenerativeMaskHead.masks_to_images(masks, checked)
    assert GenerativeMaskHead.masks_to_images(masks, [False, True])[1].eq(-1).all()


SQUARE = [0, 0, 4, 0, 4, 4, 0, 4]  # pixels 0..3 of both axes
SHIFTED = [2, 2, 6, 2, 6, 6, 2, 6]


def test_referring_mask_is_the_or_of_all_parts():
    results = dict(height=8, width=8, segmentations=[[SQUARE, SHIFTED]], img_path='a.jpg')
    mask = LoadReferringMask()(results)['gt_seg_map']
    expected = np.zeros((8, 8), np.uint8)
    expected[:4, :4] = expected[2:6, 2:6] = 1
    assert mask.tolist() == expected.tolist() and mask.max() == 1  # an overlap is 1, not 2
    assert results['seg_fields'] == ['gt_seg_map']
    two = dict(height=8, width=8, segmentations=[[SQUARE], [SHIFTED]], img_path='a.jpg')
    assert LoadReferringMask()(two)['gt_seg_map'].tolist() == expected.tolist()
    nothing = dict(height=8, width=8, segmentations=[], img_path='a.jpg')
    assert LoadReferringMask()(nothing)['gt_seg_map'].sum() == 0


def test_referring_mask_reads_rle_and_names_bad_polygons():
    rle = dict(size=[2, 3], counts=[1, 2, 3])  # column-major: 0, 1 1, 0 0 0
    results = dict(height=2, width=3, segmentations=[rle])
    assert LoadReferringMask()(results)['gt_seg_map'].tolist() == [[0, 1, 0], [1, 0, 0]]
    with pytest.raises(ValueError, match=r'a.jpg, annotations \[7\].*at least 3 points.*\[4\]'):
        LoadReferringMask()(dict(height=8, width=8, segmentations=[[[0, 0, 1, 1]]], img_path='a.jpg', ann_ids=[7]))
    with pytest.raises(ValueError, match=r'size \(8, 8\), but got \(2, 3\)'):
        LoadReferringMask()(dict(height=8, width=8, segmentations=[rle]))


def test_text_prompt():
    results = TextPrompt('Segment {}.')(dict(text=' The LEFT one '))
    assert results == dict(text='Segment the left one.', expression='the left one')
    assert TextPrompt(lower=False)(dict(text='A b'))['text'] == 'A b'
    with pytest.raises(ValueError, match="exactly once, but got 'Segment'"):
        TextPrompt('Segment')
    with pytest.raises(ValueError, match="sample of 'a.jpg', but got None"):
        TextPrompt()(dict(img_path='a.jpg'))


# ---- RandomReferringFlip


def sample(text: str, **more) -> dict:
    mask = np.array([[1, 0, 0], [1, 255, 0]], np.uint8)
    image = np.arange(18, dtype=np.uint8).reshape(2, 3, 3)
    return {**dict(img=image, gt_seg_map=mask, text=text, sample_idx=4, visit=2), **more}


@pytest.mark.parametrize(
    ('text', 'mirrored'),
    [
        ('left man', 'right man'),
        ('the man to the left of the right car', 'the man to the right of the left car'),
        ('leftmost, then rightmost', 'rightmost, then leftmost'),
        ('left-hand side; his right hand', 'right-hand side; his left hand'),
        ('LEFT guy, Right girl, Leftmost', 'RIGHT guy, Left girl, Rightmost'),
        ('bright copyright, upright, cleft, leftover', 'bright copyright, upright, cleft, leftover'),
        ("left's best_left 2left", "right's best_right 2left"),
        ('the red one', 'the red one'),
        ('right now it is right behind', 'left now it is left behind'),  # the odd texts it warns of
        ('', ''),
    ],
)
def test_words(text, mirrored):
    flip = RandomReferringFlip(prob=1.0)
    assert flip.swap(text) == mirrored
    assert flip(sample(text))['text'] == mirrored
    if '2left' not in text:
        assert flip.swap(mirrored) == text


def test_picture_and_masks_are_mirrored():
    results = RandomReferringFlip(prob=1.0)(sample('left', gt_instance_map=np.array([[1, 2, 3]], np.int32)))
    assert results['gt_seg_map'].tolist() == [[0, 0, 1], [0, 255, 1]]
    assert results['img'][0].tolist() == [[6, 7, 8], [3, 4, 5], [0, 1, 2]]
    assert results['gt_instance_map'].tolist() == [[3, 2, 1]]
    assert (results['flip'], results['flip_direction']) == (True, 'horizontal')


def test_nothing_happens_at_zero():
    before = sample('left')
    results = RandomReferringFlip(prob=0.0)(dict(before))
    assert (results['img'] == before['img']).all()
    assert (results['gt_seg_map'] == before['gt_seg_map']).all()
    assert (results['text'], results['flip'], results['flip_direction']) == ('left', False, None)


@pytest.mark.parametrize('text', ['the lft man', 'guy on r', "bird at 3 O'Clock", 'clockwise'])
def test_texts_that_cannot_be_mirrored_are_kept(text):
    results = RandomReferringFlip(prob=1.0)(sample(f'{text} left'))
    assert (results['text'], results['flip']) == (f'{text} left', False)
    assert results['gt_seg_map'][0].tolist() == [1, 0, 0]


def test_draw_follows_seed_sample_and_visit():
    flip = RandomReferringFlip(seed=5)
    drawn = [flip(sample('x', sample_idx=i, visit=v))['flip'] for i in range(40) for v in range(50)]
    np.random.seed(0)  # the global state plays no part
    again = [
        RandomReferringFlip(seed=5)(sample('x', sample_idx=i, visit=v))['flip'] for i in range(40) for v in range(50)
    ]
    assert drawn == again
    assert abs(sum(drawn) - 1000) < 5 * np.sqrt(2000 / 4)  # 5 sigma of 2000 even draws
    other = [
        RandomReferringFlip(seed=6)(sample('x', sample_idx=i, visit=v))['flip'] for i in range(40) for v in range(50)
    ]
    same = sum(a == b for a, b in zip(drawn, other, strict=True))
    assert abs(same - 1000) < 5 * np.sqrt(2000 / 4)
    rare = RandomReferringFlip(prob=0.1)
    flips = sum(rare(sample('x', visit=v))['flip'] for v in range(2000))
    assert abs(flips - 200) < 5 * np.sqrt(2000 * 0.09)


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        (dict(visit=None), r"lacks \['visit'\] of a\.jpg: .*test_mode=False"),
        (dict(gt_seg_map=None), r"lacks \['gt_seg_map'\] of a\.jpg: it goes after LoadImage"),
        (dict(expression='x'), r"cannot mirror \['expression'\] of a\.jpg: it goes before TextPrompt"),
        (dict(image_latents=np.zeros(1)), r"cannot mirror \['image_latents'\]"),
    ],
)
def test_samples_that_do_not_fit(change, message):
    whole = {**sample('left', img_path='a.jpg'), **change}
    whole = {key: value for key, value in whole.items() if value is not None}
    with pytest.raises(ValueError, match=message):
        RandomReferringFlip()(whole)


def test_prob_must_be_one():
    with pytest.raises(ValueError, match=r'prob must lie in \[0, 1\], but got 1\.5'):
        RandomReferringFlip(prob=1.5)


# ---- UseDescriptions and its file


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
