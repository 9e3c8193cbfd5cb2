"""Wrong values in annotations, one by one: each is one line that names the file, or is left out and counted."""

import io
import json
import os
import pickle
import tarfile
from pathlib import Path

import cv2
import numpy as np
import pytest

from genseg_mm.datasets import (
    CocoCaptionsDataset,
    CocoInstanceDataset,
    GRefCOCODataset,
    ImageTextDataset,
    ReasonSegDataset,
    RefCOCODataset,
    TextPrompt,
)
from genseg_mm.datasets.image_text import read_index
from genseg_mm.files import BROKEN_TEXT, EMPTY_TEXT
from genseg_mm.inference.prompts import split_prompts

NAN, INF = float('nan'), float('inf')
BROKEN = 'nice dog \ud83d'
TRIANGLE = [[2, 2, 12, 2, 12, 12]]
ANNOTATION = dict(id=1, image_id=1, category_id=1, bbox=[2, 2, 10, 10], area=50, iscrowd=0, segmentation=TRIANGLE)
IMAGE = dict(id=1, file_name='a.jpg', height=20, width=30)


def coco(folder: Path, image=None, annotation=None, **lists) -> Path:
    """A COCO file with one picture and two annotations, the first of which is changed."""
    changed = {key: own for key, own in {**ANNOTATION, **(annotation or {})}.items() if own != 'absent'}
    content = dict(
        images=[{key: own for key, own in {**IMAGE, **(image or {})}.items() if own != 'absent'}],
        annotations=[changed, dict(ANNOTATION, id=2)],
        categories=[dict(id=1, name='x')],
    )
    (folder / 'im').mkdir(exist_ok=True)
    path = folder / 'instances.json'
    path.write_text(json.dumps({**content, **lists}))
    return path


def instances(folder: Path, **kwargs) -> CocoInstanceDataset:
    prefix = dict(img='im/')
    return CocoInstanceDataset(str(folder), 'instances.json', prefix, serialize_data=False, **kwargs)


def refcoco(folder: Path, refs, kind=RefCOCODataset, **kwargs):
    (folder / 'refs.p').write_bytes(pickle.dumps(refs, protocol=2))
    files = dict(ann_file='instances.json', split_file='refs.p', data_prefix=dict(img_path='im/'))
    kwargs = {'split': 'val', 'test_mode': True, **kwargs}
    return kind(str(folder), **files, serialize_data=False, **kwargs)


def ref(*texts, **changes) -> dict:
    sentences = [dict(sent_id=number, sent=text, raw=text) for number, text in enumerate(texts)]
    own = dict(ref_id=1, ann_id=1, image_id=1, split='val', sentences=sentences)
    return {**own, **changes}


ANNOTATIONS = {
    **{
        f'bbox {value!r:.30}': dict(bbox=value)
        for value in (
            None, '2,2,10,10', [None] * 4, list('2222'), [NAN, 2, 10, 10], [INF, 2, 10, 10], [2, 2, 10],
            [2, 2, 9, 9, 9], [2, 2, -10, 10], [2, 2, 10, -1], [True, 2, 10, 10], [10**400, 2, 10, 10], {}, 'absent',
        )
    },
    **{f'area {value!r:.30}': dict(area=value)
       for value in (None, '100', NAN, -INF, -1, True, [], 10**400, 'absent')},
    **{f'iscrowd {value!r}': dict(iscrowd=value) for value in ('0', '1', None, 2, -1, NAN, [])},
    **{f'ignore {value!r}': dict(ignore=value) for value in ('0', 'no', 3)},
    **{f'segmentation {value!r:.30}': dict(segmentation=value) for value in ('RLE', 5, TRIANGLE[0], [None], True)},
    **{f'id {value!r:.30}': dict(id=value) for value in ('1', None, 1.0, True, 2**63, [1], 'absent', 2)},
    **{f'image_id {value!r}': dict(image_id=value) for value in ('1', None, 7, 1.0)},
    **{f'category_id {value!r}': dict(category_id=value) for value in ('1', None, 7, NAN)},
}  # fmt: skip
IMAGES = {
    **{f'{side} {value!r:.30}': {side: value} for side in ('height', 'width')
       for value in (0, -5, '20', 20.0, None, NAN, True, 10**9, 'absent')},
    **{f'file_name {value!r:.40}': dict(file_name=value)
       for value in (None, '', ' ', 7, 'a\0.jpg', 'a\ud83d.jpg', '/etc/hostname', '../../x.jpg', 'im/../../../x.jpg',
                     'tar:///etc/x.tar#0+9/x.jpg', 'http://host/x.jpg', 'absent')},
}  # fmt: skip
LISTS = {
    'categories doubled': dict(categories=[dict(id=1, name='x'), dict(id=1, name='y')]),
    'category without a name': dict(categories=[dict(id=1)]),
    'category id text': dict(categories=[dict(id='1', name='x')]),
    'images doubled': dict(images=[IMAGE, IMAGE]),
    'annotations no list': dict(annotations={}),
    'annotation null': dict(annotations=[None]),
}


@pytest.mark.parametrize('name', [*ANNOTATIONS, *IMAGES, *LISTS])
def test_wrong_coco_values_name_the_file(tmp_path, name):
    coco(tmp_path, IMAGES.get(name), ANNOTATIONS.get(name), **LISTS.get(name, {}))
    with pytest.raises(ValueError, match=r'instances\.json') as caught:
        instances(tmp_path).full_init()
    assert type(caught.value) is ValueError and '\n' not in str(caught.value)


@pytest.mark.parametrize(
    'name',
    [*IMAGES, *(name for name in ANNOTATIONS if name.split()[0] in ('id', 'image_id', 'iscrowd', 'segmentation'))],
)
def test_the_same_values_are_wrong_in_refcoco(tmp_path, name):
    path = coco(tmp_path, IMAGES.get(name), ANNOTATIONS.get(name))
    with pytest.raises(ValueError, match=r'instances\.json') as caught:
        refcoco(tmp_path, [ref('a dog', ann_id=[1, 2])], kind=GRefCOCODataset)
    assert type(caught.value) is ValueError and '\n' not in str(caught.value)
    if name in IMAGES:
        content = json.loads(path.read_text())
        content['annotations'] = [dict(id=1, image_id=1, caption='a dog')]
        path.write_text(json.dumps(content))
        with pytest.raises(ValueError, match=r'instances\.json'):
            CocoCaptionsDataset(str(tmp_path), 'instances.json', dict(img_path='im/'))


def test_what_is_right_is_read(tmp_path):
    for annotation in (
        {}, dict(iscrowd=True), dict(iscrowd=1, segmentation=dict(counts=[600], size=[20, 30])), dict(segmentation=[]),
        dict(segmentation=None), dict(iscrowd='absent'), dict(bbox=[2.5, 2, 0, 0]), dict(area=0), dict(area=1e3),
    ):  # fmt: skip
        coco(tmp_path, annotation=annotation)
        assert len(instances(tmp_path)) == 1
    dataset = instances(tmp_path)
    assert dataset.get_data_info(0)['instances'][1]['bbox'] == [2, 2, 12, 12]


def test_paths_may_leave_the_folder_of_pictures_but_not_the_root(tmp_path):
    root, outside = tmp_path / 'data', tmp_path / 'other'
    for folder in (root, outside, root / 'more'):
        folder.mkdir()
    (root / 'linked').symlink_to(outside)
    inside = ('../more/a.jpg', 'b/../a.jpg', str(root / 'more/a.jpg'), '../linked/a.jpg')
    for name in inside:
        coco(root, dict(file_name=name))
        assert instances(root).get_data_info(0)['img_path'] == os.path.join(str(root), 'im/', name)
    for name in ('../../other/a.jpg', str(outside / 'a.jpg'), f'{root}2/a.jpg'):
        coco(root, dict(file_name=name))
        for build in (instances, lambda own: refcoco(own, [ref('x')])):
            with pytest.raises(ValueError, match=r'instances\.json, image 1: .*leads elsewhere; allow_outside=True'):
                build(root)
        assert instances(root, allow_outside=True).get_data_info(0)['img_path'].endswith(name)
        item = refcoco(root, [ref('x')], allow_outside=True).get_data_info(0)
        assert item['img_path'] == os.path.join(str(root), 'im/', name)


def test_texts_that_are_none_are_left_out_and_counted_the_same_everywhere(tmp_path):
    """Two texts that are good; null, NaN, missing, '' and blanks; half a character."""
    texts = ['one', None, NAN, '', ' \n', BROKEN, 'absent', 'two']
    counts = {EMPTY_TEXT: 5, BROKEN_TEXT: 1}

    def found(dataset) -> tuple:
        left_out = {
            reason: len(names)
            for reason, names in dataset.left_out.items()
            if 'texts' in reason and 'picture' not in reason
        }
        return [item['text'] for item in dataset], left_out

    coco(tmp_path)
    own = ref(*texts)
    own['sentences'][6].pop('sent')
    assert found(refcoco(tmp_path, [own])) == (['one', 'two'], counts)
    lost = refcoco(tmp_path, [own, ref(None, '', ref_id=2)])
    assert len(lost) == 2 and lost.left_out[EMPTY_TEXT][-1].endswith('refs.p, reference 1, sentence 1: sent')

    captions = [dict(id=number, image_id=1, caption=text) for number, text in enumerate(texts)]
    captions[6].pop('caption')
    (tmp_path / 'captions.json').write_text(json.dumps(dict(images=[IMAGE], annotations=captions)))
    dataset = CocoCaptionsDataset(str(tmp_path), 'captions.json', dict(img_path='im/'), test_mode=True)
    assert found(dataset) == (['one', 'two'], counts)

    for number in range(len(texts)):
        cv2.imwrite(str(tmp_path / f'{number}.png'), np.zeros((8, 8, 3), np.uint8))
    rows = [dict(image=f'{number}.png', text=text) for number, text in enumerate(texts)]
    rows[6].pop('text')
    (tmp_path / 'list.jsonl').write_text('\n'.join(map(json.dumps, rows)))
    dataset = ImageTextDataset('list.jsonl', str(tmp_path), test_mode=True)
    assert found(dataset) == (['one', 'two'], counts)
    assert dataset.left_out[BROKEN_TEXT] == [f'{tmp_path}/list.jsonl, line 6']

    for separator, ending in ((',', 'csv'), ('\t', 'tsv')):
        lines = [f'image{separator}text', f'0.png{separator}one', '1.png', f'2.png{separator}', f'3.png{separator} ']
        (tmp_path / f'list.{ending}').write_text('\n'.join([*lines, f'7.png{separator}two']) + '\n')
        dataset = ImageTextDataset(f'list.{ending}', str(tmp_path), test_mode=True)
        assert found(dataset) == (['one', 'two'], {EMPTY_TEXT: 3})
        assert dataset.left_out[EMPTY_TEXT][0] == f'{tmp_path}/list.{ending}, line 3'

    members = {}
    for number, text in enumerate(texts):
        members[f'{number}.png'] = (tmp_path / f'{number}.png').read_bytes()
        members[f'{number}.json'] = json.dumps(dict(text=text)).encode()
    members['6.json'] = b'{"text": []}'
    with tarfile.open(tmp_path / 'a.tar', 'w') as tar:
        for name, data in members.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            tar.addfile(entry, io.BytesIO(data))
            (tmp_path / name).write_bytes(data)
    assert found(ImageTextDataset('a.tar', str(tmp_path), test_mode=True)) == (['one', 'two'], counts)
    assert found(ImageTextDataset('.', str(tmp_path), test_mode=True)) == (['one', 'two'], counts)

    folder = tmp_path / 'ReasonSeg' / 'train'
    folder.mkdir(parents=True)
    (folder / 'a.jpg').write_bytes(b'')
    (folder / 'b.jpg').write_bytes(b'')
    content = dict(is_sentence=False, shapes=[])
    (folder / 'a.json').write_text(json.dumps(dict(content, text=[*texts[:6], ' ', 'two'])))
    (folder / 'b.json').write_text(json.dumps(dict(content, text=[None])))
    dataset = ReasonSegDataset(str(tmp_path), sentence='all')
    assert found(dataset) == (['one', 'two'], {EMPTY_TEXT: 6, BROKEN_TEXT: 1})
    assert dataset.left_out['pictures without a text'] == [str(folder / 'b.jpg')]


@pytest.mark.parametrize('value', [3, 1.5, True, ['a'], {}])
def test_texts_of_another_type_are_errors(tmp_path, value):
    coco(tmp_path)
    with pytest.raises(ValueError, match=r'refs\.p, reference 0, sentence 1: sent: expected a string, but got'):
        refcoco(tmp_path, [ref('a', value)])
    captions = [dict(id=5, image_id=1, caption=value)]
    (tmp_path / 'captions.json').write_text(json.dumps(dict(images=[IMAGE], annotations=captions)))
    with pytest.raises(ValueError, match=r'captions\.json, annotations\[0\]: caption of id 5: expected a string'):
        CocoCaptionsDataset(str(tmp_path), 'captions.json', dict(img_path='im/'))
    if not isinstance(value, list):
        (tmp_path / 'list.jsonl').write_text('\n' + json.dumps(dict(image='a.png', text=value)))
        with pytest.raises(ValueError, match=r'list\.jsonl, line 2: expected a string or a list of strings'):
            ImageTextDataset('list.jsonl', str(tmp_path))


def test_no_text_with_half_a_character_reaches_a_tokenizer():
    from genseg_mm.models.genmask import checked_texts
    from genseg_mm.models.prompt_encoders import T5PromptEncoder

    encoder = T5PromptEncoder(encoder=dict(d_model=16, d_kv=8, d_ff=16, num_layers=1, num_heads=2))
    for refuse in (
        lambda: TextPrompt()(dict(text=BROKEN, img_path='a.jpg')),
        lambda: split_prompts(['a.jpg'], True, texts=BROKEN),
        lambda: split_prompts(['a.jpg'], True, texts=['a', BROKEN]),
        lambda: checked_texts([BROKEN]),
        lambda: encoder([BROKEN]),
    ):
        with pytest.raises(ValueError, match=r'expected whole characters, .*\\ud83d'):
            refuse()
    assert split_prompts(['a.jpg'], True, texts='dog \U0001f436')[0].texts == ('dog \U0001f436',)


def test_odd_members_of_shards_are_left_out(tmp_path):
    png = cv2.imencode('.png', np.zeros((8, 8, 3), np.uint8))[1].tobytes()
    odd = {'../../x': 'leads out', '/etc/y': 'leads out', 'a/../../z': 'leads out', 'caf\udce9': 'no UTF-8'}
    path = tmp_path / 'a.tar'
    with tarfile.open(path, 'w', format=tarfile.GNU_FORMAT) as tar:
        for name in ('good', *odd, 'also/good'):
            for ending, data in (('png', png), ('txt', b'a text')):
                entry = tarfile.TarInfo(f'{name}.{ending}')
                entry.size = len(data)
                tar.addfile(entry, io.BytesIO(data))
    dataset = ImageTextDataset('a.tar', str(tmp_path), test_mode=True)
    assert [item['img_id'] for item in dataset] == ['a/good', 'a/also/good']
    assert {reason: len(names) for reason, names in dataset.left_out.items()} == {
        'members whose name leads out of the shard': 6,
        'members with a name that is no UTF-8': 2,
    }
    for names in dataset.left_out.values():
        assert all(name.encode() for name in names)


SPARSE = {'GNU.sparse.major': '0', 'GNU.sparse.minor': '1', 'GNU.sparse.map': '0,8', 'GNU.sparse.name': 'b.png'}


@pytest.mark.parametrize(
    ('headers', 'reason', 'kept'),
    [
        ({**SPARSE, 'GNU.sparse.size': '9000000'}, 'members of other kinds', ['a', 'c']),
        ({**SPARSE, 'GNU.sparse.size': '20'}, 'members of other kinds', ['a', 'c']),
        ({'size': '-5'}, 'shards cut short or damaged', ['a']),
        ({'size': '9' * 20}, 'shards cut short or damaged', ['a']),
    ],
)
def test_sizes_in_extended_headers_of_shards(tmp_path, headers, reason, kept):
    png = cv2.imencode('.png', np.zeros((8, 8, 3), np.uint8))[1].tobytes()
    with tarfile.open(tmp_path / 'a.tar', 'w', format=tarfile.PAX_FORMAT) as tar:
        for name in 'abc':
            for ending, data in (('png', png), ('txt', b'a text')):
                entry = tarfile.TarInfo(f'{name}.{ending}')
                entry.size = len(data)
                entry.pax_headers = headers if entry.name == 'b.png' else {}
                tar.addfile(entry, io.BytesIO(data))
    index = read_index(str(tmp_path / 'a.tar'), 'text')
    assert [picture.member[0] for picture in index.pictures] == kept
    assert reason in [own for own, _ in index.left_out]


@pytest.mark.parametrize(
    'change',
    [
        lambda index: index.pop('key'),
        lambda index: index.pop('pictures'),
        lambda index: index['pictures'][0].pop(),
        lambda index: index['pictures'][0].__setitem__(1, '512'),
        lambda index: index['pictures'][0].__setitem__(1, -512),
        lambda index: index['pictures'][0].__setitem__(2, 10**9),
        lambda index: index['pictures'][0].__setitem__(3, [None]),
        lambda index: index['pictures'][0].__setitem__(3, []),
        lambda index: index['pictures'][0].__setitem__(3, ['a', ' ']),
        lambda index: index['pictures'][0].__setitem__(3, [BROKEN]),
        lambda index: index['pictures'][0].__setitem__(3, [7]),
        lambda index: index['pictures'][0].__setitem__(0, BROKEN),
        lambda index: index.update(left_out=[['a']]),
        lambda index: index.update(left_out=[['a', 3]]),
    ],
)
def test_damaged_indices_of_shards_are_named(tmp_path, change):
    path = tmp_path / 'a.tar'
    with tarfile.open(path, 'w') as tar:
        for name, data in (('a.png', b'\x89PNG\r\n\x1a\n' + bytes(8)), ('a.txt', b'x')):
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            tar.addfile(entry, io.BytesIO(data))
    expected = read_index(str(path), 'text', str(tmp_path / 'index'))
    assert read_index(str(path), 'text', str(tmp_path / 'index')) == expected
    (kept,) = (tmp_path / 'index').iterdir()
    content = json.loads(kept.read_text())
    change(content)
    kept.write_text(json.dumps(content))
    with pytest.raises(ValueError, match=r'index .*a\.tar\.json is damaged .*: delete it'):
        read_index(str(path), 'text', str(tmp_path / 'index'))
